//! Random histories of the rendezvous, held against a naive model of it.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestError, TestRunner};
use pushprox_protocol::{Fqdn, ScrapeId, Target};

use super::super::state::{Arrival, Parked, PollKey};
use super::{World, name, target};
use crate::error::Failure;

/// One step of a random history. Numbers choose among what there is, or has been.
#[derive(Debug, Clone)]
enum Step {
    Park {
        name: &'static str,
        wait: Option<u64>,
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
    GiveBack {
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
struct Move {
    step: Step,
    and_leave: bool,
}

#[derive(Debug, Clone)]
struct History {
    limits: Limits,
    moves: Vec<Move>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    names: usize,
    waiting: usize,
    waiting_per_host: usize,
}

const NAMES: [&str; 5] = ["a", "a:1", "A:2", "b:1", "B"];
const TARGETS: [&str; 5] = ["a:1", "a:2", "A:3", "b:1", "b:2"];

fn step() -> impl Strategy<Value = Step> {
    let wait = prop::option::of(1u64..60);
    let any = 0..40usize;
    prop_oneof![
        12 => (select(&NAMES[..]), wait).prop_map(|(name, wait)| Step::Park { name, wait }),
        3 => any.clone().prop_map(|poll| Step::Leave { poll }),
        1 => any.clone().prop_map(|poll| Step::LeaveAgain { poll }),
        12 => (select(&TARGETS[..]), 1u64..20).prop_map(|(target, timeout)| Step::Scrape { target, timeout }),
        2 => any.clone().prop_map(|scrape| Step::HangUp { scrape }),
        1 => any.clone().prop_map(|scrape| Step::HangUpAgain { scrape }),
        6 => any.clone().prop_map(|scrape| Step::Push { scrape }),
        1 => any.clone().prop_map(|scrape| Step::PushOfAnother { scrape }),
        3 => any.prop_map(|scrape| Step::GiveBack { scrape }),
        6 => prop_oneof![1u64..8, 100u64..400].prop_map(|seconds| Step::Pass { seconds }),
        2 => prop_oneof![1u64..8, 100u64..400].prop_map(|seconds| Step::Leap { seconds }),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let limits = prop_oneof![
        2 => Just(Limits { names: 100, waiting: 100, waiting_per_host: 50 }),
        1 => (1..5usize, 1..6usize, 1..4usize).prop_map(|(names, waiting, waiting_per_host)| {
            Limits { names, waiting, waiting_per_host }
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

/// The rules said as plainly as can be: lists, searched from end to end.
#[derive(Default)]
struct Model {
    now: u64,
    polls: Vec<ModelPoll>,
    scrapes: Vec<ModelScrape>,
    /// When a name's last poll ended.
    names: HashMap<Fqdn, u64>,
    draining: bool,
}

#[derive(Debug, Clone)]
struct ModelPoll {
    number: u32,
    name: Fqdn,
    ends: Option<u64>,
}

#[derive(Debug, Clone)]
struct ModelScrape {
    number: u32,
    target: Target,
    arrived: u64,
    deadline: u64,
    is_handed_out: bool,
}

impl Model {
    /// The name whose clients may answer for a target now.
    fn name_for(&self, target: &Target) -> Option<&Fqdn> {
        let named = |wanted| self.names.keys().find(|name| name.as_ref() == wanted);
        named(target.exact()).or_else(|| named(target.bare()))
    }

    /// Registers a name, or notes that it was polled.
    fn register(&mut self, name: &Fqdn) {
        let known = self.names.keys().find(|known| *known == name).cloned();
        self.names
            .insert(known.unwrap_or_else(|| name.clone()), self.now);
    }

    /// Takes the newest poll for a waiting scrape, if there is one and the scrape is not over.
    fn meet(&mut self, number: u32) -> Option<u32> {
        let scrape = self.scrapes.iter().find(|s| s.number == number)?;
        if scrape.deadline <= self.now {
            return None;
        }
        let name = self.name_for(&scrape.target)?.clone();
        let place = self.polls.iter().rposition(|poll| poll.name == name)?;
        let poll = self.polls.remove(place);
        self.names.insert(name, self.now);
        for scrape in &mut self.scrapes {
            scrape.is_handed_out |= scrape.number == number;
        }
        Some(poll.number)
    }

    /// Waiting scrapes, oldest first.
    fn waiting(&self) -> Vec<u32> {
        let waiting = self.scrapes.iter().filter(|s| !s.is_handed_out);
        waiting.map(|scrape| scrape.number).collect()
    }

    fn in_hand(&self) -> Vec<u32> {
        let in_hand = self.scrapes.iter().filter(|s| s.is_handed_out);
        in_hand.map(|scrape| scrape.number).collect()
    }

    /// Whether one more scrape of this target may not wait.
    fn is_full(&self, limits: Limits, target: &Target) -> bool {
        let waiting = self.scrapes.iter().filter(|scrape| !scrape.is_handed_out);
        let of_host = waiting.clone().filter(|s| s.target.bare() == target.bare());
        waiting.count() >= limits.waiting || of_host.count() >= limits.waiting_per_host
    }

    /// When a scrape must be answered, as things are.
    fn limit(&self, scrape: &ModelScrape) -> u64 {
        match scrape.is_handed_out || self.name_for(&scrape.target).is_some() {
            true => scrape.deadline,
            false => scrape.deadline.min(scrape.arrived + 5),
        }
    }

    /// When a name or a poll ends next.
    fn next_expiry(&self) -> Option<u64> {
        let is_polled = |name: &Fqdn| self.polls.iter().any(|poll| poll.name == *name);
        let idle = self.names.iter().filter(|(name, _)| !is_polled(name));
        let polls = self.polls.iter().filter_map(|poll| poll.ends);
        idle.map(|(_, last)| last + 300).chain(polls).min()
    }

    fn remove(&mut self, number: u32) {
        self.scrapes.retain(|scrape| scrape.number != number);
    }
}

/// A history under way: the state, the model, and all that there has been.
struct Run {
    limits: Limits,
    world: World,
    model: Model,
    keys: HashMap<u32, PollKey>,
    polls: Vec<u32>,
    scrapes: Vec<u32>,
}

type Outcome = Result<(), TestCaseError>;

/// Runs a history through both and compares what each event says.
fn run(history: History) -> Outcome {
    let limits = history.limits;
    let mut run = Run {
        limits,
        world: World::with_limits(limits.names, limits.waiting, limits.waiting_per_host),
        model: Model::default(),
        keys: HashMap::new(),
        polls: Vec::new(),
        scrapes: Vec::new(),
    };
    for (number, Move { step, and_leave }) in (0u32..).zip(history.moves) {
        run.step(number, &step)?;
        run.compare()?;
        if and_leave {
            match step {
                Step::Park { .. } => run.poll_goes(number)?,
                Step::Scrape { .. } => run.hang_up(number),
                _ => {}
            }
            run.compare()?;
        }
    }
    // Once everybody has gone, nothing is left of them.
    for poll in run.model.polls.clone() {
        run.leave(poll.number)?;
    }
    run.pass(700)?;
    prop_assert_eq!(run.world.names(), Vec::<String>::new());
    prop_assert_eq!(run.world.state.scrape_count(), 0);
    prop_assert_eq!(run.world.state.next_expiry(), None);
    Ok(())
}

fn pick(among: &[u32], number: usize) -> Option<u32> {
    among.get(number % among.len().max(1)).copied()
}

fn id(number: u32) -> ScrapeId {
    ScrapeId::from(u128::from(number))
}

impl Run {
    fn step(&mut self, number: u32, step: &Step) -> Outcome {
        match *step {
            Step::Park { name, wait } => self.park(number, name, wait),
            Step::Leave { poll } => {
                let parked: Vec<u32> = self.model.polls.iter().map(|p| p.number).collect();
                pick(&parked, poll).map_or(Ok(()), |poll| self.leave(poll))
            }
            Step::LeaveAgain { poll } => {
                pick(&self.polls, poll).map_or(Ok(()), |poll| self.leave(poll))
            }
            Step::Scrape { target, timeout } => self.scrape(number, target, timeout),
            Step::HangUp { scrape } => {
                let there: Vec<u32> = self.model.scrapes.iter().map(|s| s.number).collect();
                pick(&there, scrape)
                    .into_iter()
                    .for_each(|scrape| self.hang_up(scrape));
                Ok(())
            }
            Step::HangUpAgain { scrape } => {
                pick(&self.scrapes, scrape)
                    .into_iter()
                    .for_each(|scrape| self.hang_up(scrape));
                Ok(())
            }
            Step::Push { scrape } => {
                pick(&self.scrapes, scrape).map_or(Ok(()), |scrape| self.push(scrape))
            }
            Step::PushOfAnother { scrape } => {
                // Its sender is compared with who has it in hand, and nothing comes of it.
                if let Some(scrape) = pick(&self.scrapes, scrape) {
                    let in_hand = self.model.in_hand().contains(&scrape);
                    prop_assert_eq!(self.world.state.in_hand(id(scrape)).is_some(), in_hand);
                }
                Ok(())
            }
            Step::GiveBack { scrape } => {
                pick(&self.model.in_hand(), scrape).map_or(Ok(()), |scrape| self.give_back(scrape))
            }
            Step::Pass { seconds } => self.pass(seconds),
            Step::Leap { seconds } => {
                self.leap(seconds);
                Ok(())
            }
            Step::Drain => self.drain(),
            Step::Abandon => {
                let mut told = self.world.state.abandon();
                told.sort_unstable();
                prop_assert_eq!(told, self.model.in_hand());
                self.model.scrapes.clear();
                Ok(())
            }
        }
    }

    /// What can be seen from outside.
    fn compare(&self) -> Outcome {
        let mut names: Vec<String> = self.model.names.keys().map(Fqdn::to_string).collect();
        names.sort();
        prop_assert_eq!(self.world.state.name_count(), names.len());
        prop_assert_eq!(self.world.names(), names);
        prop_assert_eq!(self.world.state.scrape_count(), self.model.scrapes.len());
        // The expiry task may be woken too early, but never too late.
        if let Some(due) = self.model.next_expiry() {
            let next = self
                .world
                .state
                .next_expiry()
                .map(|next| (next - self.world.start).as_secs());
            prop_assert!(
                next.is_some_and(|next| next <= due),
                "woken at {next:?} for {due}"
            );
        }
        prop_assert!(self.world.state.is_sound(), "unsound");
        Ok(())
    }

    fn park(&mut self, number: u32, text: &str, wait: Option<u64>) -> Outcome {
        let parked = self.world.park(text, number, wait);
        let name = name(text);
        let model = &mut self.model;
        let is_full = model.names.len() >= self.limits.names && !model.names.contains_key(&name);
        if model.draining || is_full {
            prop_assert!(matches!(parked, Parked::Refused), "{parked:?}");
            return Ok(());
        }
        self.polls.push(number);
        model.register(&name);
        let ends = wait.map(|wait| model.now + wait);
        model.polls.push(ModelPoll { number, name, ends });
        let mut waiting = model.waiting().into_iter();
        let met = waiting.find_map(|scrape| model.meet(scrape).map(|poll| (poll, scrape)));
        match parked {
            Parked::Meets(poll, hand_out) => {
                prop_assert_eq!(met, Some((poll, hand_out.scrape)));
            }
            Parked::Waits(key) => {
                prop_assert_eq!(met, None);
                self.keys.insert(number, key);
            }
            Parked::Refused => prop_assert!(false, "refused"),
        }
        Ok(())
    }

    /// A poll's connection ends: while it is parked, or with a scrape on its way to it.
    fn poll_goes(&mut self, poll: u32) -> Outcome {
        if self.keys.contains_key(&poll) {
            return self.leave(poll);
        }
        match self.model.in_hand().last() {
            Some(&scrape) => self.give_back(scrape),
            None => Ok(()),
        }
    }

    fn leave(&mut self, poll: u32) -> Outcome {
        let Some(key) = self.keys.get(&poll) else {
            return Ok(());
        };
        let model = &mut self.model;
        let parked = model.polls.iter().position(|p| p.number == poll);
        if let Some(place) = parked {
            let gone = model.polls.remove(place);
            model.names.insert(gone.name, model.now);
        }
        let told = self.world.state.unpark(*key, self.world.now);
        prop_assert_eq!(told, parked.map(|_| poll));
        Ok(())
    }

    fn scrape(&mut self, number: u32, text: &str, timeout: u64) -> Outcome {
        let arrival = self.world.scrape(number, text, timeout);
        let model = &mut self.model;
        if model.draining {
            prop_assert!(matches!(arrival, Arrival::Refused(Failure::ShuttingDown)));
            return Ok(());
        }
        let scrape = ModelScrape {
            number,
            target: target(text),
            arrived: model.now,
            deadline: model.now + timeout,
            is_handed_out: false,
        };
        let is_full = model.is_full(self.limits, &scrape.target);
        model.scrapes.push(scrape);
        let met = model.meet(number);
        if is_full && met.is_none() {
            prop_assert!(matches!(arrival, Arrival::Refused(_)), "{arrival:?}");
            model.remove(number);
            return Ok(());
        }
        self.scrapes.push(number);
        match (arrival, met) {
            (Arrival::Meets(poll, hand_out), met) => {
                prop_assert_eq!(met, Some(poll));
                prop_assert_eq!(hand_out.scrape, number);
            }
            (Arrival::Waits(until), None) => {
                let scrape = model.scrapes.last().unwrap();
                prop_assert_eq!((until - self.world.start).as_secs(), model.limit(scrape));
            }
            (arrival, met) => prop_assert!(false, "{arrival:?} but {met:?}"),
        }
        Ok(())
    }

    fn hang_up(&mut self, scrape: u32) {
        self.model.remove(scrape);
        self.world.state.cancel(id(scrape));
    }

    fn push(&mut self, scrape: u32) -> Outcome {
        let in_hand = self.model.in_hand().contains(&scrape);
        prop_assert_eq!(self.world.complete(scrape), in_hand.then_some(scrape));
        if in_hand {
            self.model.remove(scrape);
        }
        Ok(())
    }

    fn give_back(&mut self, scrape: u32) -> Outcome {
        let back = self.world.state.give_back(id(scrape), self.world.now);
        if self.model.draining {
            prop_assert!(back.is_none());
            self.model.remove(scrape);
            return Ok(());
        }
        for other in &mut self.model.scrapes {
            other.is_handed_out &= other.number != scrape;
        }
        match (back, self.model.meet(scrape)) {
            (Some(Arrival::Meets(poll, _)), met) => prop_assert_eq!(met, Some(poll)),
            (Some(Arrival::Waits(_)), None) => {}
            (back, met) => prop_assert!(false, "{back:?} but {met:?}"),
        }
        Ok(())
    }

    fn drain(&mut self) -> Outcome {
        let (mut polls, mut answers) = self.world.state.drain(self.world.now);
        let model = &mut self.model;
        polls.sort_unstable();
        answers.sort_unstable();
        let parked: Vec<u32> = model.polls.iter().map(|poll| poll.number).collect();
        prop_assert_eq!(polls, parked);
        prop_assert_eq!(answers, model.waiting());
        for poll in std::mem::take(&mut model.polls) {
            model.names.insert(poll.name, model.now);
        }
        model.draining = true;
        model.scrapes.retain(|scrape| scrape.is_handed_out);
        Ok(())
    }

    /// Lets time pass with every timer on time. Nothing happens between the moments at which
    /// something is due, which the second before each of them shows.
    fn pass(&mut self, seconds: u64) -> Outcome {
        let end = self.model.now + seconds;
        while self.model.now < end {
            let limits = self
                .model
                .scrapes
                .iter()
                .map(|scrape| self.model.limit(scrape));
            let due = limits.chain(self.model.next_expiry()).min().unwrap_or(end);
            let due = due.clamp(self.model.now + 1, end);
            for moment in [due - 1, due] {
                self.leap(moment - self.model.now);
                self.settle()?;
            }
        }
        Ok(())
    }

    fn leap(&mut self, seconds: u64) {
        self.world.pass(seconds);
        self.model.now += seconds;
    }

    /// Has everything end that is over now.
    fn settle(&mut self) -> Outcome {
        let (world, model) = (&mut self.world, &mut self.model);
        let (mut ended, met) = world.state.expire(world.now);
        let over = |poll: &ModelPoll| poll.ends.is_some_and(|ends| ends <= model.now);
        let (gone, stay): (Vec<_>, Vec<_>) = model.polls.iter().cloned().partition(over);
        model.polls = stay;
        for poll in &gone {
            model.names.insert(poll.name.clone(), model.now);
        }
        let mut gone: Vec<u32> = gone.iter().map(|poll| poll.number).collect();
        gone.sort_unstable();
        ended.sort_unstable();
        prop_assert_eq!(ended, gone);

        let now = model.now;
        let polls = &model.polls;
        model
            .names
            .retain(|name, last| polls.iter().any(|poll| poll.name == *name) || *last + 300 > now);
        let mut expected = Vec::new();
        for number in model.waiting() {
            expected.extend(model.meet(number).map(|poll| (poll, number)));
        }
        let mut met: Vec<_> = met.iter().map(|(poll, h)| (*poll, h.scrape)).collect();
        met.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(met, expected);

        for scrape in model.scrapes.clone() {
            let limit = model.limit(&scrape);
            let is_registered = model.name_for(&scrape.target).is_some();
            match world.timed_out(scrape.number) {
                Ok(until) => {
                    prop_assert!(limit > model.now);
                    prop_assert_eq!(until.as_secs(), limit);
                }
                Err(failure) => {
                    prop_assert!(limit <= model.now, "{failure}");
                    let is_right = match failure {
                        Failure::NotAnswered { .. } => scrape.is_handed_out,
                        Failure::NotPolled { .. } => !scrape.is_handed_out && is_registered,
                        Failure::NotRegistered { .. } => !scrape.is_handed_out && !is_registered,
                        _ => false,
                    };
                    prop_assert!(is_right, "{failure} of {scrape:?}");
                    model.remove(scrape.number);
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = if self.and_leave { ", and is gone" } else { "" };
        write!(f, "{:?}{left}", self.step)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.limits)?;
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
    let explored = std::cell::Cell::new(0);
    let result = runner.run(&history(), |history| {
        explored.set(explored.get() + 1);
        run(history)
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
            "after {} histories, shrinking included: {reason}\n{shortest}",
            explored.get()
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
