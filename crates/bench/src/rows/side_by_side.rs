//! CPU per scrape of the proxy and of the least relay, under the same load in turn.

use std::rc::Rc;
use std::time::Duration;

use super::side::{Load, Side};
use super::{Bench, RowName, all, ratios, words};
use crate::payload::Payload;
use crate::relay::Relay;
use crate::report::Row;

/// A load, and the goal under it.
struct Case {
    figure: String,
    size: usize,
    clients: usize,
    load: Load,
    /// So many rounds of each side, in turn: short ones, so that both see the same machine.
    rounds: usize,
    round: Duration,
    limit: f64,
}

/// Measures one of these rows.
pub(super) fn measure(bench: &Bench, name: RowName) -> anyhow::Result<Row> {
    let case = case(bench, name);
    let payload = Rc::new(Payload::new(case.size));
    let mut proxy = Side::new(bench, Relay::proxy(&bench.proxy)?, case.clients, &payload)?;
    let mut least = Side::new(bench, Relay::least()?, case.clients, &payload)?;
    let among = all(case.clients);
    for side in [&mut proxy, &mut least] {
        side.warm_up(&among)?;
        side.load(case.load, &among, case.round)?;
    }
    let (mut of_proxy, mut of_least) = (Vec::new(), Vec::new());
    for _ in 0..case.rounds {
        of_proxy.push(proxy.load(case.load, &among, case.round)?);
        of_least.push(least.load(case.load, &among, case.round)?);
    }
    let ratios = ratios(&of_proxy, &of_least);
    Ok(
        Row::of_rounds(name.name(), &case.figure, ratios, case.limit, "×")
            .detail(words("proxy", &of_proxy))
            .detail(words("least relay", &of_least)),
    )
}

fn case(bench: &Bench, name: RowName) -> Case {
    let case = Case {
        figure: "CPU per scrape, 20 kB, 16 at once ÷ least relay".to_owned(),
        size: 20_000,
        clients: 100,
        load: Load::AtOnce(16),
        rounds: bench.rounds,
        round: Duration::from_millis(300),
        limit: 1.5,
    };
    match name {
        RowName::Open => Case {
            figure: format!(
                "CPU per scrape, 20 kB, 2,000 clients, {}/s ÷ least relay",
                bench.rate
            ),
            clients: 2000,
            load: Load::PerSecond(bench.rate),
            rounds: bench.rounds.div_ceil(2),
            round: Duration::from_millis(1500),
            limit: 1.6,
            ..case
        },
        RowName::Cpu500 => Case {
            figure: "CPU per scrape, 500 kB, 16 at once ÷ least relay".to_owned(),
            size: 500_000,
            limit: 1.3,
            ..case
        },
        _ => case,
    }
}
