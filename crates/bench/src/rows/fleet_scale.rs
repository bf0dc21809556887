//! What a whole fleet costs: its memory, its registrations, its effect on scrapes, and its list.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Bench, RowName, Side, all, ratios, words};
use crate::fleet::{Fleet, PerClient};
use crate::http::{Answers, Part};
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
    let first = wanted.first().copied().unwrap_or(RowName::Memory);
    // Before the proxy's: a process cannot open the files of two fleets.
    let least = match wanted.contains(&RowName::Memory) {
        true => Parked::new(bench, Relay::least()).map(|least| least.words("least relay", bench)),
        false => Ok(String::new()),
    };
    let (least, mut fleet) = match (least, Parked::new(bench, Relay::proxy(&bench.proxy))) {
        (Ok(least), Ok(fleet)) => (least, fleet),
        (Err(error), _) | (_, Err(error)) => return keep(first, Err(error)),
    };
    for name in wanted {
        let rows = match name {
            RowName::Memory => Ok(vec![memory(bench, &fleet, &least)]),
            RowName::Parked => parked(bench, &mut fleet),
            RowName::Clients => clients(bench, &mut fleet),
            _ => reconnect(bench, &mut fleet),
        };
        keep(*name, rows);
    }
}

/// A relay on which a whole fleet is parked.
struct Parked {
    side: Side,
    /// What it took to register the fleet.
    elapsed: Duration,
    cpu: Duration,
    /// Resident bytes that the fleet has added.
    memory: u64,
}

impl Parked {
    fn new(bench: &Bench, relay: anyhow::Result<Relay>) -> anyhow::Result<Self> {
        let mut relay = relay?;
        let payload = Rc::new(Payload::new(20_000));
        let mut fleet = Fleet::new(relay.address, bench.per_client, bench.inner, payload)?;
        let (elapsed, cpu) = relay.park(&mut fleet, bench.clients)?;
        let memory = relay.process.account.memory()?;
        Ok(Self {
            memory: memory.saturating_sub(relay.memory_at_rest),
            side: Side { relay, fleet },
            elapsed,
            cpu,
        })
    }

    fn bytes_per_client(&self, bench: &Bench) -> f64 {
        self.memory as f64 / bench.clients as f64
    }

    fn words(&self, side: &str, bench: &Bench) -> String {
        format!(
            "{side}: {:.0} bytes per client over {:.1} MB at rest; registered in {:.2} s, {:.1} µs of CPU each",
            self.bytes_per_client(bench),
            self.side.relay.memory_at_rest as f64 / 1e6,
            self.elapsed.as_secs_f64(),
            micros_each(self.cpu, bench),
        )
    }
}

fn memory(bench: &Bench, fleet: &Parked, least: &str) -> Row {
    let figure = format!(
        "resident memory per parked client, {} clients",
        bench.clients
    );
    let value = fleet.bytes_per_client(bench);
    Row::new("memory", &figure, value, 2000.0, "bytes")
        .detail(fleet.words("proxy", bench))
        .detail(least)
}

fn parked(bench: &Bench, fleet: &mut Parked) -> anyhow::Result<Vec<Row>> {
    const FEW: usize = 100;
    const AT_ONCE: usize = 16;
    const WARM_UP: Duration = Duration::from_millis(600);
    let payload = Rc::clone(&fleet.side.fleet.payload);
    let mut few = bench.proxy_side(FEW, &payload)?;
    let among_few = all(FEW);
    let among_many = scraped(bench);
    let round = Duration::from_millis(300);
    let Side { relay, fleet } = &mut fleet.side;
    let mut many = |duration| relay.under(|| fleet.closed(AT_ONCE, &among_many, duration));
    let mut few = |duration| {
        few.relay
            .under(|| few.fleet.closed(AT_ONCE, &among_few, duration))
    };
    // Long enough for each that is scraped to have opened its second connection.
    many(WARM_UP)?;
    few(WARM_UP)?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        rounds.push((many(round)?, few(round)?));
    }
    let ratios = ratios(&rounds);
    let figure = format!(
        "CPU per scrape, 20 kB, {} parked ÷ {FEW} parked",
        bench.clients
    );
    let all_parked = format!(
        "{} parked, {} of them scraped",
        bench.clients,
        among_many.len()
    );
    Ok(vec![
        Row::of_rounds("parked", &figure, ratios, 1.15, "×")
            .detail(words(&all_parked, rounds.iter().map(|(many, _)| many)))
            .detail(words(
                "100 parked, all of them scraped",
                rounds.iter().map(|(_, few)| few),
            )),
    ])
}

