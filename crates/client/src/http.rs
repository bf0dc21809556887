//! The HTTP clients. Those of the two legs share nothing: no credentials, no certificates, no
//! connections; and polls have connections of their own.

use std::cell::Cell;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::ext::ReasonPhrase;
use pushprox_daemon::listen::{KEEPALIVE_RETRIES, USER_TIMEOUT};
use pushprox_peer::leg::LegError;
use pushprox_peer::tls::Tls;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Request, Response};
use tower::util::MapRequestLayer;
use url::Url;

use crate::error::find;
use crate::proxy_url::ProxyUrl;

/// The clients for polls and pushes. They go through the HTTP proxy that the environment names.
#[derive(Debug, Clone)]
pub struct ToProxy {
    /// A poll never goes out on a connection that a push has left: where a poll has just failed, the
    /// cable is cut, and what is kept from before is dead without knowing it.
    pub(crate) polls: Client,
    pub(crate) pushes: Client,
}

impl ToProxy {
    /// Clients for the proxy at `url`.
    ///
    /// # Errors
    ///
    /// The certificates cannot be used, or the system's cannot be read.
    pub fn new(url: &ProxyUrl, tls: &Tls) -> Result<Self, LegError> {
        let is_secure = url.poll().scheme() == "https" || a_proxy_in_the_environment_is_secure();
        let build = |user_timeout| {
            let mut builder = builder(is_secure)
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_user_timeout(user_timeout)
                .connector_layer(MapRequestLayer::new(note_connect));
            if url.is_loopback() {
                // As Go does: what runs beside us is not reached through somebody else.
                builder = builder.no_proxy();
            }
            let built = tls.apply(builder, url.poll()).build();
            built.map_err(|error| tls.blame(&error))
        };
        Ok(Self {
            polls: build(POLL_USER_TIMEOUT)?,
            pushes: build(USER_TIMEOUT)?,
        })
    }
}

/// Whether an HTTP proxy in the environment may stand between the client and this proxy.
pub(crate) fn leads_elsewhere(url: &ProxyUrl) -> bool {
    !url.is_loopback()
        && ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .filter_map(std::env::var_os)
            .any(|value| !value.is_empty())
}

/// The clients for pulls, with and without TLS. They ask the target itself, whatever the
/// environment says.
#[derive(Debug, Clone)]
pub struct ToTarget {
    plain: Client,
    /// Made when it is first needed: the system's certificates take memory, and a machine may
    /// have none.
    secure: OnceLock<Client>,
    tls: Tls,
    url: Url,
}

impl ToTarget {
    /// A client for plain HTTP; the other one is made when it is needed, which is now where `url`
    /// is https.
    ///
    /// # Errors
    ///
    /// The certificates cannot be used, or the system's cannot be read.
    pub fn new(tls: Tls, url: &Url) -> Result<Self, LegError> {
        let plain = to_target(false).build();
        let this = Self {
            plain: plain.map_err(|error| tls.blame(&error))?,
            secure: OnceLock::new(),
            tls,
            url: url.clone(),
        };
        match this.client(url) {
            Ok(_) => Ok(this),
            Err(error) => Err(this.tls.blame(&error)),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// Those of the request; or the system's certificates cannot be read.
    pub async fn execute(&self, mut request: Request) -> reqwest::Result<Response> {
        let client = self.client(request.url())?;
        self.tls.address(&mut request);
        client.execute(request).await
    }

    fn client(&self, url: &Url) -> reqwest::Result<&Client> {
        if url.scheme() != "https" {
            return Ok(&self.plain);
        }
        if let Some(secure) = self.secure.get() {
            return Ok(secure);
        }
        let secure = self.tls.apply(to_target(true), &self.url).build()?;
        Ok(self.secure.get_or_init(|| secure))
    }
}

/// Sends a request until it has gone out on a connection that is alive. A peer may close a
/// connection in the very moment in which it is used again, and one behind a cut cable may have
/// forgotten it; but one that closes a fresh connection means it.
///
/// `again` makes the request anew, as often as it can be made.
///
/// # Errors
///
/// Those of the last request.
pub async fn on_a_live_connection<F>(
    mut request: F,
    mut again: impl FnMut() -> Option<F>,
) -> reqwest::Result<Response>
where
    F: Future<Output = reqwest::Result<Response>>,
{
    loop {
        let watched = async {
            let outcome = request.await;
            (outcome, CONNECTED.with(Cell::get))
        };
        let (outcome, is_fresh) = CONNECTED.scope(Cell::new(false), watched).await;
        // Each failure takes a dead connection out of the pool, so that they come to an end.
        match outcome
            .as_ref()
            .err()
            .filter(|error| !is_fresh && was_closed(error))
        {
            Some(_) => match again() {
                Some(next) => request = next,
                None => return outcome,
            },
            None => return outcome,
        }
    }
}

fn was_closed(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    !error.is_connect()
        && (find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message)
            || find::<std::io::Error>(error).is_some_and(|io| {
                let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut];
                kinds.contains(&io.kind())
            }))
}

