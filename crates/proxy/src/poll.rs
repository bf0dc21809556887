//! `POST /poll`: a client registers its name and waits for work, on a bare socket.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use pushprox_daemon::guard::{Denied, Place};
use pushprox_protocol::fqdn::NameError;
use pushprox_protocol::{Fqdn, duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::Proxy;
use crate::access::{Peer, Registrant, Role};
use crate::http1::answer::Answer;
use crate::http1::body::{BrokenBody, RequestBody};
use crate::http1::request::Request;
use crate::http1::socket::Socket;
use crate::limits::{Limit, told};
use crate::parked::{Later, Parked};
use crate::parting::refuse_body;
use crate::rendezvous::ParkedPoll;

/// Why a poll is not parked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the name in the body of a poll is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the body of the poll did not come within {}", duration::format(*.0))]
    TooSlow(Duration),
    #[error(transparent)]
    Body(#[from] BrokenBody),
    #[error("cannot register this name: it is not text")]
    NotText,
    #[error("cannot register this name: {0}")]
    Name(#[from] NameError),
    #[error("no more names can be registered here now")]
    Full,
    #[error(transparent)]
    Denied(#[from] Denied),
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

/// Registers a poll's name and parks it. What cannot be done at once, since the client has to show
/// who it is, the name is still on its way or is refused, is left to a future of its own: the room
/// for it is not to be kept by those that wait.
pub(crate) fn accept<'a>(
    socket: Socket,
    request: Request,
    preferred: Option<u32>,
    peer: &'a Peer,
    proxy: &'a Arc<Proxy>,
) -> Result<Parked, Later<'a>> {
    let since = Instant::now();
    let wait = Wait::granted(preferred, proxy.poll_max_wait);
    let register = move |name: &Fqdn, now| {
        let poll = proxy.rendezvous.park(name, wait.duration(), now);
        poll.ok_or(Refusal::Full)
    };
    let keep_alive = request.keep_alive;
    let parked = move |mut socket: Socket, poll: ParkedPoll, member: Option<Box<Registrant>>| {
        socket.settle(&proxy.buffers);
        Parked {
            socket,
            poll,
            member,
            preferred: wait.preferred(),
            keep_alive,
            since,
        }
    };
    let arrived = match proxy.access.admits_anyone(peer, Role::Client) {
        true => request.if_arrived(socket.ahead()),
        false => None,
    };
    let registered = arrived.map(|(name, length)| {
        let name = name_in(name, proxy.limits.poll_size)?;
        Ok((register(&name, since)?, length))
    });
    let refusal = match registered {
        Some(Ok((poll, length))) => {
            let mut socket = socket;
            socket.split_ahead(length);
            return Ok(parked(socket, poll, None));
        }
        Some(Err(refusal)) => Some(refusal),
        None => None,
    };
    Err(unless_draining(proxy, async move {
        let mut body = RequestBody::new(socket, &request, proxy.buffers.clone());
        let registered = match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let joined = join(&mut body, &request, peer, proxy).await;
                joined.and_then(|(name, member)| Ok((register(&name, Instant::now())?, member)))
            }
        };
        match registered {
            Ok((poll, member)) => Ok(parked(body.into_socket(), poll, member)),
            Err(refusal) => Err(refuse(body, refusal, &request, since, proxy).await),
        }
    }))
}

/// Whatever a poll waits for, a proxy on its way down has nothing to give it.
fn unless_draining<'a>(
    proxy: &'a Proxy,
    accepting: impl Future<Output = Result<Parked, Option<Socket>>> + Send + 'a,
) -> Later<'a> {
    Box::pin(async move {
        tokio::select! {
            accepted = accepting => accepted,
            () = proxy.draining.cancelled() => Err(None),
        }
    })
}

/// Reads the name in a poll, if its client may register it.
async fn join(
    body: &mut RequestBody,
    request: &Request,
    peer: &Peer,
    proxy: &Proxy,
) -> Result<(Fqdn, Option<Box<Registrant>>), Refusal> {
    let access = &proxy.access;
    let generation = access.generation();
    let grant = access
        .admit(peer, Role::Client, request.shown(), Place::Own)
        .await?;
    let name = read_name(body, request, proxy).await?;
    if !grant.may_register(name.as_ref()) {
        let denied = Denied::NotAllowed(format!("{} may not register {name}", grant.identity));
        access.turn_away(peer, &denied);
        return Err(denied.into());
    }
    let member = Registrant::new(grant, peer, &name, generation);
    let is_to_be_looked_at_again = !access.is_open();
    Ok((name, is_to_be_looked_at_again.then(|| Box::new(member))))
}

