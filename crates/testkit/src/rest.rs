//! What must be true of a proxy while a fault lasts, and after it: whoever has nothing to do with
//! the fault is served, and nothing of it stays, in memory or as an open descriptor.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::process::Daemon;
use crate::pushprox::{Client, Proxy};
use crate::target::Target;
use crate::wait::{SOON, idle, until};
use crate::wire::{Connection, scrape_request};

/// What a program has open and in memory while nothing is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    descriptors: usize,
    /// In KiB.
    memory: u64,
}

/// A client, with a target of its own, that has no part in a fault.
#[derive(Debug)]
pub struct Bystander {
    proxy: SocketAddr,
    client: Client,
    _target: Target,
}

impl Rest {
    /// Takes note of what `daemon` has now.
    pub fn of(daemon: &Daemon) -> Self {
        Self {
            descriptors: daemon.descriptors(),
            memory: daemon.own_memory(),
        }
    }

    /// Waits until `daemon` has no more descriptors than then, and no more memory than then, the
    /// buffers that it keeps for the next time and [`SLACK`] aside.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub async fn returns(self, daemon: &Daemon, limit: Duration) {
        self.descriptors_return(daemon, limit).await;
        let what = format!("{} KiB as at rest", self.memory);
        until(&what, limit, async || {
            (daemon.own_memory() <= self.memory + KEPT + SLACK).then_some(())
        })
        .await;
    }

    /// Waits until `daemon` has no more descriptors than then.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub async fn descriptors_return(self, daemon: &Daemon, limit: Duration) {
        let what = format!("{} descriptors as at rest", self.descriptors);
        until(&what, limit, async || {
            (daemon.descriptors() <= self.descriptors).then_some(())
        })
        .await;
    }
}

impl Bystander {
    /// Starts one, and waits until it is registered.
    pub async fn at(proxy: &Proxy) -> Self {
        let target = Target::echoing().await;
        let client = Client::start(&proxy.url(), &target.url("/"), NAME, &[]);
        proxy.registered(NAME).await;
        Self {
            proxy: proxy.address,
            client,
            _target: target,
        }
    }

    /// Scrapes it again and again until `fault` is over, and says what that came to.
    ///
    /// # Panics
    /// When a scrape fails or is slow.
    pub async fn meanwhile<T>(&self, fault: impl Future<Output = T>) -> T {
        let scraping = async {
            // One connection for all, as Prometheus has it, and a new one would need a descriptor.
            let mut prometheus = Connection::open(self.proxy).await.unwrap();
            for number in 0_u64.. {
                let started = Instant::now();
                let url = format!("http://{NAME}/?{number}");
                let request = scrape_request(&url, PATIENCE.as_secs_f64(), "");
                let request = String::from_utf8(request).unwrap();
                let request = request.replace("Connection: close\r\n", "");
                prometheus.send(request.as_bytes()).await.unwrap();
                let answer = prometheus.receive().await;
                let answer = answer.unwrap_or_else(|error| {
                    panic!("no answer for the bystander's scrape {number}: {error}")
                });
                assert_eq!(
                    (answer.status(), answer.text()),
                    (200, number.to_string()),
                    "the bystander's scrape after {:?}: {answer:?}",
                    started.elapsed()
                );
                idle(BETWEEN).await;
            }
        };
        tokio::select! {
            outcome = fault => outcome,
            () = scraping => unreachable!("it goes on for ever"),
        }
    }

    /// Has it end.
    pub async fn leave(mut self) {
        self.client.daemon.kill();
        self.client.daemon.ended(SOON).await;
    }
}

/// Puts `proxy` through a fault, which begins and ends with nobody connected, while a bystander is
/// scraped; then it has to have what it had before.
///
/// The fault comes again until it adds nothing to the memory, which has to be soon: what the most
/// connections at once have cost stays with the allocator, and the buffers that they used with the
/// proxy, and both serve the next time. A leak goes on.
pub async fn withstands(proxy: &Proxy, fault: impl AsyncFn()) {
    let rest = Rest::of(&proxy.daemon);
    let mut memory = vec![rest.memory];
    loop {
        let bystander = Bystander::at(proxy).await;
        bystander.meanwhile(fault()).await;
        bystander.leave().await;
        rest.descriptors_return(&proxy.daemon, SOON).await;
        let (before, now) = (memory[memory.len() - 1], proxy.daemon.own_memory());
        memory.push(now);
        if now <= before + SLACK {
            break;
        }
        assert!(memory.len() <= ROUNDS, "KiB at rest: {memory:?}");
    }
    assert_eq!(
        proxy.daemon.lines_with(&["panicked", "level=error"]),
        [""; 0]
    );
}

/// How often a fault may add to the memory: each time by a machine that is slower than before, more
/// may be under way at once.
const ROUNDS: usize = 8;

/// What the proxy keeps for the next time, in KiB: 32 buffers of 128 KiB.
const KEPT: u64 = 4 * 1024;

/// By how much memory at rest may differ, in KiB. The allocator gives whole pages back, and which
/// of them can be given back depends on what else lies there: the same proxy differs by some
/// hundred KiB between two rests. A flood of 10,000 that left as little as a key of 100 bytes each
/// would be above this.
pub const SLACK: u64 = 1024;

/// A bystander's scrape that takes longer is one that failed. Of a busy machine it may wait for each
/// of the three programs on its way.
const PATIENCE: Duration = Duration::from_secs(15);

const BETWEEN: Duration = Duration::from_millis(100);

const NAME: &str = "bystander.test";
