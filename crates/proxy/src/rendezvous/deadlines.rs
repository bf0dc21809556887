//! When scrapes are over: one queue for all of them instead of a timer for each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pushprox_protocol::ScrapeId;
use tokio::time::Instant;

/// Deadlines, soonest first. Those of scrapes that have been answered stay until they would be next,
/// or until they outnumber the rest: nearly all scrapes are answered early, and most deadlines are
/// later than all before them, so that adding one is a matter of a comparison.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BinaryHeap<Reverse<(Instant, ScrapeId)>>,
}

impl Deadlines {
    /// Adds one. `is_live` tells which scrapes still wait, of which there are `live`.
    pub(super) fn add(
        &mut self,
        due: Instant,
        id: ScrapeId,
        live: usize,
        is_live: impl Fn(ScrapeId) -> bool,
    ) {
        if self.queue.len() > 2 * live + MOST_SPENT {
            self.queue.retain(|Reverse((_, id))| is_live(*id));
        }
        self.queue.push(Reverse((due, id)));
    }

    /// The soonest, of a scrape that may have been answered.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes out the next scrape that is over at `now`. Leaves nothing of answered ones in front, for
    /// which nobody is to wake up.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        is_live: impl Fn(ScrapeId) -> bool,
    ) -> Option<ScrapeId> {
        while let Some(Reverse((due, id))) = self.queue.peek().copied() {
            let is_live = is_live(id);
            if is_live && due > now {
                return None;
            }
            self.queue.pop();
            if is_live {
                return Some(id);
            }
        }
        None
    }
}

/// Deadlines of answered scrapes that are not worth a search.
const MOST_SPENT: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deadlines_come_in_order_and_those_of_answered_scrapes_not_at_all() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        for (number, due) in [(1, 30), (2, 10), (3, 20), (4, 5)] {
            deadlines.add(at(due), ScrapeId::from(number), 4, |_| true);
        }
        let is_live = |id| id != ScrapeId::from(4);
        assert_eq!(deadlines.next(), Some(at(5)));
        assert_eq!(deadlines.take_due(now, is_live), None);
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.take_due(at(20), is_live), Some(ScrapeId::from(2)));
        assert_eq!(deadlines.take_due(at(20), is_live), Some(ScrapeId::from(3)));
        assert_eq!(deadlines.take_due(at(20), is_live), None);
        assert_eq!(deadlines.next(), Some(at(30)));
    }

    #[test]
    fn deadlines_of_answered_scrapes_do_not_pile_up() {
        let now = Instant::now();
        let mut deadlines = Deadlines::default();
        for number in 0..10_000 {
            let last = ScrapeId::from(number);
            deadlines.add(now, last, 1, |id| id == last);
            assert!(deadlines.queue.len() <= MOST_SPENT + 3);
        }
    }
}
