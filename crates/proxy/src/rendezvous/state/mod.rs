//! The rendezvous as a state machine: which scrape meets which parked poll.
//!
//! Nothing here waits, locks or looks at a clock. Each method is one event; what it returns says
//! who has to be told. `P` is what a parked poll is told through, `A` what a scrape's answer is
//! sent through, `S` the scrape itself.

mod events;
mod lost;

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId, Target};
use tokio::time::Instant;

use super::doubts::Doubts;
pub(crate) use super::registrations::PollKey;
use super::registrations::{Expired, Registrations};
use super::waiting::Waiting;
use crate::error::Failure;
pub(crate) use events::{Arrival, Bounds, Completion, Due, HandOut, Lost, Parked};

/// Who is registered, which polls are parked, and which scrapes have no answer yet.
#[derive(Debug)]
pub(crate) struct State<P, A, S> {
    bounds: Bounds,
    registrations: Registrations<P>,
    /// Those that wait and those that clients have in hand. Each ends with the connection that it came
    /// on, so that there are never more of them than connections.
    scrapes: HashMap<ScrapeId, Pending<A, S>, BuildHasherDefault<IdHasher>>,
    waiting: Waiting,
    doubts: Doubts,
    /// How many scrapes have arrived.
    arrivals: u64,
    /// No more polls and scrapes are taken.
    draining: bool,
}

/// A scrape without an answer.
#[derive(Debug)]
struct Pending<A, S> {
    target: Target,
    scrape: S,
    answer: A,
    deadline: Instant,
    arrived: Instant,
    /// Where it stands among all scrapes, by arrival.
    order: u64,
    /// The name and the time of the hand-out; none while it waits.
    handed_out: Option<(Fqdn, Instant)>,
    /// How often it has been handed out. What is said of an earlier time does not count any more.
    turn: u32,
    /// Under which name it was sent out before, to a client that seems not to have got it. If that
    /// one has it after all, its answer is as good as any.
    sent_before: Option<Fqdn>,
}

