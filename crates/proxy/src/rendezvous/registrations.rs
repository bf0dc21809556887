//! Who is registered, and which polls of theirs are parked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashTable;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, Target};
use tokio::time::Instant;

use super::polls::{Poll, Polls, Serial};

/// A parked poll, until it is handed a scrape or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PollKey {
    name: NameHash,
    serial: Serial,
}

/// A name as it is looked up: its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameHash(u64);

/// Names with their parked polls, and what of them ends by time. `P` is what a poll is told
/// through.
#[derive(Debug)]
pub(super) struct Registrations<P> {
    /// How long a name outlives its last poll.
    timeout: Duration,
    max_names: usize,
    hasher: RandomState,
    /// All that there is of a name stands in its place here: most have been left alone for long when
    /// they are looked for, and what is elsewhere would have to be fetched from there, too.
    names: HashTable<Registration<P>>,
    /// Registrations whose name has a port. Fleets mostly have none.
    with_port: usize,
    last_serial: Serial,
    version: u64,
    /// When to look at each registration next, soonest first. What comes to nothing, since the poll
    /// has ended otherwise, is found at the look: a timer is set at a poll only where the
    /// registration would not be looked at in time.
    timers: BinaryHeap<Reverse<(Instant, NameHash)>>,
}

/// A name that some client polls, or polled not long ago. It is as large as two lines of the
/// processor's cache, and takes no more of them.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Registration<P> {
    pub(super) name: Fqdn,
    presence: Presence<P>,
    /// When it is looked at next.
    timer: Instant,
}

#[derive(Debug)]
enum Presence<P> {
    Waits(Polls<P>),
    /// When the last poll ended.
    Idle(Instant),
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
            with_port: 0,
            last_serial: Serial::MIN,
            version: 0,
            timers: BinaryHeap::new(),
        }
    }

    /// The registration that serves this target: the exact name's, else the bare name's.
    pub(super) fn serving(&self, target: &Target) -> Option<&Registration<P>> {
        let exact = match self.with_port {
            0 => None,
            _ => self.find(target.exact()),
        };
        exact.or_else(|| self.find(target.bare()))
    }

    pub(super) fn is_registered(&self, name: FqdnRef<'_>) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Fqdn> {
        self.names.iter().map(|registration| &registration.name)
    }

    /// Changes with every change of the names.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Registers a name, or finds it registered. `None` when there are too many.
    pub(super) fn register(&mut self, name: &Fqdn, now: Instant) -> Option<NameHash> {
        let hash = self.hash(name.as_ref());
        if self.registration(hash, name).is_some() {
            return Some(hash);
        }
        if self.names.len() >= self.max_names {
            return None;
        }
        self.version += 1;
        self.with_port += usize::from(name.port().is_some());
        let registration = Registration {
            name: name.clone(),
            presence: Presence::Idle(now),
            timer: now + self.timeout,
        };
        self.timers.push(Reverse((registration.timer, hash)));
        let hasher = &self.hasher;
        let rehash = |other: &Registration<P>| hasher.hash_one(other.name.as_ref());
        self.names.insert_unique(hash.0, registration, rehash);
        Some(hash)
    }

    /// Notes that a poll of this name has ended without having been parked.
    pub(super) fn touch(&mut self, hash: NameHash, name: &Fqdn, now: Instant) {
        if let Some(Registration {
            presence: Presence::Idle(since),
            ..
        }) = self.registration(hash, name)
        {
            *since = now;
        }
    }

    /// Parks a poll under a registered name.
    pub(super) fn park(
        &mut self,
        hash: NameHash,
        name: &Fqdn,
        handle: P,
        ends: Option<Instant>,
    ) -> PollKey {
        let serial = self.last_serial.saturating_add(1);
        self.last_serial = serial;
        let key = PollKey { name: hash, serial };
        let Some(registration) = self.registration(hash, name) else {
            return key;
        };
        registration.add(Poll {
            serial,
            handle,
            ends,
        });
        if let Some(ends) = ends.filter(|ends| *ends < registration.timer) {
            registration.timer = ends;
            self.set_timer(ends, hash);
        }
        key
    }

    /// Takes the newest poll out that may serve this target, with the name that it waited under.
    pub(super) fn take_newest(&mut self, target: &Target, now: Instant) -> Option<(Fqdn, P)> {
        let exact = self.with_port > 0 && self.is_registered(target.exact());
        let name = if exact { target.exact() } else { target.bare() };
        let hash = self.hash(name);
        let registration = self.names.find_mut(hash.0, |r| r.name.as_ref() == name)?;
        let handle = registration.take(now, Polls::newest)?;
        Some((registration.name.clone(), handle))
    }

    /// What a parked poll is told through.
    pub(super) fn parked(&mut self, key: PollKey) -> Option<&mut P> {
        match &mut self.holding(key)?.presence {
            Presence::Waits(polls) => polls.handle(key.serial),
            Presence::Idle(_) => None,
        }
    }

    /// Takes a poll out. Nothing happens where it has ended already.
    pub(super) fn unpark(&mut self, key: PollKey, now: Instant) -> Option<P> {
        self.holding(key)?.take(now, |_| Some(key.serial))
    }

    /// Takes out every parked poll.
    pub(super) fn unpark_all(&mut self, now: Instant) -> Vec<P> {
        let mut all = Vec::new();
        for registration in self.names.iter_mut() {
            while let Some(handle) = registration.take(now, Polls::newest) {
                all.push(handle);
            }
        }
        all
    }

    /// When something may end by time next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Ends the next of what is over at `now`. Timers that would come soon, and to nothing, are set
    /// anew together: nobody is to wake up for each of them.
    pub(super) fn expire_next(&mut self, now: Instant) -> Option<Expired<P>> {
        while let Some(Reverse((due, hash))) = self.timers.peek().copied() {
            if due > now + SOON {
                break;
            }
            let is_timed = is_timed(&self.hasher, due, hash);
            let Ok(mut entry) = self.names.find_entry(hash.0, is_timed) else {
                // It was set anew for a time before that.
                self.timers.pop();
                continue;
            };
            let registration = entry.get_mut();
            if let Some(handle) = registration.take(now, over(now)) {
                return Some(Expired::Poll(handle));
            }
            let next = registration.next_look(now, self.timeout);
            if next <= now {
                self.timers.pop();
                self.version += 1;
                let (Registration { name, .. }, _) = entry.remove();
                self.with_port -= usize::from(name.port().is_some());
                return Some(Expired::Name(name));
            }
            if next <= due {
                break;
            }
            registration.timer = next;
            self.timers.pop();
            self.timers.push(Reverse((next, hash)));
        }
        None
    }

    fn set_timer(&mut self, due: Instant, hash: NameHash) {
        if self.timers.len() > 2 * self.names.len() + MOST_SPENT_TIMERS {
            let (names, hasher) = (&self.names, &self.hasher);
            self.timers.retain(|Reverse((due, hash))| {
                let is_timed = is_timed(hasher, *due, *hash);
                names.find(hash.0, is_timed).is_some()
            });
        }
        self.timers.push(Reverse((due, hash)));
    }

    fn hash(&self, name: FqdnRef<'_>) -> NameHash {
        NameHash(self.hasher.hash_one(name))
    }

    fn find(&self, name: FqdnRef<'_>) -> Option<&Registration<P>> {
        let hash = self.hash(name);
        self.names.find(hash.0, |r| r.name.as_ref() == name)
    }

    fn registration(&mut self, hash: NameHash, name: &Fqdn) -> Option<&mut Registration<P>> {
        self.names.find_mut(hash.0, |r| r.name == *name)
    }

    fn holding(&mut self, key: PollKey) -> Option<&mut Registration<P>> {
        let holds = |r: &Registration<P>| matches!(&r.presence, Presence::Waits(polls) if polls.has(key.serial));
        self.names.find_mut(key.name.0, holds)
    }

    /// Whether everything that refers to something else finds it.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let timers: std::collections::BTreeSet<_> = self.timers.iter().map(|t| t.0).collect();
        let is_sound = |r: &Registration<P>| {
            timers.contains(&(r.timer, self.hash(r.name.as_ref())))
                && match &r.presence {
                    Presence::Waits(polls) => {
                        polls.is_sound()
                            && polls.first_end().is_none_or(|(ends, _)| r.timer <= ends)
                    }
                    Presence::Idle(_) => true,
                }
        };
        self.names.iter().all(is_sound)
            && self.with_port == self.names().filter(|name| name.port().is_some()).count()
            && self.timers.len() <= 2 * self.names.len() + MOST_SPENT_TIMERS + 1
    }
}

