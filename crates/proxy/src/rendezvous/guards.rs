//! What waits in the rendezvous, or is on its way from it, as its owners hold it. Their end cleans up.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pushprox_protocol::{Fqdn, ScrapeId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::state::PollKey;
use super::{AnswerHandle, HandOut, Outgoing, Rendezvous, Told};
use crate::access::Identity;
use crate::answer::ScrapeAnswer;
use crate::error::Failure;

/// A poll that waits. Dropping it takes it out of the rendezvous.
pub(crate) struct ParkedPoll {
    pub(super) rendezvous: Rendezvous,
    pub(super) key: Option<PollKey>,
    pub(super) told: oneshot::Receiver<Told>,
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

/// A scrape on its way to a client. Unless it is [delivered](HandedOut::delivered), it goes to
/// another poll: nobody has seen it, so nobody pulls twice.
pub(crate) struct HandedOut {
    pub(super) rendezvous: Rendezvous,
    pub(super) hand_out: Option<HandOut>,
}

/// A scrape whose answer has begun to arrive, and is nobody else's to give.
pub(crate) struct Completion {
    /// The client that was handed the scrape.
    pub(crate) name: Fqdn,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) answer: AnswerHandle,
}

impl ParkedPoll {
    /// Waits for the poll's end. Cancel safe.
    pub(crate) async fn end(&mut self) -> PollEnd {
        match (&mut self.told).await {
            Ok(Told::HandOut(hand_out)) => PollEnd::HandedOut(HandedOut {
                rendezvous: self.rendezvous.clone(),
                hand_out: Some(hand_out),
            }),
            Ok(Told::WaitIsOver) => PollEnd::WaitIsOver,
            Err(_) => PollEnd::ShuttingDown,
        }
    }
}

impl Drop for ParkedPoll {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.rendezvous
                .shared
                .meetings
                .lock()
                .state
                .unpark(key, Instant::now());
        }
        self.told.close();
        if let Ok(Told::HandOut(hand_out)) = self.told.try_recv() {
            self.rendezvous.give_back(hand_out.id);
        }
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
        shared.meetings.lock().state.cancel(self.id);
        shared.scrape_ended.notify_waiters();
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

    /// The client has it: from now on only its push or the deadline ends the scrape.
    pub(crate) fn delivered(mut self) {
        self.hand_out = None;
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        if let Some(hand_out) = self.hand_out.take() {
            self.rendezvous.give_back(hand_out.id);
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
