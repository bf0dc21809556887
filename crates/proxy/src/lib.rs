//! The proxy: both sides can reach it, and it brings them together.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`config`] | the flags, and what they come to |
//! | [`access`] | who may come in, and what for |
//! | `connection` | one connection from accept to close; hyper serves it |
//! | `parking`, `prefixed` | the same connection while a poll waits on it: a bare socket |
//! | `router`, `handlers` | which request is which, and what each does |
//! | `rendezvous` | where scrapes meet polls, and pushes their scrapes |
//! | `answer` | a pushed body on its way to Prometheus |
//! | `error`, `metrics` | what Prometheus is told, and what is counted |

pub mod access;
pub mod cli;
pub mod config;

mod answer;
mod connection;
mod error;
mod handlers;
mod metrics;
mod parking;
mod prefixed;
mod rendezvous;
mod router;

use std::sync::Arc;
use std::time::Duration;

use pushprox_daemon::Shutdown;
use pushprox_daemon::listen::Listener;
use pushprox_daemon::metrics::Registry;
use pushprox_protocol::timeout::ScrapeTimeouts;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use config::Config;
use handlers::poll;
use metrics::Metrics;
use rendezvous::{Limits, Rendezvous};

/// What all connections share.
struct Proxy {
    rendezvous: Rendezvous,
    registry: Registry,
    metrics: Metrics,
    timeouts: ScrapeTimeouts,
    poll_max_wait: Option<Duration>,
    limits: ConnectionLimits,
    started: Instant,
    /// No more polls and scrapes are taken.
    draining: CancellationToken,
    /// No more requests are taken.
    closing: CancellationToken,
}

/// Bounds on what one connection may hold.
struct ConnectionLimits {
    /// How long a connection may wait for the end of a request's head.
    idle: Duration,
    /// Bytes that are buffered in either direction.
    buffer: usize,
}

impl Proxy {
    fn new(config: &Config, draining: CancellationToken) -> Self {
        let mut registry = Registry::new();
        let metrics = Metrics::register(&mut registry);
        Self {
            rendezvous: Rendezvous::new(Limits {
                registration_timeout: config.registration_timeout,
                ..LIMITS
            }),
            registry,
            metrics,
            timeouts: config.scrape_timeouts,
            poll_max_wait: config.poll_max_wait,
            limits: CONNECTION_LIMITS,
            started: Instant::now(),
            draining,
            closing: CancellationToken::new(),
        }
    }

    fn granted_wait(&self, preferred: Option<u32>) -> poll::Wait {
        poll::granted(preferred, self.poll_max_wait)
    }

    fn is_young(&self) -> bool {
        self.started.elapsed() < YOUTH
    }
}

/// Serves until the shutdown begins, then lets scrapes in flight finish.
pub async fn run(config: Config, listeners: Vec<Listener>, shutdown: Shutdown) {
    let proxy = Arc::new(Proxy::new(&config, shutdown.token().clone()));
    let accepting = TaskTracker::new();
    let connections = TaskTracker::new();
    for listener in listeners {
        accepting.spawn(accept(listener, proxy.clone(), connections.clone()));
    }
    accepting.close();
    let expiry = {
        let proxy = proxy.clone();
        async move {
            tokio::select! {
                () = proxy.rendezvous.expire() => {}
                () = proxy.closing.cancelled() => {}
            }
        }
    };
    shutdown.spawn(expiry);

    shutdown.cancelled().await;
    let end = Instant::now() + config.shutdown_grace_period;
    // Clients that have a scrape in hand may need a new connection for their push: the listeners
    // stay open until the last of these scrapes has ended.
    let drained = timeout_at(end, proxy.rendezvous.drain()).await.is_ok();
    proxy.closing.cancel();
    accepting.wait().await;
    connections.close();
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

/// Accepts connections until the proxy closes.
async fn accept(mut listener: Listener, proxy: Arc<Proxy>, connections: TaskTracker) {
    let closing = proxy.closing.clone();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            (stream, _) = listener.accept() => {
                connections.spawn(connection::serve(stream, proxy.clone()));
            }
        }
    }
}

const LIMITS: Limits = Limits {
    registration_timeout: Duration::from_secs(300),
    unregistered_wait: Duration::from_secs(5),
    names: 1_000_000,
    waiting: 16_384,
    waiting_per_host: 128,
};

const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits {
    // Longer than Prometheus (5 min) and Go clients (90 s) keep an idle connection: were it
    // shorter, they might send their next request into a connection that has just been closed.
    idle: Duration::from_secs(360),
    buffer: 128 * 1024,
};

/// How long service discovery gets no list after a start: clients are still coming back.
const YOUTH: Duration = Duration::from_secs(15);
