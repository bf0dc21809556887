//! What the log says of a scrape.

use pushprox_protocol::{ScrapeId, Target};
use tokio::time::Instant;
use tracing::{debug, warn};

/// One scrape's line in the log, written when it ends, whichever way.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) id: ScrapeId,
    target: Target,
    started: Instant,
    pub(super) status: u16,
    pub(super) bytes: u64,
    is_told: bool,
}

impl Report {
    pub(super) fn new(id: ScrapeId, target: Target, started: Instant) -> Self {
        Self {
            id,
            target,
            started,
            status: 0,
            bytes: 0,
            is_told: false,
        }
    }

    /// The answer has been passed on whole.
    pub(super) fn answered(&mut self) {
        self.is_told = true;
        let (status, bytes) = (self.status, self.bytes);
        if (200..300).contains(&status) {
            debug!(scrape_id = %self.id, fqdn = %self.target, outcome = "answered", status, bytes, duration = ?self.started.elapsed(), "scrape");
        } else {
            warn!(scrape_id = %self.id, fqdn = %self.target, outcome = "the target is unhealthy", status, bytes, duration = ?self.started.elapsed(), "scrape");
        }
    }

    /// It has ended in a failure.
    pub(super) fn end(&mut self, outcome: &dyn std::fmt::Display) {
        self.is_told = true;
        let duration = self.started.elapsed();
        warn!(scrape_id = %self.id, fqdn = %self.target, %outcome, bytes = self.bytes, ?duration, "scrape");
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_told {
            self.end(&"the proxy has gone down before the answer came");
        }
    }
}
