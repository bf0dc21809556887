//! What can go wrong on the legs, in the words that Prometheus's targets page and the log show.

use std::error::Error;
use std::io;
use std::time::Duration;

use http::{Method, StatusCode};
use pushprox_daemon::exit::{causes, io_reason};
use pushprox_protocol::duration;
use pushprox_protocol::message::MessageError;

/// A pull that gave no answer to push. Its text is the reason phrase that Prometheus shows.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The instruction is no scrape.
    #[error("method {0} is not one of GET and HEAD")]
    Method(Method),
    /// The instruction is none that can be carried out.
    #[error("the scrape did not reach the client as it should: {0}")]
    Instruction(#[source] MessageError),
    /// As many scrapes are in hand as the client takes.
    #[error("client is busy with {0} scrapes already")]
    Busy(usize),
    /// The grace period is over.
    #[error("client is shutting down")]
    ShuttingDown,
    /// No connection came about.
    #[error("cannot reach target {target}: {why}")]
    Unreachable {
        /// The pull URL without its secrets.
        target: String,
        /// What the network said.
        why: String,
        /// The whole story.
        source: reqwest::Error,
    },
    /// The connection gave no answer.
    #[error("target {target} gave no answer: {why}")]
    NoAnswer {
        /// The pull URL without its secrets.
        target: String,
        /// What was wrong with what came.
        why: String,
        /// The whole story.
        source: reqwest::Error,
    },
    /// The answer ends behind its head, which promises a body.
    #[error("target {target} broke off behind the head of its answer: {why}")]
    BrokeOff {
        /// The pull URL without its secrets.
        target: String,
        /// What was wrong with what came.
        why: String,
        /// The whole story.
        source: reqwest::Error,
    },
    /// The answer switches to another protocol.
    #[error("target {target} answered {status}, which is no answer to a scrape")]
    Informational {
        /// The pull URL without its secrets.
        target: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is coded for this connection, and not only in chunks.
    #[error("target {target} answered in a transfer coding that cannot be undone: {coding}")]
    Coding {
        /// The pull URL without its secrets.
        target: String,
        /// What `Transfer-Encoding` says.
        coding: String,
    },
    /// The time for the pull is up.
    #[error("target {target} did not answer within {}", in_millis(*.within))]
    TimedOut {
        /// The pull URL without its secrets.
        target: String,
        /// The time it had.
        within: Duration,
    },
}

impl PullError {
    /// Tells a failed request.
    #[must_use]
    pub fn request(target: String, source: reqwest::Error) -> Self {
        // The URL may hold a token in its query.
        let source = source.without_url();
        let why = why(&source);
        if source.is_connect() {
            Self::Unreachable {
                target,
                why,
                source,
            }
        } else {
            Self::NoAnswer {
                target,
                why,
                source,
            }
        }
    }

    /// Tells an answer that is nothing but a head.
    #[must_use]
    pub fn broke_off(target: String, source: reqwest::Error) -> Self {
        let source = source.without_url();
        Self::BrokeOff {
            target,
            why: why(&source),
            source,
        }
    }

    /// The status that is pushed.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Instruction(_) => StatusCode::BAD_REQUEST,
            Self::Busy(_) | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::BrokeOff { .. }
            | Self::Informational { .. }
            | Self::Coding { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// A push that did not come through.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The target's answer broke off after its head had been pushed.
    #[error("the target broke off in the middle of its answer: {0}")]
    TargetBrokeOff(String),
    /// The request failed.
    #[error("cannot push to the proxy: {0}")]
    Request(String),
    /// The scrape's time was up before the push was through.
    #[error("the push was not through when the scrape's time was up")]
    TimedOut,
    /// The proxy knows the scrape no more.
    #[error("the proxy has given the scrape up already: {0}")]
    Gone(String),
    /// The proxy refused the push.
    #[error("the proxy refused the push: {0}")]
    Refused(String),
}

impl PushError {
    /// Tells a failed request.
    #[must_use]
    pub fn request(error: reqwest::Error) -> Self {
        let error = error.without_url();
        match find::<TargetBrokeOff>(&error) {
            Some(TargetBrokeOff(why)) => Self::TargetBrokeOff(why.clone()),
            None => Self::Request(why(&error)),
        }
    }
}

/// The error of a push's body, which says that it is the target's and not the proxy's fault.
#[derive(Debug, thiserror::Error)]
#[error("the target broke off: {0}")]
pub struct TargetBrokeOff(pub String);

/// A poll that brought neither a scrape nor the end of its wait.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// There was no connection to poll on.
    #[error("cannot reach the proxy: {0}")]
    Unreachable(String),
    /// The request failed.
    #[error("the poll broke off: {0}")]
    Request(String),
    /// The proxy had promised to end the poll by now.
    #[error("the proxy did not end the poll in the time that it had agreed to")]
    Overdue,
    /// The proxy answered something else.
    #[error("the proxy answered {0}")]
    Status(String),
    /// The proxy is somewhere else, or this is none.
    #[error("the proxy answered {0}, and redirects to {1}; redirects are not followed")]
    Redirect(String, String),
    /// An empty answer that did not wait for a scrape.
    #[error("the proxy does not hold polls: it answered at once, without a scrape")]
    TooSoon,
    /// The instruction did not come whole.
    #[error("the proxy's instruction broke off: {0}")]
    BrokenOff(String),
    /// The instruction is longer than any.
    #[error("the proxy's answer to a poll has more than {0} bytes")]
    TooLong(usize),
    /// A page for people, such as that of a network which wants a login.
    #[error(
        "the proxy's answer to a poll is an HTML page: something else than a PushProx proxy answers"
    )]
    Page,
    /// The body is something else.
    #[error("the proxy's answer to a poll is not a scrape: {0}")]
    NotAnInstruction(#[source] MessageError),
}

