//! The goals, and how each is measured.
//!
//! These machines are shared: wherever two things can be run side by side, a figure is the ratio of
//! both, in short rounds in turn, and its value is the median of the rounds.

mod client;
mod fleet_scale;
mod growth;
mod list;
pub(crate) mod side;
mod side_by_side;
mod size;
mod slow_readers;
mod tls;

use std::path::PathBuf;
use std::time::Instant;

use crate::fleet::Polls;
use crate::kernel::Machine;
use crate::messages::Inner;
use crate::relay::Round;
use crate::report::{Report, Row, median};

/// What is measured, and how.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) proxy: PathBuf,
    pub(crate) client: PathBuf,
    /// The size of the fleet that is parked.
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
    /// Scrapes a second in the open loop.
    pub(crate) rate: u32,
    pub(crate) polls: Polls,
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
    /// Memory of the client, and its CPU per pull of 500 kB
    Client,
    /// Memory per parked client over TLS, and CPU per scrape beside plain HTTP
    Tls,
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
            Self::Client => "client",
            Self::Tls => "tls",
            Self::Size => "size",
        }
    }
}

impl Bench {
    /// Measures the rows that are asked for. One that fails does not keep the others from being
    /// measured. Each is shown as soon as it is there.
    pub(crate) fn run(&self, wanted: &[RowName], mut show: impl FnMut(&Row)) -> Report {
        let start = Instant::now();
        let mut report = Report::new(self.machine.clone());
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
        if is_wanted(&RowName::Client) {
            keep(RowName::Client, client::measure(self));
        }
        if is_wanted(&RowName::Tls) {
            keep(RowName::Tls, tls::measure(self));
        }
        if is_wanted(&RowName::Size) {
            keep(RowName::Size, size::measure(self));
        }
        report.seconds = start.elapsed().as_secs_f64();
        report
    }
}

/// Every client of a fleet.
pub(crate) fn all(clients: usize) -> Vec<u32> {
    (0..u32::try_from(clients).unwrap_or(u32::MAX)).collect()
}

/// The clients that are scraped among a whole fleet: as many as there are descriptors for their
/// second connections.
pub(crate) fn scraped(clients: usize) -> Vec<u32> {
    let step = (clients / SCRAPED).max(1);
    all(clients)
        .into_iter()
        .step_by(step)
        .take(SCRAPED)
        .collect()
}

const SCRAPED: usize = 1000;

/// The ratio of one side's CPU per scrape to the other's, round by round.
fn ratios(ones: &[Round], others: &[Round]) -> Vec<f64> {
    ones.iter()
        .zip(others)
        .map(|(one, other)| one.per_scrape() / other.per_scrape())
        .collect()
}

/// What one side did in some rounds, in words.
fn words(side: &str, rounds: &[Round]) -> String {
    let middle = |of: &dyn Fn(&Round) -> f64| {
        let values: Vec<f64> = rounds.iter().map(of).collect();
        median(&values)
    };
    let milliseconds = |quantile: f64| {
        middle(&|round| round.outcome.latency.value_at_quantile(quantile) as f64 / 1e3)
    };
    let timeouts: u64 = rounds.iter().map(|round| round.timeouts).sum();
    let disturbed = match timeouts {
        0 => String::new(),
        _ => format!("; disturbed by {timeouts} timeouts of TCP"),
    };
    format!(
        "{side}: {:.1} µs of CPU per scrape; {:.0} scrapes/s; latency p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms{disturbed}",
        middle(&Round::per_scrape),
        middle(&|round| round.outcome.scrapes as f64 / round.outcome.elapsed.as_secs_f64()),
        milliseconds(0.5),
        milliseconds(0.99),
        milliseconds(0.999),
    )
}
