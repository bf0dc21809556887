//! The loads that a fleet puts on its relay: so many scrapes at once, or so many a second.

use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::Fleet;

/// What came of a load. All of its scrapes were answered, and answered well.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scrapes: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds from the time that each scrape was due to the end of its answer.
    pub(crate) latency: Histogram<u64>,
}

impl Fleet {
    /// Scrapes the clients `among` in turn, `at_once` at any time, for a while.
    pub(crate) fn closed(
        &mut self,
        at_once: usize,
        among: &[u32],
        duration: Duration,
    ) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        self.run(at_once, among, |_, now| now < start + duration)
    }

    /// Scrapes each of the clients `among` once, `at_once` at any time.
    pub(crate) fn each(&mut self, at_once: usize, among: &[u32]) -> anyhow::Result<Outcome> {
        self.cursor = 0;
        self.run(at_once, among, |begun, _| begun < among.len() as u64)
    }

    fn run(
        &mut self,
        at_once: usize,
        among: &[u32],
        goes_on: impl Fn(u64, Instant) -> bool,
    ) -> anyhow::Result<Outcome> {
        let mut tally = Tally::begin(self)?;
        let mut begun = 0;
        let mut now = Instant::now();
        loop {
            while self.scrapes < at_once && goes_on(begun, now) {
                self.scrape_next(among, now)?;
                begun += 1;
            }
            if !self.is_busy() {
                return tally.end(self);
            }
            self.turn(Some(STUCK_AFTER))?;
            now = Instant::now();
            tally.count(self, now)?;
        }
    }

    /// Scrapes the clients `among` in turn, `rate` a second, whether or not earlier scrapes have
    /// been answered.
    pub(crate) fn open_loop(
        &mut self,
        rate: u32,
        among: &[u32],
        duration: Duration,
    ) -> anyhow::Result<Outcome> {
        let mut tally = Tally::begin(self)?;
        let every = Duration::from_secs(1) / rate;
        let mut due = tally.start;
        let end = due + duration;
        loop {
            let mut now = Instant::now();
            while due < end && due <= now {
                self.scrape_next(among, due)?;
                due += every;
            }
            if due >= end && !self.is_busy() {
                return tally.end(self);
            }
            let wait = match due < end {
                true => due.saturating_duration_since(now),
                false => STUCK_AFTER,
            };
            self.turn(Some(wait))?;
            now = Instant::now();
            tally.count(self, now)?;
        }
    }

    fn scrape_next(&mut self, among: &[u32], due: Instant) -> anyhow::Result<()> {
        let next = among.get(self.cursor % among.len()).copied();
        self.cursor = (self.cursor + 1) % among.len();
        match next {
            Some(client) => self.scrape(client, due),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Tally {
    start: Instant,
    last: Instant,
    latency: Histogram<u64>,
}

impl Tally {
    fn begin(fleet: &mut Fleet) -> anyhow::Result<Self> {
        // Connections may have been closed while nobody looked.
        fleet.turn(Some(Duration::ZERO))?;
        let start = Instant::now();
        Ok(Self {
            start,
            last: start,
            latency: latencies()?,
        })
    }

    fn count(&mut self, fleet: &mut Fleet, now: Instant) -> anyhow::Result<()> {
        for due in fleet.answered.drain(..) {
            let latency = now.saturating_duration_since(due).as_micros();
            self.latency.saturating_record(u64::try_from(latency)?);
            self.last = now;
        }
        ensure!(
            now.saturating_duration_since(self.last) < STUCK_AFTER,
            "no scrape was answered for {} s: {} scrapes and {} pushes wait",
            STUCK_AFTER.as_secs(),
            fleet.scrapes,
            fleet.pushes
        );
        Ok(())
    }

    fn end(self, fleet: &mut Fleet) -> anyhow::Result<Outcome> {
        ensure!(
            fleet.failures.count == 0,
            "{} clients lost their polls, the first because {}",
            fleet.failures.count,
            fleet.failures.first.as_deref().unwrap_or("of nothing")
        );
        Ok(Outcome {
            scrapes: self.latency.len(),
            elapsed: self.start.elapsed(),
            latency: self.latency,
        })
    }
}

/// Takes microseconds up to a minute, to three digits.
pub(crate) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000_000, 3)?)
}

/// Longer than any scrape may take.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(12);
