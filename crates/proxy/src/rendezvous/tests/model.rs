//! Random histories of the rendezvous, held against a naive model of it.

use std::collections::HashMap;

use proptest::prelude::*;
use pushprox_protocol::{Fqdn, ScrapeId, Target};

use super::super::state::{Arrival, Lost, Parked, PollKey};
use super::{World, name, target};
use crate::error::Failure;

/// One step of a random history. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Park {
        name: usize,
        wait: Option<u64>,
        is_lost: bool,
    },
    Leave {
        poll: usize,
    },
    Scrape {
        target: usize,
        timeout: u64,
    },
    HangUp {
        scrape: usize,
    },
    Push {
        scrape: usize,
    },
    Lost {
        scrape: usize,
        lost: Lost,
    },
    Doubt {
        scrape: usize,
    },
    Settle {
        scrape: usize,
    },
    Pass {
        seconds: u64,
    },
    Drain,
}

const NAMES: [&str; 5] = ["a", "a:1", "A:2", "b:1", "B"];
const TARGETS: [&str; 5] = ["a:1", "a:2", "A:3", "b:1", "b:2"];

fn step() -> impl Strategy<Value = Step> {
    let wait = prop::option::of(1u64..60);
    prop_oneof![
        6 => (0..NAMES.len(), wait, any::<bool>())
            .prop_map(|(name, wait, is_lost)| Step::Park { name, wait, is_lost }),
        2 => any::<usize>().prop_map(|poll| Step::Leave { poll }),
        6 => (0..TARGETS.len(), 1u64..20).prop_map(|(target, timeout)| Step::Scrape { target, timeout }),
        1 => any::<usize>().prop_map(|scrape| Step::HangUp { scrape }),
        3 => any::<usize>().prop_map(|scrape| Step::Push { scrape }),
        1 => any::<usize>().prop_map(|scrape| Step::Lost { scrape, lost: Lost::Unsent }),
        2 => any::<usize>().prop_map(|scrape| Step::Lost { scrape, lost: Lost::Unseen }),
        3 => any::<usize>().prop_map(|scrape| Step::Doubt { scrape }),
        1 => any::<usize>().prop_map(|scrape| Step::Settle { scrape }),
        3 => prop_oneof![1u64..8, 100u64..400].prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let last = prop_oneof![3 => Just(None), 1 => Just(Some(Step::Drain))];
    let steps = prop::collection::vec(step(), 1..40);
    (steps, last, prop::collection::vec(step(), 0..5)).prop_map(|(mut steps, drain, after)| {
        steps.extend(drain);
        steps.extend(after);
        steps
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
    /// Under which name, the last time.
    name: Option<Fqdn>,
    turn: u32,
    is_doubted: bool,
    /// A client may have it that seems not to.
    is_sent: bool,
}

impl Model {
    /// The name whose clients may answer for a target now.
    fn name_for(&self, target: &Target) -> Option<&Fqdn> {
        let named = |wanted| self.names.keys().find(|name| name.as_ref() == wanted);
        named(target.exact()).or_else(|| named(target.bare()))
    }

    /// Takes the newest poll for a waiting scrape, if there is one.
    fn meet(&mut self, number: u32) -> Option<u32> {
        let scrape = self.scrapes.iter().find(|s| s.number == number)?;
        let name = self.name_for(&scrape.target)?.clone();
        let place = self.polls.iter().rposition(|poll| poll.name == name)?;
        let poll = self.polls.remove(place);
        self.names.insert(name, self.now);
        let scrape = self.scrape(number);
        scrape.is_handed_out = true;
        scrape.turn += 1;
        scrape.name = Some(poll.name);
        Some(poll.number)
    }

    fn scrape(&mut self, number: u32) -> &mut ModelScrape {
        let mut scrapes = self.scrapes.iter_mut();
        scrapes.find(|scrape| scrape.number == number).unwrap()
    }

    /// Chooses a scrape that a client has in hand: its number and its turn.
    fn in_hand(&self, which: usize) -> Option<(u32, u32)> {
        let in_hand = self.scrapes.iter().filter(|scrape| scrape.is_handed_out);
        let in_hand: Vec<_> = in_hand.map(|scrape| (scrape.number, scrape.turn)).collect();
        in_hand.get(which % in_hand.len().max(1)).copied()
    }

    /// Lets a scrape look for another poll: which it meets.
    fn lost(&mut self, number: u32, lost: Lost) -> Option<u32> {
        let scrape = self.scrape(number);
        scrape.is_handed_out = false;
        scrape.is_doubted = false;
        scrape.is_sent |= lost == Lost::Unseen;
        self.meet(number)
    }

    /// Waiting scrapes, oldest first.
    fn waiting(&self) -> Vec<u32> {
        let mut waiting: Vec<_> = self.scrapes.iter().filter(|s| !s.is_handed_out).collect();
        waiting.sort_by_key(|scrape| scrape.arrived);
        waiting.iter().map(|scrape| scrape.number).collect()
    }

    /// When a scrape must be answered, as things are.
    fn limit(&self, scrape: &ModelScrape) -> u64 {
        match scrape.is_handed_out || self.name_for(&scrape.target).is_some() {
            true => scrape.deadline,
            false => scrape.deadline.min(scrape.arrived + 5),
        }
    }

    fn remove(&mut self, number: u32) {
        self.scrapes.retain(|scrape| scrape.number != number);
    }
}

/// Runs a history through both and compares what each event says.
fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut model = Model::default();
    let mut keys: HashMap<u32, PollKey> = HashMap::new();
    for (number, step) in (0u32..).zip(steps) {
        match step {
            Step::Park {
                name: which,
                wait,
                is_lost,
            } => {
                let parked = world.park(NAMES[which], number, wait);
                if model.draining {
                    prop_assert!(matches!(parked, Parked::Refused));
                    continue;
                }
                let poll = ModelPoll {
                    number,
                    name: name(NAMES[which]),
                    ends: wait.map(|wait| model.now + wait),
                };
                let known = model.names.keys().find(|n| **n == poll.name).cloned();
                model
                    .names
                    .insert(known.unwrap_or(poll.name.clone()), model.now);
                model.polls.push(poll);
                let met = model
                    .waiting()
                    .into_iter()
                    .find_map(|scrape| model.meet(scrape).map(|poll| (poll, scrape)));
                match parked {
                    Parked::Meets(poll, hand_out) => {
                        prop_assert_eq!(met, Some((poll, hand_out.scrape)));
                    }
                    Parked::Waits(key) => {
                        prop_assert_eq!(met, None);
                        keys.insert(number, key);
                        look_into_doubts(&mut world, &mut model, which, is_lost)?;
                    }
                    Parked::Refused => prop_assert!(false, "refused"),
                }
            }
            Step::Leave { poll } => {
                if model.polls.is_empty() {
                    continue;
                }
                let gone = model.polls.remove(poll % model.polls.len());
                model.names.insert(gone.name, model.now);
                prop_assert_eq!(
                    world.state.unpark(keys[&gone.number], world.now),
                    Some(gone.number)
                );
            }
            Step::Scrape {
                target: which,
                timeout,
            } => {
                let arrival = world.scrape(number, TARGETS[which], timeout);
                if model.draining {
                    prop_assert!(matches!(arrival, Arrival::Refused(Failure::ShuttingDown)));
                    continue;
                }
                model.scrapes.push(ModelScrape {
                    number,
                    target: target(TARGETS[which]),
                    arrived: model.now,
                    deadline: model.now + timeout,
                    is_handed_out: false,
                    name: None,
                    turn: 0,
                    is_doubted: false,
                    is_sent: false,
                });
                match (arrival, model.meet(number)) {
                    (Arrival::Meets(poll, hand_out), met) => {
                        prop_assert_eq!(met, Some(poll));
                        prop_assert_eq!(hand_out.scrape, number);
                    }
                    (Arrival::Waits(until), None) => {
                        let scrape = model.scrapes.last().unwrap();
                        prop_assert_eq!((until - world.start).as_secs(), model.limit(scrape));
                    }
                    (arrival, met) => prop_assert!(false, "{arrival:?} but {met:?}"),
                }
            }
            Step::HangUp { scrape } => {
                if model.scrapes.is_empty() {
                    continue;
                }
                let gone = model.scrapes.remove(scrape % model.scrapes.len());
                world.state.cancel(ScrapeId::from(u128::from(gone.number)));
            }
            Step::Push { scrape } => {
                let number = u32::try_from(scrape % 50).unwrap();
                let in_hand = model
                    .scrapes
                    .iter()
                    .any(|s| s.number == number && (s.is_handed_out || s.is_sent));
                prop_assert_eq!(world.complete(number), in_hand.then_some(number));
                if in_hand {
                    model.remove(number);
                }
            }
            Step::Lost { scrape, lost } => {
                let Some((number, turn)) = model.in_hand(scrape) else {
                    continue;
                };
                prop_assert!(world.lost(number, turn - 1, lost).is_none(), "out of turn");
                let back = world.lost(number, turn, lost);
                if model.draining {
                    prop_assert!(back.is_none());
                    if lost == Lost::Unsent {
                        model.remove(number);
                    }
                    continue;
                }
                compare(back, model.lost(number, lost))?;
            }
            Step::Doubt { scrape } => {
                let Some((number, turn)) = model.in_hand(scrape) else {
                    continue;
                };
                let back = world.doubt(number, turn);
                let target = model.scrape(number).target.clone();
                let name = model.name_for(&target).cloned();
                match model
                    .polls
                    .iter()
                    .any(|poll| Some(&poll.name) == name.as_ref())
                {
                    true => compare(back, model.lost(number, Lost::Unseen))?,
                    false => {
                        prop_assert!(back.is_none());
                        model.scrape(number).is_doubted = true;
                    }
                }
            }
            Step::Settle { scrape } => {
                if let Some((number, turn)) = model.in_hand(scrape) {
                    world.state.settle(ScrapeId::from(u128::from(number)), turn);
                    model.scrape(number).is_doubted = false;
                }
            }
            Step::Pass { seconds } => {
                // A second at a time, as the expiry task would find it.
                for _ in 0..seconds {
                    world.pass(1);
                    model.now += 1;
                    pass_one_second(&mut world, &mut model)?;
                }
            }
            Step::Drain => {
                let (mut polls, _) = world.state.drain(world.now);
                polls.sort_unstable();
                let parked: Vec<u32> = model.polls.iter().map(|poll| poll.number).collect();
                prop_assert_eq!(polls, parked);
                for poll in std::mem::take(&mut model.polls) {
                    model.names.insert(poll.name, model.now);
                }
                model.draining = true;
                model.scrapes.retain(|scrape| scrape.is_handed_out);
            }
        }
        let mut names: Vec<String> = model.names.keys().map(Fqdn::to_string).collect();
        names.sort();
        prop_assert_eq!(world.names(), names);
        prop_assert_eq!(world.state.scrape_count(), model.scrapes.len());
    }
    prop_assert!(world.state.is_sound());
    Ok(())
}

fn compare(back: Option<Arrival<u32, u32>>, met: Option<u32>) -> Result<(), TestCaseError> {
    match (back, met) {
        (Some(Arrival::Meets(poll, _)), met) => prop_assert_eq!(met, Some(poll)),
        (Some(Arrival::Waits(_)), None) => {}
        (back, met) => prop_assert!(false, "{back:?} but {met:?}"),
    }
    Ok(())
}

/// What is in doubt under the name of a poll that came: it is lost, or its client has it.
fn look_into_doubts(
    world: &mut World,
    model: &mut Model,
    which: usize,
    is_lost: bool,
) -> Result<(), TestCaseError> {
    let polled = name(NAMES[which]);
    let doubted =
        |scrape: &&ModelScrape| scrape.is_doubted && scrape.name.as_ref() == Some(&polled);
    let doubted: Vec<_> = model.scrapes.iter().filter(doubted).cloned().collect();
    let mut found = world.doubted(NAMES[which]);
    found.sort_unstable();
    let mut expected: Vec<u32> = doubted.iter().map(|scrape| scrape.number).collect();
    expected.sort_unstable();
    prop_assert_eq!(found, expected);
    for scrape in doubted {
        if is_lost {
            let back = world.lost(scrape.number, scrape.turn, Lost::Unseen);
            return compare(back, model.lost(scrape.number, Lost::Unseen));
        }
        let id = ScrapeId::from(u128::from(scrape.number));
        world.state.settle(id, scrape.turn);
        model.scrape(scrape.number).is_doubted = false;
    }
    Ok(())
}

fn pass_one_second(world: &mut World, model: &mut Model) -> Result<(), TestCaseError> {
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
        match world.timed_out(scrape.number) {
            Ok(until) => {
                prop_assert!(limit > model.now);
                prop_assert_eq!(until.as_secs(), limit);
            }
            Err(failure) => {
                prop_assert!(limit <= model.now, "{failure}");
                model.remove(scrape.number);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn random_histories_go_as_the_model_says(steps in history()) {
        run(steps)?;
    }
}
