//! The rendezvous as a state machine: which scrape meets which parked poll.
//!
//! Nothing here waits, locks or looks at a clock. Each method is one event; what it returns says
//! who has to be told. `P` is what a parked poll is told through, `A` what a scrape's answer is
//! sent through, `S` the scrape itself.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::{HashMap, HashTable};
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId, Target};
use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::error::Failure;

new_key_type! {
    /// A parked poll, until it is handed a scrape or ends.
    pub(crate) struct PollKey;
    struct RegistrationKey;
}

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
    hasher: RandomState,
    /// Finds a registration by its name.
    names: HashTable<RegistrationKey>,
    registrations: SlotMap<RegistrationKey, Registration>,
    polls: SlotMap<PollKey, Poll<P>>,
    scrapes: HashMap<ScrapeId, Pending<A, S>, RandomState>,
    /// Scrapes without a poll, oldest first, by the bare name of their host. Empty queues go.
    waiting: HashMap<Fqdn, VecDeque<ScrapeId>, RandomState>,
    waiting_count: usize,
    /// What ends by time, soonest first: each parked poll with a wait, and each registration once.
    timers: BTreeSet<(Instant, Timer)>,
    draining: bool,
}

#[derive(Debug)]
struct Registration {
    name: Fqdn,
    /// Parked polls, the newest last.
    polls: SmallVec<[PollKey; 1]>,
    /// When the last poll ended; of no meaning while one waits.
    idle_since: Instant,
}

#[derive(Debug)]
struct Poll<P> {
    handle: P,
    registration: RegistrationKey,
    ends: Option<Instant>,
}

#[derive(Debug)]
struct Pending<A, S> {
    target: Target,
    scrape: S,
    answer: A,
    deadline: Instant,
    arrived: Instant,
    /// The name and the time of the hand-out; none while it waits.
    handed_out: Option<(Fqdn, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Poll(PollKey),
    Registration(RegistrationKey),
}

/// A scrape on its way to the poll that was chosen for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandOut<S> {
    pub(crate) id: ScrapeId,
    pub(crate) scrape: S,
    pub(crate) deadline: Instant,
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

/// A pushed answer's way to its scrape.
#[derive(Debug)]
pub(crate) struct Completion<A, S> {
    pub(crate) name: Fqdn,
    pub(crate) scrape: S,
    pub(crate) answer: A,
}

impl<P, A, S: Clone> State<P, A, S> {
    pub(crate) fn new(limits: Limits) -> Self {
        let hasher = RandomState::new();
        Self {
            limits,
            names: HashTable::new(),
            registrations: SlotMap::with_key(),
            polls: SlotMap::with_key(),
            scrapes: HashMap::with_hasher(hasher.clone()),
            waiting: HashMap::with_hasher(hasher.clone()),
            waiting_count: 0,
            timers: BTreeSet::new(),
            draining: false,
            hasher,
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
        let Some(registration) = self.register(name, now) else {
            return Parked::Refused;
        };
        if let Some(id) = self.oldest_waiting_for(name.as_ref())
            && let Some(hand_out) = self.hand_out(id, registration, now)
        {
            return Parked::Meets(handle, hand_out);
        }
        let key = self.polls.insert(Poll {
            handle,
            registration,
            ends,
        });
        if let Some(ends) = ends {
            self.timers.insert((ends, Timer::Poll(key)));
        }
        if let Some(registration) = self.registrations.get_mut(registration) {
            registration.polls.push(key);
        }
        Parked::Waits(key)
    }

    /// A parked poll ends from the client's side. Nothing happens where it has ended already.
    pub(crate) fn unpark(&mut self, key: PollKey, now: Instant) -> Option<P> {
        let poll = self.polls.remove(key)?;
        if let Some(ends) = poll.ends {
            self.timers.remove(&(ends, Timer::Poll(key)));
        }
        if let Some(registration) = self.registrations.get_mut(poll.registration) {
            registration.polls.retain(|other| *other != key);
            registration.idle_since = now;
        }
        Some(poll.handle)
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
        let pending = Pending {
            target,
            scrape,
            answer,
            deadline,
            arrived: now,
            handed_out: None,
        };
        let queued = self
            .waiting
            .get(&pending.target.bare())
            .map_or(0, VecDeque::len);
        let is_full =
            self.waiting_count >= self.limits.waiting || queued >= self.limits.waiting_per_host;
        if is_full && self.free_poll_for(&pending.target).is_none() {
            return Arrival::Refused(Failure::TooManyWaiting);
        }
        self.scrapes.insert(id, pending);
        self.match_or_queue(id, now)
    }

    /// A hand-out did not reach its poll's client, so nobody has seen it: it looks for another.
    /// `None` when the scrape has ended meanwhile.
    pub(crate) fn give_back(&mut self, id: ScrapeId, now: Instant) -> Option<Arrival<P, S>> {
        self.scrapes.get_mut(&id)?.handed_out = None;
        if self.draining {
            self.scrapes.remove(&id);
            return None;
        }
        Some(self.match_or_queue(id, now))
    }

    /// A scrape's time has come: it is over, or is to be asked again at the time given.
    pub(crate) fn timed_out(&mut self, id: ScrapeId, now: Instant) -> Result<Instant, Failure> {
        let Some(pending) = self.scrapes.get(&id) else {
            return Err(Failure::ShuttingDown);
        };
        let until = self.wait_limit(pending);
        if now < until {
            return Ok(until);
        }
        let failure = match &pending.handed_out {
            Some((name, since)) => Failure::NotAnswered {
                name: name.to_string(),
                after: now.duration_since(*since),
            },
            None => match self.registration_for(&pending.target) {
                Some(registration) => Failure::NotPolled {
                    name: registration.name.to_string(),
                    since: now.duration_since(registration.idle_since),
                },
                None => Failure::NotRegistered {
                    name: pending.target.to_string(),
                },
            },
        };
        self.cancel(id);
        Err(failure)
    }

    /// A scrape ends from Prometheus's side, or has been answered: it is forgotten.
    pub(crate) fn cancel(&mut self, id: ScrapeId) {
        if let Some(pending) = self.scrapes.remove(&id)
            && pending.handed_out.is_none()
        {
            self.unqueue(id, &pending.target);
        }
    }

    /// An answer was pushed under this id. `None` when no client has a scrape of that id in hand:
    /// it is unknown, over, or was answered before.
    pub(crate) fn complete(&mut self, id: ScrapeId) -> Option<Completion<A, S>> {
        let handed_out = self.scrapes.get(&id)?.handed_out.is_some();
        let pending = handed_out.then(|| self.scrapes.remove(&id)).flatten()?;
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
        while let Some(&(due, timer)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Poll(key) => ended.extend(self.unpark(key, now)),
                Timer::Registration(key) => met.extend(self.expire_registration(key, now)),
            }
        }
        (ended, met)
    }

