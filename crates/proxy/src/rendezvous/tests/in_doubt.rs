//! The steps of a random history in which hand-outs are lost, or may be.

use proptest::prelude::*;

use super::super::state::{Arrival, Lost};
use super::model::ModelScrape;
use super::name;
use super::run::{Outcome, Run, id};

impl Run {
    pub(super) fn lost(&mut self, scrape: u32, lost: Lost) -> Outcome {
        let turn = self.model.scrape(scrape).turn;
        let earlier = self.world.lost(scrape, turn - 1, lost);
        prop_assert!(earlier.is_none(), "what is said of an earlier turn counts");
        let back = self.world.lost(scrape, turn, lost);
        if self.model.draining {
            prop_assert!(back.is_none());
            // What was sent may still be answered.
            if lost == Lost::Unsent {
                prop_assert_eq!(self.world.state.end_unsent(id(scrape), turn - 1), None);
                prop_assert_eq!(self.world.state.end_unsent(id(scrape), turn), Some(scrape));
                self.model.remove(scrape);
            }
            return Ok(());
        }
        prop_assert_eq!(self.world.state.end_unsent(id(scrape), turn), None);
        let met = self.model.lost(scrape, lost);
        is_same(back, met)
    }

    pub(super) fn doubt(&mut self, scrape: u32) -> Outcome {
        let ModelScrape {
            target,
            turn,
            deadline,
            ..
        } = self.model.scrape(scrape).clone();
        let back = self.world.doubt(scrape, turn);
        if deadline <= self.model.now {
            prop_assert!(back.is_none());
            return Ok(());
        }
        let name = self.model.name_for(&target);
        if self.model.polls.iter().any(|poll| Some(&poll.name) == name) {
            let met = self.model.lost(scrape, Lost::Unseen);
            return is_same(back, met);
        }
        prop_assert!(back.is_none());
        self.model.scrape(scrape).is_doubted = true;
        Ok(())
    }

    /// Its client shows that it has it.
    pub(super) fn has_it(&mut self, scrape: u32) {
        let scrape = self.model.scrape(scrape);
        scrape.is_doubted = false;
        self.world.state.settle(id(scrape.number), scrape.turn);
    }

    /// What is in doubt under the name of a poll that came is lost, or its client has it.
    pub(super) fn look_into_doubts(&mut self, text: &str, is_lost: bool) -> Outcome {
        let polled = name(text);
        let doubted = self.model.scrapes.iter().filter(|scrape| scrape.is_doubted);
        let mut doubted: Vec<u32> = doubted
            .filter(|scrape| scrape.name.as_ref() == Some(&polled))
            .map(|scrape| scrape.number)
            .collect();
        let mut found = self.world.doubted(text);
        found.sort_unstable();
        doubted.sort_unstable();
        prop_assert_eq!(&found, &doubted);
        for scrape in doubted {
            if is_lost {
                return self.lost(scrape, Lost::Unseen);
            }
            self.has_it(scrape);
        }
        Ok(())
    }
}

fn is_same(back: Option<Arrival<u32, u32>>, met: Option<u32>) -> Outcome {
    match (back, met) {
        (Some(Arrival::Meets(poll, _)), met) => prop_assert_eq!(met, Some(poll)),
        (Some(Arrival::Waits(_)), None) => {}
        (back, met) => prop_assert!(false, "{back:?} but {met:?}"),
    }
    Ok(())
}
