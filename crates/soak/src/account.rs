//! What became of the scrapes, and of the steady proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pushprox_testkit::rest::SLACK;

use crate::Settings;
use crate::world::World;

/// What a scrape counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    /// It had the answer of its target.
    Right,
    /// It had the error that it had to have.
    RightError,
    /// It failed while something that it needs was disturbed, and was told so or cut off.
    Excused,
    /// It was given up by its scraper, on purpose.
    GivenUp,
    /// It had an answer that is not its own or not whole, or failed without a fault.
    Wrong,
    /// It had no end.
    Stuck,
}

/// The account while it is being kept.
#[derive(Debug, Default)]
pub(crate) struct Book {
    asked: AtomicU64,
    ended: Mutex<BTreeMap<Ended, u64>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    examples: Mutex<Vec<String>>,
}

impl Book {
    pub(crate) fn asked(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn ended(&self, how: Ended, example: impl FnOnce() -> String) {
        *self.ended.lock().entry(how).or_default() += 1;
        if matches!(how, Ended::Wrong | Ended::Stuck) {
            let mut examples = self.examples.lock();
            if examples.len() < EXAMPLES {
                examples.push(example());
            }
        }
    }

    pub(crate) fn fault(&self, what: &'static str) {
        *self.faults.lock().entry(what).or_default() += 1;
    }
}

/// What the steady proxy had over time, in KiB, and what it has once everybody has left.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) memory: Vec<u64>,
    memory_at_rest: u64,
    descriptors_at_rest: usize,
}

impl Watched {
    pub(crate) async fn end(&mut self, world: &World) {
        (self.descriptors_at_rest, self.memory_at_rest) = world.everybody_leaves().await;
    }

    /// The median of each quarter.
    fn quarters(&self) -> [u64; 4] {
        let length = self.memory.len().div_ceil(4).max(1);
        let mut quarters = [0; 4];
        for (quarter, samples) in quarters.iter_mut().zip(self.memory.chunks(length)) {
            let mut samples = samples.to_vec();
            samples.sort_unstable();
            *quarter = samples.get(samples.len() / 2).copied().unwrap_or_default();
        }
        quarters
    }
}

/// What a soak came to.
#[derive(Debug)]
pub struct Account {
    settings: Settings,
    asked: u64,
    ended: BTreeMap<Ended, u64>,
    faults: BTreeMap<&'static str, u64>,
    examples: Vec<String>,
    watched: Watched,
}

impl Account {
    pub(crate) fn new(settings: Settings, book: &Book, watched: Watched) -> Self {
        Self {
            settings,
            asked: book.asked.load(Ordering::SeqCst),
            ended: book.ended.lock().clone(),
            faults: book.faults.lock().clone(),
            examples: book.examples.lock().clone(),
            watched,
        }
    }

    /// Whether every scrape is accounted for, none is wrong or stuck, and memory is flat.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let sum: u64 = self.ended.values().sum();
        sum == self.asked
            && self.count(Ended::Right) > 0
            && self.count(Ended::Wrong) + self.count(Ended::Stuck) == 0
            && self.is_flat()
    }

    /// Whether the last quarter needs no more memory than the second; in the first it is still
    /// growing to what the load needs.
    fn is_flat(&self) -> bool {
        let [_, second, _, last] = self.watched.quarters();
        last <= second + SLACK
    }

    fn count(&self, how: Ended) -> u64 {
        self.ended.get(&how).copied().unwrap_or_default()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { duration, seed } = self.settings;
        writeln!(f, "soak of {duration:?} with --seed={seed}")?;
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "faults             {faults:>8}")?;
        for (what, count) in &self.faults {
            writeln!(f, "  {count:>6}  {what}")?;
        }
        writeln!(f, "scrapes asked      {:>8}", self.asked)?;
        for (how, text) in [
            (Ended::Right, "answered right"),
            (Ended::RightError, "the right error"),
            (Ended::Excused, "failed in a fault"),
            (Ended::GivenUp, "given up by us"),
            (Ended::Wrong, "wrong"),
            (Ended::Stuck, "stuck"),
        ] {
            writeln!(f, "  {text:<17}{:>8}", self.count(how))?;
        }
        let quarters = self.watched.quarters();
        writeln!(
            f,
            "memory of the steady proxy by quarters, KiB: {quarters:?}"
        )?;
        writeln!(
            f,
            "at rest: {} KiB, {} descriptors, as many as when it was new",
            self.watched.memory_at_rest, self.watched.descriptors_at_rest
        )?;
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        let verdict = if self.is_clean() {
            "clean"
        } else {
            "NOT CLEAN"
        };
        write!(f, "{verdict}")
    }
}

const EXAMPLES: usize = 10;
