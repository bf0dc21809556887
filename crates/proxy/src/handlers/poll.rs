//! `POST /poll`: a client registers its name and asks for work.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use pushprox_daemon::respond;
use pushprox_protocol::fqdn::NameError;
use pushprox_protocol::{Fqdn, headers};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::drain;
use crate::Proxy;
use crate::connection::Line;
use crate::parking::AcceptedPoll;

/// Why a poll is not parked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the name in the body of a poll is longer than {MAX_BODY} bytes")]
    TooLarge,
    #[error("the body of the poll did not come within {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the body of the poll broke off")]
    Broken,
    #[error("cannot register this name: it is not text")]
    NotText,
    #[error("cannot register this name: {0}")]
    Name(#[from] NameError),
    #[error("no more names can be registered here now")]
    Full,
}

/// Parks the poll and never returns, or refuses it after a pause.
pub(crate) async fn handle(
    proxy: &Arc<Proxy>,
    line: &Line,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    let since = Instant::now();
    let keep_alive = keeps_alive(&request);
    let wait = proxy.granted_wait(headers::preferred_wait(request.headers()));
    let mut body = request.into_body();
    let refusal = match name(&mut body).await {
        Ok(name) => match proxy.rendezvous.park(&name, wait.duration()) {
            Some(parked) => {
                line.park(AcceptedPoll {
                    parked,
                    name,
                    wait: wait.preferred(),
                    keep_alive,
                    since,
                });
                return pending().await;
            }
            None => Refusal::Full,
        },
        Err(refusal) => refusal,
    };
    debug!(error = %refusal, "a poll is refused");
    drain(body).await;
    // The fork's client polls again at once, thousands of times a second, as long as it is refused.
    sleep(REFUSAL_PAUSE).await;
    respond::text(refusal.status(), format!("{refusal}\n"))
}

/// How long a poll may wait, and by whose wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As long as it takes: what Go clients expect.
    Forever,
    /// By the operator's `--poll.max-wait`.
    Limited(Duration),
    /// By the client's own `Prefer`, in seconds.
    Preferred(u32),
}

impl Wait {
    fn duration(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::Limited(limit) => Some(limit),
            Self::Preferred(seconds) => Some(Duration::from_secs(seconds.into())),
        }
    }

    fn preferred(self) -> Option<u32> {
        match self {
            Self::Preferred(seconds) => Some(seconds),
            Self::Forever | Self::Limited(_) => None,
        }
    }
}

/// The wait that is granted where a client prefers one, and the operator may limit it.
pub(crate) fn granted(preferred: Option<u32>, limit: Option<Duration>) -> Wait {
    match (preferred, limit) {
        // A poll that waits for nothing at all would be a busy loop.
        (Some(seconds @ 1..), None) => Wait::Preferred(seconds.min(MAX_WAIT)),
        (Some(seconds @ 1..), Some(limit)) => {
            let limit = u32::try_from(limit.as_secs()).unwrap_or(MAX_WAIT).max(1);
            Wait::Preferred(seconds.min(limit).min(MAX_WAIT))
        }
        (_, Some(limit)) => Wait::Limited(limit),
        (_, None) => Wait::Forever,
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotText | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

async fn name(body: &mut Incoming) -> Result<Fqdn, Refusal> {
    let all = timeout(BODY_TIMEOUT, read(body))
        .await
        .map_err(|_| Refusal::TooSlow)??;
    let text = std::str::from_utf8(&all).map_err(|_| Refusal::NotText)?;
    Ok(text.parse()?)
}

async fn read(body: &mut Incoming) -> Result<BytesMut, Refusal> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Broken)?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > MAX_BODY {
                return Err(Refusal::TooLarge);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// Whether the connection may go on behind this request (RFC 9112, section 9.3). Of HTTP/1.0 no
/// connection does: nothing that speaks it here reuses one.
fn keeps_alive(request: &Request<Incoming>) -> bool {
    let closes = request
        .headers()
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"));
    request.version() == Version::HTTP_11 && !closes
}

/// A name and the white space around it.
const MAX_BODY: usize = 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// A day: clients that wish for more get this.
const MAX_WAIT: u32 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_clients_within_the_operators_limit() {
        let limit = Some(Duration::from_secs(30));
        for (preferred, limit, wait) in [
            (None, None, Wait::Forever),
            (None, limit, Wait::Limited(Duration::from_secs(30))),
            (Some(45), None, Wait::Preferred(45)),
            (Some(45), limit, Wait::Preferred(30)),
            (Some(10), limit, Wait::Preferred(10)),
            (Some(10), Some(Duration::from_millis(5)), Wait::Preferred(1)),
            (Some(0), None, Wait::Forever),
            (Some(u32::MAX), None, Wait::Preferred(86_400)),
        ] {
            assert_eq!(granted(preferred, limit), wait, "{preferred:?} {limit:?}");
        }
    }
}
