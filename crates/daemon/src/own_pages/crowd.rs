//! The connections for a daemon's own pages, and who has to go when there are too many: whoever has
//! asked for nothing for the longest.
//!
//! So a probe is answered beside any number of strangers that say nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All connections.
#[derive(Debug)]
pub(super) struct Crowd {
    room: Arc<Semaphore>,
    guests: Mutex<Guests>,
}

/// A connection among them.
#[derive(Debug)]
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    /// The number of its last request, or of its coming.
    number: AtomicU64,
    came_as: u64,
    leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Those that have not been told to leave, each with what tells it, the longest silent first.
#[derive(Debug, Default)]
struct Guests {
    next: u64,
    by_number: BTreeMap<u64, CancellationToken>,
}

impl Crowd {
    /// One with room for `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(limit)),
            guests: Mutex::default(),
        }
    }

    /// Makes room for a connection where there is none, and counts it in. Cancel safe.
    pub(super) async fn join(self: &Arc<Self>) -> Option<Guest> {
        if self.room.available_permits() == 0 {
            let oldest = self.guests.lock().by_number.pop_first();
            if let Some((_, leave)) = oldest {
                leave.cancel();
            }
        }
        // Nobody closes it.
        let permit = self.room.clone().acquire_owned().await.ok()?;
        let leave = CancellationToken::new();
        let number = self.guests.lock().join(leave.clone());
        Some(Guest {
            crowd: self.clone(),
            number: AtomicU64::new(number),
            came_as: number,
            leave,
            _permit: permit,
        })
    }
}

impl Guest {
    /// Notes that it asks for something.
    pub(super) fn ask(&self) {
        let mut guests = self.crowd.guests.lock();
        let number = self.number.load(Ordering::Relaxed);
        // None where it has been told to leave.
        if let Some(leave) = guests.by_number.remove(&number) {
            self.number.store(guests.join(leave), Ordering::Relaxed);
        }
    }

    /// Whether it has ever asked for something.
    pub(super) fn has_asked(&self) -> bool {
        self.number.load(Ordering::Relaxed) != self.came_as
    }

    /// Waits until it has to make room for the next. Cancel safe.
    pub(super) async fn is_turned_out(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let number = self.number.load(Ordering::Relaxed);
        self.crowd.guests.lock().by_number.remove(&number);
    }
}

impl Guests {
    fn join(&mut self, leave: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, leave);
        number
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Has one more join, which `leaving` makes room for.
    async fn join_in_place_of(crowd: &Arc<Crowd>, leaving: Guest) -> Guest {
        let turned_out = async {
            leaving.is_turned_out().await;
            // Too late.
            leaving.ask();
            drop(leaving);
        };
        let both = async { tokio::join!(crowd.join(), turned_out) };
        let joined = timeout(Duration::from_secs(1), both).await;
        joined.expect("it makes room").0.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_been_silent_for_the_longest_makes_room() {
        let crowd = Arc::new(Crowd::new(3));
        let join = async || crowd.join().await.unwrap();
        let (first, second, third) = (join().await, join().await, join().await);
        assert!(!first.has_asked());
        first.ask();
        assert!(first.has_asked());
        let fourth = join_in_place_of(&crowd, second).await;
        fourth.ask();
        let fifth = join_in_place_of(&crowd, third).await;
        let sixth = join_in_place_of(&crowd, first).await;
        assert!([&fourth, &fifth, &sixth].map(|guest| guest.leave.is_cancelled()) == [false; 3]);
        assert_eq!(crowd.guests.lock().by_number.len(), 3);
        drop((fourth, fifth, sixth));
        assert!(crowd.guests.lock().by_number.is_empty());
    }

    #[tokio::test]
    async fn one_that_leaves_by_itself_makes_room_too() {
        let crowd = Arc::new(Crowd::new(2));
        let first = crowd.join().await.unwrap();
        drop(crowd.join().await.unwrap());
        let _third = crowd.join().await.unwrap();
        assert!(!first.leave.is_cancelled());
    }
}
