//! Random histories of the rendezvous, and how they are told when one goes wrong.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use super::super::state::Lost;
use super::bounds;
use super::run::run;
use crate::limits::Limits;

/// One step of a random history. Numbers choose among what there is, or has been.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Park {
        name: &'static str,
        wait: Option<u64>,
        /// Whether what is in doubt under the name is lost.
        is_lost: bool,
    },
    Leave {
        poll: usize,
    },
    /// A guard that cleans up late: its poll may have ended long ago.
    LeaveAgain {
        poll: usize,
    },
    Scrape {
        target: &'static str,
        timeout: u64,
    },
    HangUp {
        scrape: usize,
    },
    HangUpAgain {
        scrape: usize,
    },
    /// For any scrape that there has been: it may be over, or answered already.
    Push {
        scrape: usize,
    },
    /// As `Push`, by one who was not given the scrape.
    PushOfAnother {
        scrape: usize,
    },
    /// A hand-out that did not reach its client.
    Lost {
        scrape: usize,
        lost: Lost,
    },
    /// A hand-out that is not acknowledged.
    Doubt {
        scrape: usize,
    },
    /// A hand-out whose client shows that it has it.
    Settle {
        scrape: usize,
    },
    /// Seconds in which each timer is on time.
    Pass {
        seconds: u64,
    },
    /// Seconds in which nobody gets to run.
    Leap {
        seconds: u64,
    },
    Drain,
    Abandon,
}

/// A step, and whether the peer that it is about goes away in the same moment.
#[derive(Clone)]
pub(super) struct Move {
    pub(super) step: Step,
    pub(super) and_leave: bool,
}

#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) limits: Limits,
    pub(super) moves: Vec<Move>,
}

const NAMES: [&str; 5] = ["a", "a:1", "A:2", "b:1", "B"];
const TARGETS: [&str; 5] = ["a:1", "a:2", "A:3", "b:1", "b:2"];

fn step() -> impl Strategy<Value = Step> {
    let wait = prop::option::of(1u64..60);
    let number = 0..40usize;
    let lost = prop_oneof![Just(Lost::Unsent), Just(Lost::Unseen)];
    prop_oneof![
        12 => (select(&NAMES[..]), wait, any::<bool>())
            .prop_map(|(name, wait, is_lost)| Step::Park { name, wait, is_lost }),
        3 => number.clone().prop_map(|poll| Step::Leave { poll }),
        1 => number.clone().prop_map(|poll| Step::LeaveAgain { poll }),
        12 => (select(&TARGETS[..]), 1u64..20).prop_map(|(target, timeout)| Step::Scrape { target, timeout }),
        2 => number.clone().prop_map(|scrape| Step::HangUp { scrape }),
        1 => number.clone().prop_map(|scrape| Step::HangUpAgain { scrape }),
        6 => number.clone().prop_map(|scrape| Step::Push { scrape }),
        1 => number.clone().prop_map(|scrape| Step::PushOfAnother { scrape }),
        4 => (number.clone(), lost).prop_map(|(scrape, lost)| Step::Lost { scrape, lost }),
        4 => number.clone().prop_map(|scrape| Step::Doubt { scrape }),
        1 => number.prop_map(|scrape| Step::Settle { scrape }),
        6 => prop_oneof![1u64..8, 100u64..400].prop_map(|seconds| Step::Pass { seconds }),
        2 => prop_oneof![1u64..8, 100u64..400].prop_map(|seconds| Step::Leap { seconds }),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let limits = prop_oneof![
        2 => Just(bounds().limits),
        1 => (1..5usize, 1..6usize, 1..4usize).prop_map(|(names, scrapes, scrapes_per_host)| {
            Limits { names, scrapes, scrapes_per_host, ..Limits::default() }
        }),
    ];
    let moves = |length| {
        let one = (step(), prop::bool::weighted(0.1));
        let one = one.prop_map(|(step, and_leave)| Move { step, and_leave });
        prop::collection::vec(one, length)
    };
    let last = prop_oneof![
        6 => Just(vec![]),
        1 => Just(vec![Step::Drain]),
        1 => Just(vec![Step::Drain, Step::Abandon]),
    ];
    (limits, moves(1..32), last, moves(0..5)).prop_map(|(limits, mut moves, last, after)| {
        moves.extend(last.into_iter().map(|step| Move {
            step,
            and_leave: false,
        }));
        moves.extend(after);
        History { limits, moves }
    })
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = if self.and_leave { ", and is gone" } else { "" };
        write!(f, "{:?}{left}", self.step)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            names,
            scrapes,
            scrapes_per_host,
            ..
        } = self.limits;
        writeln!(
            f,
            "{names} names, {scrapes} scrapes, {scrapes_per_host} for a host"
        )?;
        for (number, step) in self.moves.iter().enumerate() {
            writeln!(f, "{number:>3}. {step:?}")?;
        }
        Ok(())
    }
}

/// Explores a share of the histories. What fails is shrunk to the shortest that fails.
fn explore(share: &str) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: HISTORIES / SHARES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let explored = Cell::new(0);
    let failed = Cell::new(false);
    let result = runner.run(&history(), |history| {
        // Once one has failed, what is run is it again, made shorter.
        explored.set(explored.get() + u32::from(!failed.get()));
        let outcome = catch_unwind(AssertUnwindSafe(|| run(history)));
        let outcome = outcome.unwrap_or_else(|_| Err(TestCaseError::fail("a panic")));
        failed.set(failed.get() || outcome.is_err());
        outcome
    });
    match result {
        // Past the harness, which keeps to itself what a test that succeeds prints.
        Ok(()) => writeln!(
            std::io::stderr(),
            "rendezvous: {} histories, {share} share",
            explored.get()
        )
        .unwrap(),
        Err(TestError::Fail(reason, shortest)) => panic!(
            "history {} goes wrong: {reason}
and so does the shortest, of {} steps:
{shortest}",
            explored.get(),
            shortest.moves.len()
        ),
        Err(error) => panic!("{error}"),
    }
}

/// As many as each run of the tests explores, new ones every time.
const HISTORIES: u32 = 100_000;
const SHARES: u32 = 4;

#[test]
fn random_histories_go_as_the_model_says_first_share() {
    explore("first");
}

#[test]
fn random_histories_go_as_the_model_says_second_share() {
    explore("second");
}

#[test]
fn random_histories_go_as_the_model_says_third_share() {
    explore("third");
}

#[test]
fn random_histories_go_as_the_model_says_fourth_share() {
    explore("fourth");
}
