//! The proxy: both sides can reach it, and it brings them together.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`config`] | the flags, and what they come to |
//! | [`access`] | who may come in, and what for |
//! | `connection`, `idle` | one connection from accept to close: which request is whose; and who waits for one |
//! | `poll`, `push`, `scrape` | the three legs, on the bare socket; `http1` is their HTTP |
//! | `exchange`, `router`, `clients` | the proxy's own pages, by hyper |
//! | `rendezvous` | where scrapes meet polls, and pushes their scrapes |
//! | `answer` | a pushed body on its way to Prometheus |
//! | `error`, `metrics` | what Prometheus is told, and what is counted |

pub mod access;
pub mod cli;
pub mod config;

mod answer;
mod clients;
mod connection;
mod error;
mod exchange;
mod http1;
mod idle;
mod metrics;
mod poll;
mod push;
mod rendezvous;
mod router;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

use pushprox_daemon::Shutdown;
use pushprox_daemon::metrics::Registry;
use pushprox_daemon::web::Accepted;
use pushprox_protocol::timeout::ScrapeTimeouts;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use access::{Access, Door, Entrance};
use access::{Peer, Sans};
use clients::ClientList;
pub use config::Config;
use http1::buffers::Buffers;
use http1::socket::Socket;
use idle::Idle;
use metrics::Metrics;
use rendezvous::{Limits, Rendezvous};

/// What all connections share.
struct Proxy {
    rendezvous: Rendezvous,
    registry: Registry,
    metrics: Metrics,
    timeouts: ScrapeTimeouts,
    poll_max_wait: Option<Duration>,
    access: Arc<Access>,
    buffers: Arc<Buffers>,
    idle: Idle,
    client_list: ClientList,
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
        access.web.guard.register(&mut registry);
        Self {
            rendezvous: Rendezvous::new(Limits {
                registration_timeout: config.registration_timeout,
                ..LIMITS
            }),
            registry,
            metrics,
            timeouts: config.scrape_timeouts,
            poll_max_wait: config.poll_max_wait,
            access: Arc::new(access),
            buffers: Arc::default(),
            idle: Idle::default(),
            client_list: ClientList::default(),
            started: Instant::now(),
            draining,
            closing: CancellationToken::new(),
        }
    }

    fn is_young(&self) -> bool {
        self.started.elapsed() < YOUTH
    }
}

/// Serves until the shutdown begins, then lets scrapes in flight finish.
pub async fn run(config: Config, entrance: impl Into<Entrance>, shutdown: Shutdown) {
    let Entrance { doors, access } = entrance.into();
    let proxy = Arc::new(Proxy::new(&config, access, shutdown.token().clone()));
    proxy.access.watch(&shutdown);
    proxy.access.warn_if_open(&doors);
    let accepting = TaskTracker::new();
    let connections = TaskTracker::new();
    for door in doors {
        accepting.spawn(accept(door, proxy.clone(), connections.clone()));
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
    shutdown.spawn(expiry);

    shutdown.cancelled().await;
    let end = Instant::now() + config.shutdown_grace_period;
    // Clients that have a scrape in hand may need a new connection for their push: the listeners
    // stay open until the last of these scrapes has ended.
    let drained = timeout_at(end, proxy.rendezvous.drain()).await.is_ok();
    proxy.rendezvous.abandon();
    proxy.closing.cancel();
    accepting.wait().await;
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

/// Accepts connections until the proxy closes.
async fn accept(mut door: Door, proxy: Arc<Proxy>, connections: TaskTracker) {
    let closing = proxy.closing.clone();
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            (stream, address) = door.listener.accept() => {
                let peer = Peer { ip: address.ip(), sans: None, roles: door.roles };
                if proxy.access.is_open() {
                    let socket = Socket::new(stream);
                    connections.spawn(connection::serve(socket, peer, proxy.clone()));
                } else {
                    connections.spawn(arrive(stream, peer, proxy.clone()));
                }
            }
        }
    }
}

/// A connection from its first byte to its last. A handshake keeps nobody else waiting.
fn arrive(stream: TcpStream, peer: Peer, proxy: Arc<Proxy>) -> impl Future<Output = ()> + Send {
    let shaking = Box::pin(shake_hands(stream, peer, proxy.clone()));
    async move {
        let shaken = shaking.await;
        if let Some((socket, peer)) = shaken {
            connection::serve(socket, peer, proxy).await;
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    mut peer: Peer,
    proxy: Arc<Proxy>,
) -> Option<(Socket, Peer)> {
    let shaken = tokio::select! {
        shaken = proxy.access.web.accept(stream) => shaken,
        () = proxy.closing.cancelled() => return None,
    };
    match shaken {
        Ok(Accepted::Plain(stream)) => Some((Socket::new(stream), peer)),
        Ok(Accepted::Tls(stream, sans)) => {
            peer.sans = sans.map(|sans| Box::new(Sans(sans)));
            Some((Socket::new(*stream), peer))
        }
        Err(error) => {
            debug!(%error, peer = %peer.ip, "a TLS handshake failed");
            None
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

/// For answers to scrapes that are given up at the end of the grace period.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long service discovery gets no list after a start: clients are still coming back.
const YOUTH: Duration = Duration::from_secs(15);
