//! The rendezvous as a state machine: which scrape meets which parked poll.
//!
//! Nothing here waits, locks or looks at a clock. Each method is one event; what it returns says
//! who has to be told. `P` is what a parked poll is told through, `A` what a scrape's answer is
//! sent through, `S` the scrape itself.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use hashbrown::HashMap;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId, Target};
use tokio::time::Instant;

pub(crate) use super::registrations::PollKey;
use super::registrations::{Expired, Registrations};
use crate::error::Failure;

/// Bounds on what peers can make the state hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a name outlives its last poll.
    pub(crate) registration_timeout: Duration,
    /// How long a scrape waits for a name that nobody has registered.
    pub(crate) unregistered_wait: Duration,
    /// Names registered at once.
    pub(crate) names: usize,
    /// Scrapes that wait for a poll, in all.
    pub(crate) waiting: usize,
    /// Scrapes that wait for a poll of one host.
    pub(crate) waiting_per_host: usize,
}

#[derive(Debug)]
pub(crate) struct State<P, A, S> {
    limits: Limits,
    registrations: Registrations<P>,
    scrapes: HashMap<ScrapeId, Pending<A, S>, BuildHasherDefault<IdHasher>>,
    /// Scrapes without a poll, oldest first, by the bare name of their host. Empty queues go.
    waiting: HashMap<Fqdn, VecDeque<ScrapeId>, RandomState>,
    waiting_count: usize,
    arrivals: u64,
    draining: bool,
}

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
}

/// A scrape on its way to the poll that was chosen for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandOut<S> {
    pub(crate) id: ScrapeId,
    pub(crate) scrape: S,
}

/// What became of a poll that arrived.
#[derive(Debug)]
pub(crate) enum Parked<P, S> {
    /// It waits under this key.
    Waits(PollKey),
    /// A scrape was waiting for it.
    Meets(P, HandOut<S>),
    /// The limit of names is reached, or the proxy drains.
    Refused,
}

/// What became of a scrape that arrived or came back.
#[derive(Debug)]
pub(crate) enum Arrival<P, S> {
    /// It goes to this poll.
    Meets(P, HandOut<S>),
    /// It waits. Its state is to be asked again at this time.
    Waits(Instant),
    /// It is over already.
    Refused(Failure),
}

/// What became of a scrape whose time has come.
#[derive(Debug)]
pub(crate) enum Due<A> {
    /// It may wait until this time.
    Later(Instant),
    /// It is over, and to be told so.
    Over(A, Failure),
}

/// A pushed answer's way to its scrape.
#[derive(Debug)]
pub(crate) struct Completion<A, S> {
    pub(crate) name: Fqdn,
    pub(crate) scrape: S,
    pub(crate) answer: A,
}

