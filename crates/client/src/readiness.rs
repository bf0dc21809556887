//! Whether the client can do its work: whether the proxy takes its polls.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What the last poll told.
#[derive(Debug)]
pub struct Readiness(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    /// The last poll failed, or there was none yet.
    Failing,
    /// A poll has gone out since, and has no answer yet.
    Sent(Instant),
    /// The last poll was answered as it should be.
    Answered,
}

impl Readiness {
    /// Not ready, before the first poll.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(State::Failing))
    }

    /// A poll has been written to a connection.
    pub fn sent(&self, now: Instant) {
        let mut state = self.0.lock();
        if matches!(*state, State::Failing) {
            *state = State::Sent(now);
        }
    }

    /// A poll brought a scrape, or its wait ended.
    pub fn answered(&self) {
        *self.0.lock() = State::Answered;
    }

    /// A poll failed.
    pub fn failed(&self) {
        *self.0.lock() = State::Failing;
    }

    /// Whether the proxy takes the polls, as far as can be known: one that it holds is not
    /// answered, so one that was not refused for a while counts as held.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        match *self.0.lock() {
            State::Failing => false,
            State::Sent(since) => now.duration_since(since) >= HELD_AFTER,
            State::Answered => true,
        }
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// Longer than the second for which a proxy may hold a refusal back.
const HELD_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_is_held_or_answered_makes_ready_and_a_failure_ends_it() {
        let readiness = Readiness::new();
        let start = Instant::now();
        assert!(!readiness.is_ready(start));
        readiness.sent(start);
        assert!(!readiness.is_ready(start + HELD_AFTER / 2));
        assert!(readiness.is_ready(start + HELD_AFTER));
        readiness.answered();
        readiness.sent(start + HELD_AFTER);
        assert!(readiness.is_ready(start + HELD_AFTER));
        readiness.failed();
        assert!(!readiness.is_ready(start + 10 * HELD_AFTER));
    }
}
