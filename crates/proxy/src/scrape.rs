//! A scrape: Prometheus asks for a target in absolute form, and gets its client's answer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use pushprox_daemon::guard::{Denied, Place};
use pushprox_daemon::respond;
use pushprox_protocol::message::body::{CHUNK_END, Framing, LAST_CHUNK, chunk_start};
use pushprox_protocol::message::put_line;
use pushprox_protocol::message::scrape::ScrapeError;
use pushprox_protocol::{ScrapeId, timeout};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::Proxy;
use crate::access::{Peer, Role};
use crate::answer::{BrokenPush, PushedBody, ScrapeAnswer};
use crate::error::Failure;
use crate::http1::answer::{Answer, date};
use crate::http1::request::Request;
use crate::http1::socket::Socket;
use crate::limits::told;
use crate::parting::part;
use crate::progress::{Patience, Stalled};
use report::Report;

mod report;

/// How an answer could not be sent whole.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client's push broke off: {0}")]
    Push(#[from] BrokenPush),
    #[error("the client's push stood still: {0}")]
    Stalled(Stalled),
    #[error("Prometheus hung up before it had all of the answer")]
    HungUp(#[from] io::Error),
    #[error("Prometheus did not take the answer: {0}")]
    NotTaken(#[from] Stalled),
}

/// Has the target scraped by its client. The socket comes back where more requests may follow on it.
pub(crate) async fn serve(
    mut socket: Socket,
    mut request: Request,
    peer: &Peer,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    // Before its password is looked at, which Prometheus waits for as well.
    let started = Instant::now();
    let parsed = request.scrape.take()?;
    drop(socket.split_ahead(request.head));
    socket.settle(&proxy.buffers);
    let asked = parsed.as_ref().as_ref().ok();
    let timeout = proxy
        .timeouts
        .clamp(asked.and_then(|scrape| scrape.timeout));
    let deadline = started + timeout;
    let access = &proxy.access;
    let admitted = pin!(access.admit(peer, Role::Scraper, request.shown(), Place::Proxied));
    let told_by = deadline - timeout::answer_margin(timeout);
    let granted = by(told_by, admitted).await;
    let grant = match granted.unwrap_or(Err(Denied::Busy)) {
        Ok(grant) => grant,
        Err(denied) => return Box::pin(deny(socket, &denied, &request, proxy)).await,
    };
    let scrape = match *parsed {
        Ok(scrape) => scrape,
        Err(error) => return Box::pin(refuse(socket, error.into(), &request, proxy)).await,
    };
    if !grant.may_reach(&scrape.target) {
        let (who, target) = (&grant.identity, &scrape.target);
        let denied = Denied::NotAllowed(format!("{who} may not scrape {target}"));
        access.turn_away(peer, &denied);
        return Box::pin(deny(socket, &denied, &request, proxy)).await;
    }
    drop(grant);
    let mut report = Report::new(ScrapeId::random(), scrape.target.clone(), started);
    let rendezvous = &proxy.rendezvous;
    let answered = match rendezvous.scrape(report.id, scrape, timeout, started) {
        Ok(mut pending) => tokio::select! {
            biased;
            // A scrape whose Prometheus has hung up is forgotten.
            () = socket.left(&proxy.buffers) => {
                report.end(&"Prometheus hung up before it had the answer");
                return None;
            }
            answered = pending.answer() => answered,
        },
        Err(failure) => Err(failure),
    };
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            report.end(&told(&failure, failure.limit()));
            return Box::pin(tell(socket, &failure, &request, proxy)).await;
        }
    };
    report.status = answer.head.status.as_u16();
    proxy.metrics.proxied(answer.head.status);
    let ends_with_connection = ends_with_connection(&answer, &request);
    // In a box of its own, as small as the one that it is called from.
    let mut answer = Box::pin(send(&mut socket, answer, &request, &mut report, proxy));
    // Whatever its client or Prometheus do, nothing of a scrape outlasts its time.
    let sent = by(deadline, answer.as_mut()).await;
    drop(answer);
    match sent {
        Ok(Ok(())) => report.answered(),
        Ok(Err(error)) => {
            report.end(&error);
            socket.stream().reset();
            return None;
        }
        Err(_) => {
            report.end(&"the time was up before Prometheus had all of the answer");
            socket.stream().reset();
            return None;
        }
    }
    match request.goes_on() && !ends_with_connection {
        true => Some(socket),
        false => end(socket, &request, proxy).await,
    }
}

