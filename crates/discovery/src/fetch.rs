//! Asks proxies for their clients: in parallel, bounded in number, time and size.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};
use pushprox_daemon::exit::causes;
use pushprox_protocol::headers::REFRESH_INTERVAL_SECONDS;
use reqwest::{Response, StatusCode};
use tokio::sync::Semaphore;

use crate::listing::Listing;
use crate::to_proxies::Reloading;

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

/// Asks proxies. A cheap handle.
#[derive(Debug, Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to_proxies: Arc<Reloading>,
    refresh_interval: u64,
    room: Semaphore,
}

impl Fetcher {
    /// A fetcher that says it asks every `refresh_interval` seconds.
    #[must_use]
    pub fn new(to_proxies: Arc<Reloading>, refresh_interval: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                to_proxies,
                refresh_interval,
                room: Semaphore::new(AT_ONCE),
            }),
        }
    }

    /// Asks one proxy, as soon as not too many are being asked. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`FetchError`], without the credentials.
    pub async fn clients(&self, proxy: SocketAddr) -> Result<Listing, FetchError> {
        let _permit = self.shared.room.acquire().await;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            REFRESH_INTERVAL_SECONDS,
            self.shared.refresh_interval.into(),
        );
        let to_proxies = self.shared.to_proxies.current();
        let response = to_proxies.ask(proxy, headers).await.map_err(connection)?;
        Ok(Listing::parse(&read(response).await?)?)
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, FetchError> {
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

fn connection(error: reqwest::Error) -> FetchError {
    FetchError::Connection(causes(&error.without_url()))
}

/// Proxies that are asked at once.
const AT_ONCE: usize = 8;
/// 18,000 clients with their labels take about 2 MB.
const MAX_BODY: usize = 8 * 1_024 * 1_024;
const MAX_REASON: usize = 300;