impl<P> Registration<P> {
    /// When the last poll ended, unless one waits.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.presence {
            Presence::Waits(_) => None,
            Presence::Idle(since) => Some(since),
        }
    }

    fn add(&mut self, poll: Poll<P>) {
        let polls = match std::mem::replace(&mut self.presence, Presence::Idle(self.timer)) {
            Presence::Waits(polls) => polls.with(poll),
            Presence::Idle(_) => Polls::One(poll),
        };
        self.presence = Presence::Waits(polls);
    }

    /// Takes out the poll that is chosen, if it is there.
    fn take(
        &mut self,
        now: Instant,
        choose: impl FnOnce(&Polls<P>) -> Option<Serial>,
    ) -> Option<P> {
        let Presence::Waits(polls) = &self.presence else {
            return None;
        };
        let serial = choose(polls)?;
        let Presence::Waits(polls) = std::mem::replace(&mut self.presence, Presence::Idle(now))
        else {
            return None;
        };
        let (taken, others) = polls.without(serial);
        if let Some(others) = others {
            self.presence = Presence::Waits(others);
        }
        taken.map(|poll| poll.handle)
    }

    /// When something of it ends, or it is to be looked at again.
    fn next_look(&self, now: Instant, timeout: Duration) -> Instant {
        match &self.presence {
            Presence::Idle(since) => *since + timeout,
            Presence::Waits(polls) => {
                let end = polls.first_end().map(|(ends, _)| ends);
                end.into_iter().fold(now + timeout, Instant::min)
            }
        }
    }
}

/// Whether a timer is a registration's own. The table takes a part of the hash for the whole.
fn is_timed<P>(
    hasher: &RandomState,
    due: Instant,
    hash: NameHash,
) -> impl Fn(&Registration<P>) -> bool {
    move |other| other.timer == due && hasher.hash_one(other.name.as_ref()) == hash.0
}

/// Chooses a poll whose time is over.
fn over<P>(now: Instant) -> impl FnOnce(&Polls<P>) -> Option<Serial> {
    move |polls| {
        let first = polls.first_end();
        first.and_then(|(ends, serial)| (ends <= now).then_some(serial))
    }
}

/// Timers that come to nothing and are not worth a search.
const MOST_SPENT_TIMERS: usize = 1024;

/// So close together, timers are looked at together.
const SOON: Duration = Duration::from_secs(1);
