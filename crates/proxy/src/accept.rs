//! Connections from the listener on: handshakes, and what is done when there are too many.
//!
//! There may be as many connections as `--limit.connections` and the limit on open files allow. One
//! more is turned away: it is told so, and gets nothing but the proxy's own pages, which probes and
//! operators need most at that time. A few may be turned away at once; in a flood the rest are told
//! without having been read, so that accepting never waits for anybody.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pushprox_daemon::listen::Shortage;
use pushprox_daemon::web::Accepted;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::access::{Door, Peer};
use crate::http1::answer::Answer;
use crate::http1::socket::Socket;
use crate::limits::Limit;
use crate::{Proxy, connection};

/// Accepts connections until the proxy closes.
pub(crate) async fn accept(mut door: Door, proxy: Arc<Proxy>, connections: TaskTracker) {
    let closing = proxy.closing.clone();
    let mut shortage = Shortage::default();
    loop {
        let (stream, address) = tokio::select! {
            () = closing.cancelled() => return,
            accepted = door.listener.accept() => accepted,
        };
        let peer = Peer {
            ip: address.ip(),
            certificate: None,
            roles: door.roles,
        };
        let turned_away = SPARE - proxy.spare.available_permits();
        let held = connections.len() - turned_away.min(connections.len());
        if proxy.limits.are_enough(held) {
            if shortage.begins(Instant::now()) {
                warn!(
                    connections = held,
                    "there are too many connections, the newest are turned away"
                );
            }
            turn_away(stream, peer, &proxy, &connections);
        } else if proxy.access.is_open() {
            let socket = Socket::new(stream);
            connections.spawn(connection::serve(socket, peer, proxy.clone()));
        } else {
            connections.spawn(arrive(stream, peer, proxy.clone()));
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

/// Lets a connection go for which there is no room.
fn turn_away(stream: TcpStream, peer: Peer, proxy: &Arc<Proxy>, connections: &TaskTracker) {
    proxy.hits.count(Some(Limit::Connections));
    let Ok(spare) = proxy.spare.clone().try_acquire_owned() else {
        // To one that speaks TLS this would be noise.
        if proxy.access.is_open() {
            // The peer of a socket that takes nothing has left already.
            SockRef::from(&stream).send(&no_room()).ok();
        }
        return;
    };
    let proxy = proxy.clone();
    connections.spawn(async move {
        let served = async {
            if let Some((socket, peer)) = shake_hands(stream, peer, proxy.clone()).await {
                connection::serve_without_room(socket, &peer, &proxy).await;
            }
        };
        // One that does not get on takes the place of others.
        timeout(TIME_TO_LEAVE, served).await.ok();
        drop(spare);
    });
}

/// What is answered where there is no room.
pub(crate) fn no_room() -> bytes::BytesMut {
    let text = format!("too many connections ({})", Limit::Connections);
    // The reason is all that Prometheus shows.
    Answer::with_reason(StatusCode::SERVICE_UNAVAILABLE, text.as_bytes(), false)
        .text(format!("{text}\n").as_bytes())
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
        Ok(Accepted::Tls(stream, certificate)) => {
            peer.certificate = certificate.map(Arc::new);
            Some((Socket::new(*stream), peer))
        }
        Err(error) => {
            debug!(%error, peer = %peer.ip, "a TLS handshake failed");
            None
        }
    }
}

/// How many connections are turned away with a hearing at once. The limit on open files leaves room
/// for them.
pub(crate) const SPARE: usize = 16;

const TIME_TO_LEAVE: Duration = Duration::from_secs(5);
