//! Tests of the state machine: its rules one by one, and random histories of it.

mod histories;
mod in_doubt;
mod model;
mod rules;
mod run;

use std::time::Duration;

use pushprox_protocol::{Fqdn, ScrapeId, Target};
use tokio::time::Instant;

use super::state::{Arrival, Bounds, Due, HandOut, Lost, Parked, PollKey, State};
use crate::error::Failure;
use crate::limits::Limits;

fn bounds() -> Bounds {
    Bounds {
        registration_timeout: Duration::from_secs(300),
        unregistered_wait: Duration::from_secs(5),
        limits: Limits {
            names: 100,
            scrapes: 100,
            scrapes_per_host: 50,
            ..Limits::default()
        },
    }
}

/// Polls and answers are told by number; a scrape is its own number.
type TestState = State<u32, u32, u32>;

fn name(text: &str) -> Fqdn {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target::from_uri(&format!("http://{text}/metrics").parse().unwrap()).unwrap()
}

/// A state with a clock, and shorthands for its events.
struct World {
    state: TestState,
    start: Instant,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with_limits(bounds().limits)
    }

    fn with_limits(limits: Limits) -> Self {
        let now = Instant::now();
        let bounds = Bounds { limits, ..bounds() };
        Self {
            state: State::new(bounds),
            start: now,
            now,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn park(&mut self, text: &str, poll: u32, wait: Option<u64>) -> Parked<u32, u32> {
        let ends = wait.map(|seconds| self.now + Duration::from_secs(seconds));
        self.state.park(&name(text), poll, ends, self.now)
    }

    fn parked(&mut self, text: &str, poll: u32) -> PollKey {
        match self.park(text, poll, None) {
            Parked::Waits(key) => key,
            other => panic!("{other:?}"),
        }
    }

    fn scrape(&mut self, number: u32, text: &str, timeout: u64) -> Arrival<u32, u32> {
        let deadline = self.now + Duration::from_secs(timeout);
        let id = ScrapeId::from(u128::from(number));
        self.state
            .scrape(id, target(text), number, number, deadline, self.now)
    }

    /// The poll that a scrape meets at once.
    fn met(&mut self, number: u32, text: &str) -> Option<u32> {
        match self.scrape(number, text, 10) {
            Arrival::Meets(poll, hand_out) => {
                assert_eq!(hand_out.scrape, number);
                Some(poll)
            }
            Arrival::Waits(_) => None,
            Arrival::Refused(failure) => panic!("{failure}"),
        }
    }

    /// The scrape that a poll meets at once.
    fn handed(&mut self, text: &str, poll: u32) -> Option<u32> {
        match self.park(text, poll, None) {
            Parked::Meets(told, HandOut { scrape, .. }) => {
                assert_eq!(told, poll);
                Some(scrape)
            }
            Parked::Waits(_) => None,
            Parked::Refused => panic!("refused"),
        }
    }

    fn timed_out(&mut self, number: u32) -> Result<Duration, Failure> {
        let id = ScrapeId::from(u128::from(number));
        match self.state.timed_out(id, self.now) {
            Some(Due::Later(until)) => Ok(until - self.start),
            Some(Due::Over(told, failure)) => {
                assert_eq!(told, number);
                Err(failure)
            }
            None => panic!("scrape {number} is not there"),
        }
    }

    /// What becomes of a scrape whose hand-out of that turn came to nothing.
    fn lost(&mut self, number: u32, turn: u32, lost: Lost) -> Option<Arrival<u32, u32>> {
        let id = ScrapeId::from(u128::from(number));
        self.state.give_back(id, turn, lost, self.now)
    }

    fn doubt(&mut self, number: u32, turn: u32) -> Option<Arrival<u32, u32>> {
        let id = ScrapeId::from(u128::from(number));
        self.state.doubt(id, turn, self.now)
    }

    /// The scrapes in doubt of clients of this name.
    fn doubted(&self, text: &str) -> Vec<u32> {
        let doubted = self.state.doubted(name(text).as_ref());
        doubted.iter().map(|hand_out| hand_out.scrape).collect()
    }

    fn complete(&mut self, number: u32) -> Option<u32> {
        self.state
            .complete(ScrapeId::from(u128::from(number)))
            .map(|completion| completion.answer)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state.names().map(Fqdn::to_string).collect();
        names.sort();
        names
    }
}
