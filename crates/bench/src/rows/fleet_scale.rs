//! What is measured on one whole fleet: its memory, its registrations, its effect on scrapes, and its
//! list.

use std::rc::Rc;

use anyhow::Context as _;

use super::growth::{self, Growth};
use super::side::Side;
use super::{Bench, RowName, all, list};
use crate::fleet::Polls;
use crate::payload::Payload;
use crate::relay::Relay;
use crate::report::{Row, median};

/// In the order in which they are measured on one fleet.
pub(super) const ROWS: [RowName; 4] = [
    RowName::Memory,
    RowName::Parked,
    RowName::Clients,
    RowName::Reconnect,
];

/// Measures some of [`ROWS`].
pub(super) fn measure(
    bench: &Bench,
    wanted: &[RowName],
    keep: &mut impl FnMut(RowName, anyhow::Result<Vec<Row>>),
) {
    let payload = Rc::new(Payload::new(20_000));
    let park = |relay: anyhow::Result<Relay>| Side::new(bench, relay?, bench.clients, &payload);
    let first = wanted.first().copied().unwrap_or(RowName::Memory);
    // Before the proxy's: a process cannot open the files of two fleets.
    let least = park(Relay::least()).and_then(|mut least| {
        Ok(Least {
            parked: least.words("least relay"),
            growth: match wanted.contains(&RowName::Parked) {
                true => {
                    let few = Relay::least()?;
                    Some(growth::measure(
                        bench,
                        &mut least,
                        few,
                        bench.rounds.div_ceil(3),
                    )?)
                }
                false => None,
            },
        })
    });
    let (least, mut fleet) = match (least, park(Relay::proxy(&bench.proxy))) {
        (Ok(least), Ok(fleet)) => (least, fleet),
        (Err(error), _) | (_, Err(error)) => return keep(first, Err(error)),
    };
    for name in wanted {
        let rows = match name {
            RowName::Memory => Ok(vec![memory(bench, &fleet, &least)]),
            RowName::Parked => growth::rows(bench, &mut fleet, least.growth.as_ref()),
            RowName::Clients => list::measure(bench, &mut fleet),
            _ => reconnect(bench, &mut fleet),
        };
        keep(*name, rows);
    }
}

/// What the same fleet costs the least relay.
struct Least {
    parked: String,
    growth: Option<Growth>,
}

fn memory(bench: &Bench, fleet: &Side, least: &Least) -> Row {
    let figure = format!(
        "resident memory per parked client, {} clients",
        bench.clients
    );
    Row::new("memory", &figure, fleet.bytes_per_client(), 2000.0, "bytes")
        .detail(fleet.words("proxy"))
        .detail(&least.parked)
}

fn reconnect(bench: &Bench, side: &mut Side) -> anyhow::Result<Vec<Row>> {
    let (registration, registered_within) = (side.per_registration(), side.registered_within);
    let Side { relay, fleet, .. } = side;
    let mut costs = Vec::new();
    let mut times = Vec::new();
    let mut failures = 0;
    for _ in 0..3 {
        let before = relay.process.account.cpu()?;
        fleet.kill();
        let (elapsed, _) = relay.park(fleet, bench.clients)?;
        let cpu = relay.process.account.cpu()?.saturating_sub(before);
        costs.push(cpu.as_secs_f64() * 1e6 / bench.clients as f64);
        times.push(elapsed.as_secs_f64());
        failures += std::mem::take(&mut fleet.failures).count;
    }
    // A poll and a push on one connection each, as there are no descriptors for more.
    let polls = std::mem::replace(&mut fleet.polls, Polls::Behind);
    let payload = std::mem::replace(&mut fleet.payload, Rc::new(Payload::new(1000)));
    let everyone = all(bench.clients);
    let verified = relay.process.under(|| fleet.each(16, &everyone));
    (fleet.polls, fleet.payload) = (polls, payload);
    let verified = verified.context("a client that reconnected cannot be scraped")?;
    let figure = format!("CPU per registration, {} clients at once", bench.clients);
    Ok(vec![
        Row::of_rounds("reconnect", &figure, costs, 40.0, "µs")
            .detail(format!(
                "with the ends of the connections before, all reset at once; all parked again after {:.2} s",
                median(&times)
            ))
            .detail(format!(
                "into an empty proxy: {registration:.1} µs each, all parked after {:.2} s",
                registered_within.as_secs_f64()
            )),
        Row::new(
            "reconnect",
            "failures while all reconnect",
            failures as f64,
            0.0,
            "",
        )
        .detail(format!("all {} were scraped afterwards", verified.outcome.scrapes)),
    ])
}
