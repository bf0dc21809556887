//! What a whole fleet costs: its memory, its registrations, its effect on scrapes, and its list.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::side::{Load, Side};
use super::{Bench, RowName, all, ratios, scraped, words};
use crate::fleet::Polls;
use crate::http::{Answers, Part, Status};
use crate::messages;
use crate::payload::Payload;
use crate::relay::{Relay, Round};
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
            rounds: match wanted.contains(&RowName::Parked) {
                true => many_and_few(bench, &mut least, Relay::least()?, bench.rounds.div_ceil(3))?,
                false => Vec::new(),
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
            RowName::Parked => parked(bench, &mut fleet, &least).map(|row| vec![row]),
            RowName::Clients => clients(bench, &mut fleet),
            _ => reconnect(bench, &mut fleet),
        };
        keep(*name, rows);
    }
}

/// What the same fleet costs the least relay.
struct Least {
    parked: String,
    rounds: Vec<(Round, Round)>,
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

fn parked(bench: &Bench, fleet: &mut Side, least: &Least) -> anyhow::Result<Row> {
    fleet.park_afresh()?;
    let few = Relay::proxy(&bench.proxy)?;
    let rounds = many_and_few(bench, fleet, few, bench.rounds)?;
    let figure = format!(
        "CPU per scrape, 20 kB, {} parked ÷ {FEW} parked",
        bench.clients
    );
    let all_parked = format!(
        "{} parked, {} of them scraped",
        bench.clients,
        scraped(bench.clients).len()
    );
    let few_parked = format!("{FEW} parked, all of them scraped");
    Ok(
        Row::of_rounds("parked", &figure, ratios(&rounds), 1.15, "×")
            .detail(words(&all_parked, rounds.iter().map(|(many, _)| many)))
            .detail(words(&few_parked, rounds.iter().map(|(_, few)| few)))
            .detail(format!(
                "the least relay's own ratio: {:.2} ×",
                median(&ratios(&least.rounds))
            )),
    )
}

/// Rounds of scrapes among a whole fleet, each beside one among a few clients of another relay.
fn many_and_few(
    bench: &Bench,
    many: &mut Side,
    few: Relay,
    rounds: usize,
) -> anyhow::Result<Vec<(Round, Round)>> {
    const AT_ONCE: Load = Load::AtOnce(16);
    const ROUND: Duration = Duration::from_millis(300);
    let payload = Rc::clone(&many.fleet.payload);
    let mut few = Side::new(bench, few, FEW, &payload)?;
    let (among_many, among_few) = (scraped(bench.clients), all(FEW));
    many.warm_up(&among_many)?;
    few.warm_up(&among_few)?;
    let mut measured = Vec::new();
    // The first is not counted.
    for _ in 0..=rounds {
        measured.push((
            many.load(AT_ONCE, &among_many, ROUND)?,
            few.load(AT_ONCE, &among_few, ROUND)?,
        ));
    }
    Ok(measured.split_off(1))
}

fn clients(bench: &Bench, fleet: &mut Side) -> anyhow::Result<Vec<Row>> {
    const RATE: u32 = 500;
    let round = Duration::from_millis(1500);
    let among = scraped(bench.clients);
    let load = Load::PerSecond(RATE);
    let address = fleet.relay.address;
    fleet.park_afresh()?;
    fleet.warm_up(&among)?;
    let mut times: Vec<f64> = Vec::new();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.div_ceil(3) {
        without.push(fleet.load(load, &among, round)?);
        let lister = Lister::start(address, bench.clients);
        with.push(fleet.load(load, &among, round)?);
        times.extend(lister.stop()?);
    }
    let p99 = |rounds: &[Round]| -> f64 {
        let each: Vec<f64> = rounds
            .iter()
            .map(|round| round.outcome.latency.value_at_quantile(0.99) as f64)
            .collect();
        median(&each)
    };
    let slowdown = p99(&with) / p99(&without);
    let figure = format!("/clients with {} names", bench.clients);
    let lists = format!(
        "{} lists were taken, one every {} ms",
        times.len(),
        LIST_EVERY.as_millis()
    );
    Ok(vec![
        Row::of_rounds("clients", &figure, times, 25.0, "ms").detail(lists),
        Row::new(
            "clients",
            "scrape latency at p99, while lists are taken ÷ without",
            slowdown,
            2.0,
            "×",
        )
        .detail(words("meanwhile", &with))
        .detail(words("without", &without)),
    ])
}

/// Takes a list every [`LIST_EVERY`], in a thread of its own.
struct Lister {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<Vec<f64>>>,
}

impl Lister {
    fn start(address: SocketAddr, names: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).context("cannot connect for the list")?;
            let (_, list) = take_list(&mut stream)?;
            check_list(&list, names)?;
            let mut times = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let next = Instant::now() + LIST_EVERY;
                let (milliseconds, again) = take_list(&mut stream)?;
                ensure!(again == list, "the list has changed, and no client has");
                times.push(milliseconds);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(times)
        });
        Self { stop, thread }
    }

    /// Milliseconds that each list took.
    fn stop(self) -> anyhow::Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(times) => times,
            Err(_) => anyhow::bail!("the thread that takes lists panicked"),
        }
    }
}

/// Takes the list once: how many milliseconds that took, and what it says.
fn take_list(stream: &mut TcpStream) -> anyhow::Result<(f64, Vec<u8>)> {
    let start = Instant::now();
    stream.write_all(
        b"GET /clients HTTP/1.1\r\nHost: proxy\r\nUser-Agent: Prometheus/2.42.0+ds\r\n\r\n",
    )?;
    let mut answers = Answers::default();
    let (mut list, mut is_whole) = (Vec::with_capacity(2 << 20), false);
    let mut buffer = vec![0; 256 * 1024];
    while !is_whole {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the connection of the list ended");
        answers.read(buffer.get(..length).unwrap_or_default(), |part| {
            match part {
                Part::Head(Status { code, .. }) => {
                    ensure!(code == 200, "the list was answered {code}")
                }
                Part::Data(bytes) => list.extend_from_slice(bytes),
                Part::End => is_whole = true,
            }
            Ok(())
        })?;
    }
    Ok((start.elapsed().as_secs_f64() * 1e3, list))
}

fn check_list(list: &[u8], names: usize) -> anyhow::Result<()> {
    let groups: Vec<serde_json::Value> =
        serde_json::from_slice(list).context("the list is no JSON array")?;
    ensure!(
        groups.len() == names,
        "the list has {} names instead of {names}",
        groups.len()
    );
    let first = groups.first().and_then(|group| group.pointer("/targets/0"));
    ensure!(
        first.and_then(|name| name.as_str()) == Some(&messages::name(0)),
        "the list begins with {first:?}"
    );
    Ok(())
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

/// So many clients are few.
const FEW: usize = 100;

/// Far more often than Prometheus asks, and still with a core left for scrapes.
const LIST_EVERY: Duration = Duration::from_millis(50);