/// Takes ids for what they are: only this proxy makes them, and they are random.
#[derive(Debug, Default)]
struct IdHasher(u64);

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
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            registrations: Registrations::new(limits.registration_timeout, limits.names),
            scrapes: HashMap::default(),
            waiting: HashMap::default(),
            waiting_count: 0,
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
        let Some(registration) = self.registrations.register(name, now) else {
            return Parked::Refused;
        };
        if let Some((id, target)) = self.oldest_waiting_for(name.as_ref()) {
            self.unqueue(id, &target);
            self.registrations.touch(registration, now);
            if let Some(hand_out) = self.hand_out(id, name.clone(), now) {
                return Parked::Meets(handle, hand_out);
            }
        }
        Parked::Waits(self.registrations.park(registration, handle, ends))
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
        if self.is_full(&target) && self.poll_for(&target).is_none() {
            return Arrival::Refused(Failure::TooManyWaiting);
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
        };
        self.scrapes.insert(id, pending);
        self.meet_or_wait(id, now)
    }

    /// A hand-out did not reach its poll's client, so nobody has seen it: it looks for another.
    /// `None` when the scrape has ended meanwhile.
    pub(crate) fn give_back(&mut self, id: ScrapeId, now: Instant) -> Option<Arrival<P, S>> {
        self.scrapes.get_mut(&id)?.handed_out = None;
        if self.draining {
            self.scrapes.remove(&id);
            return None;
        }
        Some(self.meet_or_wait(id, now))
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
                since: now.duration_since(registration.idle_since),
            },
            (None, None) => Failure::NotRegistered {
                name: pending.target.to_string(),
            },
        };
        Some(Due::Over(self.remove(id)?, failure))
    }

    /// A scrape ends from Prometheus's side, or has been answered: it is forgotten.
    pub(crate) fn cancel(&mut self, id: ScrapeId) {
        self.remove(id);
    }

    /// Takes a scrape out wherever it is: what its answer was to be sent through comes back.
    fn remove(&mut self, id: ScrapeId) -> Option<A> {
        let pending = self.scrapes.remove(&id)?;
        if pending.handed_out.is_none() {
            self.unqueue(id, &pending.target);
        }
        Some(pending.answer)
    }

    /// Whether a scrape of this id waits or is in a client's hands.
    pub(crate) fn has(&self, id: ScrapeId) -> bool {
        self.scrapes.contains_key(&id)
    }

    /// The scrape of this id, where a client has it in hand.
    pub(crate) fn in_hand(&self, id: ScrapeId) -> Option<&S> {
        let pending = self.scrapes.get(&id)?;
        pending.handed_out.as_ref().map(|_| &pending.scrape)
    }

    /// An answer was pushed under this id. `None` when no client has a scrape of that id in hand:
    /// it is unknown, over, or was answered before.
    pub(crate) fn complete(&mut self, id: ScrapeId) -> Option<Completion<A, S>> {
        self.scrapes.get(&id)?.handed_out.as_ref()?;
        let pending = self.scrapes.remove(&id)?;
        let (name, _) = pending.handed_out?;
        Some(Completion {
            name,
            scrape: pending.scrape,
            answer: pending.answer,
        })
    }

    /// Ends what is over: the polls returned are to be told, names are forgotten, and scrapes that
    /// waited for a name that is gone may meet another.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<P>, Vec<(P, HandOut<S>)>) {
        let (mut ended, mut met) = (Vec::new(), Vec::new());
        while let Some(expired) = self.registrations.expire_next(now) {
            match expired {
                Expired::Poll(poll) => ended.push(poll),
                Expired::Name(name) => met.extend(self.name_is_gone(&name, now)),
            }
        }
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
        self.waiting_count = 0;
        let waits = |_: &ScrapeId, pending: &mut Pending<A, S>| pending.handed_out.is_none();
        let over = self.scrapes.extract_if(waits).map(|(_, p)| p.answer);
        (self.registrations.unpark_all(now), over.collect())
    }

    /// Gives up the scrapes that clients have in hand: what their answers were to be sent through
    /// comes back.
    pub(crate) fn abandon(&mut self) -> Vec<A> {
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

    fn is_full(&self, target: &Target) -> bool {
        let queued = self.waiting.get(&target.bare()).map_or(0, VecDeque::len);
        self.waiting_count >= self.limits.waiting || queued >= self.limits.waiting_per_host
    }

    fn poll_for(&self, target: &Target) -> Option<PollKey> {
        self.registrations.serving(target)?.newest_poll()
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
        let order = pending.order;
        let bare = pending.target.clone().into_bare();
        let scrapes = &self.scrapes;
        let is_older = |other: &ScrapeId| scrapes.get(other).is_some_and(|p| p.order < order);
        let queue = self.waiting.entry(bare).or_default();
        // One that comes back from a dead client is older than those that came after it.
        queue.insert(queue.partition_point(is_older), id);
        self.waiting_count += 1;
        Arrival::Waits(until)
    }

    /// Hands a scrape to the newest poll that may take it.
    fn meet(&mut self, id: ScrapeId, now: Instant) -> Option<(P, HandOut<S>)> {
        let target = &self.scrapes.get(&id)?.target;
        let registration = self.registrations.serving(target)?;
        let poll = registration.newest_poll()?;
        let name = registration.name.clone();
        let handle = self.registrations.unpark(poll, now)?;
        Some((handle, self.hand_out(id, name, now)?))
    }

    fn hand_out(&mut self, id: ScrapeId, name: Fqdn, now: Instant) -> Option<HandOut<S>> {
        let pending = self.scrapes.get_mut(&id)?;
        pending.handed_out = Some((name, now));
        let scrape = pending.scrape.clone();
        Some(HandOut { id, scrape })
    }

    /// The oldest scrape that a client of this name may answer. A bare name answers only for ports
    /// that nobody has registered exactly.
    fn oldest_waiting_for(&self, name: FqdnRef<'_>) -> Option<(ScrapeId, Target)> {
        let bare = FqdnRef { port: None, ..name };
        let may_answer = |pending: &Pending<A, S>| match name.port {
            Some(_) => pending.target.exact() == name,
            None => !self.registrations.is_registered(pending.target.exact()),
        };
        self.waiting.get(&bare)?.iter().find_map(|id| {
            let pending = self.scrapes.get(id)?;
            may_answer(pending).then(|| (*id, pending.target.clone()))
        })
    }

    fn unqueue(&mut self, id: ScrapeId, target: &Target) {
        let bare = target.bare();
        if let Some(queue) = self.waiting.get_mut(&bare) {
            let before = queue.len();
            queue.retain(|other| *other != id);
            self.waiting_count -= before - queue.len();
            if queue.is_empty() {
                self.waiting.remove(&bare);
            }
        }
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
            .min(pending.arrived + self.limits.unregistered_wait)
    }

    /// Scrapes that waited for an exact name fall to the bare one once that is gone.
    fn name_is_gone(&mut self, gone: &Fqdn, now: Instant) -> Vec<(P, HandOut<S>)> {
        let bare = FqdnRef {
            port: None,
            ..gone.as_ref()
        };
        let queue = self.waiting.get(&bare);
        let target_of = |id: &ScrapeId| Some((*id, self.scrapes.get(id)?.target.clone()));
        let waiting: Vec<(ScrapeId, Target)> =
            queue.into_iter().flatten().filter_map(target_of).collect();
        let mut met = Vec::new();
        for (id, target) in waiting {
            if let Some(meeting) = self.meet(id, now) {
                self.unqueue(id, &target);
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
        let queued: usize = self.waiting.values().map(VecDeque::len).sum();
        queued == self.waiting_count
            && queued == self.scrapes.keys().filter(|id| waits(id)).count()
            && self.waiting.values().all(|queue| !queue.is_empty())
            && self.waiting.values().flatten().all(waits)
            && self.registrations.is_sound()
    }
}