impl PollError {
    /// Tells a failed request.
    #[must_use]
    pub fn request(error: reqwest::Error) -> Self {
        let error = error.without_url();
        match error.is_connect() {
            true => Self::Unreachable(why(&error)),
            false => Self::Request(why(&error)),
        }
    }
}

/// What the network or the peer did, in words for people: the last cause, and what it belongs to.
#[must_use]
pub fn why(error: &reqwest::Error) -> String {
    let chain = || std::iter::successors(error.source(), |&cause| cause.source());
    let root = chain().last().map_or_else(|| error.to_string(), last_words);
    if chain().any(|cause| cause.to_string() == "dns error") {
        return format!("its host name has no address: {root}");
    }
    if let Some(hyper) = find::<hyper::Error>(error) {
        if hyper.is_parse() {
            return format!("it is not HTTP: {root}");
        }
        if hyper.is_incomplete_message() {
            return "the connection was closed before the answer".to_owned();
        }
    }
    let from_system = find::<io::Error>(error).is_some_and(|io| io.raw_os_error().is_some());
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    if error.is_connect() && !from_system {
        // Behind the TCP connection there is only TLS, or the tunnel through another proxy.
        return match root.contains("CaUsedAsEndEntity") {
            // The TLS library has no words for it.
            true => "no secure connection: the peer shows the certificate of an authority \
                     (basicConstraints CA:TRUE), which is taken only where the file of trusted \
                     certificates has that very one"
                .to_owned(),
            false => format!("no secure connection: {root}"),
        };
    }
    root
}

/// The last error of a type in the chain of causes.
#[must_use]
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&cause| cause.source())
        .filter_map(|cause| match cause.downcast_ref::<E>() {
            Some(found) => Some(found),
            // What an I/O error wraps is not among its sources, only that one's source is.
            None => cause
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .and_then(|inner| inner.downcast_ref::<E>()),
        })
        .last()
}

/// A time as a person would round it, up so that one that has just begun is shown as it was given.
fn in_millis(time: Duration) -> String {
    let millis = time.as_micros().div_ceil(1_000);
    duration::format(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX),
    ))
}

fn last_words(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<io::Error>() {
        Some(io) => io_reason(io),
        None => causes(error),
    }
}