/// Takes ids for what they are: only this proxy makes them, and they are random or count up.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 ^= number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<P, A, S: Clone> State<P, A, S> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let names = bounds.limits.names;
        Self {
            bounds,
            registrations: Registrations::new(bounds.registration_timeout, names),
            scrapes: HashMap::default(),
            waiting: Waiting::default(),
            doubts: Doubts::default(),
            arrivals: 0,
            draining: false,
        }
    }

    /// A poll arrives under `name`, to be ended at `ends` where nothing came for it.
    pub(crate) fn park(
        &mut self,
        name: &Fqdn,
        handle: P,
        ends: Option<Instant>,
        now: Instant,
    ) -> Parked<P, S> {
        if self.draining {
            return Parked::Refused;
        }
        let Some(hash) = self.registrations.register(name, now) else {
            return Parked::Refused;
        };
        if let Some(id) = self.oldest_waiting_for(name.as_ref(), now) {
            self.unqueue(id);
            self.registrations.touch(hash, name, now);
            if let Some(hand_out) = self.hand_out(id, name.clone(), now) {
                return Parked::Meets(handle, hand_out);
            }
        }
        Parked::Waits(self.registrations.park(hash, name, handle, ends))
    }

    /// What a poll is told through, as long as it is parked.
    pub(crate) fn parked(&mut self, key: PollKey) -> Option<&mut P> {
        self.registrations.parked(key)
    }

    /// A parked poll ends from the client's side. Nothing happens where it has ended already.
    pub(crate) fn unpark(&mut self, key: PollKey, now: Instant) -> Option<P> {
        self.registrations.unpark(key, now)
    }

    /// A scrape arrives.
    pub(crate) fn scrape(
        &mut self,
        id: ScrapeId,
        target: Target,
        scrape: S,
        answer: A,
        deadline: Instant,
        now: Instant,
    ) -> Arrival<P, S> {
        if self.draining {
            return Arrival::Refused(Failure::ShuttingDown);
        }
        if let Some(limit) = self.waiting.full(&target, &self.bounds.limits)
            && !self.has_poll_for(&target)
        {
            return Arrival::Refused(limit);
        }
        self.arrivals += 1;
        let pending = Pending {
            target,
            scrape,
            answer,
            deadline,
            arrived: now,
            order: self.arrivals,
            handed_out: None,
            turn: 0,
            sent_before: None,
        };
        self.scrapes.insert(id, pending);
        self.meet_or_wait(id, now)
    }

    /// A scrape's time has come: it is over, or is to be asked again at the time given. `None` when
    /// it has ended already.
    pub(crate) fn timed_out(&mut self, id: ScrapeId, now: Instant) -> Option<Due<A>> {
        let pending = self.scrapes.get(&id)?;
        let until = self.wait_limit(pending);
        if now < until {
            return Some(Due::Later(until));
        }
        let failure = match (
            &pending.handed_out,
            self.registrations.serving(&pending.target),
        ) {
            (Some((name, since)), _) => Failure::NotAnswered {
                name: name.to_string(),
                after: now.duration_since(*since),
            },
            (None, Some(registration)) => Failure::NotPolled {
                name: registration.name.to_string(),
                since: now.duration_since(registration.idle_since().unwrap_or(now)),
            },
            (None, None) => Failure::NotRegistered {
                name: pending.target.to_string(),
            },
        };
        Some(Due::Over(self.take_out(id)?.answer, failure))
    }

    /// A scrape ends from Prometheus's side, or has been answered: it is forgotten. What its answer
    /// was to be sent through comes back.
    pub(crate) fn cancel(&mut self, id: ScrapeId) -> Option<A> {
        Some(self.take_out(id)?.answer)
    }

    /// Whether a scrape of this id waits or is in a client's hands.
    pub(crate) fn has(&self, id: ScrapeId) -> bool {
        self.scrapes.contains_key(&id)
    }

    /// The scrape of this id, where a client has it in hand, or may have.
    pub(crate) fn in_hand(&self, id: ScrapeId) -> Option<&S> {
        let pending = self.scrapes.get(&id)?;
        pending.holder().map(|_| &pending.scrape)
    }

    /// An answer was pushed under this id. `None` when no client can have a scrape of that id in
    /// hand: it is unknown, over, or was answered before.
    pub(crate) fn complete(&mut self, id: ScrapeId) -> Option<Completion<A, S>> {
        let name = self.scrapes.get(&id)?.holder()?.clone();
        let pending = self.take_out(id)?;
        Some(Completion {
            name,
            scrape: pending.scrape,
            answer: pending.answer,
        })
    }

    /// Ends what is over: the polls returned are to be told, names are forgotten, and scrapes that
    /// waited for a name that is gone may meet another.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<P>, Vec<(P, HandOut<S>)>) {
        let (mut ended, mut gone) = (Vec::new(), Vec::new());
        while let Some(expired) = self.registrations.expire_next(now) {
            match expired {
                Expired::Poll(poll) => ended.push(poll),
                Expired::Name(name) => gone.push(name),
            }
        }
        // Only now, so that no scrape goes to a poll that has ended, or before an older one.
        let met = gone.iter().flat_map(|name| self.name_is_gone(name, now));
        let met = met.collect();
        (ended, met)
    }

    /// When [`State::expire`] has something to do next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.registrations.next_expiry()
    }

    /// No more polls and scrapes from now on. The parked polls are over, and so are the scrapes
    /// that no client has in hand: what they were to be told through comes back.
    pub(crate) fn drain(&mut self, now: Instant) -> (Vec<P>, Vec<A>) {
        self.draining = true;
        self.waiting.clear();
        let waits = |_: &ScrapeId, pending: &mut Pending<A, S>| pending.handed_out.is_none();
        let over = self.scrapes.extract_if(waits).map(|(_, p)| p.answer);
        (self.registrations.unpark_all(now), over.collect())
    }

    /// Gives up the scrapes that clients have in hand: what their answers were to be sent through
    /// comes back.
    pub(crate) fn abandon(&mut self) -> Vec<A> {
        self.doubts.clear();
        self.scrapes.drain().map(|(_, p)| p.answer).collect()
    }

    /// Names that are registered, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Fqdn> {
        self.registrations.names()
    }

    pub(crate) fn names_version(&self) -> u64 {
        self.registrations.version()
    }

    pub(crate) fn name_count(&self) -> usize {
        self.registrations.len()
    }

    /// Scrapes that wait or are in a client's hands.
    pub(crate) fn scrape_count(&self) -> usize {
        self.scrapes.len()
    }

    fn has_poll_for(&self, target: &Target) -> bool {
        let serving = self.registrations.serving(target);
        serving.is_some_and(|registration| registration.idle_since().is_none())
    }

    /// Hands out a scrape that is in no queue, or queues it.
    fn meet_or_wait(&mut self, id: ScrapeId, now: Instant) -> Arrival<P, S> {
        if let Some((poll, hand_out)) = self.meet(id, now) {
            return Arrival::Meets(poll, hand_out);
        }
        let Some(pending) = self.scrapes.get(&id) else {
            return Arrival::Refused(Failure::ShuttingDown);
        };
        let until = self.wait_limit(pending);
        let is_older = |other: &ScrapeId| {
            let other = self.scrapes.get(other);
            other.is_some_and(|other| other.order < pending.order)
        };
        self.waiting.push(id, &pending.target, is_older);
        Arrival::Waits(until)
    }

    /// Hands a scrape to the newest poll that may take it.
    fn meet(&mut self, id: ScrapeId, now: Instant) -> Option<(P, HandOut<S>)> {
        let pending = self.scrapes.get(&id)?;
        if pending.is_over(now) {
            return None;
        }
        let (name, handle) = self.registrations.take_newest(&pending.target, now)?;
        Some((handle, self.hand_out(id, name, now)?))
    }

    fn hand_out(&mut self, id: ScrapeId, name: Fqdn, now: Instant) -> Option<HandOut<S>> {
        let pending = self.scrapes.get_mut(&id)?;
        pending.handed_out = Some((name, now));
        pending.turn += 1;
        Some(HandOut {
            id,
            turn: pending.turn,
            scrape: pending.scrape.clone(),
        })
    }

    /// The oldest scrape that a client of this name may answer. A bare name answers only for ports
    /// that nobody has registered exactly.
    fn oldest_waiting_for(&self, name: FqdnRef<'_>, now: Instant) -> Option<ScrapeId> {
        let may_answer = |pending: &Pending<A, S>| match name.port {
            Some(_) => pending.target.exact() == name,
            None => !self.registrations.is_registered(pending.target.exact()),
        };
        self.waiting.of_host(name).find(|id| {
            let pending = self.scrapes.get(id);
            pending.is_some_and(|pending| !pending.is_over(now) && may_answer(pending))
        })
    }

    fn unqueue(&mut self, id: ScrapeId) {
        if let Some(pending) = self.scrapes.get(&id) {
            self.waiting.remove(id, &pending.target);
        }
    }

    /// Forgets a scrape, wherever it is.
    fn take_out(&mut self, id: ScrapeId) -> Option<Pending<A, S>> {
        let pending = self.scrapes.remove(&id)?;
        match &pending.handed_out {
            Some((name, _)) => self.doubts.remove(name, id),
            None => self.waiting.remove(id, &pending.target),
        }
        Some(pending)
    }

    /// How long this scrape may wait as things are: to its deadline, or less where nobody has
    /// registered its target.
    fn wait_limit(&self, pending: &Pending<A, S>) -> Instant {
        let is_known =
            pending.handed_out.is_some() || self.registrations.serving(&pending.target).is_some();
        if is_known {
            return pending.deadline;
        }
        pending
            .deadline
            .min(pending.arrived + self.bounds.unregistered_wait)
    }

    /// Scrapes that waited for an exact name fall to the bare one once that is gone.
    fn name_is_gone(&mut self, gone: &Fqdn, now: Instant) -> Vec<(P, HandOut<S>)> {
        let waiting: Vec<ScrapeId> = self.waiting.of_host(gone.as_ref()).collect();
        let mut met = Vec::new();
        for id in waiting {
            if let Some(meeting) = self.meet(id, now) {
                self.unqueue(id);
                met.push(meeting);
            }
        }
        met
    }

    /// Whether everything that refers to something else finds it.
    #[cfg(test)]
    pub(crate) fn is_sound(&self) -> bool {
        let waits = |id: &ScrapeId| {
            self.scrapes
                .get(id)
                .is_some_and(|pending| pending.handed_out.is_none())
        };
        let handed_out = |id: &ScrapeId| self.scrapes.contains_key(id) && !waits(id);
        let count = self.scrapes.keys().filter(|id| waits(id)).count();
        self.waiting.is_sound(count, waits)
            && self.doubts.ids().all(handed_out)
            && self.registrations.is_sound()
    }
}
