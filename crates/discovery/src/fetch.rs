//! Asks proxies for their clients: in parallel, bounded in number, time and size.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use parking_lot::Mutex;
use pushprox_daemon::exit::causes;
use pushprox_protocol::headers::REFRESH_INTERVAL_SECONDS;
use reqwest::{Client, ClientBuilder, Identity, StatusCode};
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use crate::listing::Listing;
use crate::urls::ProxyUrl;

/// Why a proxy's answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be reached, or broke off.
    #[error("cannot ask it: {0}")]
    Connection(String),
    /// It has answered with a failure, as it does while it is young.
    #[error("it answers {status}: {reason}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of the body.
        reason: String,
    },
    /// The answer is longer than any list of clients.
    #[error("its answer is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The answer is something else.
    #[error("its answer is no list of clients: {0}")]
    Form(#[from] serde_json::Error),
}

/// By what a proxy with TLS is trusted, and what it is shown.
#[derive(Clone, Default)]
pub struct Tls {
    /// With the identity in it, where the system's authorities are not the ones to trust.
    pub config: Option<ClientConfig>,
    /// Certificate and key.
    pub identity: Option<Identity>,
}

/// Asks proxies. A cheap handle.
#[derive(Debug, Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxy_url: ProxyUrl,
    tls: Tls,
    plain: Client,
    /// A proxy with TLS is asked by the name in its certificate, which all of them share, so that
    /// each needs a client that finds the name at its address.
    named: Mutex<HashMap<SocketAddr, Client>>,
    refresh_interval: u64,
    room: Semaphore,
}

impl Fetcher {
    /// A fetcher that says it asks every `refresh_interval` seconds.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be used.
    pub fn new(
        proxy_url: ProxyUrl,
        tls: Tls,
        refresh_interval: u64,
    ) -> Result<Self, reqwest::Error> {
        let plain = with_tls(builder(), &tls).build()?;
        Ok(Self {
            shared: Arc::new(Shared {
                proxy_url,
                tls,
                plain,
                named: Mutex::default(),
                refresh_interval,
                room: Semaphore::new(AT_ONCE),
            }),
        })
    }

    /// Asks one proxy, as soon as not too many are being asked. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FetchError`], without the credentials.
    pub async fn clients(&self, proxy: SocketAddr) -> Result<Listing, FetchError> {
        let _permit = self.shared.room.acquire().await;
        let proxy_url = &self.shared.proxy_url;
        let mut url = proxy_url.clients(proxy);
        let mut client = self.shared.plain.clone();
        if let Some(name) = proxy_url.server_name() {
            client = self.named(name, proxy)?;
            url.set_host(Some(name)).ok();
        }
        let mut request = client
            .get(url)
            .header(ACCEPT, "application/json")
            .header(REFRESH_INTERVAL_SECONDS, self.shared.refresh_interval);
        if let Some((username, password)) = proxy_url.credentials() {
            request = request.basic_auth(username, Some(password));
        }
        Ok(Listing::parse(&read(request).await?)?)
    }

    fn named(&self, name: &str, proxy: SocketAddr) -> Result<Client, FetchError> {
        if let Some(client) = self.shared.named.lock().get(&proxy) {
            return Ok(client.clone());
        }
        let client = with_tls(builder(), &self.shared.tls)
            .resolve(name, proxy)
            .build()
            .map_err(connection)?;
        let mut named = self.shared.named.lock();
        // Addresses of proxies that have gone are not worth counting one by one.
        if named.len() >= MAX_NAMED {
            named.clear();
        }
        named.insert(proxy, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trusts_system", &self.config.is_none())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Vec<u8>, FetchError> {
    let mut response = request.send().await.map_err(connection)?;
    let status = response.status();
    let mut body = Vec::new();
    if status == StatusCode::OK {
        while let Some(chunk) = response.chunk().await.map_err(connection)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        return Ok(body);
    }
    // The first piece tells why; the rest is not worth the time.
    let piece = response.chunk().await.ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(piece.get(..MAX_REASON).unwrap_or(&piece)).into_owned();
    let reason = text.lines().next().unwrap_or_default().to_owned();
    Err(FetchError::Status { status, reason })
}

fn builder() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        // An idle connection would keep the buffer that its last answer needed.
        .pool_max_idle_per_host(0)
}

fn with_tls(mut builder: ClientBuilder, tls: &Tls) -> ClientBuilder {
    if let Some(identity) = &tls.identity {
        builder = builder.identity(identity.clone());
    }
    if let Some(config) = &tls.config {
        builder = builder.tls_backend_preconfigured(config.clone());
    }
    builder
}

fn connection(error: reqwest::Error) -> FetchError {
    FetchError::Connection(causes(&error.without_url()))
}

/// Proxies that are asked at once.
const AT_ONCE: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);
/// 18,000 clients with their labels take about 2 MB.
const MAX_BODY: usize = 8 * 1_024 * 1_024;
const MAX_REASON: usize = 300;
const MAX_NAMED: usize = 1_000;
