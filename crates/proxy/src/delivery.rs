//! What becomes of an instruction once it has been written: whether its client has got it.
//!
//! The connection tells. Bytes of the client's show that it has: it polls again, or pushes. A reset
//! shows that it has not: that is how a system answers to bytes for a socket that has been closed,
//! or has been closed with the bytes unread in it. An end in good order shows that it may have,
//! unless the end was sent before the instruction was acknowledged. And when nothing comes at all,
//! the system is asked whether it has been acknowledged: if not, it goes to the next client that
//! polls under the name while that is so. A client that polls on another connection has closed this
//! one, or has what came on it.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::Proxy;
use crate::connection::IDLE_TIMEOUT;
use crate::http1::socket::Socket;
use crate::rendezvous::Sent;

/// Waits for the first bytes behind an instruction. The socket comes back when they are there.
pub(crate) async fn watch(mut socket: Socket, sent: Sent, proxy: &Proxy) -> Option<Socket> {
    if !socket.ahead().is_empty() {
        // What a client has sent ahead says nothing, and is to be served now.
        return Some(socket);
    }
    let mut was_asked = false;
    let mut is_doubted = false;
    let is_unseen = loop {
        let wait = match was_asked {
            false => ASKED_AFTER,
            true => IDLE_TIMEOUT,
        };
        let filled = socket.fill(&proxy.buffers);
        match proxy.idle.wait(Instant::now() + wait, filled).await {
            Some(Ok(1..)) => {
                if is_doubted {
                    proxy.rendezvous.settle(sent);
                }
                return Some(socket);
            }
            Some(Ok(0)) => break is_unacknowledged(&socket),
            Some(Err(error)) => break is_doubted || is_reset(&error),
            None if was_asked || proxy.closing.is_cancelled() => return None,
            None => {
                was_asked = true;
                if let Some(link) = socket.stream().link()
                    && link.is_acknowledged() == Some(false)
                {
                    is_doubted = true;
                    proxy.rendezvous.doubt(sent, link);
                }
            }
        }
    };
    if is_unseen {
        debug!(scrape_id = %sent.id(), "an instruction has not reached its client");
        proxy.rendezvous.unseen(sent);
    }
    None
}

fn is_unacknowledged(socket: &Socket) -> bool {
    let link = socket.stream().link();
    link.and_then(|link| link.is_acknowledged()) == Some(false)
}

fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Longer than an acknowledgement may be put off (half a second, RFC 9293) and than it takes to go
/// round the world.
const ASKED_AFTER: Duration = Duration::from_secs(2);
