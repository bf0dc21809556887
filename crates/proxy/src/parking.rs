//! A parked poll: a bare socket that waits for a scrape, for its time, or for its client to leave.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use pushprox_protocol::Fqdn;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::Proxy;
use crate::connection::Stream;
use crate::prefixed::Prefixed;
use crate::rendezvous::{ParkedPoll, PollEnd};

/// A poll that has been accepted, and what its answer needs to know of it.
#[derive(Debug)]
pub(crate) struct AcceptedPoll {
    pub(crate) parked: ParkedPoll,
    pub(crate) name: Fqdn,
    /// The wait that its client asked for, in seconds, as it was granted.
    pub(crate) wait: Option<u32>,
    /// Whether the connection goes on behind the answer.
    pub(crate) keep_alive: bool,
    pub(crate) since: Instant,
}

/// Waits for the end of a poll and answers it. The stream comes back where more requests may
/// follow on it.
pub(crate) async fn park<S: Stream>(
    mut stream: Prefixed<S>,
    mut poll: AcceptedPoll,
    proxy: &Arc<Proxy>,
) -> Option<Prefixed<S>> {
    let end = tokio::select! {
        biased;
        // First, so that a client that has left is not handed anything.
        () = left(&mut stream) => {
            debug!(fqdn = %poll.name, "a polling client has left");
            return None;
        }
        end = poll.parked.end() => end,
        // Clients poll again at once on another connection, and so find another proxy or this
        // one's successor: they take a closed connection better than any answer.
        () = proxy.draining.cancelled() => return None,
    };
    let code = match end {
        PollEnd::HandedOut(handed_out) => {
            let instruction = handed_out.encode();
            write(&mut stream, answer(&poll, "200 OK", Some(&instruction)))
                .await
                .inspect_err(|error| debug!(fqdn = %poll.name, %error, "cannot hand out a scrape"))
                .ok()?;
            handed_out.delivered();
            200
        }
        PollEnd::WaitIsOver => {
            let (code, status) = match poll.wait {
                Some(_) => (204, "204 No Content"),
                None => (408, "408 Request Timeout"),
            };
            let body = (code == 408).then_some(b"no scrape came in time\n".as_slice());
            write(&mut stream, answer(&poll, status, body)).await.ok()?;
            code
        }
        PollEnd::ShuttingDown => return None,
    };
    proxy.metrics.poll_ended(code, poll.since.elapsed());
    if poll.keep_alive {
        return Some(stream);
    }
    // The answer is out; a client that does not take the end of the connection is left alone.
    timeout(WRITE_TIMEOUT, stream.shutdown()).await.ok();
    None
}

/// Ends when the client does, or when it sends more than any client does while it waits.
async fn left<S: Stream>(stream: &mut Prefixed<S>) {
    while stream.prefix_len() < MAX_READ_AHEAD {
        match poll_fn(|cx| stream.poll_read_ahead(cx)).await {
            Ok(0) | Err(_) => return,
            // Its next request, sent early. It is kept for its turn.
            Ok(_) => {}
        }
    }
}

async fn write<S: Stream>(stream: &mut Prefixed<S>, bytes: BytesMut) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    })
    .await?
}

/// The whole answer to a poll, as it goes over the wire.
fn answer(poll: &AcceptedPoll, status: &str, body: Option<&[u8]>) -> BytesMut {
    let mut out = BytesMut::with_capacity(256 + body.map_or(0, <[u8]>::len));
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_bytes());
    out.put_slice(b"\r\nDate: ");
    out.put_slice(httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    if let Some(seconds) = poll.wait {
        out.put_slice(b"\r\nPreference-Applied: wait=");
        out.put_slice(seconds.to_string().as_bytes());
    }
    if !poll.keep_alive {
        out.put_slice(b"\r\nConnection: close");
    }
    if let Some(body) = body {
        out.put_slice(b"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ");
        out.put_slice(body.len().to_string().as_bytes());
    }
    out.put_slice(b"\r\n\r\n");
    out.put_slice(body.unwrap_or_default());
    out
}

/// What a client may send ahead of its poll's answer: a request or two of its own kind.
const MAX_READ_AHEAD: usize = 16 * 1024;

/// An instruction fits into any socket's buffer: a client that does not take it is not there.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
