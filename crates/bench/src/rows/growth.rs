//! How the CPU per scrape grows with the number of parked clients.

use std::rc::Rc;
use std::time::Duration;

use super::side::{Load, Side};
use super::{Bench, all, ratios, scraped, words};
use crate::relay::{Relay, Round};
use crate::report::{Row, median};

/// Scrapes among a whole fleet and among a few clients, in turn.
pub(super) struct Growth {
    /// Of clients from all over a whole fleet.
    all: Vec<Round>,
    /// Of a few clients of a whole fleet.
    same: Vec<Round>,
    /// Of so few where there are no others.
    few: Vec<Round>,
}

impl Growth {
    /// What more parked clients cost, with what it costs to scrape more of them: the kernel finds
    /// less of their sockets in the processor's cache.
    fn of_all(&self) -> Vec<f64> {
        ratios(&self.all, &self.few)
    }

    /// What more parked clients cost where no more of them are scraped.
    fn of_same(&self) -> Vec<f64> {
        ratios(&self.same, &self.few)
    }
}

pub(super) fn measure(
    bench: &Bench,
    many: &mut Side,
    few: Relay,
    rounds: usize,
) -> anyhow::Result<Growth> {
    const AT_ONCE: Load = Load::AtOnce(16);
    const ROUND: Duration = Duration::from_millis(300);
    let payload = Rc::clone(&many.fleet.payload);
    let mut few = Side::new(bench, few, FEW, &payload)?;
    let (among_all, among_few) = (scraped(bench.clients), all(FEW));
    let among_same: Vec<u32> = among_all.iter().copied().step_by(10).take(FEW).collect();
    many.warm_up(&among_all)?;
    few.warm_up(&among_few)?;
    many.load(AT_ONCE, &among_all, ROUND)?;
    few.load(AT_ONCE, &among_few, ROUND)?;
    let mut growth = Growth {
        all: Vec::new(),
        same: Vec::new(),
        few: Vec::new(),
    };
    for _ in 0..rounds {
        growth.all.push(many.load(AT_ONCE, &among_all, ROUND)?);
        growth.few.push(few.load(AT_ONCE, &among_few, ROUND)?);
        growth.same.push(many.load(AT_ONCE, &among_same, ROUND)?);
    }
    Ok(growth)
}

/// The rows, with the growth of the least relay beside that of the proxy.
pub(super) fn rows(
    bench: &Bench,
    fleet: &mut Side,
    least: Option<&Growth>,
) -> anyhow::Result<Vec<Row>> {
    fleet.park_afresh()?;
    let few = Relay::proxy(&bench.proxy)?;
    let growth = measure(bench, fleet, few, bench.rounds)?;
    let clients = bench.clients;
    let row = |scraped: usize, of: fn(&Growth) -> Vec<f64>, rounds: &[Round]| {
        let figure =
            format!("CPU per scrape, 20 kB, {clients} parked, {scraped} scraped ÷ {FEW} parked");
        let least = least.map_or(f64::NAN, |least| median(&of(least)));
        Row::of_rounds("parked", &figure, of(&growth), 1.15, "×")
            .detail(words(&format!("{clients} parked"), rounds))
            .detail(words(&format!("{FEW} parked and scraped"), &growth.few))
            .detail(format!("the same ratio of the least relay: {least:.2} ×"))
    };
    Ok(vec![
        row(FEW, Growth::of_same, &growth.same),
        row(scraped(clients).len(), Growth::of_all, &growth.all),
    ])
}

/// So many clients are few.
const FEW: usize = 100;
