//! The poll loop: one poll open at any time, each scrape in a task of its own, and patience with a
//! proxy that does not answer.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pushprox_daemon::Shutdown;
use pushprox_protocol::message::instruction::Instruction;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::backoff::{Backoff, random};
use crate::error::{PollError, PullError};
use crate::executor::Executor;
use crate::in_hand::{self, InHand, NotTaken};
use crate::metrics::Metrics;
use crate::poll::{Polls, Refused};
use crate::readiness::Readiness;
use crate::trouble::Trouble;

/// Polls one proxy.
#[derive(Debug)]
pub struct Poller {
    polls: Polls,
    mood: Mood,
}

/// How it goes with the proxy.
#[derive(Debug)]
struct Mood {
    backoff: Backoff,
    trouble: Trouble,
    readiness: Arc<Readiness>,
    metrics: Metrics,
}

impl Poller {
    /// A poller that waits as `backoff` says after failures.
    #[must_use]
    pub fn new(
        polls: Polls,
        backoff: Backoff,
        readiness: Arc<Readiness>,
        metrics: Metrics,
    ) -> Self {
        Self {
            polls,
            mood: Mood {
                backoff,
                trouble: Trouble::default(),
                readiness,
                metrics,
            },
        }
    }

    /// Polls until the shutdown begins, whatever the proxy does. The poll that is then open is
    /// dropped; scrapes in hand are left to the shutdown.
    pub async fn run(mut self, executor: Arc<Executor>, shutdown: &Shutdown) {
        let in_hand = InHand::default();
        loop {
            let started = Instant::now();
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                polled = self.poll() => polled,
            };
            match polled {
                Ok(Some(received)) => {
                    self.mood.succeeded();
                    if let Some(turned_down) = take_on(received, &executor, &in_hand, shutdown) {
                        // Until it is turned down, no other scrape comes in.
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            _ = turned_down => {}
                        }
                    }
                }
                Ok(None) => self.mood.succeeded(),
                Err(error) => {
                    let pause = self.mood.failed(&error, started);
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Polls once. After failures, a poll that the proxy holds ends the trouble before it is
    /// answered.
    async fn poll(&mut self) -> Result<Option<Result<Instruction, Refused>>, PollError> {
        let Self { polls, mood } = self;
        let mut polling = std::pin::pin!(polls.poll());
        if mood.trouble.lasts() {
            let readiness = Arc::clone(&mood.readiness);
            tokio::select! {
                biased;
                polled = &mut polling => return polled,
                () = readiness.held() => mood.recovered(),
            }
        }
        polling.await
    }
}

impl Mood {
    fn succeeded(&mut self) {
        self.readiness.answered();
        self.recovered();
    }

    fn recovered(&mut self) {
        let failures = self.backoff.failures();
        self.backoff.reset();
        if let Some(after) = self.trouble.ends(Instant::now()) {
            info!(failures, ?after, "the proxy takes polls again");
        }
    }

    /// Counts and tells a failure of a poll, and says how long to wait after it.
    fn failed(&mut self, error: &PollError, started: Instant) -> Duration {
        self.metrics.poll_errors.inc();
        self.readiness.failed();
        let now = Instant::now();
        let mut pause = self.backoff.fail(random());
        if matches!(error, PollError::Unreachable(_)) {
            // While nobody can be reached, attempts start as far apart as the backoff says: one that
            // has waited in vain for an answer from a cut cable has waited already.
            pause = pause.saturating_sub(now.duration_since(started));
        }
        let failures = self.backoff.failures();
        if self.trouble.fails(&error.to_string(), now) {
            warn!(%error, failures, retry_in = ?pause, "poll failed");
        } else {
            debug!(%error, failures, retry_in = ?pause, "poll failed");
        }
        pause
    }
}

/// Gives a scrape to a task of its own, and that task back where it is to be waited for.
fn take_on(
    instruction: Result<Instruction, Refused>,
    executor: &Arc<Executor>,
    in_hand: &InHand,
    shutdown: &Shutdown,
) -> Option<JoinHandle<()>> {
    let received = Instant::now();
    let executor = Arc::clone(executor);
    let (method, id, why) = match instruction {
        Ok(instruction) => match in_hand.take(&instruction.id) {
            Ok(held) => {
                shutdown.spawn(async move {
                    executor.carry_out(instruction, received).await;
                    drop(held);
                });
                return None;
            }
            Err(NotTaken::InHand) => {
                debug!(scrape_id = ?instruction.id, "the proxy hands out again what is in hand");
                return None;
            }
            Err(NotTaken::Full) => {
                let why = PullError::Busy(in_hand::MOST);
                (instruction.method, instruction.id, why)
            }
        },
        Err(Refused { id, why }) => (Method::GET, id, PullError::Instruction(why)),
    };
    Some(shutdown.spawn(async move { executor.turn_down(&method, &id, why, received).await }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushprox_daemon::metrics::Registry;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_to_connect_counts_as_waiting_and_a_poll_does_not() {
        let wait = Duration::from_secs(5);
        let mut mood = Mood {
            backoff: Backoff::new(wait, wait),
            trouble: Trouble::default(),
            readiness: Arc::default(),
            metrics: Metrics::register(&mut Registry::new()),
        };
        let unreachable = PollError::Unreachable("timed out".to_owned());
        let started = Instant::now();
        for (took, most) in [(0, 5), (2, 3), (5, 0), (10, 0)] {
            tokio::time::advance(started + Duration::from_secs(took) - Instant::now()).await;
            for _ in 0..20 {
                let pause = mood.failed(&unreachable, started);
                assert!(
                    pause <= Duration::from_secs(most),
                    "{pause:?} after {took} s"
                );
            }
        }
        // Thousands of clients had their polls cut off in the same moment.
        let broken = PollError::Request("reset".to_owned());
        let pauses: Vec<_> = (0..20).map(|_| mood.failed(&broken, started)).collect();
        assert!(pauses.iter().all(|pause| *pause >= crate::backoff::FLOOR));
        assert!(
            pauses.iter().any(|pause| *pause > Duration::from_secs(1)),
            "{pauses:?}"
        );
    }
}
