//! Who is registered, and which polls of theirs are parked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashTable;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, Target};
use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;
use tokio::time::Instant;

new_key_type! {
    /// A parked poll, until it is handed a scrape or ends.
    pub(crate) struct PollKey;
    /// A registered name, until it expires.
    pub(super) struct RegistrationKey;
}

/// Names with their parked polls, and what of them ends by time. `P` is what a poll is told
/// through.
#[derive(Debug)]
pub(super) struct Registrations<P> {
    /// How long a name outlives its last poll.
    timeout: Duration,
    max_names: usize,
    hasher: RandomState,
    /// Finds a registration by its name.
    names: HashTable<RegistrationKey>,
    registrations: SlotMap<RegistrationKey, Registration>,
    /// Registrations whose name has a port. Fleets mostly have none.
    with_port: usize,
    polls: SlotMap<PollKey, Poll<P>>,
    version: u64,
    /// When polls end by time, soonest first. The times of polls that have ended otherwise stay
    /// until they would be next, or until they outnumber the rest: nearly all polls end early, and
    /// most times are later than all before them, so that adding one is a matter of a comparison.
    poll_timers: BinaryHeap<Reverse<(Instant, PollKey)>>,
    /// Parked polls that end by time.
    timed_polls: usize,
    /// When to look at each registration next, soonest first.
    name_timers: BinaryHeap<Reverse<(Instant, RegistrationKey)>>,
}

/// A name that some client polls, or polled not long ago.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) name: Fqdn,
    /// Parked polls, the newest last.
    polls: SmallVec<[PollKey; 1]>,
    /// When the last poll ended; of no meaning while one waits.
    pub(super) idle_since: Instant,
}

#[derive(Debug)]
struct Poll<P> {
    handle: P,
    registration: RegistrationKey,
    ends: Option<Instant>,
}

/// What has ended by time.
#[derive(Debug)]
pub(super) enum Expired<P> {
    /// A poll whose wait is over.
    Poll(P),
    /// A name that nobody polls any more.
    Name(Fqdn),
}

impl<P> Registrations<P> {
    pub(super) fn new(timeout: Duration, max_names: usize) -> Self {
        Self {
            timeout,
            max_names,
            hasher: RandomState::new(),
            names: HashTable::new(),
            registrations: SlotMap::with_key(),
            with_port: 0,
            polls: SlotMap::with_key(),
            version: 0,
            poll_timers: BinaryHeap::new(),
            timed_polls: 0,
            name_timers: BinaryHeap::new(),
        }
    }

    /// The registration that serves this target: the exact name's, else the bare name's.
    pub(super) fn serving(&self, target: &Target) -> Option<&Registration> {
        let exact = match self.with_port {
            0 => None,
            _ => self.find(target.exact()),
        };
        let key = exact.or_else(|| self.find(target.bare()))?;
        self.registrations.get(key)
    }

    pub(super) fn is_registered(&self, name: FqdnRef<'_>) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Fqdn> {
        self.registrations.values().map(|r| &r.name)
    }

