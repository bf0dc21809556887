//! The polls that are parked under one name.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use tokio::time::Instant;

/// Of a poll, among all that there have been.
pub(super) type Serial = NonZeroU64;

/// At least one poll. Nearly every name has one; of a name that a whole fleet registers, nothing takes
/// a time that grows with the fleet.
#[derive(Debug)]
pub(super) enum Polls<P> {
    One(Poll<P>),
    Many(Box<Many<P>>),
}

#[derive(Debug)]
pub(super) struct Poll<P> {
    pub(super) serial: Serial,
    pub(super) handle: P,
    pub(super) ends: Option<Instant>,
}

/// At least two polls.
#[derive(Debug)]
pub(super) struct Many<P> {
    by_age: BTreeMap<Serial, Poll<P>>,
    /// Those that end by time.
    by_end: BTreeSet<(Instant, Serial)>,
}

impl<P> Polls<P> {
    pub(super) fn has(&self, serial: Serial) -> bool {
        match self {
            Self::One(poll) => poll.serial == serial,
            Self::Many(many) => many.by_age.contains_key(&serial),
        }
    }

    /// What a poll is told through.
    pub(super) fn handle(&mut self, serial: Serial) -> Option<&mut P> {
        let poll = match self {
            Self::One(poll) => (poll.serial == serial).then_some(poll),
            Self::Many(many) => many.by_age.get_mut(&serial),
        };
        poll.map(|poll| &mut poll.handle)
    }

    pub(super) fn newest(&self) -> Option<Serial> {
        match self {
            Self::One(poll) => Some(poll.serial),
            Self::Many(many) => many.by_age.keys().next_back().copied(),
        }
    }

    /// The poll that ends first by time, and when.
    pub(super) fn first_end(&self) -> Option<(Instant, Serial)> {
        match self {
            Self::One(poll) => poll.ends.map(|ends| (ends, poll.serial)),
            Self::Many(many) => many.by_end.first().copied(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let Self::Many(many) = self else { return true };
        let ends = many.by_age.values();
        let ends = ends.filter_map(|poll| poll.ends.map(|ends| (ends, poll.serial)));
        many.by_age.len() > 1 && ends.collect::<BTreeSet<_>>() == many.by_end
    }

    /// These and one more.
    pub(super) fn with(self, poll: Poll<P>) -> Self {
        let mut many = match self {
            Self::Many(many) => many,
            Self::One(other) => {
                let mut many = Many {
                    by_age: BTreeMap::new(),
                    by_end: BTreeSet::new(),
                };
                many.add(other);
                Box::new(many)
            }
        };
        many.add(poll);
        Self::Many(many)
    }

    /// The poll, if it is among these, and the others, if there are any.
    pub(super) fn without(self, serial: Serial) -> (Option<Poll<P>>, Option<Self>) {
        match self {
            Self::One(poll) if poll.serial == serial => (Some(poll), None),
            Self::One(_) => (None, Some(self)),
            Self::Many(mut many) => {
                let taken = many.take(serial);
                let others = match many.by_age.len() {
                    1 => many.by_age.pop_first().map(|(_, last)| Self::One(last)),
                    _ => Some(Self::Many(many)),
                };
                (taken, others)
            }
        }
    }
}

impl<P> Many<P> {
    fn add(&mut self, poll: Poll<P>) {
        self.by_end
            .extend(poll.ends.map(|ends| (ends, poll.serial)));
        self.by_age.insert(poll.serial, poll);
    }

    fn take(&mut self, serial: Serial) -> Option<Poll<P>> {
        let poll = self.by_age.remove(&serial)?;
        if let Some(ends) = poll.ends {
            self.by_end.remove(&(ends, serial));
        }
        Some(poll)
    }
}