/// The clients that are scraped among a whole fleet: as many as there are descriptors for their
/// second connections.
fn scraped(bench: &Bench) -> Vec<u32> {
    let step = (bench.clients / 1000).max(1);
    all(bench.clients)
        .into_iter()
        .step_by(step)
        .take(1000)
        .collect()
}

fn clients(bench: &Bench, fleet: &mut Parked) -> anyhow::Result<Vec<Row>> {
    const RATE: u32 = 500;
    let round = Duration::from_millis(1500);
    let among = scraped(bench);
    let Side { relay, fleet } = &mut fleet.side;
    let address = relay.address;
    // Once around, so that each of them has opened its second connection.
    fleet.each(16, &among)?;
    let mut times: Vec<f64> = Vec::new();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.div_ceil(3) {
        without.push(relay.under(|| fleet.open_loop(RATE, &among, round))?);
        let lister = Lister::start(address, bench.clients);
        with.push(relay.under(|| fleet.open_loop(RATE, &among, round))?);
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
    let lists = format!("{} lists were taken, one after the other", times.len());
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

/// Takes lists one after the other, in a thread of its own.
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
                let (milliseconds, again) = take_list(&mut stream)?;
                ensure!(again == list, "the list has changed, and no client has");
                times.push(milliseconds);
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
                Part::Head { status, .. } => {
                    ensure!(status == 200, "the list was answered {status}")
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

fn reconnect(bench: &Bench, parked: &mut Parked) -> anyhow::Result<Vec<Row>> {
    let Side { relay, fleet } = &mut parked.side;
    let mut costs = Vec::new();
    let mut times = Vec::new();
    let mut failures = 0;
    for _ in 0..3 {
        let before = relay.process.account.cpu()?;
        fleet.kill();
        let (elapsed, _) = relay.park(fleet, bench.clients)?;
        let cpu = relay.process.account.cpu()?.saturating_sub(before);
        costs.push(micros_each(cpu, bench));
        times.push(elapsed.as_secs_f64());
        failures += std::mem::take(&mut fleet.failures).count;
    }
    // A poll and a push on one connection each, as there are no descriptors for more.
    let per_client = std::mem::replace(&mut fleet.per_client, PerClient::One);
    let payload = std::mem::replace(&mut fleet.payload, Rc::new(Payload::new(1000)));
    let verified = relay.under(|| fleet.each(16, &all(bench.clients)));
    (fleet.per_client, fleet.payload) = (per_client, payload);
    let verified = verified.context("a client that reconnected cannot be scraped")?;
    let figure = format!("CPU per registration, {} clients at once", bench.clients);
    Ok(vec![
        Row::of_rounds("reconnect", &figure, costs, 40.0, "µs")
            .detail(format!(
                "with the ends of the connections before, all reset at once; all parked again after {:.2} s",
                median(&times)
            ))
            .detail(format!(
                "into an empty proxy: {:.1} µs each, all parked after {:.2} s",
                micros_each(parked.cpu, bench),
                parked.elapsed.as_secs_f64()
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

fn micros_each(cpu: Duration, bench: &Bench) -> f64 {
    cpu.as_secs_f64() * 1e6 / bench.clients as f64
}
