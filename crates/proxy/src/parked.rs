//! A parked poll: waits for its end, and answers it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use tokio::time::Instant;
use tracing::debug;

use crate::access::{Identity, Registrant};
use crate::http1::answer::Answer;
use crate::http1::socket::{MAX_READ_AHEAD, Socket, Written};
use crate::rendezvous::{HandedOut, ParkedPoll, PollEnd, Sent};
use crate::{Proxy, delivery};

/// A poll that is parked: its socket, and what its answer needs to know of it.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) socket: Socket,
    pub(crate) poll: ParkedPoll,
    /// Its client, where that may be struck off meanwhile.
    pub(crate) member: Option<Box<Registrant>>,
    /// The seconds that it waits by its client's wish.
    pub(crate) preferred: Option<u32>,
    pub(crate) keep_alive: bool,
    pub(crate) since: Instant,
}

/// What looks at a poll that could not be parked at once: it is parked then, or refused.
pub(crate) type Later<'a> =
    Pin<Box<dyn Future<Output = Result<Parked, Option<Socket>>> + Send + 'a>>;

/// Waits for the end of a parked poll and answers it. The socket comes back where more requests may
/// follow on it.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would keep its arguments twice for as long as the poll is parked"
)]
pub(crate) fn park<'a>(
    mut accepted: Result<Parked, Later<'a>>,
    proxy: &'a Proxy,
) -> impl Future<Output = Option<Socket>> + Send + 'a {
    // It stays where it is, for the same reason.
    async move {
        if let Err(later) = &mut accepted {
            match later.await {
                Ok(parked) => accepted = Ok(parked),
                Err(refused) => return refused,
            }
        }
        let parked = accepted.as_mut().ok()?;
        // Apart, as what is matched on would keep its room while the rest is sent.
        let (mut sent, unsent) = match poll_fn(|cx| parked.poll_reply(cx, proxy)).await {
            Some(Reply::Out(sent)) => (sent, None),
            Some(Reply::Unsent(rest)) => (None, Some(rest)),
            None => return None,
        };
        if let Some(rest) = unsent {
            sent = Box::pin(rest.send(parked, proxy)).await?;
        }
        if !parked.keep_alive {
            parked.socket.shutdown(&proxy.patience).await;
        }
        if let Some(sent) = sent {
            // In a box, so that the room for it is not kept by those that wait.
            let watching = Box::pin(delivery::watch(&mut parked.socket, sent, proxy));
            if !watching.await {
                return None;
            }
        }
        let parked = accepted.ok()?;
        parked.keep_alive.then_some(parked.socket)
    }
}

/// The answer to a poll.
enum Reply {
    /// It is out, and with it a scrape if there was one.
    Out(Option<Sent>),
    /// Its client does not take it at once.
    Unsent(Box<Unsent>),
}

/// An answer, or the rest of one, on its way to a client that takes its time.
struct Unsent {
    bytes: BytesMut,
    status: StatusCode,
    handed_out: Option<HandedOut>,
}

impl Unsent {
    async fn send(self: Box<Self>, parked: &mut Parked, proxy: &Proxy) -> Option<Option<Sent>> {
        let writing = parked.socket.write_patiently(&self.bytes, &proxy.patience);
        if let Err(error) = writing.await {
            debug!(%error, "cannot answer a poll");
            return None;
        }
        Some(parked.replied(self.status, self.handed_out, proxy))
    }
}

impl Parked {
    /// Answers the poll when it ends. `None` when nobody is to be answered.
    fn poll_reply(&mut self, cx: &mut Context<'_>, proxy: &Proxy) -> Poll<Option<Reply>> {
        // First, so that a client that has left is not handed anything. Of one that has sent more than
        // any does, that could not be told any more.
        let has_left = self.socket.poll_left(cx, &proxy.buffers).is_ready();
        if has_left || self.socket.ahead().len() >= MAX_READ_AHEAD {
            return Poll::Ready(None);
        }
        let end = ready!(self.poll.poll_end(cx));
        Poll::Ready(self.reply(end, cx, proxy))
    }

    fn reply(&mut self, end: PollEnd, cx: &mut Context<'_>, proxy: &Proxy) -> Option<Reply> {
        let (status, bytes, handed_out) = match end {
            // Dropped, the hand-out goes to a client that is still there.
            PollEnd::HandedOut(_) if self.socket.stream().is_gone() => return None,
            PollEnd::HandedOut(handed_out) => {
                let holder = match self.member.take() {
                    // Where it has been struck off while it waited, the scrape is for another.
                    Some(member) => member.identity_now(self.socket.stream(), &proxy.access)?,
                    None => Identity::Anyone,
                };
                handed_out.hold(holder);
                let bytes = self.head(StatusCode::OK).text(&handed_out.encode());
                (StatusCode::OK, bytes, Some(handed_out))
            }
            PollEnd::WaitIsOver => match self.preferred {
                Some(_) => {
                    let status = StatusCode::NO_CONTENT;
                    (status, self.head(status).without_body(), None)
                }
                None => {
                    let status = StatusCode::REQUEST_TIMEOUT;
                    let bytes = self.head(status).text(b"no scrape came in time\n");
                    (status, bytes, None)
                }
            },
            // Clients poll again at once on another connection, and so find another proxy or this
            // one's successor: they take a closed connection better than any answer.
            PollEnd::ShuttingDown => return None,
        };
        match self.socket.try_write(cx, &bytes) {
            Ok(Written::All) => Some(Reply::Out(self.replied(status, handed_out, proxy))),
            Ok(Written::Part(length)) => {
                let mut bytes = bytes;
                bytes.advance(length);
                Some(Reply::Unsent(Box::new(Unsent {
                    bytes,
                    status,
                    handed_out,
                })))
            }
            Err(error) => {
                debug!(%error, "cannot answer a poll");
                None
            }
        }
    }

    /// The answer is out.
    fn replied(
        &self,
        status: StatusCode,
        handed_out: Option<HandedOut>,
        proxy: &Proxy,
    ) -> Option<Sent> {
        let sent = handed_out.and_then(HandedOut::sent);
        proxy.metrics.poll_ended(status, self.since.elapsed());
        sent
    }

    fn head(&self, status: StatusCode) -> Answer {
        let answer = Answer::new(status, self.keep_alive);
        match self.preferred {
            Some(seconds) => answer.preference_applied(seconds),
            None => answer,
        }
    }
}