tokio::task_local! {
    /// A connection is begun inside the request that needs it, and so in its task.
    static CONNECTED: Cell<bool>;
}

fn note_connect<T>(connect: T) -> T {
    CONNECTED.try_with(|connected| connected.set(true)).ok();
    connect
}

/// Reads an answer to its end, so that its connection can serve again, and tells what it was: the
/// status and the first line of the body.
pub async fn discard(mut response: Response) -> String {
    let reason = response.extensions().get::<ReasonPhrase>();
    let mut told = match reason {
        Some(reason) => format!(
            "{} {}",
            response.status().as_str(),
            String::from_utf8_lossy(reason.as_bytes())
        ),
        None => response.status().to_string(),
    };
    let mut start = Vec::new();
    let mut left = LONGEST_DISCARDED;
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = SHOWN_OF_BODY.saturating_sub(start.len());
            start.extend(chunk.iter().take(room));
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                // The connection is given up rather than read for ever.
                None => break,
            }
        }
    };
    // Only the connection is lost where the end does not come in time.
    tokio::time::timeout(DISCARD_TIMEOUT, reading).await.ok();
    let text = String::from_utf8_lossy(&start);
    let line = text.lines().next().unwrap_or_default().trim();
    if !line.is_empty() && !told.ends_with(line) {
        told.push_str(": ");
        told.push_str(line);
    }
    told
}

fn to_target(is_secure: bool) -> ClientBuilder {
    builder(is_secure)
        .no_proxy()
        .tcp_user_timeout(USER_TIMEOUT)
        .http1_max_headers(MAX_TARGET_HEADERS)
        // Prometheus and the Go clients take such headers, so there are targets that send them.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .connector_layer(MapRequestLayer::new(note_connect))
}

/// What both legs have in common. Without `is_secure` no certificate is trusted, and none is loaded.
fn builder(is_secure: bool) -> ClientBuilder {
    let builder = match is_secure {
        true => Client::builder(),
        false => Client::builder().tls_certs_only([]),
    };
    builder
        .redirect(Policy::none())
        .referer(false)
        .http1_only()
        // Header names have no case, but not every program of these legs was told so.
        .http1_title_case_headers()
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE_IDLE)
        .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
        .tcp_keepalive_retries(KEEPALIVE_RETRIES)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_MAX_IDLE)
}

fn a_proxy_in_the_environment_is_secure() -> bool {
    ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
        .iter()
        .filter_map(std::env::var_os)
        .any(|value| value.to_string_lossy().starts_with("https:"))
}

/// As many as our proxy can be told to pass on, so that the limit is the proxy's (`--limit.headers`)
/// and its reason is the one told.
const MAX_TARGET_HEADERS: usize = 1_000;

/// For a connection to the proxy, which no scrape's time bounds. Meanwhile the system sends what
/// gets lost again after 1, 3 and 7 s, and the resolver its question after 5 s, so that a cable that
/// comes back is noticed within 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is idle before the peer is asked whether it lives: no longer than it takes a
/// proxy that hears nothing more to give it up, or else nobody would notice when the cable is back.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);

/// The time between two such questions, and so until a peer that has forgotten a connection says so
/// when the cable is back.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a poll's connection may be silent in spite of all questions. The system counts questions
/// by this time, not by their number: it is time for two.
const POLL_USER_TIMEOUT: Duration = Duration::from_secs(25);

/// Below the idle limits that servers and load balancers commonly have (60 s and more), so that it
/// is this side that closes, and no request runs into a connection that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// One poll and the pushes of a few Prometheus servers at once.
const POOL_MAX_IDLE: usize = 4;

const LONGEST_DISCARDED: usize = 64 * 1_024;
const SHOWN_OF_BODY: usize = 200;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
