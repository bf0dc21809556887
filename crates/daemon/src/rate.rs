//! Token buckets: so much at once, and so much over time.

use std::time::Duration;

use tokio::time::Instant;

/// What a bucket holds, and how fast it fills again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The time between two of a steady stream.
    pub(crate) interval: Duration,
    /// How many may come at once.
    pub(crate) burst: u32,
}

/// A token bucket. It starts full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// When it is full again, if nothing more is taken.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub(crate) fn full() -> Self {
        Self { full_at: None }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let capacity = rate.interval.saturating_mul(rate.burst);
        let missing = self.full_at.map_or(Duration::ZERO, |full_at| {
            full_at.saturating_duration_since(now)
        });
        // What was taken at a slower rate, before that was changed, may be more than this one holds.
        let missing = missing.min(capacity);
        let takes = missing + rate.interval <= capacity;
        let taken = if takes { rate.interval } else { Duration::ZERO };
        self.full_at = Some(now + missing + taken);
        takes
    }

    /// Puts back one that was taken.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.full_at = self
            .full_at
            .and_then(|full_at| full_at.checked_sub(rate.interval));
    }

    /// Whether it is as good as a new one.
    #[must_use]
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_at_each_interval() {
        let rate = Rate {
            interval: Duration::from_secs(1),
            burst: 3,
        };
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::full();
        for (at, passes) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (900, false),
            (1_000, true),
            (1_001, false),
            (2_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, false),
        ] {
            assert_eq!(bucket.take(rate, after(at)), passes, "{at}");
        }
        assert!(!bucket.is_full(after(62_999)));
        assert!(bucket.is_full(after(63_000)));
        bucket.give_back(rate);
        assert!(bucket.is_full(after(62_000)));
        assert!(bucket.take(rate, after(60_000)) && !bucket.take(rate, after(60_000)));
    }
    #[tokio::test(start_paused = true)]
    async fn what_was_taken_at_a_slower_rate_is_not_missed_at_a_faster_one() {
        let hours = Rate {
            interval: Duration::from_secs(3_600),
            burst: 10,
        };
        let seconds = Rate {
            interval: Duration::from_secs(1),
            burst: 2,
        };
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::full();
        assert!((0..hours.burst).all(|_| bucket.take(hours, start)));
        for (at, passes) in [(0, false), (900, false), (1_000, true), (1_001, false)] {
            assert_eq!(bucket.take(seconds, after(at)), passes, "{at}");
        }
    }
}
