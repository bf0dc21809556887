//! Scrapes of which it is in doubt whether their client has them: the instruction was sent, and for
//! a while the client's system has not acknowledged it.

use std::hash::RandomState;

use hashbrown::HashMap;
use pushprox_protocol::fqdn::FqdnRef;
use pushprox_protocol::{Fqdn, ScrapeId};

/// Such scrapes, by the name whose client was sent them. Empty lists go.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    by_name: HashMap<Fqdn, Vec<ScrapeId>, RandomState>,
}

impl Doubts {
    pub(super) fn add(&mut self, name: &Fqdn, id: ScrapeId) {
        self.by_name.entry(name.clone()).or_default().push(id);
    }

    /// Takes a scrape out, if it is there.
    pub(super) fn remove(&mut self, name: &Fqdn, id: ScrapeId) {
        if self.by_name.is_empty() {
            return;
        }
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    pub(super) fn of(&self, name: FqdnRef<'_>) -> &[ScrapeId] {
        if self.by_name.is_empty() {
            return &[];
        }
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = &ScrapeId> {
        self.by_name.values().flatten()
    }
}
