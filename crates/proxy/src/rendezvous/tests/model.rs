//! A naive model of the rendezvous.

use std::collections::HashMap;

use pushprox_protocol::{Fqdn, Target};

use super::super::state::Lost;
use crate::limits::Limits;

/// The rules said as plainly as can be: lists, searched from end to end.
#[derive(Default)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) polls: Vec<ModelPoll>,
    pub(super) scrapes: Vec<ModelScrape>,
    /// When a name's last poll ended.
    pub(super) names: HashMap<Fqdn, u64>,
    pub(super) draining: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ModelPoll {
    pub(super) number: u32,
    pub(super) name: Fqdn,
    pub(super) ends: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct ModelScrape {
    pub(super) number: u32,
    pub(super) target: Target,
    pub(super) arrived: u64,
    pub(super) deadline: u64,
    pub(super) is_handed_out: bool,
    /// Under which name, the last time, and how often.
    pub(super) name: Option<Fqdn>,
    pub(super) turn: u32,
    pub(super) is_doubted: bool,
    /// A client may have it that seems not to.
    pub(super) is_sent: bool,
}

impl Model {
    /// The name whose clients may answer for a target now.
    pub(super) fn name_for(&self, target: &Target) -> Option<&Fqdn> {
        let named = |wanted| self.names.keys().find(|name| name.as_ref() == wanted);
        named(target.exact()).or_else(|| named(target.bare()))
    }

    /// Registers a name, or notes that it was polled.
    pub(super) fn register(&mut self, name: &Fqdn) {
        let known = self.names.keys().find(|known| *known == name).cloned();
        self.names
            .insert(known.unwrap_or_else(|| name.clone()), self.now);
    }

    /// Takes the newest poll for a waiting scrape, if there is one and the scrape is not over.
    pub(super) fn meet(&mut self, number: u32) -> Option<u32> {
        let scrape = self.scrapes.iter().find(|s| s.number == number)?;
        if scrape.deadline <= self.now {
            return None;
        }
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

    /// A scrape that is there.
    pub(super) fn scrape(&mut self, number: u32) -> &mut ModelScrape {
        let mut scrapes = self.scrapes.iter_mut();
        scrapes.find(|scrape| scrape.number == number).unwrap()
    }

    /// Lets a scrape look for another poll: which it meets.
    pub(super) fn lost(&mut self, number: u32, lost: Lost) -> Option<u32> {
        let scrape = self.scrape(number);
        scrape.is_handed_out = false;
        scrape.is_doubted = false;
        scrape.is_sent |= lost == Lost::Unseen;
        self.meet(number)
    }

    /// Waiting scrapes, oldest first.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let waiting = self.scrapes.iter().filter(|s| !s.is_handed_out);
        waiting.map(|scrape| scrape.number).collect()
    }

    pub(super) fn in_hand(&self) -> Vec<u32> {
        let in_hand = self.scrapes.iter().filter(|s| s.is_handed_out);
        in_hand.map(|scrape| scrape.number).collect()
    }

    /// Scrapes that may be answered.
    pub(super) fn answerable(&self) -> Vec<u32> {
        let may_be = self.scrapes.iter().filter(|s| s.is_handed_out || s.is_sent);
        may_be.map(|scrape| scrape.number).collect()
    }

    /// Whether one more scrape of this target may not wait.
    pub(super) fn is_full(&self, limits: Limits, target: &Target) -> bool {
        let waiting = self.scrapes.iter().filter(|scrape| !scrape.is_handed_out);
        let of_host = waiting.clone().filter(|s| s.target.bare() == target.bare());
        waiting.count() >= limits.scrapes || of_host.count() >= limits.scrapes_per_host
    }

    /// When a scrape must be answered, as things are.
    pub(super) fn limit(&self, scrape: &ModelScrape) -> u64 {
        match scrape.is_handed_out || self.name_for(&scrape.target).is_some() {
            true => scrape.deadline,
            false => scrape.deadline.min(scrape.arrived + 5),
        }
    }

    /// When a name or a poll ends next.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let is_polled = |name: &Fqdn| self.polls.iter().any(|poll| poll.name == *name);
        let idle = self.names.iter().filter(|(name, _)| !is_polled(name));
        let polls = self.polls.iter().filter_map(|poll| poll.ends);
        idle.map(|(_, last)| last + 300).chain(polls).min()
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.scrapes.retain(|scrape| scrape.number != number);
    }
}