    /// When [`State::expire`] has something to do next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// No more polls and scrapes from now on. Scrapes that no client has in hand are over: what
    /// their answers were to be sent through is dropped.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
        self.waiting_count = 0;
        self.scrapes
            .retain(|_, pending| pending.handed_out.is_some());
    }

    /// Names that are registered, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Fqdn> {
        self.registrations.values().map(|r| &r.name)
    }

    pub(crate) fn name_count(&self) -> usize {
        self.registrations.len()
    }

    /// Scrapes that wait or are in a client's hands.
    pub(crate) fn scrape_count(&self) -> usize {
        self.scrapes.len()
    }

    fn match_or_queue(&mut self, id: ScrapeId, now: Instant) -> Arrival<P, S> {
        if let Some((poll, hand_out)) = self.try_match(id, now) {
            return Arrival::Meets(poll, hand_out);
        }
        let Some(pending) = self.scrapes.get(&id) else {
            return Arrival::Refused(Failure::ShuttingDown);
        };
        let until = self.wait_limit(pending);
        let arrived = pending.arrived;
        let target = pending.target.clone();
        let queue = self.waiting.entry(target.into_bare()).or_default();
        // One that comes back from a dead client has waited longer than those that came after it.
        let scrapes = &self.scrapes;
        let place = queue.partition_point(|other| {
            scrapes
                .get(other)
                .is_some_and(|other| other.arrived <= arrived)
        });
        queue.insert(place, id);
        self.waiting_count += 1;
        Arrival::Waits(until)
    }

    /// Hands a scrape that is in no queue to the newest poll that may take it.
    fn try_match(&mut self, id: ScrapeId, now: Instant) -> Option<(P, HandOut<S>)> {
        let key = self.free_poll_for(&self.scrapes.get(&id)?.target)?;
        let registration = self.polls.get(key)?.registration;
        let handle = self.unpark(key, now)?;
        let hand_out = self.take(id, registration, now)?;
        Some((handle, hand_out))
    }

    fn free_poll_for(&self, target: &Target) -> Option<PollKey> {
        self.registration_for(target)?.polls.last().copied()
    }

    /// Takes a scrape out of its queue for a poll of this registration.
    fn hand_out(
        &mut self,
        id: ScrapeId,
        registration: RegistrationKey,
        now: Instant,
    ) -> Option<HandOut<S>> {
        let target = self.scrapes.get(&id)?.target.clone();
        self.unqueue(id, &target);
        if let Some(registration) = self.registrations.get_mut(registration) {
            registration.idle_since = now;
        }
        self.take(id, registration, now)
    }

    fn take(
        &mut self,
        id: ScrapeId,
        registration: RegistrationKey,
        now: Instant,
    ) -> Option<HandOut<S>> {
        let name = self.registrations.get(registration)?.name.clone();
        let pending = self.scrapes.get_mut(&id)?;
        pending.handed_out = Some((name, now));
        Some(HandOut {
            id,
            scrape: pending.scrape.clone(),
            deadline: pending.deadline,
        })
    }

    /// The oldest scrape that a client of this name may answer. A bare name answers only for ports
    /// that nobody has registered exactly.
    fn oldest_waiting_for(&self, name: FqdnRef<'_>) -> Option<ScrapeId> {
        let bare = FqdnRef {
            host: name.host,
            port: None,
        };
        let queue = self.waiting.get(&bare)?;
        queue.iter().copied().find(|id| {
            self.scrapes.get(id).is_some_and(|pending| match name.port {
                Some(_) => pending.target.exact() == name,
                None => self.find(pending.target.exact()).is_none(),
            })
        })
    }

    fn unqueue(&mut self, id: ScrapeId, target: &Target) {
        if let Some(queue) = self.waiting.get_mut(&target.bare()) {
            let before = queue.len();
            queue.retain(|other| *other != id);
            self.waiting_count -= before - queue.len();
            if queue.is_empty() {
                self.waiting.remove(&target.bare());
            }
        }
    }

    /// How long this scrape may wait as things are: to its deadline, or less where nobody has
    /// registered its target.
    fn wait_limit(&self, pending: &Pending<A, S>) -> Instant {
        let known =
            pending.handed_out.is_some() || self.registration_for(&pending.target).is_some();
        if known {
            return pending.deadline;
        }
        pending
            .deadline
            .min(pending.arrived + self.limits.unregistered_wait)
    }

    fn registration_for(&self, target: &Target) -> Option<&Registration> {
        let key = self
            .find(target.exact())
            .or_else(|| self.find(target.bare()))?;
        self.registrations.get(key)
    }

    fn find(&self, name: FqdnRef<'_>) -> Option<RegistrationKey> {
        let is_name = |key: &RegistrationKey| {
            self.registrations
                .get(*key)
                .is_some_and(|registration| registration.name.as_ref() == name)
        };
        self.names
            .find(self.hasher.hash_one(name), is_name)
            .copied()
    }

    fn register(&mut self, name: &Fqdn, now: Instant) -> Option<RegistrationKey> {
        if let Some(key) = self.find(name.as_ref()) {
            return Some(key);
        }
        if self.registrations.len() >= self.limits.names {
            return None;
        }
        let key = self.registrations.insert(Registration {
            name: name.clone(),
            polls: SmallVec::new(),
            idle_since: now,
        });
        let (registrations, hasher) = (&self.registrations, &self.hasher);
        let hash = |key: &RegistrationKey| match registrations.get(*key) {
            Some(registration) => hasher.hash_one(registration.name.as_ref()),
            None => 0,
        };
        self.names
            .insert_unique(hasher.hash_one(name.as_ref()), key, hash);
        let expires = now + self.limits.registration_timeout;
        self.timers.insert((expires, Timer::Registration(key)));
        Some(key)
    }

    /// Forgets a name whose time is over, or sets its timer anew: it is not moved at each poll.
    fn expire_registration(&mut self, key: RegistrationKey, now: Instant) -> Vec<(P, HandOut<S>)> {
        let Some(registration) = self.registrations.get(key) else {
            return Vec::new();
        };
        let last_seen = match registration.polls.is_empty() {
            true => registration.idle_since,
            false => now,
        };
        let expires = last_seen + self.limits.registration_timeout;
        if expires > now {
            self.timers.insert((expires, Timer::Registration(key)));
            return Vec::new();
        }
        let hash = self.hasher.hash_one(registration.name.as_ref());
        if let Ok(entry) = self.names.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        match self.registrations.remove(key) {
            Some(gone) if gone.name.port().is_some() => self.match_waiting(&gone.name, now),
            _ => Vec::new(),
        }
    }

    /// Scrapes that waited for an exact name fall to the bare one once that is gone.
    fn match_waiting(&mut self, gone: &Fqdn, now: Instant) -> Vec<(P, HandOut<S>)> {
        let bare = FqdnRef {
            host: gone.host(),
            port: None,
        };
        let Some(queue) = self.waiting.get(&bare) else {
            return Vec::new();
        };
        let mut met = Vec::new();
        for id in Vec::from_iter(queue.iter().copied()) {
            let Some(target) = self.scrapes.get(&id).map(|p| p.target.clone()) else {
                continue;
            };
            if let Some(meeting) = self.try_match(id, now) {
                self.unqueue(id, &target);
                met.push(meeting);
            }
        }
        met
    }
}