    /// Changes with every change of the names.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.registrations.len()
    }

    /// Registers a name, or finds it registered. `None` when there are too many.
    pub(super) fn register(&mut self, name: &Fqdn, now: Instant) -> Option<RegistrationKey> {
        if let Some(key) = self.find(name.as_ref()) {
            return Some(key);
        }
        if self.registrations.len() >= self.max_names {
            return None;
        }
        self.version += 1;
        self.with_port += usize::from(name.port().is_some());
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
        self.name_timers.push(Reverse((now + self.timeout, key)));
        Some(key)
    }

    /// Notes that a poll of this name has ended without having been parked.
    pub(super) fn touch(&mut self, key: RegistrationKey, now: Instant) {
        if let Some(registration) = self.registrations.get_mut(key) {
            registration.idle_since = now;
        }
    }

    /// Parks a poll under a name.
    pub(super) fn park(
        &mut self,
        registration: RegistrationKey,
        handle: P,
        ends: Option<Instant>,
    ) -> PollKey {
        let key = self.polls.insert(Poll {
            handle,
            registration,
            ends,
        });
        if let Some(ends) = ends {
            self.set_timer(ends, key);
        }
        if let Some(registration) = self.registrations.get_mut(registration) {
            registration.polls.push(key);
        }
        key
    }

    /// Takes a poll out. Nothing happens where it has ended already.
    pub(super) fn unpark(&mut self, key: PollKey, now: Instant) -> Option<P> {
        let poll = self.polls.remove(key)?;
        if poll.ends.is_some() {
            self.timed_polls -= 1;
        }
        if let Some(registration) = self.registrations.get_mut(poll.registration) {
            registration.polls.retain(|other| *other != key);
            registration.idle_since = now;
        }
        Some(poll.handle)
    }

    /// Takes out every parked poll.
    pub(super) fn unpark_all(&mut self, now: Instant) -> Vec<P> {
        let keys: Vec<PollKey> = self.polls.keys().collect();
        keys.into_iter()
            .filter_map(|key| self.unpark(key, now))
            .collect()
    }

    /// When something ends by time next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let poll = self.poll_timers.peek().map(|Reverse((due, _))| *due);
        let name = self.name_timers.peek().map(|Reverse((due, _))| *due);
        poll.into_iter().chain(name).min()
    }

    /// Ends the next of what is over at `now`. Leaves nothing of ended polls in front, for which
    /// nobody is to wake up.
    pub(super) fn expire_next(&mut self, now: Instant) -> Option<Expired<P>> {
        while let Some(Reverse((due, key))) = self.poll_timers.peek().copied() {
            let is_parked = self.polls.contains_key(key);
            if is_parked && due > now {
                break;
            }
            self.poll_timers.pop();
            if let Some(handle) = self.unpark(key, now) {
                return Some(Expired::Poll(handle));
            }
        }
        while let Some(Reverse((due, key))) = self.name_timers.peek().copied() {
            if due > now {
                break;
            }
            self.name_timers.pop();
            if let Some(name) = self.expire_name(key, now) {
                return Some(Expired::Name(name));
            }
        }
        None
    }

    /// Forgets a name whose time is over, or sets its timer anew: the timer is not moved at each
    /// poll, which would cost more than a look at it every few minutes.
    fn expire_name(&mut self, key: RegistrationKey, now: Instant) -> Option<Fqdn> {
        let registration = self.registrations.get(key)?;
        let last_seen = match registration.polls.is_empty() {
            true => registration.idle_since,
            false => now,
        };
        let expires = last_seen + self.timeout;
        if expires > now {
            self.name_timers.push(Reverse((expires, key)));
            return None;
        }
        let hash = self.hasher.hash_one(registration.name.as_ref());
        if let Ok(entry) = self.names.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        self.version += 1;
        let gone = self.registrations.remove(key)?.name;
        self.with_port -= usize::from(gone.port().is_some());
        Some(gone)
    }

    fn set_timer(&mut self, due: Instant, key: PollKey) {
        self.timed_polls += 1;
        if self.poll_timers.len() > 2 * self.timed_polls + MOST_SPENT_TIMERS {
            let polls = &self.polls;
            self.poll_timers
                .retain(|Reverse((_, key))| polls.contains_key(*key));
        }
        self.poll_timers.push(Reverse((due, key)));
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

    /// Whether everything that refers to something else finds it.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let parked: usize = self.registrations.values().map(|r| r.polls.len()).sum();
        let timed = self.polls.values().filter(|p| p.ends.is_some()).count();
        parked == self.polls.len()
            && self.names.len() == self.registrations.len()
            && self.with_port == self.names().filter(|name| name.port().is_some()).count()
            && self.timed_polls == timed
            && self.poll_timers.len() <= 2 * timed + MOST_SPENT_TIMERS + 1
            && self.name_timers.len() == self.registrations.len()
    }
}

impl Registration {
    /// The parked poll that is served first: the newest, whose client is the likeliest to live.
    pub(super) fn newest_poll(&self) -> Option<PollKey> {
        self.polls.last().copied()
    }
}

/// Timers of ended polls that are not worth a search.
const MOST_SPENT_TIMERS: usize = 1024;
