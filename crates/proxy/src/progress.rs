//! The patience that the proxy has with peers: how long it waits for one step of a transfer, be
//! that the next bytes of a body or that a peer takes some of an answer.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use pushprox_protocol::duration;
use tokio::time::timeout;

/// How long a transfer may stand still, and how often one has for longer.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    limit: Duration,
    hits: Counter,
}

/// A peer has let a transfer stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing moved for {}", duration::format(*.0))]
pub(crate) struct Stalled(Duration);

impl Patience {
    pub(crate) fn new(limit: Duration, hits: Counter) -> Self {
        Self { limit, hits }
    }

    /// Waits for one step of a transfer. A step that need not wait costs no timer.
    pub(crate) async fn wait<T>(&self, step: impl Future<Output = T> + Send) -> Result<T, Stalled> {
        let mut step = pin!(step);
        let at_once = poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await;
        match at_once {
            Poll::Ready(done) => Ok(done),
            // In a box, so that the room for a timer is not kept by those that need none.
            Poll::Pending => Box::pin(timeout(self.limit, step)).await.map_err(|_| {
                self.hits.inc();
                Stalled(self.limit)
            }),
        }
    }
}

impl From<Stalled> for io::Error {
    fn from(stalled: Stalled) -> Self {
        Self::new(io::ErrorKind::TimedOut, stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn a_step_has_its_time_and_no_more() {
        let hits = Counter::default();
        let patience = Patience::new(Duration::from_secs(30), hits.clone());
        let before = Instant::now();
        let slow = sleep(Duration::from_secs(29));
        assert_eq!(patience.wait(slow).await, Ok(()));
        assert_eq!(hits.get(), 0);
        let stuck = patience.wait(std::future::pending::<()>()).await;
        assert_eq!(stuck.unwrap_err().to_string(), "nothing moved for 30s");
        assert_eq!(before.elapsed(), Duration::from_secs(59));
        assert_eq!(hits.get(), 1);
    }
}
