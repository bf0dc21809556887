//! Tells Prometheus to read its configuration again, and understands what it says to that.

use std::fmt;
use std::time::Duration;

use pushprox_daemon::exit::causes;
use reqwest::{Client, StatusCode, Url};

use crate::urls::shown;

/// Why Prometheus has not loaded its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It has read the configuration and does not take it.
    #[error("Prometheus refuses the configuration: {0}")]
    Refused(String),
    /// Nothing listens there.
    #[error("cannot connect to Prometheus: {0}")]
    Down(String),
    /// It answers, and has not tried: it is starting, or does not let itself be reloaded.
    #[error("Prometheus does not reload: {0}")]
    Unavailable(String),
}

impl ReloadError {
    /// Whether there is no Prometheus at all.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
    }

    /// The kind of failure, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Down(_) => "down",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// Where Prometheus is told to reload.
#[derive(Clone)]
pub struct Reloader {
    client: Client,
    url: Url,
}

impl Reloader {
    /// A reloader for this URL, whose credentials, if it has any, are sent.
    ///
    /// # Errors
    ///
    /// When the system's certificates cannot be used.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(RELOAD_TIMEOUT)
            // A connection that Prometheus has closed meanwhile would look like a failure.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, url })
    }

    /// Asks for one reload. Cancel safe; Prometheus may then have reloaded or not.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] tells whether the configuration is to blame.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        let sent = self.client.post(self.url.clone()).send().await;
        let response = sent.map_err(|error| {
            let reason = causes(&error.without_url());
            ReloadError::Down(reason)
        })?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let text = first_words(response).await;
        Err(match status {
            StatusCode::INTERNAL_SERVER_ERROR => ReloadError::Refused(text),
            StatusCode::FORBIDDEN => ReloadError::Unavailable(format!(
                "{status}: {text}: start it with --web.enable-lifecycle"
            )),
            _ => ReloadError::Unavailable(format!("{status}: {text}")),
        })
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

/// The beginning of an answer's body, for the log.
async fn first_words(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MESSAGE_LIMIT {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(MESSAGE_LIMIT);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Prometheus answers when it is done, which takes it a while with many rules and targets.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
const MESSAGE_LIMIT: usize = 2_000;