/// Has something done by `deadline`. Most of it is done at once, without a timer.
async fn by<F: Future>(deadline: Instant, mut work: Pin<&mut F>) -> Result<F::Output, Elapsed> {
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => Box::pin(timeout_at(deadline, work)).await,
    }
}

/// Answers what is no scrape at all.
async fn refuse(
    socket: Socket,
    failure: Failure,
    request: &Request,
    proxy: &Proxy,
) -> Option<Socket> {
    warn!(outcome = %failure, "a scrape is refused");
    tell(socket, &failure, request, proxy).await
}

/// Turns Prometheus away.
async fn deny(socket: Socket, denied: &Denied, request: &Request, proxy: &Proxy) -> Option<Socket> {
    let (status, text) = (denied.status(Place::Proxied), denied.told(Place::Proxied));
    say(socket, status, &text, request, proxy).await
}

/// Tells Prometheus of a failure.
async fn tell(
    socket: Socket,
    failure: &Failure,
    request: &Request,
    proxy: &Proxy,
) -> Option<Socket> {
    let limit = failure.limit();
    proxy.hits.count(limit);
    let text = told(failure, limit);
    say(socket, failure.status(), &text, request, proxy).await
}

/// Answers with a reason phrase, which is what Prometheus shows.
async fn say(
    mut socket: Socket,
    status: StatusCode,
    text: &str,
    request: &Request,
    proxy: &Proxy,
) -> Option<Socket> {
    proxy.metrics.proxied(status);
    let reason = respond::reason_phrase(text);
    let answer = Answer::with_reason(status, reason.as_bytes(), request.goes_on());
    let answer = answer.challenge(status);
    let answer = match request.is_head {
        true => answer.without_body(),
        false => answer.text(format!("{text}\n").as_bytes()),
    };
    socket.write(&answer, &proxy.patience).await.ok()?;
    match request.goes_on() {
        true => Some(socket),
        false => end(socket, request, proxy).await,
    }
}

/// Ends the connection behind an answer.
async fn end(mut socket: Socket, request: &Request, proxy: &Proxy) -> Option<Socket> {
    match request.has_body() {
        true => Box::pin(part(socket, proxy)).await,
        false => socket.shutdown(&proxy.patience).await,
    }
    None
}

/// Whether the end of the answer can be told by nothing but the end of the connection.
fn ends_with_connection(answer: &ScrapeAnswer, request: &Request) -> bool {
    !matches!(answer.framing, Framing::Length(_)) && !request.is_head && !request.is_http_1_1
}

