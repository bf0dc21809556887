//! Carries instructions out: pull, then push, within the time that the scrape has.

use std::time::Duration;

use http::{HeaderValue, Method};
use parking_lot::Mutex;
use pushprox_protocol::Fqdn;
use pushprox_protocol::message::instruction::Instruction;
use pushprox_protocol::timeout::{ScrapeTimeouts, answer_margin};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::answer::Answer;
use crate::error::{PullError, PushError};
use crate::metrics::Metrics;
use crate::pusher::Pusher;
use crate::scraper::Scraper;
use crate::trouble::Trouble;

/// What a scrape's task needs.
#[derive(Debug)]
pub struct Executor {
    /// The name under which this client is registered, for the log.
    pub fqdn: Fqdn,
    /// Asks the target.
    pub scraper: Scraper,
    /// Takes the answer to the proxy.
    pub pusher: Pusher,
    /// Bounds on a scrape's time.
    pub timeouts: ScrapeTimeouts,
    /// Counts it all.
    pub metrics: Metrics,
    /// What the log knows of pushes that fail.
    pub trouble: Mutex<Trouble>,
    /// Cancelled when the targets have no more time, because the client ends.
    pub give_up: CancellationToken,
}

/// When a scrape's steps must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deadlines {
    /// The target has answered.
    pull: Instant,
    /// The push is through.
    push: Instant,
}

impl Deadlines {
    /// The target is given up on two margins before the scrape's time is up, so that the reason
    /// is at the proxy before that one gives up on this client, one margin before the end.
    fn new(received: Instant, time: Duration) -> Self {
        Self {
            pull: received + time - 2 * answer_margin(time),
            push: received + time,
        }
    }
}

impl Executor {
    /// Pulls and pushes for one scrape. The log and the metrics tell how it went.
    pub async fn carry_out(&self, instruction: Instruction, received: Instant) {
        self.metrics.scrapes.inc();
        let deadlines = Deadlines::new(received, self.timeouts.resolve(&instruction.headers));
        let pulled = tokio::select! {
            biased;
            pulled = self.scraper.pull(&instruction, deadlines.pull) => pulled,
            () = self.give_up.cancelled() => Err(PullError::ShuttingDown),
        };
        let Instruction { method, id, .. } = instruction;
        self.finish(&method, &id, pulled, received, deadlines.push)
            .await;
    }

    /// Tells the proxy at once that nothing will be pulled for the scrape with this id, and why.
    pub async fn turn_down(
        &self,
        method: &Method,
        id: &HeaderValue,
        why: PullError,
        received: Instant,
    ) {
        self.metrics.scrapes.inc();
        let deadline = received + TURN_DOWN_TIMEOUT;
        self.finish(method, id, Err(why), received, deadline).await;
    }

    async fn finish(
        &self,
        method: &Method,
        id: &HeaderValue,
        pulled: Result<Answer, PullError>,
        received: Instant,
        deadline: Instant,
    ) {
        let (answer, failure) = match pulled {
            Ok(answer) => (answer, None),
            Err(error) => {
                self.metrics.scrape_errors.inc();
                (Answer::of_failure(method, &error), Some(error))
            }
        };
        let status = answer.status();
        let pushed = self.pusher.push(id, answer, deadline).await;
        let duration = received.elapsed();
        self.metrics.scrape_seconds.observe(duration.as_secs_f64());
        let scrape_id = shown(id);
        let fqdn = &self.fqdn;
        match (&failure, &pushed) {
            (Some(error), _) => {
                warn!(scrape_id, %fqdn, status = status.as_u16(), %error, ?duration, "pull failed")
            }
            (None, Ok(())) if status.is_success() => {
                debug!(scrape_id, %fqdn, status = status.as_u16(), ?duration, "scrape done");
            }
            (None, Ok(())) => {
                warn!(
                    scrape_id,
                    %fqdn,
                    status = status.as_u16(),
                    ?duration,
                    "the target answered with an error"
                );
            }
            (None, Err(_)) => {}
        }
        let is_told = self.note(&pushed);
        match pushed {
            Err(error) if is_told => {
                warn!(scrape_id, %fqdn, %error, ?duration, "push failed");
            }
            Err(error) => debug!(scrape_id, %fqdn, %error, ?duration, "push failed"),
            Ok(()) => {}
        }
    }

    /// Counts how a push went. Whether it is a failure to be told, and not only more of the same.
    fn note(&self, pushed: &Result<(), PushError>) -> bool {
        let now = Instant::now();
        match pushed {
            Ok(()) => {
                if let Some(after) = self.trouble.lock().ends(now) {
                    info!(?after, "the proxy takes pushes again");
                }
                false
            }
            // That is the target's trouble.
            Err(PushError::TargetBrokeOff(_)) => {
                self.metrics.scrape_errors.inc();
                true
            }
            Err(error) => {
                self.metrics.push_errors.inc();
                self.trouble.lock().fails(&error.to_string(), now)
            }
        }
    }
}

/// For a push that tells no more than that there was no pull.
const TURN_DOWN_TIMEOUT: Duration = Duration::from_secs(2);

fn shown(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or("(not text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_target_has_until_two_margins_before_the_end() {
        let now = Instant::now();
        for (time, pull) in [(10_000, 9_000), (2_000, 1_600), (100, 80)] {
            let time = Duration::from_millis(time);
            let deadlines = Deadlines::new(now, time);
            assert_eq!(deadlines.push, now + time);
            assert_eq!(deadlines.pull, now + Duration::from_millis(pull));
        }
    }
}
