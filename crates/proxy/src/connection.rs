//! One connection, from accept to close: request after request, each served by whoever serves its
//! kind, and between two of them nothing but the socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::access::Peer;
use crate::http1::answer::Answer;
use crate::http1::body::RequestBody;
use crate::http1::request::{BadRequest, Kind, Request};
use crate::http1::socket::Socket;
use crate::{Proxy, exchange, poll, push, scrape};

/// Serves a connection to its end.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would keep its arguments twice for as long as it runs"
)]
pub(crate) fn serve(
    mut socket: Socket,
    peer: Peer,
    proxy: Arc<Proxy>,
) -> impl Future<Output = ()> + Send {
    async move {
        loop {
            let request = match next_request(&mut socket, &proxy).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(bad) => return refuse(socket, bad).await,
            };
            let served = match request.kind {
                Kind::Poll { wait } => {
                    let accepted = match poll::accept(socket, request, wait, &peer, &proxy) {
                        Ok(parked) => Ok(parked),
                        Err(later) => later.await,
                    };
                    match accepted {
                        Ok(parked) => poll::park(parked, &proxy).await,
                        Err(refused) => refused,
                    }
                }
                // In boxes of their own, so that nothing of them is left while a poll is parked.
                Kind::Push => Box::pin(push::serve(socket, request, &peer, &proxy)).await,
                Kind::Scrape => Box::pin(scrape::serve(socket, request, &peer, &proxy)).await,
                Kind::Other => Box::pin(exchange::serve(socket, request, &peer, &proxy)).await,
            };
            match served {
                Some(more) => socket = more,
                None => return,
            }
        }
    }
}

/// Waits for the head of the next request. `None` when there will be none.
async fn next_request(socket: &mut Socket, proxy: &Proxy) -> Result<Option<Request>, BadRequest> {
    let mut begun: Option<Instant> = None;
    loop {
        if !socket.ahead().is_empty() {
            if let Some(request) = Request::parse(socket.ahead(), MAX_HEAD)? {
                return Ok(Some(request));
            }
            begun.get_or_insert_with(Instant::now);
        }
        let deadline = match begun {
            Some(begun) => begun + HEAD_TIMEOUT,
            None => {
                socket.settle(&proxy.buffers);
                Instant::now() + IDLE_TIMEOUT
            }
        };
        let filled = tokio::select! {
            biased;
            filled = timeout_at(deadline, socket.fill(&proxy.buffers)) => filled,
            () = proxy.closing.cancelled() => return Ok(None),
        };
        match filled {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return Ok(None),
        }
    }
}

/// Says what is wrong with what came, and closes.
async fn refuse(mut socket: Socket, bad: BadRequest) {
    debug!(error = %bad, "a request is refused");
    let answer = Answer::new(bad.status(), false).text(format!("{bad}\n").as_bytes());
    if socket.write(&answer).await.is_ok() {
        // A peer that does not take the end of the connection is left alone.
        socket.shutdown().await.ok();
    }
}

/// Ends when the peer does, or when it sends more than any peer does while it waits for an answer.
/// What it sends early is kept for its turn.
pub(crate) async fn left(socket: &mut Socket, proxy: &Proxy) {
    while socket.ahead().len() < MAX_READ_AHEAD {
        match socket.fill(&proxy.buffers).await {
            Ok(0) | Err(_) => return,
            Ok(_) => socket.settle(&proxy.buffers),
        }
    }
}

/// Takes in what a peer still sends, within bounds, so that it reads the answer rather than a
/// reset connection, and so that the connection can go on; and whether it can.
pub(crate) async fn drain(mut body: RequestBody) -> (Socket, bool) {
    let mut taken = 0;
    let draining = async {
        while let Ok(Some(piece)) = body.piece().await {
            let piece: Bytes = piece;
            taken += piece.len();
            if taken > MAX_DRAINED {
                return;
            }
        }
    };
    timeout(DRAIN_TIMEOUT, draining).await.ok();
    let is_drained = body.is_complete();
    (body.into_socket(), is_drained)
}

/// The head of any request: what hyper and Go's server take is in this order of size.
const MAX_HEAD: usize = 64 * 1024;

/// How long a head may take from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer than Prometheus (5 min) and Go clients (90 s) keep an idle connection: were it shorter,
/// they might send their next request into a connection that has just been closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(360);

/// What a peer may send ahead of its answer: a request or two of its own kind.
pub(crate) const MAX_READ_AHEAD: usize = 16 * 1024;

const MAX_DRAINED: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::access::{Access, Roles};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn what_waits_is_small() {
        let (end, _peer) = tokio::io::duplex(1);
        let proxy = Proxy::new(&Config::default(), Access::open(), CancellationToken::new());
        let peer = Peer {
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            sans: None,
            roles: Roles::ALL,
        };
        let size = std::mem::size_of_val(&serve(Socket::new(end), peer, Arc::new(proxy)));
        // A million of them wait. The task around it adds less than a hundred bytes.
        assert!(size <= 640, "{size} bytes");
    }
}
