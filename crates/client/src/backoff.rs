//! How long to wait after a failed poll: exponentially longer, at random, so that the clients of a
//! restarted proxy do not all come back in the same moment.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The waits between failures, until a success resets them.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of up to `initial` after the first failure, doubled with each one, up to `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            failures: 0,
        }
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and says how long to wait: any time from [`FLOOR`] up to the bound has the
    /// same chance (full jitter). `random` picks it, from all values of its type alike.
    pub fn fail(&mut self, random: u32) -> Duration {
        let bound = self
            .initial
            .saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.max)
            .max(FLOOR);
        self.failures = self.failures.saturating_add(1);
        FLOOR + (bound - FLOOR).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// A random number without a generator of its own: the standard library seeds each hasher's keys
/// from the system.
#[must_use]
pub fn random() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    u32::try_from(bits >> 32).unwrap_or(u32::MAX)
}

/// The shortest wait. Full jitter alone may wait for no time at all, and a proxy that refuses at
/// once would then be asked in a loop: this bounds it to ten polls a second in the worst case.
pub const FLOOR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn bounds_double_up_to_the_maximum_and_reset() {
        let mut backoff = Backoff::new(S, 5 * S);
        for bound in [1, 2, 4, 5, 5] {
            assert_eq!(backoff.fail(u32::MAX), bound * S);
        }
        assert_eq!(backoff.failures(), 5);
        backoff.reset();
        assert_eq!(backoff.fail(u32::MAX), S);
        for _ in 0..100 {
            assert_eq!(backoff.fail(0), FLOOR);
        }
        assert_eq!(backoff.fail(u32::MAX), 5 * S);
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let middle = Backoff::new(S, S).fail(u32::MAX / 2);
        assert!(middle.abs_diff(Duration::from_millis(550)) < Duration::from_micros(1));
        let waits: Vec<_> = (0..64).map(|_| Backoff::new(S, S).fail(random())).collect();
        assert!(waits.iter().any(|wait| *wait < S / 2));
        assert!(waits.iter().any(|wait| *wait > S / 2));
    }

    #[test]
    fn odd_settings_never_make_a_hot_loop() {
        for (initial, max) in [(Duration::ZERO, S), (S, Duration::ZERO), (S, FLOOR / 2)] {
            let mut backoff = Backoff::new(initial, max);
            for _ in 0..5 {
                let wait = backoff.fail(random());
                assert!((FLOOR..=S).contains(&wait), "{wait:?}");
            }
        }
    }
}
