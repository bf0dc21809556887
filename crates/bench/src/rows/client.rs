//! What the client costs: its memory, and its CPU for pulls of 500 kB, beside that of the least
//! relay for scrapes of that size.
//!
//! A client gets one scrape after the other, as one Prometheus sends them.

use std::ffi::OsString;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::side::{Load, Side};
use super::{Bench, all, ratios, words};
use crate::around::{Around, CLIENT, PULLED};
use crate::messages;
use crate::payload::Payload;
use crate::relay::{Process, Relay};
use crate::report::Row;

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    ensure!(
        bench.client.exists(),
        "there is no {}",
        bench.client.display()
    );
    let payload = Rc::new(Payload::new(500_000));
    let mut around = Around::new(&payload)?;
    let mut client = start(bench, &around)?;
    around
        .wait_for_poll()
        .map_err(|error| client.explain(error))?;
    client.wait_until_quiet()?;
    let rest = client.account.memory()?;
    client.under(|| around.scrape(|begun, _| begun < PULLS))?;
    client.wait_until_quiet()?;
    let after = client.account.memory()?;

    let mut least = Side::new(bench, Relay::least()?, FLEET, &payload)?;
    let among = all(FLEET);
    least.warm_up(&among)?;
    let (mut pulls, mut scrapes) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let end = Instant::now() + ROUND;
        pulls.push(client.under(|| around.scrape(|_, now| now < end))?);
        scrapes.push(least.load(Load::AtOnce(16), &among, ROUND)?);
    }
    Ok(vec![
        Row::new(
            "client",
            "client: resident memory at rest",
            rest as f64 / 1e6,
            6.0,
            "MB",
        ),
        Row::new(
            "client",
            &format!("client: resident memory after {PULLS} pulls of 500 kB"),
            after as f64 / 1e6,
            8.0,
            "MB",
        ),
        Row::of_rounds(
            "client",
            "client: CPU per pull of 500 kB, with its push ÷ least relay",
            ratios(&pulls, &scrapes),
            2.5,
            "×",
        )
        .detail(words("client, one after the other", &pulls))
        .detail(words("least relay, 16 at once", &scrapes)),
    ])
}

fn start(bench: &Bench, around: &Around) -> anyhow::Result<Process> {
    let arguments = [
        format!("--proxy-url=http://{}/", around.proxy()?),
        format!("--pull-url=http://{}{PULLED}", around.target()?),
        format!("--fqdn={}", messages::name(CLIENT)),
        "--metrics-addr=".to_owned(),
    ];
    Process::start(&bench.client, arguments.map(OsString::from))
}

const PULLS: u64 = 1000;
const FLEET: usize = 100;
const ROUND: Duration = Duration::from_millis(300);