/// Tells a client what is wrong, after a pause.
async fn refuse(
    mut body: RequestBody,
    refusal: Refusal,
    request: &Request,
    since: Instant,
    proxy: &Proxy,
) -> Option<Socket> {
    body.settle();
    if proxy.draining.is_cancelled() {
        return None;
    }
    let limit = refusal.limit();
    proxy.hits.count(limit);
    let text = told(&refusal, limit);
    debug!(error = text, "a poll is refused");
    // The fork's client polls again at once, thousands of times a second, as long as it is refused.
    sleep(REFUSAL_PAUSE).await;
    let status = refusal.status();
    let answer = |keep_alive| {
        let answer = Answer::new(status, keep_alive).challenge(status);
        answer.text(format!("{text}\n").as_bytes())
    };
    proxy.metrics.poll_ended(status, since.elapsed());
    refuse_body(body, request.keep_alive, answer, proxy).await
}

async fn read_name(
    body: &mut RequestBody,
    request: &Request,
    proxy: &Proxy,
) -> Result<Fqdn, Refusal> {
    let (limit, time) = (proxy.limits.poll_size, proxy.limits.progress_timeout);
    if body.remaining().is_some_and(|length| length > limit as u64) {
        return Err(Refusal::TooLarge(limit));
    }
    let reading = async {
        if request.expects_continue {
            body.go_on(&proxy.patience)
                .await
                .map_err(BrokenBody::from)?;
        }
        // Copied, so that a slow sender does not keep a whole buffer.
        let mut name = BytesMut::new();
        while let Some(piece) = body.piece().await? {
            if name.len() + piece.len() > limit {
                return Err(Refusal::TooLarge(limit));
            }
            name.extend_from_slice(&piece);
        }
        Ok(name.freeze())
    };
    let name = timeout(time, reading)
        .await
        .map_err(|_| Refusal::TooSlow(time))??;
    name_in(&name, limit)
}

pub(crate) fn name_in(bytes: &[u8], limit: usize) -> Result<Fqdn, Refusal> {
    if bytes.len() > limit {
        return Err(Refusal::TooLarge(limit));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::NotText)?;
    Ok(text.parse()?)
}

impl Wait {
    /// The wait that is granted where a client prefers one, and the operator may limit it.
    fn granted(preferred: Option<u32>, limit: Option<Duration>) -> Self {
        match (preferred, limit) {
            // A poll that waits for nothing at all would be a busy loop.
            (Some(seconds @ 1..), None) => Self::Preferred(seconds.min(MAX_WAIT)),
            (Some(seconds @ 1..), Some(limit)) => {
                let limit = u32::try_from(limit.as_secs()).unwrap_or(MAX_WAIT).max(1);
                Self::Preferred(seconds.min(limit).min(MAX_WAIT))
            }
            (_, Some(limit)) => Self::Limited(limit),
            (_, None) => Self::Forever,
        }
    }

    fn preferred(self) -> Option<u32> {
        match self {
            Self::Preferred(seconds) => Some(seconds),
            Self::Forever | Self::Limited(_) => None,
        }
    }

    fn duration(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::Limited(limit) => Some(limit),
            Self::Preferred(seconds) => Some(Duration::from_secs(seconds.into())),
        }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) | Self::NotText | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(denied) => denied.status(Place::Own),
        }
    }

    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooLarge(_) => Some(Limit::PollSize),
            Self::TooSlow(_) => Some(Limit::ProgressTimeout),
            Self::Full => Some(Limit::Names),
            Self::Body(_) | Self::NotText | Self::Name(_) | Self::Denied(_) => None,
        }
    }
}

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
            assert_eq!(
                Wait::granted(preferred, limit),
                wait,
                "{preferred:?} {limit:?}"
            );
        }
    }
}
