//! `POST /poll`: a client registers its name and waits for work, on a bare socket.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};
use pushprox_daemon::guard::{Denied, Place};
use pushprox_protocol::Fqdn;
use pushprox_protocol::fqdn::NameError;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::Proxy;
use crate::access::{Identity, Peer, Role};
use crate::connection::drain;
use crate::http1::answer::Answer;
use crate::http1::body::{BrokenBody, RequestBody};
use crate::http1::request::Request;
use crate::http1::socket::Socket;
use crate::rendezvous::{ParkedPoll, PollEnd};

/// Why a poll is not parked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the name in the body of a poll is longer than {MAX_NAME} bytes")]
    TooLarge,
    #[error("the body of the poll did not come within {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
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

/// A client that had to prove who it is.
#[derive(Debug)]
struct Member {
    identity: Identity,
    name: Fqdn,
    /// When that was.
    generation: u64,
}

/// How long a poll may wait, and by whose wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// As long as it takes: what Go clients expect.
    Forever,
    /// By the operator's `--poll.max-wait`.
    Limited(Duration),
    /// By the client's own `Prefer`, in seconds.
    Preferred(u32),
}

/// Serves a poll to its end. The socket comes back where more requests may follow on it.
pub(crate) async fn serve(
    socket: Socket,
    mut request: Request,
    preferred: Option<u32>,
    peer: &Peer,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    let since = Instant::now();
    let wait = Wait::granted(preferred, proxy.poll_max_wait);
    let mut body = RequestBody::new(socket, &request, proxy.buffers.clone());
    let shown = request.credentials.take();
    // In a box, so that nothing of it is left while the poll is parked.
    let joined = Box::pin(join(&mut body, &request, shown, wait, peer, proxy)).await;
    match joined {
        Ok((parked, member)) => {
            park(
                body.into_socket(),
                parked,
                member,
                wait,
                request.keep_alive,
                since,
                proxy,
            )
            .await
        }
        Err(_) if proxy.draining.is_cancelled() => None,
        Err(refusal) => refuse(body, &refusal, request.keep_alive, since, proxy).await,
    }
}

/// Registers the name in a poll, if its client may.
async fn join(
    body: &mut RequestBody,
    request: &Request,
    shown: Option<Box<HeaderMap>>,
    wait: Wait,
    peer: &Peer,
    proxy: &Proxy,
) -> Result<(ParkedPoll, Option<Box<Member>>), Refusal> {
    let access = &proxy.access;
    let generation = access.generation();
    let shown = shown.unwrap_or_default();
    let grant = access.admit(peer, Role::Client, &shown, Place::Own).await?;
    let name = read_name(body, request).await?;
    if !grant.may_register(name.as_ref()) {
        let denied = Denied::NotAllowed(format!("{} may not register {name}", grant.identity));
        access.turn_away(peer, &denied);
        return Err(denied.into());
    }
    let parked = proxy.rendezvous.park(&name, wait.duration());
    let parked = parked.ok_or(Refusal::Full)?;
    let member = match grant.identity {
        Identity::Anyone => None,
        identity => Some(Box::new(Member {
            identity,
            name,
            generation,
        })),
    };
    Ok((parked, member))
}

