//! Whether the client can do its work: whether the proxy takes its polls.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What the last poll told.
#[derive(Debug)]
pub struct Readiness(watch::Sender<State>);

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
        Self(watch::Sender::new(State::Failing))
    }

    /// A poll has been written to a connection.
    pub fn sent(&self, now: Instant) {
        self.0.send_if_modified(|state| {
            let is_first = matches!(*state, State::Failing);
            if is_first {
                *state = State::Sent(now);
            }
            is_first
        });
    }

    /// A poll brought a scrape, or its wait ended.
    pub fn answered(&self) {
        self.0.send_replace(State::Answered);
    }

    /// A poll failed.
    pub fn failed(&self) {
        self.0.send_replace(State::Failing);
    }

    /// Whether the proxy takes the polls, as far as can be known: one that it holds is not
    /// answered, so one that was not refused for a while counts as held.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        match *self.0.borrow() {
            State::Failing => false,
            State::Sent(since) => now.duration_since(since) >= HELD_AFTER,
            State::Answered => true,
        }
    }

    /// Waits until the proxy takes the polls. Cancel safe.
    pub async fn held(&self) {
        let mut states = self.0.subscribe();
        loop {
            let state = *states.borrow_and_update();
            let held = async {
                match state {
                    State::Failing => std::future::pending().await,
                    State::Sent(since) => sleep_until(since + HELD_AFTER).await,
                    State::Answered => {}
                }
            };
            tokio::select! {
                biased;
                // The sender is this one, and is still there.
                _ = states.changed() => {}
                () = held => return,
            }
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

    #[tokio::test(start_paused = true)]
    async fn a_poll_is_held_when_it_has_not_failed_for_a_while_since_it_went_out() {
        let readiness = Readiness::new();
        let start = Instant::now();
        let telling = async {
            tokio::time::sleep(HELD_AFTER).await;
            readiness.sent(Instant::now());
            tokio::time::sleep(HELD_AFTER / 2).await;
            readiness.failed();
            readiness.sent(Instant::now());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = readiness.held() => {}
            () = telling => {}
        }
        assert_eq!(start.elapsed(), HELD_AFTER * 5 / 2);
    }
}
