//! Which CPUs the fleet and the processes under test run on.
//!
//! Left to the kernel, a relay that has little to do runs beside the fleet on one CPU or apart from it, by
//! chance. Apart, each message wakes another CPU, and on a virtual machine that costs several times what
//! the relay does itself. So figures of different placements cannot be compared.

use std::fmt;
use std::process::{Child, Command};
use std::sync::OnceLock;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Where things run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Placement {
    /// Wherever the kernel puts them
    #[default]
    Free,
    /// All on one CPU
    Together,
    /// The fleet on one CPU, the processes under test on the others
    Apart,
}

#[derive(Debug)]
struct Places {
    fleet: CpuSet,
    under_test: CpuSet,
}

/// Where this process has placed itself, which is the fleet, and places those under test.
static PLACES: OnceLock<Places> = OnceLock::new();

impl Placement {
    /// Takes a place for this thread, and for all processes under test that are started from now on.
    /// Which one was taken: where there is one CPU, all are together on it.
    pub(crate) fn take(self) -> anyhow::Result<Self> {
        if self == Self::Free {
            return Ok(self);
        }
        let all = sched_getaffinity(None).context("cannot see the CPUs of this process")?;
        let fleet = first_of(&all)?;
        let is_apart = self == Self::Apart && all.count() > 1;
        let mut under_test = fleet;
        if is_apart {
            let others = (0..CpuSet::MAX_CPU).filter(|cpu| !fleet.is_set(*cpu) && all.is_set(*cpu));
            under_test = CpuSet::new();
            others.for_each(|cpu| under_test.set(cpu));
        }
        sched_setaffinity(None, &fleet).context("cannot choose a CPU for the fleet")?;
        PLACES.get_or_init(|| Places { fleet, under_test });
        Ok(match is_apart {
            true => Self::Apart,
            false => Self::Together,
        })
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Together => "together",
            Self::Apart => "apart",
        })
    }
}

/// This thread, and each process that it starts, are on one CPU as long as this lives.
#[derive(Debug)]
pub(crate) struct OnOneCpu {
    before: CpuSet,
}

/// Goes to one CPU with all that is started from now on, where places are the kernel's to choose.
pub(crate) fn on_one_cpu() -> anyhow::Result<Option<OnOneCpu>> {
    if PLACES.get().is_some() {
        return Ok(None);
    }
    let before = sched_getaffinity(None).context("cannot see the CPUs of this process")?;
    let one = first_of(&before)?;
    sched_setaffinity(None, &one).context("cannot choose a CPU")?;
    Ok(Some(OnOneCpu { before }))
}

impl Drop for OnOneCpu {
    fn drop(&mut self) {
        // Where it has come from it can go back to, unless the machine has changed meanwhile.
        sched_setaffinity(None, &self.before).ok();
    }
}

fn first_of(cpus: &CpuSet) -> anyhow::Result<CpuSet> {
    let first = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(first.context("there is no CPU for this process")?);
    Ok(one)
}

/// Starts a process under test in its place, where all of its threads will be.
pub(crate) fn start(command: &mut Command) -> anyhow::Result<Child> {
    let Some(places) = PLACES.get() else {
        return Ok(command.spawn()?);
    };
    // A process begins where its parent is.
    sched_setaffinity(None, &places.under_test)
        .context("cannot choose a CPU for the process under test")?;
    let child = command.spawn();
    if let Err(error) = sched_setaffinity(None, &places.fleet) {
        if let Ok(mut child) = child {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
        return Err(error).context("cannot go back to the CPU of the fleet");
    }
    Ok(child?)
}
