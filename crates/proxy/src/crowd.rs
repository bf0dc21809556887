//! All connections, and who has to go when there are more than there may be.
//!
//! A connection has a place from its first request on. Until then it is a newcomer, and it stays one
//! while it is told that there is no place. Newcomers share the places that nobody has, and a few
//! spare ones. Where these are taken, whoever has been a newcomer for the longest makes room for the
//! next: so each is heard for a while, however many come, and one that speaks at once is heard to
//! its end. The silent and those that have said something sensible, if only the first word of TLS,
//! cannot crowd each other out: the larger of the two groups makes room. Whoever has a place keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use pushprox_daemon::listen::Shortage;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// All connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// A task for each, newcomers among them.
    pub(crate) connections: TaskTracker,
    /// A newcomer whose sender is dropped has to leave.
    newcomers: Mutex<Newcomers<oneshot::Sender<()>>>,
    shortage: Mutex<Shortage>,
}

/// A connection that has no place.
#[derive(Debug)]
pub(crate) struct Newcomer {
    crowd: Arc<Crowd>,
    number: u64,
    leave: oneshot::Receiver<()>,
}

/// Whether a newcomer has found a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Yes,
    /// All places are taken.
    NoPlace,
    /// It has to leave, whatever places there are.
    TurnedOut,
}

/// Who has no place, by the number of its coming, each with what tells it to leave.
#[derive(Debug)]
struct Newcomers<T> {
    /// Places in all.
    limit: usize,
    next: u64,
    silent: BTreeMap<u64, T>,
    heard: BTreeMap<u64, T>,
    /// Those that have been told to leave and have not left yet. They have no place either.
    leaving: BTreeSet<u64>,
}

impl Crowd {
    /// One with room for `limit` connections; 0 is for any number.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            connections: TaskTracker::new(),
            newcomers: Mutex::new(Newcomers::new(limit)),
            shortage: Mutex::default(),
        }
    }

    /// Makes room for one more connection.
    pub(crate) async fn make_room(&self) {
        loop {
            let connections = self.connections.len();
            let oldest = self.newcomers.lock().make_room(connections);
            if oldest.is_none() {
                return;
            }
            drop(oldest);
            self.tell();
            // It is gone once its task has had its turn. So have the others by then, which keeps a
            // flood from being accepted faster than it is heard.
            yield_now().await;
        }
    }

    /// Has the oldest newcomer leave. Whether there is one.
    pub(crate) fn turn_out_oldest(&self) -> bool {
        let oldest = self.newcomers.lock().turn_out_oldest();
        oldest.is_some()
    }

    /// A connection that has just been accepted.
    pub(crate) fn join(self: &Arc<Self>) -> Newcomer {
        let (told_by, leave) = oneshot::channel();
        Newcomer {
            crowd: self.clone(),
            number: self.newcomers.lock().join(told_by),
            leave,
        }
    }

    fn tell(&self) {
        if self.shortage.lock().begins(Instant::now()) {
            warn!(
                connections = self.connections.len(),
                "there are too many connections, the silent and the newest are turned away"
            );
        }
    }
}

impl Newcomer {
    /// Takes a place, for as long as the connection lasts, if there is one.
    pub(crate) fn settle(&self) -> Settled {
        let crowd = &self.crowd;
        let connections = crowd.connections.len();
        let settled = crowd.newcomers.lock().settle(self.number, connections);
        if settled == Settled::NoPlace {
            crowd.tell();
        }
        settled
    }

    /// What notes that it has said something sensible.
    pub(crate) fn spoken(&self) -> impl FnOnce() + Send + use<> {
        let (crowd, number) = (self.crowd.clone(), self.number);
        move || crowd.newcomers.lock().hear(number)
    }

    /// Waits until it has to make room for the next. Cancel safe.
    pub(crate) async fn is_turned_out(&mut self) {
        // Nothing is ever sent.
        (&mut self.leave).await.ok();
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let gone = self.crowd.newcomers.lock().remove(self.number);
        drop(gone);
    }
}

