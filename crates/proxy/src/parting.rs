//! Ends of requests and of connections whose peers may still be sending: what comes is taken in for a
//! while, so that the peer reads its answer.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::Proxy;
use crate::http1::body::RequestBody;
use crate::http1::socket::Socket;

/// Ends a connection whose peer may still be sending: what comes is taken in for a while, so that
/// the peer reads the answer rather than a reset connection.
pub(crate) async fn part(mut socket: Socket, proxy: &Proxy) {
    socket.shutdown(&proxy.patience).await;
    let mut taken = socket.split_ahead(usize::MAX).len();
    socket.settle(&proxy.buffers);
    let taking = async {
        while taken < MAX_DRAINED
            && let Ok(1..) = socket.fill(&proxy.buffers).await
        {
            taken += socket.split_ahead(usize::MAX).len();
            socket.settle(&proxy.buffers);
            tokio::task::consume_budget().await;
        }
    };
    tokio::select! {
        _ = timeout(DRAIN_TIMEOUT, taking) => {}
        () = proxy.closing.cancelled() => {}
    }
}

/// Takes in what is left of a request, within bounds, so that the connection can go on; and whether
/// it can.
pub(crate) async fn drain(body: &mut RequestBody, proxy: &Proxy) -> bool {
    let mut taken = 0;
    let draining = async {
        while let Ok(Some(piece)) = body.piece().await {
            taken += piece.len();
            if taken > MAX_DRAINED {
                return;
            }
            tokio::task::consume_budget().await;
        }
    };
    tokio::select! {
        _ = timeout(DRAIN_TIMEOUT, draining) => {}
        () = proxy.closing.cancelled() => {}
    }
    body.is_complete()
}

/// Refuses a request whose body may still be on its way: the answer goes out at once. What still
/// comes is taken in behind it, within bounds, so that the peer reads the answer rather than a
/// reset connection. The socket comes back where more requests may follow on it.
pub(crate) async fn refuse_body(
    mut body: RequestBody,
    keep_alive: bool,
    answer: impl FnOnce(bool) -> BytesMut,
    proxy: &Proxy,
) -> Option<Socket> {
    body.take_if_arrived();
    let is_complete = body.is_complete();
    let keep_alive = keep_alive && is_complete;
    let answer = answer(keep_alive);
    let patience = &proxy.patience;
    body.socket_mut().write(&answer, patience).await.ok()?;
    if keep_alive {
        return Some(body.into_socket());
    }
    body.socket_mut().shutdown(patience).await;
    if !is_complete {
        drain(&mut body, proxy).await;
    }
    None
}

/// What a peer may send on in vain, in bytes.
const MAX_DRAINED: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
