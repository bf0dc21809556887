//! How a parked poll is told of its end: a note is left for it, and it is woken.
//!
//! A channel for each poll would be one more place in memory, which has been left alone for as long as
//! the poll was parked when its scrape comes. A note is only there between that and the poll's next
//! turn.

use std::hash::BuildHasherDefault;
use std::num::NonZeroU64;
use std::task::Waker;

use hashbrown::HashMap;

use super::HandOut;
use super::state::IdHasher;

/// What became of a poll.
#[derive(Debug)]
pub(super) enum Note {
    HandOut(HandOut),
    WaitIsOver,
}

/// Where a parked poll waits for its note.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: SeatNumber,
    /// Who waits there; nobody at first.
    pub(super) waker: Waker,
}

/// Of a poll, among all that there have been.
pub(super) type SeatNumber = NonZeroU64;

/// What became of polls that do not know it yet. Their guards take the notes, so that there are never
/// more of them than polls.
#[derive(Debug)]
pub(super) struct Notes {
    left: HashMap<SeatNumber, Note, BuildHasherDefault<IdHasher>>,
    last: SeatNumber,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            left: HashMap::default(),
            last: SeatNumber::MIN,
        }
    }
}

impl Notes {
    pub(super) fn new_seat(&mut self) -> Seat {
        self.last = self.last.saturating_add(1);
        Seat {
            number: self.last,
            waker: Waker::noop().clone(),
        }
    }

    /// Leaves a note for a poll. Whom to wake, once nothing is locked.
    pub(super) fn leave(&mut self, seat: Seat, note: Note) -> Waker {
        self.left.insert(seat.number, note);
        seat.waker
    }

    /// The note for a poll, if there is one.
    pub(super) fn take(&mut self, seat: SeatNumber) -> Option<Note> {
        let note = self.left.remove(&seat)?;
        if self.left.is_empty() && self.left.capacity() > MUCH {
            // A whole fleet was told at once. A small table is the faster one.
            self.left.shrink_to(MUCH);
        }
        Some(note)
    }
}

/// More than scrapes bring at once.
const MUCH: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::registrations::Registration;
    use super::*;

    #[test]
    fn a_registration_with_its_poll_takes_two_lines_of_the_cache() {
        assert_eq!(size_of::<Registration<Seat>>(), 2 * 64);
    }

    #[test]
    fn word_is_taken_once_and_leaves_no_room_behind() {
        let mut notes = Notes::default();
        let seats: Vec<Seat> = (0..10_000).map(|_| notes.new_seat()).collect();
        let numbers: Vec<SeatNumber> = seats.iter().map(|seat| seat.number).collect();
        for seat in seats {
            notes.leave(seat, Note::WaitIsOver);
        }
        for number in &numbers {
            assert!(matches!(notes.take(*number), Some(Note::WaitIsOver)));
            assert!(notes.take(*number).is_none());
        }
        assert!(
            notes.left.capacity() < 2 * MUCH,
            "{}",
            notes.left.capacity()
        );
    }
}