impl<T> Newcomers<T> {
    fn new(limit: usize) -> Self {
        Self {
            limit: if limit == 0 { usize::MAX } else { limit },
            next: 0,
            silent: BTreeMap::new(),
            heard: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    fn join(&mut self, told_by: T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.silent.insert(number, told_by);
        number
    }

    fn hear(&mut self, number: u64) {
        if let Some(told_by) = self.silent.remove(&number) {
            self.heard.insert(number, told_by);
        }
    }

    /// Who has to leave before one more may come to so many `connections`.
    fn make_room(&mut self, connections: usize) -> Option<T> {
        if connections < self.limit.saturating_add(SPARE) {
            return None;
        }
        self.turn_out_oldest()
    }

    fn turn_out_oldest(&mut self) -> Option<T> {
        let larger = match self.silent.len() >= self.heard.len() {
            true => &mut self.silent,
            false => &mut self.heard,
        };
        let (number, oldest) = larger.pop_first()?;
        self.leaving.insert(number);
        Some(oldest)
    }

    /// Gives one of so many `connections` a place, if there is one. It cannot be told to leave then.
    fn settle(&mut self, number: u64, connections: usize) -> Settled {
        if self.leaving.contains(&number) {
            return Settled::TurnedOut;
        }
        let newcomers = self.silent.len() + self.heard.len() + self.leaving.len();
        if connections.saturating_sub(newcomers) >= self.limit {
            return Settled::NoPlace;
        }
        // What would tell it to leave is dropped with nobody listening.
        self.remove(number);
        Settled::Yes
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        self.leaving.remove(&number);
        let silent = self.silent.remove(&number);
        silent.or_else(|| self.heard.remove(&number))
    }
}

/// How many connections there may be that have no place, when all places are taken. The limit on
/// open files leaves room for them.
const SPARE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// So many newcomers, each told by its own number.
    fn newcomers(limit: usize, count: u64) -> Newcomers<u64> {
        let mut newcomers = Newcomers::new(limit);
        for number in 0..count {
            assert_eq!(newcomers.join(number), number);
        }
        newcomers
    }

    #[test]
    fn the_oldest_newcomer_makes_room_for_the_next() {
        let mut newcomers = newcomers(4, 20);
        assert_eq!(newcomers.make_room(19), None);
        assert_eq!(newcomers.make_room(20), Some(0));
        assert_eq!(newcomers.join(20), 20);
        assert_eq!(newcomers.make_room(20), Some(1));
        // One that leaves by itself makes room, too.
        newcomers.remove(2);
        assert_eq!(newcomers.make_room(19), None);
        assert_eq!(newcomers.make_room(20), Some(3));
    }

    #[test]
    fn neither_the_silent_nor_those_that_speak_crowd_the_others_out() {
        let mut newcomers = newcomers(4, 8);
        for number in [1, 3, 5, 6, 7] {
            newcomers.hear(number);
        }
        let turned_out: Vec<_> = std::iter::from_fn(|| newcomers.make_room(20)).collect();
        // Of five that have spoken and three that have not, then of each in turn.
        assert_eq!(turned_out, [1, 3, 0, 5, 2, 6, 4, 7]);
    }

    #[test]
    fn whoever_has_a_place_keeps_it() {
        let mut newcomers = newcomers(4, 6);
        for number in [1, 2, 0, 4] {
            assert_eq!(newcomers.settle(number, 6), Settled::Yes);
        }
        assert_eq!(newcomers.settle(3, 6), Settled::NoPlace);
        let turned_out: Vec<_> = std::iter::from_fn(|| newcomers.make_room(20)).collect();
        assert_eq!(turned_out, [3, 5]);
        // There is nobody left but those that have a place.
        assert_eq!(newcomers.remove(0), None);
    }

    #[test]
    fn newcomers_take_no_place() {
        let mut newcomers = newcomers(4, 19);
        // Three of the places are taken, and the newest of all speaks.
        assert_eq!(newcomers.settle(18, 22), Settled::Yes);
        assert_eq!(newcomers.settle(17, 22), Settled::NoPlace);
        // One of those with a place leaves.
        assert_eq!(newcomers.settle(17, 21), Settled::Yes);
    }

    #[test]
    fn those_that_are_about_to_leave_take_no_place() {
        let mut newcomers = newcomers(4, 17);
        // Three of the places are taken.
        assert_eq!(newcomers.make_room(20), Some(0));
        assert_eq!(newcomers.make_room(20), Some(1));
        assert_eq!(newcomers.settle(16, 20), Settled::Yes);
        assert_eq!(newcomers.settle(15, 20), Settled::NoPlace);
        newcomers.remove(0);
        newcomers.remove(1);
        assert_eq!(newcomers.settle(15, 18), Settled::NoPlace);
        assert!(newcomers.leaving.is_empty());
    }

    #[test]
    fn one_that_has_been_told_to_leave_gets_no_place() {
        let mut newcomers = newcomers(4, 20);
        assert_eq!(newcomers.make_room(20), Some(0));
        assert_eq!(newcomers.settle(0, 20), Settled::TurnedOut);
        assert_eq!(newcomers.settle(1, 20), Settled::Yes);
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        let mut newcomers = newcomers(0, 3);
        assert_eq!(newcomers.make_room(1_000_000), None);
        assert_eq!(newcomers.settle(2, 1_000_000), Settled::Yes);
    }

    #[tokio::test]
    async fn a_newcomer_is_told_to_leave_and_one_with_a_place_is_not() {
        let crowd = Arc::new(Crowd::new(1));
        let (first, mut second) = (crowd.join(), crowd.join());
        assert_eq!(first.settle(), Settled::Yes);
        assert!(crowd.turn_out_oldest());
        second.is_turned_out().await;
        assert!(!crowd.turn_out_oldest());
        drop((first, second));
        let newcomers = crowd.newcomers.lock();
        assert!(newcomers.silent.is_empty() && newcomers.heard.is_empty());
        assert!(newcomers.leaving.is_empty());
    }
}