/// Waits for the end of a poll and answers it.
async fn park(
    mut socket: Socket,
    mut parked: ParkedPoll,
    member: Option<Box<Member>>,
    wait: Wait,
    keep_alive: bool,
    since: Instant,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    socket.settle(&proxy.buffers);
    let end = tokio::select! {
        biased;
        // First, so that a client that has left is not handed anything.
        () = left(&mut socket, proxy) => return None,
        end = parked.end() => end,
        // Clients poll again at once on another connection, and so find another proxy or this
        // one's successor: they take a closed connection better than any answer.
        () = proxy.draining.cancelled() => return None,
    };
    let answer = |status| {
        let answer = Answer::new(status, keep_alive);
        match wait {
            Wait::Preferred(seconds) => {
                answer.header("Preference-Applied", &format!("wait={seconds}"))
            }
            Wait::Forever | Wait::Limited(_) => answer,
        }
    };
    let status = match end {
        PollEnd::HandedOut(handed_out) => {
            match member {
                // It has been struck off while it waited: the scrape is for another.
                Some(member) if !member.is_still_one(proxy) => return None,
                Some(member) => handed_out.hold(member.identity),
                None => handed_out.hold(Identity::Anyone),
            }
            let bytes = answer(StatusCode::OK).text(&handed_out.encode());
            let written = socket.write(&bytes).await;
            written
                .inspect_err(|error| debug!(%error, "cannot hand out a scrape"))
                .ok()?;
            handed_out.delivered();
            StatusCode::OK
        }
        PollEnd::WaitIsOver => {
            let (status, bytes) = match wait {
                Wait::Preferred(_) => {
                    let status = StatusCode::NO_CONTENT;
                    (status, answer(status).without_body())
                }
                Wait::Forever | Wait::Limited(_) => {
                    let status = StatusCode::REQUEST_TIMEOUT;
                    (status, answer(status).text(b"no scrape came in time\n"))
                }
            };
            socket.write(&bytes).await.ok()?;
            status
        }
        PollEnd::ShuttingDown => return None,
    };
    proxy.metrics.poll_ended(status, since.elapsed());
    if keep_alive {
        return Some(socket);
    }
    // The answer is out; a client that does not take the end of the connection is left alone.
    socket.shutdown().await.ok();
    None
}

/// Ends when the client does, or when it sends more than any client does while it waits. What it
/// sends early is kept for its turn.
async fn left(socket: &mut Socket, proxy: &Proxy) {
    while socket.ahead().len() < MAX_READ_AHEAD {
        match poll_fn(|cx| socket.poll_fill(cx, &proxy.buffers)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => socket.settle(&proxy.buffers),
        }
    }
}

/// Tells a client what is wrong, after a pause.
async fn refuse(
    body: RequestBody,
    refusal: &Refusal,
    keep_alive: bool,
    since: Instant,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    debug!(error = %refusal, "a poll is refused");
    let (mut socket, is_drained) = drain(body).await;
    // The fork's client polls again at once, thousands of times a second, as long as it is refused.
    sleep(REFUSAL_PAUSE).await;
    let keep_alive = keep_alive && is_drained;
    let answer = Answer::new(refusal.status(), keep_alive).challenge(refusal.status());
    let bytes = answer.text(format!("{refusal}\n").as_bytes());
    socket.write(&bytes).await.ok()?;
    proxy.metrics.poll_ended(refusal.status(), since.elapsed());
    if keep_alive {
        return Some(socket);
    }
    socket.shutdown().await.ok();
    None
}

async fn read_name(body: &mut RequestBody, request: &Request) -> Result<Fqdn, Refusal> {
    if body
        .remaining()
        .is_some_and(|length| length > MAX_NAME as u64)
    {
        return Err(Refusal::TooLarge);
    }
    let reading = async {
        if request.expects_continue {
            body.go_on().await.map_err(BrokenBody::from)?;
        }
        let mut all = BytesMut::new();
        while let Some(piece) = body.piece().await? {
            if all.len() + piece.len() > MAX_NAME {
                return Err(Refusal::TooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    };
    let all = timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| Refusal::TooSlow)??;
    let text = std::str::from_utf8(&all).map_err(|_| Refusal::NotText)?;
    Ok(text.parse()?)
}

impl Member {
    fn is_still_one(&self, proxy: &Proxy) -> bool {
        proxy
            .access
            .may_still_register(&self.identity, &self.name, self.generation)
    }
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
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) | Self::NotText | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(denied) => denied.status(Place::Own),
        }
    }
}

/// A name and the white space around it.
const MAX_NAME: usize = 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// A day: clients that wish for more get this.
const MAX_WAIT: u32 = 24 * 60 * 60;
/// What a client may send ahead of its poll's answer: a request or two of its own kind.
const MAX_READ_AHEAD: usize = 16 * 1024;

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
