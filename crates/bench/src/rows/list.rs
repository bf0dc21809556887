//! The list of a whole fleet, and what scrapes suffer while it is taken.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::side::{Load, Side};
use super::{Bench, scraped, words};
use crate::http::{Answers, Part, Status};
use crate::messages;
use crate::relay::Round;
use crate::report::{Row, median};

/// Takes lists of the whole fleet, and scrapes with and without that.
pub(super) fn measure(bench: &Bench, fleet: &mut Side) -> anyhow::Result<Vec<Row>> {
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

/// Far more often than Prometheus asks, and still with a core left for scrapes.
const LIST_EVERY: Duration = Duration::from_millis(50);
