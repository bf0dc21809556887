//! The scrapes that wait for a poll, in the order in which they are to be served.

use std::collections::VecDeque;
use std::hash::RandomState;

use hashbrown::HashMap;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId, Target};

use crate::error::Failure;
use crate::limits::Limits;

/// Scrapes without a poll, oldest first, by the bare name of their host. Empty queues go.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queues: HashMap<Fqdn, VecDeque<ScrapeId>, RandomState>,
    count: usize,
}

impl Waiting {
    /// Why not one more scrape of this target may wait, if there is a reason.
    pub(super) fn full(&self, target: &Target, limits: &Limits) -> Option<Failure> {
        let queued = self.queues.get(&target.bare()).map_or(0, VecDeque::len);
        if queued >= limits.scrapes_per_host {
            return Some(Failure::TooManyWaitingFor {
                host: target.bare().to_string(),
            });
        }
        (self.count >= limits.scrapes).then_some(Failure::TooManyWaiting)
    }

    /// Queues a scrape behind those of the same host that are older than it.
    pub(super) fn push(
        &mut self,
        id: ScrapeId,
        target: &Target,
        is_older: impl FnMut(&ScrapeId) -> bool,
    ) {
        let queue = self.queues.entry(target.clone().into_bare()).or_default();
        // One that comes back from a dead client is older than those that came after it.
        queue.insert(queue.partition_point(is_older), id);
        self.count += 1;
    }

    /// Takes a scrape out, if it is there.
    pub(super) fn remove(&mut self, id: ScrapeId, target: &Target) {
        let bare = target.bare();
        if let Some(queue) = self.queues.get_mut(&bare) {
            let before = queue.len();
            queue.retain(|other| *other != id);
            self.count -= before - queue.len();
            if queue.is_empty() {
                self.queues.remove(&bare);
            }
        }
    }

    /// The scrapes that wait for a host, whatever their port, oldest first.
    pub(super) fn of_host(&self, name: FqdnRef<'_>) -> impl Iterator<Item = ScrapeId> {
        self.queues.get(&name.bare()).into_iter().flatten().copied()
    }

    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.count = 0;
    }

    /// Whether these are as many as there are, and all of them `wait`.
    #[cfg(test)]
    pub(super) fn is_sound(&self, count: usize, waits: impl Fn(&ScrapeId) -> bool) -> bool {
        let queued: usize = self.queues.values().map(VecDeque::len).sum();
        queued == self.count
            && queued == count
            && self.queues.values().all(|queue| !queue.is_empty())
            && self.queues.values().flatten().all(waits)
    }
}
