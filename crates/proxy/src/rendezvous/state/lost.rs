//! Hand-outs that came to nothing, or may have.
//!
//! An instruction that was not sent has been seen by nobody. One that was sent may have been seen
//! until there are signs of the opposite, which the connection that it was sent on has: then the
//! scrape is handed out again, and an answer of the first client is taken all the same.

use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId};
use tokio::time::Instant;

use super::{Arrival, HandOut, Lost, Pending, State};

impl<P, A, S: Clone> State<P, A, S> {
    /// A hand-out was never sent, and no more polls are to come since the proxy goes down: its scrape
    /// is over, and what its answer was to be sent through comes back.
    pub(crate) fn end_unsent(&mut self, id: ScrapeId, turn: u32) -> Option<A> {
        if !self.draining {
            return None;
        }
        self.in_turn(id, turn)?;
        self.cancel(id)
    }

    /// A hand-out did not reach its poll's client: the scrape looks for another. `None` when it has
    /// ended meanwhile, or has been handed out again already; or the proxy goes down, and its answer
    /// may come after all.
    pub(crate) fn give_back(
        &mut self,
        id: ScrapeId,
        turn: u32,
        lost: Lost,
        now: Instant,
    ) -> Option<Arrival<P, S>> {
        if self.draining {
            return None;
        }
        let pending = self.in_turn(id, turn)?;
        let (name, _) = pending.handed_out.take()?;
        self.doubts.remove(&name, id);
        if lost == Lost::Unseen {
            self.scrapes.get_mut(&id)?.sent_before = Some(name);
        }
        Some(self.meet_or_wait(id, now))
    }

    /// A hand-out has been sent, and its client's system does not acknowledge it: it goes to another
    /// poll, if there is one, and else [to the next that comes](State::doubted).
    pub(crate) fn doubt(&mut self, id: ScrapeId, turn: u32, now: Instant) -> Option<Arrival<P, S>> {
        let pending = self.in_turn(id, turn)?;
        let (name, _) = pending.handed_out.clone()?;
        if pending.is_over(now) {
            return None;
        }
        let target = pending.target.clone();
        if self.has_poll_for(&target) {
            return self.give_back(id, turn, Lost::Unseen, now);
        }
        self.doubts.remove(&name, id);
        self.doubts.add(&name, id);
        None
    }

    /// The client that was sent this has shown that it has it.
    pub(crate) fn settle(&mut self, id: ScrapeId, turn: u32) {
        if let Some(pending) = self.scrapes.get(&id)
            && pending.turn == turn
            && let Some((name, _)) = &pending.handed_out
        {
            self.doubts.remove(name, id);
        }
    }

    /// The scrape of this id, where the hand-out of that turn is the last.
    pub(crate) fn handed_out(&self, id: ScrapeId, turn: u32) -> Option<&S> {
        let pending = self.scrapes.get(&id)?;
        pending.is_in_turn(turn).then_some(&pending.scrape)
    }

    /// What clients of this name were sent and may not have.
    pub(crate) fn doubted(&self, name: FqdnRef<'_>) -> Vec<HandOut<S>> {
        let hand_out = |id: &ScrapeId| {
            let pending = self.scrapes.get(id)?;
            Some(HandOut {
                id: *id,
                turn: pending.turn,
                scrape: pending.scrape.clone(),
            })
        };
        self.doubts.of(name).iter().filter_map(hand_out).collect()
    }

    fn in_turn(&mut self, id: ScrapeId, turn: u32) -> Option<&mut Pending<A, S>> {
        let pending = self.scrapes.get_mut(&id)?;
        pending.is_in_turn(turn).then_some(pending)
    }
}

impl<A, S> Pending<A, S> {
    /// Whether its time is up, though its own timer may not have run yet.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// Whether the hand-out of that turn is the last, and has not come to nothing.
    fn is_in_turn(&self, turn: u32) -> bool {
        self.turn == turn && self.handed_out.is_some()
    }

    /// Under which name a client has it in hand, or may have.
    pub(super) fn holder(&self) -> Option<&Fqdn> {
        let handed_out = self.handed_out.as_ref().map(|(name, _)| name);
        handed_out.or(self.sent_before.as_ref())
    }
}
