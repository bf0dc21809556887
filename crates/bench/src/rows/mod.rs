//! The goals, and how each is measured.

mod fleet_scale;
mod side_by_side;
mod size;
mod slow_readers;

use std::path::PathBuf;
use std::rc::Rc;

use crate::fleet::{Fleet, PerClient};
use crate::messages::Inner;
use crate::payload::Payload;
use crate::relay::{Relay, Round};
use crate::report::{Report, Row, median};

/// What is measured, and how.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) proxy: PathBuf,
    pub(crate) client: PathBuf,
    /// The size of the fleet that is parked.
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
    pub(crate) per_client: PerClient,
    pub(crate) inner: Inner,
}

/// A group of goals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowName {
    /// Memory per parked client
    Memory,
    /// CPU per scrape of 20 kB, 16 at once
    Cpu20,
    /// CPU per scrape of 20 kB, 2,000 clients, 500 scrapes a second
    Open,
    /// CPU per scrape of 500 kB, 16 at once
    Cpu500,
    /// CPU per scrape with a whole fleet parked, and with 100 clients
    Parked,
    /// Memory while large answers pass through slow readers
    Slow,
    /// The whole fleet reconnects at once
    Reconnect,
    /// The list of the whole fleet, and scrapes meanwhile
    Clients,
    /// The size of the binaries
    Size,
}

impl RowName {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu20 => "cpu20",
            Self::Open => "open",
            Self::Cpu500 => "cpu500",
            Self::Parked => "parked",
            Self::Slow => "slow",
            Self::Reconnect => "reconnect",
            Self::Clients => "clients",
            Self::Size => "size",
        }
    }
}

/// A relay and its fleet.
struct Side {
    relay: Relay,
    fleet: Fleet,
}

impl Bench {
    /// Measures the rows that are asked for. One that fails does not keep the others from being
    /// measured. Each is shown as soon as it is there.
    pub(crate) fn run(&self, wanted: &[RowName], mut show: impl FnMut(&Row)) -> Report {
        let mut report = Report::default();
        let mut keep = |name: RowName, rows: anyhow::Result<Vec<Row>>| {
            let rows = rows.unwrap_or_else(|error| vec![Row::failed(name.name(), &error)]);
            for row in rows {
                show(&row);
                report.rows.push(row);
            }
        };
        let is_wanted = |name: &RowName| wanted.contains(name);
        for name in [RowName::Cpu20, RowName::Open, RowName::Cpu500] {
            if is_wanted(&name) {
                keep(name, side_by_side::measure(self, name).map(|row| vec![row]));
            }
        }
        let of_the_fleet: Vec<RowName> = fleet_scale::ROWS.into_iter().filter(is_wanted).collect();
        if !of_the_fleet.is_empty() {
            fleet_scale::measure(self, &of_the_fleet, &mut keep);
        }
        if is_wanted(&RowName::Slow) {
            keep(
                RowName::Slow,
                slow_readers::measure(self).map(|row| vec![row]),
            );
        }
        if is_wanted(&RowName::Size) {
            keep(RowName::Size, size::measure(self));
        }
        report
    }

    /// The proxy, with this many clients parked.
    fn proxy_side(&self, clients: usize, payload: &Rc<Payload>) -> anyhow::Result<Side> {
        self.side(Relay::proxy(&self.proxy)?, clients, payload)
    }

    /// The least relay, with this many clients parked.
    fn least_side(&self, clients: usize, payload: &Rc<Payload>) -> anyhow::Result<Side> {
        self.side(Relay::least()?, clients, payload)
    }

    fn side(
        &self,
        mut relay: Relay,
        clients: usize,
        payload: &Rc<Payload>,
    ) -> anyhow::Result<Side> {
        let mut fleet = Fleet::new(
            relay.address,
            self.per_client,
            self.inner,
            Rc::clone(payload),
        )?;
        relay.park(&mut fleet, clients)?;
        Ok(Side { relay, fleet })
    }
}

/// Every client of a fleet.
fn all(clients: usize) -> Vec<u32> {
    (0..u32::try_from(clients).unwrap_or(u32::MAX)).collect()
}

/// The ratio of one side's CPU per scrape to the other's, round by round.
fn ratios(rounds: &[(Round, Round)]) -> Vec<f64> {
    rounds
        .iter()
        .map(|(one, other)| one.per_scrape() / other.per_scrape())
        .collect()
}

/// What one side did in some rounds, in words.
fn words<'a>(side: &str, rounds: impl IntoIterator<Item = &'a Round>) -> String {
    let rounds: Vec<&Round> = rounds.into_iter().collect();
    let middle = |of: &dyn Fn(&Round) -> f64| {
        let values: Vec<f64> = rounds.iter().map(|round| of(round)).collect();
        median(&values)
    };
    let milliseconds = |quantile: f64| {
        middle(&|round| round.outcome.latency.value_at_quantile(quantile) as f64 / 1e3)
    };
    format!(
        "{side}: {:.1} µs of CPU per scrape; {:.0} scrapes/s; latency p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        middle(&Round::per_scrape),
        middle(&|round| round.outcome.scrapes as f64 / round.outcome.elapsed.as_secs_f64()),
        milliseconds(0.5),
        milliseconds(0.99),
        milliseconds(0.999),
    )
}
