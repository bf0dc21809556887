//! The push: takes an answer to the proxy before the scrape's time is up.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use pushprox_daemon::reload::Reloaded;
use pushprox_peer::leg::LegError;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::error::PushError;
use crate::http::discard;
use crate::leg::ProxyLeg;
use crate::proxy_url::ProxyUrl;

/// Pushes to one proxy.
#[derive(Debug, Clone)]
pub struct Pusher {
    leg: Arc<Reloaded<ProxyLeg, LegError>>,
    url: ProxyUrl,
}

impl Pusher {
    /// A pusher to the proxy at `url`.
    #[must_use]
    pub fn new(leg: Arc<Reloaded<ProxyLeg, LegError>>, url: ProxyUrl) -> Self {
        Self { leg, url }
    }

    /// Pushes the answer to the scrape with this id. At `deadline` a push that is not through is
    /// cut off.
    ///
    /// # Errors
    ///
    /// The answer did not come through, or the proxy did not want it.
    pub async fn push(
        &self,
        id: &HeaderValue,
        answer: Answer,
        deadline: Instant,
    ) -> Result<(), PushError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let push = answer.into_push(id, left);
        let leg = self.leg.current();
        let exchange = async {
            let response = leg.push(self.url.push(), push).await;
            let response = response.map_err(PushError::request)?;
            let status = response.status();
            let told = discard(response).await;
            match status {
                _ if status.is_success() => Ok(()),
                StatusCode::GONE => Err(PushError::Gone(told)),
                _ => Err(PushError::Refused(told)),
            }
        };
        timeout_at(deadline, exchange)
            .await
            .unwrap_or(Err(PushError::TimedOut))
    }
}
