//! How cost grows with the fleet: memory and CPU of the proxy and of the least relay at several
//! numbers of clients, and what the kernel holds for their connections.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::fleet::Polls;
use crate::kernel::{Machine, slabs, tcp_buffers};
use crate::payload::Payload;
use crate::relay::Relay;
use crate::report::median;
use crate::rows::side::{Load, Side};
use crate::rows::{Bench, all, scraped};

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    pub(crate) points: Vec<Point>,
    pub(crate) kernel: Option<Kernel>,
    /// Resident bytes of the proxy for each idle connection that clients keep beside the parked
    /// one.
    pub(crate) idle_connection: f64,
}

/// What so many clients cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) clients: usize,
    pub(crate) proxy: Cost,
    pub(crate) least: Cost,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Resident bytes above those at rest, while all are parked.
    pub(crate) memory: u64,
    /// Microseconds of CPU.
    pub(crate) per_registration: f64,
    /// Microseconds of CPU, 20 kB, 16 at once.
    pub(crate) per_scrape: f64,
    /// The part of one core that is busy while each client is scraped every [`INTERVAL`].
    pub(crate) core: f64,
}

/// What the kernel holds for parked connections, of which it has both ends here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) connections: usize,
    /// Bytes of the buffers of all of them.
    pub(crate) buffers: u64,
    /// Bytes for each connection, by the kind of object, where that is more than a few.
    pub(crate) objects: BTreeMap<String, f64>,
}

/// Measures at each of these numbers of clients, and tells each point as soon as it is there.
pub(crate) fn measure(
    bench: &Bench,
    counts: &[usize],
    mut show: impl FnMut(&Point),
) -> anyhow::Result<Scale> {
    let start = Instant::now();
    let mut points = Vec::new();
    for clients in counts.iter().copied() {
        let point = Point {
            clients,
            least: cost(bench, Relay::least()?, clients)?,
            proxy: cost(bench, Relay::proxy(&bench.proxy)?, clients)?,
        };
        show(&point);
        points.push(point);
    }
    Ok(Scale {
        machine: bench.machine.clone(),
        points,
        kernel: kernel(bench)?,
        idle_connection: idle_connection(bench)?,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn cost(bench: &Bench, relay: Relay, clients: usize) -> anyhow::Result<Cost> {
    let mut side = Side::new(bench, relay, clients, &Rc::new(Payload::new(20_000)))?;
    let among = scraped(clients);
    side.warm_up(&among)?;
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let round = side.load(Load::AtOnce(16), &among, Duration::from_millis(300))?;
        rounds.push(round.per_scrape());
    }
    // One connection each, as there are no descriptors for more.
    side.fleet.polls = Polls::Behind;
    side.park_afresh()?;
    let rate = u32::try_from(clients)? / INTERVAL;
    let (everyone, mut cores) = (all(clients), Vec::new());
    for _ in 0..bench.rounds {
        let round = side.load(Load::PerSecond(rate), &everyone, Duration::from_secs(1))?;
        cores.push(round.cpu.as_secs_f64() / round.outcome.elapsed.as_secs_f64());
    }
    Ok(Cost {
        memory: side.memory,
        per_registration: side.per_registration(),
        per_scrape: median(&rounds),
        core: median(&cores),
    })
}

/// `None` where this user may not know.
fn kernel(bench: &Bench) -> anyhow::Result<Option<Kernel>> {
    let payload = Rc::new(Payload::new(20_000));
    let mut least: Option<Kernel> = None;
    for _ in 0..KERNEL_ROUNDS {
        let relay = Relay::proxy(&bench.proxy)?;
        let Ok(before) = slabs() else {
            return Ok(None);
        };
        let buffers = tcp_buffers()?;
        let side = Side::new(bench, relay, bench.clients, &payload)?;
        let after = slabs()?;
        let buffers = tcp_buffers()?.saturating_sub(buffers);
        drop(side);
        let grown = |name: &String| {
            let before = before.get(name).copied().unwrap_or_default();
            let bytes = after.get(name).copied().unwrap_or_default();
            bytes.saturating_sub(before) as f64 / bench.clients as f64
        };
        // What the rest of the machine does meanwhile adds to some rounds, and never to all.
        least = Some(match least {
            None => Kernel {
                connections: bench.clients,
                buffers,
                objects: after
                    .keys()
                    .map(|name| (name.clone(), grown(name)))
                    .collect(),
            },
            Some(least) => Kernel {
                buffers: buffers.min(least.buffers),
                objects: least
                    .objects
                    .into_iter()
                    .map(|(name, bytes)| (name.clone(), bytes.min(grown(&name))))
                    .collect(),
                ..least
            },
        });
    }
    if let Some(least) = &mut least {
        least.objects.retain(|_, bytes| *bytes >= WORTH_TELLING);
    }
    Ok(least)
}

fn idle_connection(bench: &Bench) -> anyhow::Result<f64> {
    let clients = bench.clients / 2;
    // What it takes to relay is there after the first few, and stays.
    let first = clients / 10;
    let relay = Relay::proxy(&bench.proxy)?;
    let mut side = Side::new(bench, relay, clients, &Rc::new(Payload::new(1000)))?;
    let everyone = all(clients);
    let (some, others) = everyone.split_at(first);
    side.warm_up(some)?;
    let before = side.relay.process.account.memory()?;
    side.warm_up(others)?;
    side.relay.process.wait_until_quiet()?;
    let after = side.relay.process.account.memory()?;
    Ok(after.saturating_sub(before) as f64 / others.len() as f64)
}

impl Scale {
    /// What was found, in words.
    pub(crate) fn words(&self) -> String {
        let mut text = format!(
            "{:.0} bytes of the proxy for each idle connection beside a parked one",
            self.idle_connection
        );
        if let Some(kernel) = &self.kernel {
            let objects: Vec<String> = kernel
                .objects
                .iter()
                .map(|(name, bytes)| format!("{name} {bytes:.0}"))
                .collect();
            text.push_str(&format!(
                "\nthe kernel, with both ends of {} parked connections: {:.0} bytes each ({}), and {} bytes of buffers in all",
                kernel.connections,
                kernel.objects.values().sum::<f64>(),
                objects.join(", "),
                kernel.buffers
            ));
        }
        text
    }
}

impl Point {
    /// One line of the table.
    pub(crate) fn text(&self) -> String {
        let side = |cost: &Cost| {
            format!(
                "{:>9.2} MB {:>8.0} bytes each {:>7.1} µs {:>7.1} µs {:>7.2} %",
                cost.memory as f64 / 1e6,
                cost.memory as f64 / self.clients as f64,
                cost.per_registration,
                cost.per_scrape,
                cost.core * 100.0
            )
        };
        format!(
            "{:>6}   {}   {}",
            self.clients,
            side(&self.proxy),
            side(&self.least)
        )
    }

    /// The heads of the table's columns.
    pub(crate) fn heads() -> &'static str {
        "clients: memory, CPU per registration, per scrape of 20 kB, and of one core while each is \
         scraped every 15 s; the proxy, then the least relay"
    }
}

/// Seconds from one scrape of a client to the next: Prometheus's usual configuration.
const INTERVAL: u32 = 15;

const KERNEL_ROUNDS: usize = 4;

/// Bytes for each connection.
const WORTH_TELLING: f64 = 32.0;
