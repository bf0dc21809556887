//! Waits between attempts that fail: exponentially longer, and a little at random.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The waits until a success resets them.
#[derive(Debug)]
pub struct Waits {
    first: Duration,
    longest: Duration,
    backoff: ExponentialBackoff,
}

impl Waits {
    /// Waits from `first` up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter()
            .build();
        Self {
            first,
            longest,
            backoff,
        }
    }

    /// How long to wait after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        // Jitter is added behind the bound.
        let wait = self.backoff.next().unwrap_or(self.longest);
        wait.min(self.longest)
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        *self = Self::new(self.first, self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_start_anew_after_a_success() {
        let (first, longest) = (Duration::from_millis(250), Duration::from_secs(2));
        let mut waits = Waits::new(first, longest);
        for round in 0..2 {
            let waited: Vec<_> = (0..100).map(|_| waits.after_failure()).collect();
            assert!(
                waited[0] >= first && waited[0] <= first * 2,
                "{round}: {waited:?}"
            );
            assert!(
                waited[50..].iter().all(|wait| *wait == longest),
                "{waited:?}"
            );
            waits.reset();
        }
    }
}
