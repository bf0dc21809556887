//! Where scrapes meet parked polls, and pushes their scrapes.
//!
//! [`Rendezvous`] is a cheap handle to one [`state::State`] behind one short lock. Nothing is
//! awaited and nobody is woken while the lock is held. What waits is held by guards, and
//! their end cleans up: a [`ParkedPoll`] that is dropped leaves, a [`HandedOut`] that did not
//! reach its client goes back to the queue, and a scrape whose future is dropped is forgotten.

mod deadlines;
mod doubts;
mod guards;
mod lost;
mod polls;
mod registrations;
mod seats;
mod state;
#[cfg(test)]
mod tests;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use pushprox_protocol::message::scrape::Scrape;
use pushprox_protocol::{Fqdn, ScrapeId, timeout};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::access::Identity;
use crate::answer::ScrapeAnswer;
use crate::error::Failure;
use crate::http1::link::Link;
use deadlines::Deadlines;
pub(crate) use guards::{Completion, HandedOut, ParkedPoll, PendingScrape, PollEnd, Sent};
use seats::{Note, Notes, Seat};
pub(crate) use state::Bounds;
use state::{Arrival, Due, Lost, Parked, State};

/// The meeting place. Clones share it.
#[derive(Clone)]
pub(crate) struct Rendezvous {
    shared: Arc<Shared>,
}

struct Shared {
    meetings: Mutex<Meetings>,
    /// Tells the expiry task that something ends sooner than it thinks.
    sooner: Notify,
    /// Tells who drains that a scrape has ended.
    scrape_ended: Notify,
}

/// Who waits for whom, and until when.
struct Meetings {
    state: State<Seat, AnswerHandle, Arc<Outgoing>>,
    deadlines: Deadlines,
    notes: Notes,
}

/// A scrape with the time that Prometheus gives it.
#[derive(Debug)]
struct Outgoing {
    scrape: Scrape,
    arrived: Instant,
    timeout: Duration,
    /// Who was given it last.
    holder: Mutex<Identity>,
    /// The connection on which it was sent last, where that is in doubt.
    doubtful: Mutex<Option<Link>>,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// No scrape of that id waits for one.
    Gone,
    /// Another was given that scrape.
    Anothers,
}

impl Outgoing {
    /// The time that is left. Of a scrape that has hardly waited, it is what Prometheus sent.
    fn left(&self, now: Instant) -> Duration {
        let waited = now.duration_since(self.arrived);
        if waited < self.timeout / 20 {
            return self.timeout;
        }
        self.timeout.saturating_sub(waited)
    }
}

type HandOut = state::HandOut<Arc<Outgoing>>;
type AnswerHandle = oneshot::Sender<Result<Box<ScrapeAnswer>, Failure>>;

