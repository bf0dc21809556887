//! The proxy: both sides can reach it, and it brings them together.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`config`] | the flags, and what they come to |
//! | [`access`] | who may come in, and what for |
//! | `accept`, `crowd` | connections from the listener to their first request; and who has to go when there are too many |
//! | `connection`, `idle` | one connection from its first request to its last: which request is whose; and who waits for one |
//! | `poll`, `push`, `scrape` | the three legs, on the bare socket; `http1` is their HTTP |
//! | `parked` | a poll that waits, and its answer |
//! | `delivery` | whether a client has got what it was sent |
//! | `parting` | ends of requests and connections whose peers may still be sending |
//! | `exchange`, `router`, `clients` | the proxy's own pages, by hyper |
//! | `rendezvous` | where scrapes meet polls, and pushes their scrapes |
//! | `answer` | a pushed body on its way to Prometheus |
//! | [`limits`], `progress` | what is borne of peers, and how long they may stand still |
//! | `error`, `metrics` | what Prometheus is told, and what is counted |

pub mod access;
pub mod cli;
pub mod config;
pub mod limits;

mod accept;
mod answer;
mod clients;
mod connection;
mod crowd;
mod delivery;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http1;
mod idle;
mod metrics;
mod parked;
mod parting;
mod poll;
mod progress;
mod push;
mod rendezvous;
mod router;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

use pushprox_daemon::Shutdown;
use pushprox_daemon::metrics::Registry;
use pushprox_protocol::timeout::ScrapeTimeouts;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use access::{Access, Door, Entrance};
use clients::ClientList;
pub use config::Config;
use crowd::Crowd;
use http1::buffers::Buffers;
use http1::head_room::HeadRoom;
use idle::Idle;
use limits::{Limit, LimitHits, Limits};
use metrics::Metrics;
use progress::Patience;
use rendezvous::{Bounds, Rendezvous};

/// What all connections share.
struct Proxy {
    rendezvous: Rendezvous,
    registry: Registry,
    metrics: Metrics,
    limits: Limits,
    hits: LimitHits,
    /// With peers that do not get on.
    patience: Patience,
    timeouts: ScrapeTimeouts,
    poll_max_wait: Option<Duration>,
    access: Arc<Access>,
    buffers: Arc<Buffers>,
    head_room: HeadRoom,
    idle: Idle,
    client_list: ClientList,
    crowd: Arc<Crowd>,
    started: Instant,
    /// No more polls and scrapes are taken.
    draining: CancellationToken,
    /// No more requests are taken.
    closing: CancellationToken,
}

impl Proxy {
    fn new(config: &Config, access: Access, draining: CancellationToken) -> Self {
        let mut registry = Registry::new();
        let metrics = Metrics::register(&mut registry);
        let hits = LimitHits::register(&mut registry);
        access.web.guard.register(&mut registry);
        Self {
            rendezvous: Rendezvous::new(Bounds {
                registration_timeout: config.registration_timeout,
                unregistered_wait: UNREGISTERED_WAIT,
                limits: config.limits,
            }),
            registry,
            metrics,
            limits: config.limits,
            patience: Patience::new(
                config.limits.progress_timeout,
                hits.counter(Limit::ProgressTimeout),
            ),
            hits,
            timeouts: config.scrape_timeouts,
            poll_max_wait: config.poll_max_wait,
            access: Arc::new(access),
            buffers: Arc::default(),
            head_room: HeadRoom::new(config.limits.unfinished_heads),
            idle: Idle::default(),
            client_list: ClientList::default(),
            crowd: Arc::new(Crowd::new(config.limits.connections)),
            started: Instant::now(),
            draining,
            closing: CancellationToken::new(),
        }
    }

    fn is_young(&self) -> bool {
        self.started.elapsed() < YOUTH
    }
}

/// Serves until the shutdown begins, then lets scrapes in flight finish. Whether it has begun as it
/// should is the shutdown's [`outcome`](Shutdown::outcome).
pub async fn run(config: Config, entrance: impl Into<Entrance>, shutdown: Shutdown) {
    let Entrance { doors, access } = entrance.into();
    let proxy = Arc::new(Proxy::new(&config, access, shutdown.token().clone()));
    proxy.access.watch(&shutdown);
    proxy.access.warn_if_open(&doors);
    let accepting = TaskTracker::new();
    for door in doors {
        let accept = accept::accept(door, proxy.clone());
        accepting.spawn(shutdown.essential("accept", accept));
    }
    accepting.close();
    let expiry = {
        let proxy = proxy.clone();
        async move {
            tokio::select! {
                () = proxy.rendezvous.expire() => {}
                () = proxy.idle.sweep() => {}
                () = proxy.closing.cancelled() => proxy.idle.close(),
            }
        }
    };
    shutdown.spawn(shutdown.essential("expiry", expiry));

    shutdown.cancelled().await;
    let end = Instant::now() + config.shutdown_grace_period;
    // Clients that have a scrape in hand may need a new connection for their push: the listeners
    // stay open until the last of these scrapes has ended.
    let drained = timeout_at(end, proxy.rendezvous.drain()).await.is_ok();
    proxy.rendezvous.abandon();
    proxy.closing.cancel();
    accepting.wait().await;
    let connections = &proxy.crowd.connections;
    connections.close();
    let end = end.max(Instant::now() + LAST_WORDS);
    let closed = timeout_at(end, connections.wait()).await.is_ok();
    if drained && closed {
        info!("all scrapes in flight have finished");
    } else {
        warn!(
            connections = connections.len(),
            "the grace period is over, giving up what is unfinished"
        );
    }
    shutdown.drain(Duration::from_secs(1)).await;
}

/// How long a scrape waits for a name that nobody has registered: its client may be coming back.
const UNREGISTERED_WAIT: Duration = Duration::from_secs(5);

/// For answers to scrapes that are given up at the end of the grace period.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long service discovery gets no list after a start: clients are still coming back.
const YOUTH: Duration = Duration::from_secs(15);
