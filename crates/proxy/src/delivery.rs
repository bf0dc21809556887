//! What becomes of an instruction once it has been written: whether its client has got it.
//!
//! The connection tells. Bytes of the client's show that it has: it polls again, or pushes. A reset
//! shows that it has not: that is how a system answers to bytes for a socket that is closed, or that
//! is being closed with the bytes unread in it. An end in good order shows that it may have, unless
//! the end was sent before the instruction was acknowledged. And when nothing comes at all, the
//! system is asked whether it has been acknowledged: if not, it goes to the next client that polls
//! under the name while that is so. A client that polls on another connection has closed this one,
//! or has what came on it.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use pushprox_daemon::listen::USER_TIMEOUT;
use tokio::time::Instant;
use tracing::debug;

use crate::Proxy;
use crate::http1::socket::Socket;
use crate::idle::IDLE_TIMEOUT;
use crate::rendezvous::Sent;

/// What is known of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has been written.
    Sent,
    /// For a while it has not been acknowledged.
    Doubtful,
    /// The client's system has it.
    Acknowledged,
}

/// Waits for the first bytes behind an instruction. Whether they have come.
pub(crate) async fn watch(socket: &mut Socket, sent: Sent, proxy: &Proxy) -> bool {
    if !socket.ahead().is_empty() {
        // What a client has sent ahead says nothing, and is to be served now.
        return true;
    }
    let mut known = Known::Sent;
    let is_unseen = loop {
        let wait = match known {
            Known::Sent | Known::Doubtful => ASKED_AFTER,
            Known::Acknowledged => IDLE_TIMEOUT,
        };
        let filled = poll_fn(|cx| socket.poll_fill(cx, &proxy.buffers));
        match proxy.idle.wait(Instant::now() + wait, filled).await {
            Some(Ok(1..)) => {
                if known == Known::Doubtful {
                    is_settled(socket, sent, proxy);
                }
                return true;
            }
            Some(end) => break is_unseen(&end, known, socket),
            None if known == Known::Acknowledged || proxy.closing.is_cancelled() => return false,
            None => known = ask(socket, sent, known, proxy),
        }
    };
    if is_unseen {
        debug!(scrape_id = %sent.id(), "an instruction has not reached its client");
        proxy.rendezvous.unseen(sent);
    }
    false
}

fn ask(socket: &Socket, sent: Sent, known: Known, proxy: &Proxy) -> Known {
    let link = socket.stream().link();
    match link.map(|link| (link, link.is_acknowledged())) {
        Some((link, Some(false))) => {
            if known == Known::Sent {
                socket.stream().give_up_after(GIVEN_UP_AFTER);
            }
            proxy.rendezvous.doubt(sent, link);
            Known::Doubtful
        }
        _ => {
            if known == Known::Doubtful {
                is_settled(socket, sent, proxy);
            }
            Known::Acknowledged
        }
    }
}

fn is_settled(socket: &Socket, sent: Sent, proxy: &Proxy) {
    socket.stream().give_up_after(USER_TIMEOUT);
    proxy.rendezvous.settle(sent);
}

fn is_unseen(end: &io::Result<usize>, known: Known, socket: &Socket) -> bool {
    let is_acknowledged = || {
        let link = socket.stream().link();
        link.and_then(|link| link.is_acknowledged())
    };
    match end.as_ref().map_err(io::Error::kind) {
        // Without a good end, where TLS would have had one.
        Ok(_) | Err(io::ErrorKind::UnexpectedEof) => is_acknowledged() == Some(false),
        Err(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => true,
        Err(_) => known == Known::Doubtful,
    }
}

/// Longer than an acknowledgement may be put off (half a second, RFC 9293) and than it takes to go
/// round the world.
const ASKED_AFTER: Duration = Duration::from_secs(2);

/// How long an instruction may stay unacknowledged. The system sends it again ever more rarely, so
/// that a client behind a cut cable would hear it long after the cable is back, and poll only then.
/// Within this time it is sent again after half of it at the latest, and once it is over the client
/// is told by the next question of its keep-alive.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);
