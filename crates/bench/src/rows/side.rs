//! A relay with a fleet that is parked on it.

use std::rc::Rc;
use std::time::Duration;

use super::Bench;
use crate::fleet::Fleet;
use crate::payload::Payload;
use crate::relay::{Relay, Round};

pub(crate) struct Side {
    /// It ends before the relay does: the ends of all connections begin here.
    pub(crate) fleet: Fleet,
    pub(crate) relay: Relay,
    clients: usize,
    /// What it took to register the fleet.
    pub(crate) registered_within: Duration,
    pub(crate) registration_cpu: Duration,
    /// Resident bytes that the fleet has added.
    pub(crate) memory: u64,
}

/// What scrapers do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    AtOnce(usize),
    PerSecond(u32),
}

impl Side {
    pub(crate) fn new(
        bench: &Bench,
        mut relay: Relay,
        clients: usize,
        payload: &Rc<Payload>,
    ) -> anyhow::Result<Self> {
        let payload = Rc::clone(payload);
        let mut fleet = Fleet::new(relay.address, bench.polls, bench.inner, payload)?;
        let (registered_within, registration_cpu) = relay.park(&mut fleet, clients)?;
        let memory = relay.process.account.memory()?;
        Ok(Self {
            memory: memory.saturating_sub(relay.memory_at_rest),
            fleet,
            relay,
            clients,
            registered_within,
            registration_cpu,
        })
    }

    /// Has all clients leave and come back.
    ///
    /// Those that were parked at the same time are asked at the same time, half a minute later,
    /// whether they are alive. The loopback device loses most of so many packets at once, and
    /// scrapes that are under way then wait for TCP to send theirs again. In a fleet that lives,
    /// polls and pushes keep connections from being asked, or spread that out.
    pub(crate) fn park_afresh(&mut self) -> anyhow::Result<()> {
        self.fleet.kill();
        self.relay.park(&mut self.fleet, self.clients)?;
        Ok(())
    }

    pub(crate) fn load(
        &mut self,
        load: Load,
        among: &[u32],
        duration: Duration,
    ) -> anyhow::Result<Round> {
        let Self { relay, fleet, .. } = self;
        relay.process.under(|| match load {
            Load::AtOnce(count) => fleet.closed(count, among, duration),
            Load::PerSecond(rate) => fleet.open_loop(rate, among, duration),
        })
    }

    /// Scrapes each of these clients once, so that each has opened its second connection.
    pub(crate) fn warm_up(&mut self, among: &[u32]) -> anyhow::Result<()> {
        self.fleet.each(16, among)?;
        Ok(())
    }

    pub(crate) fn bytes_per_client(&self) -> f64 {
        self.memory as f64 / self.clients as f64
    }

    /// Microseconds of CPU for each registration.
    pub(crate) fn per_registration(&self) -> f64 {
        self.registration_cpu.as_secs_f64() * 1e6 / self.clients as f64
    }

    /// What it took to park the fleet, in words.
    pub(crate) fn words(&self, side: &str) -> String {
        format!(
            "{side}: {:.0} bytes per client over {:.1} MB at rest; registered in {:.2} s, {:.1} µs of CPU each",
            self.bytes_per_client(),
            self.relay.memory_at_rest as f64 / 1e6,
            self.registered_within.as_secs_f64(),
            self.per_registration(),
        )
    }
}
