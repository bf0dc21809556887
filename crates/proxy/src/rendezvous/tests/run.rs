//! A random history of the rendezvous, run through the state machine and the model side by side.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use pushprox_protocol::{Fqdn, ScrapeId};

use super::super::state::{Arrival, Lost, Parked, PollKey};
use super::histories::{History, Move, Step};
use super::model::{Model, ModelPoll, ModelScrape};
use super::{World, name, target};
use crate::error::Failure;
use crate::limits::Limits;

/// A history under way: the state, the model, and all that there has been.
pub(super) struct Run {
    limits: Limits,
    pub(super) world: World,
    pub(super) model: Model,
    keys: HashMap<u32, PollKey>,
    /// The poll that was handed a scrape as it arrived, and that scrape.
    met: Option<(u32, u32)>,
    polls: Vec<u32>,
    scrapes: Vec<u32>,
}

pub(super) type Outcome = Result<(), TestCaseError>;

/// Runs a history through both and compares what each event says.
pub(super) fn run(history: History) -> Outcome {
    let limits = history.limits;
    let mut run = Run {
        limits,
        world: World::with_limits(limits),
        model: Model::default(),
        keys: HashMap::new(),
        met: None,
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

pub(super) fn id(number: u32) -> ScrapeId {
    ScrapeId::from(u128::from(number))
}

impl Run {
    fn step(&mut self, number: u32, step: &Step) -> Outcome {
        match *step {
            Step::Park {
                name,
                wait,
                is_lost,
            } => self.park(number, name, wait, is_lost),
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
                    let in_hand = self.model.answerable().contains(&scrape);
                    prop_assert_eq!(self.world.state.in_hand(id(scrape)).is_some(), in_hand);
                }
                Ok(())
            }
            Step::Lost { scrape, lost } => {
                pick(&self.model.in_hand(), scrape).map_or(Ok(()), |scrape| self.lost(scrape, lost))
            }
            Step::Doubt { scrape } => {
                pick(&self.model.in_hand(), scrape).map_or(Ok(()), |scrape| self.doubt(scrape))
            }
            Step::Settle { scrape } => {
                if let Some(scrape) = pick(&self.model.in_hand(), scrape) {
                    self.has_it(scrape);
                }
                Ok(())
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

    fn park(&mut self, number: u32, text: &str, wait: Option<u64>, is_lost: bool) -> Outcome {
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
                self.met = met;
            }
            Parked::Waits(key) => {
                prop_assert_eq!(met, None);
                self.keys.insert(number, key);
                return self.look_into_doubts(text, is_lost);
            }
            Parked::Refused => prop_assert!(false, "refused"),
        }
        Ok(())
    }

    /// A poll's connection ends: while it is parked, or with a scrape on its way to it.
    fn poll_goes(&mut self, poll: u32) -> Outcome {
        match self.met {
            Some((met, scrape)) if met == poll => self.lost(scrape, Lost::Unsent),
            _ => self.leave(poll),
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
            name: None,
            turn: 0,
            is_doubted: false,
            is_sent: false,
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
        let in_hand = self.model.answerable().contains(&scrape);
        prop_assert_eq!(self.world.complete(scrape), in_hand.then_some(scrape));
        if in_hand {
            self.model.remove(scrape);
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
