//! What those hold who wait for the rendezvous. Their end cleans up.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pushprox_protocol::{Fqdn, ScrapeId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::seats::{Note, SeatNumber};
use super::state::{Lost, PollKey};
use super::{AnswerHandle, HandOut, Outgoing, Rendezvous};
use crate::access::Identity;
use crate::answer::ScrapeAnswer;
use crate::error::Failure;

/// A poll that waits. Dropping it takes it out of the rendezvous.
pub(crate) struct ParkedPoll {
    pub(super) rendezvous: Rendezvous,
    /// Where it was parked; of none that met a scrape as it came.
    pub(super) key: Option<PollKey>,
    /// Where it is told of its end; gone when it has been.
    pub(super) seat: Option<SeatNumber>,
}

/// A scrape that waits for its answer. Dropping it forgets the scrape: it is not handed out any
/// more, and a push for it is refused.
pub(crate) struct PendingScrape {
    pub(super) rendezvous: Rendezvous,
    pub(super) id: ScrapeId,
    pub(super) answer: oneshot::Receiver<Result<Box<ScrapeAnswer>, Failure>>,
}

/// How a parked poll ends.
#[derive(Debug)]
pub(crate) enum PollEnd {
    /// There is a scrape for its client.
    HandedOut(HandedOut),
    /// It has waited as long as it may.
    WaitIsOver,
    /// The proxy is going down.
    ShuttingDown,
}

/// A scrape on its way to a client. Unless it is [sent](HandedOut::sent), it goes to
/// another poll: nobody has seen it, so nobody pulls twice.
pub(crate) struct HandedOut {
    rendezvous: Rendezvous,
    hand_out: Option<HandOut>,
}

/// A hand-out that has been written to its client's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(super) id: ScrapeId,
    pub(super) turn: u32,
}

/// A scrape whose answer has begun to arrive, and is nobody else's to give.
pub(crate) struct Completion {
    /// The client that was handed the scrape.
    pub(crate) name: Fqdn,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) answer: AnswerHandle,
}

impl Sent {
    /// Of the scrape.
    pub(crate) fn id(self) -> ScrapeId {
        self.id
    }
}

impl ParkedPoll {
    /// Waits for the poll's end.
    #[cfg(test)]
    pub(crate) async fn end(&mut self) -> PollEnd {
        std::future::poll_fn(|cx| self.poll_end(cx)).await
    }

    /// The poll's end, once it has come.
    pub(crate) fn poll_end(&mut self, cx: &Context<'_>) -> Poll<PollEnd> {
        let Some(seat) = self.seat else {
            return Poll::Ready(PollEnd::ShuttingDown);
        };
        let mut meetings = self.rendezvous.shared.meetings.lock();
        let end = match meetings.notes.take(seat) {
            Some(Note::HandOut(hand_out)) => PollEnd::HandedOut(HandedOut {
                rendezvous: self.rendezvous.clone(),
                hand_out: Some(hand_out),
            }),
            Some(Note::WaitIsOver) => PollEnd::WaitIsOver,
            None => match self.key.and_then(|key| meetings.state.parked(key)) {
                Some(seat) => {
                    let before = std::mem::replace(&mut seat.waker, cx.waker().clone());
                    drop(meetings);
                    drop(before);
                    return Poll::Pending;
                }
                None => PollEnd::ShuttingDown,
            },
        };
        self.seat = None;
        Poll::Ready(end)
    }
}

impl Drop for ParkedPoll {
    fn drop(&mut self) {
        let Some(seat) = self.seat else {
            return;
        };
        let mut meetings = self.rendezvous.shared.meetings.lock();
        let note = meetings.notes.take(seat);
        let parked = match (&note, self.key) {
            (None, Some(key)) => meetings.state.unpark(key, Instant::now()),
            _ => None,
        };
        drop(meetings);
        drop(parked);
        if let Some(Note::HandOut(hand_out)) = note {
            self.rendezvous
                .give_back(hand_out.id, hand_out.turn, Lost::Unsent);
        }
    }
}

impl HandedOut {
    /// The instruction, with the time that is left now.
    pub(crate) fn encode(&self) -> Bytes {
        self.hand_out.as_ref().map_or_else(Bytes::new, |hand_out| {
            let left = hand_out.scrape.left(Instant::now());
            hand_out.scrape.scrape.encode(hand_out.id, left)
        })
    }

    /// From now on only `holder` may answer the scrape.
    pub(crate) fn hold(&self, holder: Identity) {
        if let Some(hand_out) = &self.hand_out {
            *hand_out.scrape.holder.lock() = holder;
        }
    }

    /// It has been written: from now on its client's push ends the scrape, or the deadline, unless
    /// there are signs that the client has not seen it.
    pub(crate) fn sent(mut self) -> Option<Sent> {
        let hand_out = self.hand_out.take()?;
        Some(Sent {
            id: hand_out.id,
            turn: hand_out.turn,
        })
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        if let Some(hand_out) = self.hand_out.take() {
            self.rendezvous
                .give_back(hand_out.id, hand_out.turn, Lost::Unsent);
        }
    }
}

impl Completion {
    /// The method of the scrape.
    pub(crate) fn method(&self) -> &http::Method {
        &self.outgoing.scrape.method
    }

    /// Sends the answer on its way to Prometheus. Whether Prometheus is still there.
    pub(crate) fn answer(self, answer: ScrapeAnswer) -> bool {
        self.answer.send(Ok(Box::new(answer))).is_ok()
    }

    /// Ends the scrape with a failure of the client's.
    pub(crate) fn fail(self, reason: &dyn fmt::Display) {
        let failure = Failure::Broken {
            name: self.name.to_string(),
            reason: reason.to_string(),
        };
        // Prometheus may have hung up; then there is nobody to tell.
        self.answer.send(Err(failure)).ok();
    }
}

impl PendingScrape {
    /// Waits for the answer. Cancel safe.
    pub(crate) async fn answer(&mut self) -> Result<Box<ScrapeAnswer>, Failure> {
        let answer = (&mut self.answer).await;
        answer.unwrap_or(Err(Failure::ShuttingDown))
    }
}

impl Drop for PendingScrape {
    fn drop(&mut self) {
        let shared = &self.rendezvous.shared;
        let unanswered = shared.meetings.lock().state.cancel(self.id);
        // Not under the lock: its end wakes whoever waits for it.
        drop(unanswered);
        shared.scrape_ended.notify_waiters();
    }
}

impl fmt::Debug for ParkedPoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedPoll")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingScrape")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HandedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedOut")
            .field("hand_out", &self.hand_out)
            .finish_non_exhaustive()
    }
}
