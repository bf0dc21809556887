//! The two HTTP clients, one for each leg, which share nothing: no credentials, no certificates, no
//! connections.

use std::cell::Cell;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use hyper::ext::ReasonPhrase;
use pushprox_daemon::listen::{
    KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, USER_TIMEOUT,
};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Request, Response};
use tower::util::MapRequestLayer;
use url::Url;

use crate::leg::LegError;
use crate::proxy_url::ProxyUrl;
use crate::tls::Tls;

/// The client for polls and pushes. It goes through the HTTP proxy that the environment names.
///
/// # Errors
///
/// The certificates cannot be used, or the system's cannot be read.
pub fn to_proxy(url: &ProxyUrl, tls: &Tls) -> Result<Client, LegError> {
    let is_secure = url.poll().scheme() == "https" || a_proxy_in_the_environment_is_secure();
    let mut builder = builder(is_secure).connect_timeout(CONNECT_TIMEOUT);
    if url.is_loopback() {
        // As Go does: what runs beside us is not reached through somebody else.
        builder = builder.no_proxy();
    }
    let built = tls.apply(builder, url.poll()).build();
    built.map_err(|error| tls.blame(&error))
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

/// Awaits a request of [`ToTarget`]'s, and tells beside its outcome whether it began a new connection.
pub async fn watch_connects<T>(request: impl Future<Output = T>) -> (T, bool) {
    let watched = async {
        let outcome = request.await;
        (outcome, CONNECTED.with(Cell::get))
    };
    CONNECTED.scope(Cell::new(false), watched).await
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
        .http1_max_headers(MAX_TARGET_HEADERS)
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
        .tcp_user_timeout(USER_TIMEOUT)
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

/// For a connection to the proxy, which no scrape's time bounds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Below the idle limits that servers and load balancers commonly have (60 s and more), so that it
/// is this side that closes, and no request runs into a connection that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// One poll and the pushes of a few Prometheus servers at once.
const POOL_MAX_IDLE: usize = 4;

const LONGEST_DISCARDED: usize = 64 * 1_024;
const SHOWN_OF_BODY: usize = 200;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