impl Rendezvous {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                meetings: Mutex::new(Meetings {
                    state: State::new(bounds),
                    deadlines: Deadlines::default(),
                    notes: Notes::default(),
                }),
                sooner: Notify::new(),
                scrape_ended: Notify::new(),
            }),
        }
    }

    /// Registers `name` and parks a poll under it, for `wait` at the most where one is given.
    /// `None` when the limit of names is reached or the proxy is going down.
    pub(crate) fn park(
        &self,
        name: &Fqdn,
        wait: Option<Duration>,
        now: Instant,
    ) -> Option<ParkedPoll> {
        let ends = wait.map(|wait| now + wait);
        let (key, seat, is_sooner, doubted) = {
            let mut meetings = self.shared.meetings.lock();
            let before = meetings.next_expiry();
            let seat = meetings.notes.new_seat();
            let number = seat.number;
            let (key, doubted) = match meetings.state.park(name, seat, ends, now) {
                Parked::Waits(key) => (Some(key), meetings.state.doubted(name.as_ref())),
                Parked::Meets(seat, hand_out) => {
                    // Nobody waits in the seat yet who would have to be called.
                    meetings.notes.leave(seat, Note::HandOut(hand_out));
                    (None, Vec::new())
                }
                Parked::Refused => return None,
            };
            (key, number, meetings.is_sooner_than(before), doubted)
        };
        if is_sooner {
            self.shared.sooner.notify_one();
        }
        let parked = ParkedPoll {
            rendezvous: self.clone(),
            key,
            seat: Some(seat),
        };
        self.look_into(doubted);
        Some(parked)
    }

    /// Has a target scraped by its client, within `timeout` from `now` on.
    pub(crate) fn scrape(
        &self,
        id: ScrapeId,
        scrape: Scrape,
        timeout: Duration,
        now: Instant,
    ) -> Result<PendingScrape, Failure> {
        let deadline = now + timeout - timeout::answer_margin(timeout);
        let (handle, answer) = oneshot::channel();
        let target = scrape.target.clone();
        let outgoing = Arc::new(Outgoing {
            scrape,
            arrived: now,
            timeout,
            holder: Mutex::new(Identity::Anyone),
            doubtful: Mutex::new(None),
        });
        let (called, is_sooner) = {
            let mut meetings = self.shared.meetings.lock();
            let before = meetings.next_expiry();
            let Meetings {
                state,
                deadlines,
                notes,
            } = &mut *meetings;
            let (until, called) = match state.scrape(id, target, outgoing, handle, deadline, now) {
                Arrival::Meets(seat, hand_out) => {
                    (deadline, Some(notes.leave(seat, Note::HandOut(hand_out))))
                }
                Arrival::Waits(until) => (until, None),
                Arrival::Refused(failure) => return Err(failure),
            };
            deadlines.add(until, id, state.scrape_count(), |id| state.has(id));
            (called, meetings.is_sooner_than(before))
        };
        if is_sooner {
            self.shared.sooner.notify_one();
        }
        if let Some(poll) = called {
            poll.wake();
        }
        Ok(PendingScrape {
            rendezvous: self.clone(),
            id,
            answer,
        })
    }

    /// Takes the scrape that this id names out of its client's hands, once, for the one that was
    /// given it.
    pub(crate) fn complete(&self, id: ScrapeId, by: &Identity) -> Result<Completion, NotTaken> {
        let completion = {
            let state = &mut self.shared.meetings.lock().state;
            let outgoing = state.in_hand(id).ok_or(NotTaken::Gone)?;
            if *outgoing.holder.lock() != *by {
                return Err(NotTaken::Anothers);
            }
            state.complete(id).ok_or(NotTaken::Gone)?
        };
        Ok(Completion {
            name: completion.name,
            outgoing: completion.scrape,
            answer: completion.answer,
        })
    }

    /// Every registered name, in no order.
    pub(crate) fn names(&self) -> Vec<Fqdn> {
        self.shared.meetings.lock().state.names().cloned().collect()
    }

    /// Changes with every change of the registered names.
    pub(crate) fn names_version(&self) -> u64 {
        self.shared.meetings.lock().state.names_version()
    }

    /// How many names are registered.
    pub(crate) fn name_count(&self) -> usize {
        self.shared.meetings.lock().state.name_count()
    }

    /// Refuses polls and scrapes from now on, ends the parked polls and the scrapes that no client
    /// has in hand, and waits until the other scrapes have ended.
    pub(crate) async fn drain(&self) {
        let (polls, scrapes) = self.shared.meetings.lock().state.drain(Instant::now());
        // Told by being dropped, and not under the lock.
        drop(scrapes);
        // That there is no note for them tells them.
        polls.into_iter().for_each(|seat| seat.waker.wake());
        loop {
            let ended = self.shared.scrape_ended.notified();
            if self.shared.meetings.lock().state.scrape_count() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Tells the scrapes that clients still have in hand that the proxy is going down.
    pub(crate) fn abandon(&self) {
        // Told by being dropped, and not under the lock.
        let over = self.shared.meetings.lock().state.abandon();
        drop(over);
    }

    /// Ends polls and scrapes and forgets names when their time is over. Runs until it is dropped.
    pub(crate) async fn expire(&self) {
        loop {
            let next = self.shared.meetings.lock().next_expiry();
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.shared.sooner.notified() => continue,
            }
            let now = Instant::now();
            let (called, over) = {
                let mut meetings = self.shared.meetings.lock();
                (meetings.expire(now), meetings.end_scrapes(now))
            };
            for (answer, failure) in over {
                // Its Prometheus hung up in this very moment.
                answer.send(Err(failure)).ok();
            }
            called.into_iter().for_each(Waker::wake);
        }
    }

    /// Its deadline has been queued since it came. That nobody may have registered its target by now
    /// does not end it sooner: when it came, it was promised its whole time. Whether it goes to
    /// another poll.
    fn give_back(&self, id: ScrapeId, turn: u32, lost: Lost) -> bool {
        let now = Instant::now();
        let mut meetings = self.shared.meetings.lock();
        let over = match lost {
            Lost::Unsent => meetings.state.end_unsent(id, turn),
            Lost::Unseen => None,
        };
        let again = meetings.state.give_back(id, turn, lost, now);
        let called = meetings.meet(again);
        drop(meetings);
        // Told by being dropped, and not under the lock.
        drop(over);
        call(called)
    }
}

/// Wakes the poll that something has been left for, if there is one.
fn call(poll: Option<Waker>) -> bool {
    let is_called = poll.is_some();
    if let Some(poll) = poll {
        poll.wake();
    }
    is_called
}

impl Meetings {
    /// When something ends by time next.
    fn next_expiry(&self) -> Option<Instant> {
        let scrape = self.deadlines.next();
        let other = self.state.next_expiry();
        scrape.into_iter().chain(other).min()
    }

    /// Whether something ends sooner than what was next.
    fn is_sooner_than(&self, before: Option<Instant>) -> bool {
        let next = self.next_expiry();
        next.is_some() && before.is_none_or(|before| next < Some(before))
    }

    /// Leaves a note for the poll that a scrape goes to. Whom to wake.
    fn meet(&mut self, arrival: Option<Arrival<Seat, Arc<Outgoing>>>) -> Option<Waker> {
        match arrival {
            Some(Arrival::Meets(seat, hand_out)) => {
                Some(self.notes.leave(seat, Note::HandOut(hand_out)))
            }
            _ => None,
        }
    }

    /// Leaves notes for the polls whose time is over, and for those that meet a scrape by that. Whom to
    /// wake.
    fn expire(&mut self, now: Instant) -> Vec<Waker> {
        let (ended, met) = self.state.expire(now);
        let ended = ended.into_iter().map(|seat| (seat, Note::WaitIsOver));
        let met = met.into_iter();
        let met = met.map(|(seat, hand_out)| (seat, Note::HandOut(hand_out)));
        let notes = ended.chain(met);
        notes
            .map(|(seat, note)| self.notes.leave(seat, note))
            .collect()
    }

    /// Ends the scrapes whose time is over: each with what its answer was to be sent through.
    fn end_scrapes(&mut self, now: Instant) -> Vec<(AnswerHandle, Failure)> {
        let Self {
            state, deadlines, ..
        } = self;
        let mut over = Vec::new();
        while let Some(id) = deadlines.take_due(now, |id| state.has(id)) {
            match state.timed_out(id, now) {
                Some(Due::Later(until)) => {
                    deadlines.add(until, id, state.scrape_count(), |id| state.has(id));
                }
                Some(Due::Over(answer, failure)) => over.push((answer, failure)),
                None => {}
            }
        }
        over
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous").finish_non_exhaustive()
    }
}
