//! Why a scrape was not answered by its client, in the words that Prometheus shows.

use std::time::Duration;

use http::StatusCode;
use pushprox_protocol::duration;
use pushprox_protocol::fqdn::NameError;

use crate::limits::Limit;

/// A scrape that the proxy answers itself. Its text is the reason phrase of the answer, which is
/// what Prometheus shows on its targets page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody has registered the target's name.
    #[error("no client registered for {name}")]
    NotRegistered { name: String },
    /// The name is known, but no poll came in time.
    #[error("client {name} has not polled for {}", seconds(*since))]
    NotPolled { name: String, since: Duration },
    /// A client has the scrape and was silent.
    #[error("client {name} took the scrape and did not answer within {}", seconds(*after))]
    NotAnswered { name: String, after: Duration },
    /// A client pushed something that is no answer.
    #[error("client {name} sent a broken answer: {reason}")]
    Broken { name: String, reason: String },
    /// The proxy is on its way down.
    #[error("proxy is shutting down")]
    ShuttingDown,
    /// The limit on waiting scrapes is reached.
    #[error("too many scrapes are waiting")]
    TooManyWaiting,
    /// The limit on waiting scrapes of one host is reached.
    #[error("too many scrapes are waiting for {host}")]
    TooManyWaitingFor { host: String },
    /// Prometheus wants a tunnel, which `scheme: https` makes it ask for.
    #[error("use scheme http: the client's pull URL decides about TLS")]
    Tunnel,
    /// Neither `GET` nor `HEAD`.
    #[error("a scrape is a GET or a HEAD")]
    Method,
    /// The target is not one that a client could have registered.
    #[error("cannot scrape this target: {0}")]
    Target(#[from] NameError),
}

impl Failure {
    /// The limit that was reached, if it is for that.
    pub(crate) fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyWaiting => Some(Limit::Scrapes),
            Self::TooManyWaitingFor { .. } => Some(Limit::ScrapesPerHost),
            _ => None,
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Target(_) => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Tunnel => StatusCode::NOT_IMPLEMENTED,
            Self::Broken { .. } => StatusCode::BAD_GATEWAY,
            Self::NotRegistered { .. }
            | Self::ShuttingDown
            | Self::TooManyWaiting
            | Self::TooManyWaitingFor { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotPolled { .. } | Self::NotAnswered { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// A time as a person wants it: whole milliseconds below ten seconds, whole seconds above.
fn seconds(time: Duration) -> String {
    let unit = match time.as_secs() {
        0..10 => 1,
        _ => 1_000,
    };
    let millis = time.as_millis() / unit * unit;
    duration::format(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_tell_the_time_without_noise() {
        for (micros, text) in [
            (9_500_012, "9.5s"),
            (61_234_567, "1m1s"),
            (450, "0s"),
            (1_234_567, "1.234s"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), text);
        }
    }
}