/// Sends an answer as it comes. What has been sent is whole only if this ends well.
async fn send(
    socket: &mut Socket,
    answer: Box<ScrapeAnswer>,
    request: &Request,
    report: &mut Report,
    proxy: &Proxy,
) -> Result<(), Broken> {
    let patience = &proxy.patience;
    let is_chunked = !matches!(answer.framing, Framing::Length(_)) && request.is_http_1_1;
    // The body stays where it is, and is not moved into this future.
    let mut answer = answer;
    let (head, framing) = (answer.head, answer.framing);
    let body = &mut answer.body;
    let length = match framing {
        _ if request.is_head => head.length(),
        // An answer without a body may tell the length of one (304), or must not (204).
        Framing::Length(_) if head.status == StatusCode::NO_CONTENT => None,
        Framing::Length(_) => head.length(),
        Framing::Chunked | Framing::ToEnd => None,
    };
    let has_date = head.has_date();
    let mut head = head.into_lines();
    if !has_date {
        put_line(&mut head, "Date", &date());
    }
    match length {
        Some(length) => {
            let mut digits = itoa::Buffer::new();
            let length = digits.format(length);
            put_line(&mut head, "Content-Length", length.as_bytes());
        }
        None if is_chunked => put_line(&mut head, "Transfer-Encoding", b"chunked"),
        None => {}
    }
    if !request.goes_on() {
        put_line(&mut head, "Connection", b"close");
    }
    head.put_slice(b"\r\n");

    // The head goes out with the first of the body, and each chunk with its frame.
    let mut head = Some(head);
    let mut held = None;
    loop {
        let piece = match next_piece(body, &mut held).await {
            Some(piece) => piece?,
            None => {
                if let Some(head) = head.take() {
                    write(socket, [&head, b"", b""], patience).await?;
                }
                let next = async {
                    tokio::select! {
                        biased;
                        () = socket.left(&proxy.buffers) => Err(hung_up().into()),
                        piece = body.piece() => piece.map_err(Broken::from),
                    }
                };
                match patience.wait(next).await {
                    Ok(piece) => piece?,
                    Err(stalled) => {
                        body.give_up(stalled);
                        return Err(Broken::Stalled(stalled));
                    }
                }
            }
        };
        let before = head.take().unwrap_or_default();
        let Some(data) = piece else {
            let last = if is_chunked { LAST_CHUNK } else { b"" };
            if !before.is_empty() || !last.is_empty() {
                write(socket, [&before, last, b""], patience).await?;
            }
            return Ok(());
        };
        report.bytes += data.len() as u64;
        if is_chunked {
            let mut before = before;
            before.put_slice(&chunk_start(data.len()));
            write(socket, [&before, &data, CHUNK_END], patience).await?;
        } else {
            write(socket, [&before, &data, b""], patience).await?;
        }
    }
}

type NextPiece = Result<Option<Bytes>, BrokenPush>;

/// The next piece of a body, where it is there already; small ones that are there together are put
/// together, since each write costs as much as thousands of bytes. What comes behind them is held
/// for the next time.
async fn next_piece(body: &mut PushedBody, held: &mut Option<NextPiece>) -> Option<NextPiece> {
    let first = match held.take().or_else(|| body.ready_piece())? {
        Ok(Some(first)) if first.len() < SMALL => first,
        other => return Some(other),
    };
    let mut together: Option<BytesMut> = None;
    loop {
        match body.ready_piece() {
            Some(Ok(Some(piece))) => {
                let all = together.get_or_insert_with(|| BytesMut::from(&*first));
                all.extend_from_slice(&piece);
                if all.len() >= SMALL {
                    break;
                }
                tokio::task::consume_budget().await;
            }
            other => {
                *held = other;
                break;
            }
        }
    }
    Some(Ok(Some(together.map_or(first, BytesMut::freeze))))
}

/// Writes parts in one go, as far as the socket takes them.
async fn write(socket: &mut Socket, parts: [&[u8]; 3], patience: &Patience) -> Result<(), Broken> {
    let mut slices = parts.map(IoSlice::new);
    let mut rest: &mut [IoSlice<'_>] = &mut slices;
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let step = poll_fn(|cx| socket.stream_mut().poll_write_vectored(cx, rest));
        let written = patience.wait(step).await??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    let flush = poll_fn(|cx| socket.stream_mut().poll_flush(cx));
    Ok(patience.wait(flush).await??)
}

fn hung_up() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl From<ScrapeError> for Failure {
    fn from(error: ScrapeError) -> Self {
        match error {
            ScrapeError::Method => Self::Method,
            ScrapeError::Target(name) => Self::Target(name),
            ScrapeError::Message(_) => Self::Target(pushprox_protocol::fqdn::NameError::Uri),
        }
    }
}

/// Pieces below this size are worth putting together.
const SMALL: usize = 4 * 1024;

#[cfg(test)]
mod tests;
