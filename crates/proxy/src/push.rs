//! `POST /push`: a client answers the scrape that it was handed, on a bare socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use pushprox_daemon::guard::{Denied, Place};
use pushprox_protocol::message::MessageError;
use pushprox_protocol::message::body::BodyError;
use pushprox_protocol::message::pushed::{PushedHead, find_id};
use pushprox_protocol::{ScrapeId, duration};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::Proxy;
use crate::access::{Identity, Peer, Role};
use crate::answer::{Passed, PushEnd, PushedBody, ScrapeAnswer, check};
use crate::http1::answer::Answer;
use crate::http1::body::{BrokenBody, RequestBody};
use crate::http1::head_room::NoRoom;
use crate::http1::pace::Pace;
use crate::http1::request::Request;
use crate::http1::socket::Socket;
use crate::limits::{Limit, Limits, told};
use crate::parting::{drain, refuse_body};
use crate::progress::Stalled;
use crate::rendezvous::NotTaken;

/// Why a push answers no scrape.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the message has more than {0} headers")]
    TooManyHeaders(usize),
    #[error(transparent)]
    Answer(#[from] BodyError),
    #[error(transparent)]
    Body(#[from] BrokenBody),
    #[error("the head of the pushed answer did not come within {}", duration::format(*.0))]
    TooSlow(Duration),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("the pushed answer stood still: {0}")]
    Stalled(Stalled),
    #[error("no scrape waits for this id: it is unknown, over, or was answered before")]
    Gone,
    #[error("Prometheus has hung up, or did not take the answer in time")]
    HungUp,
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// Passes an answer on, and acknowledges it when Prometheus has all of it. The socket comes back
/// where more requests may follow on it.
pub(crate) async fn serve(
    socket: Socket,
    request: Request,
    peer: &Peer,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    let since = Instant::now();
    let mut body = RequestBody::new(socket, &request, proxy.buffers.clone());
    let (by, read) = take_head(&mut body, &request, peer, proxy).await?;
    let (result, mut body) = match deliver(proxy, peer, &by, read, body) {
        // The scrape's connection owns the body, and is cut when its time is up: this ends.
        Ok(delivery) => match delivery.end.await {
            Ok(PushEnd { push, how }) => match how {
                Passed::Whole if delivery.is_taken => (Ok(()), push),
                Passed::Whole | Passed::InPart => (Err(Refusal::HungUp), push),
                Passed::BrokeOff => (Err(Refusal::Body(BrokenBody::BrokeOff)), push),
                Passed::Broken(error) => (Err(Refusal::Answer(error)), push),
                Passed::Stalled(stalled) => (Err(Refusal::Stalled(stalled)), push),
            },
            Err(_) => unreachable!("a pushed body gives its push back when it is dropped"),
        },
        Err(refused) => (Err(refused.0), refused.1),
    };
    let ended = |status| {
        proxy
            .metrics
            .request_ended("/push", status, since.elapsed());
    };
    if let Err(refusal) = result {
        let (status, limit) = (refusal.status(), refusal.limit());
        // One that stood still has been counted where it did.
        if !matches!(refusal, Refusal::Stalled(_)) {
            proxy.hits.count(limit);
        }
        let text = told(&refusal, limit);
        debug!(error = text, "a push is refused");
        ended(status);
        let answer = |keep_alive| {
            let answer = Answer::new(status, keep_alive).challenge(status);
            answer.text(format!("{text}\n").as_bytes())
        };
        return Box::pin(refuse_body(body, request.keep_alive, answer, proxy)).await;
    }
    let is_complete = body.is_complete() || Box::pin(drain(&mut body, proxy)).await;
    let keep_alive = is_complete && request.keep_alive;
    let mut socket = body.into_socket();
    ended(StatusCode::OK);
    let answer = Answer::new(StatusCode::OK, keep_alive).text(b"");
    socket.write(&answer, &proxy.patience).await.ok()?;
    if keep_alive {
        return Some(socket);
    }
    socket.shutdown(&proxy.patience).await;
    None
}

/// Takes the head of the message in a push, if its sender may push. `None` when the proxy closes
/// first.
async fn take_head(
    body: &mut RequestBody,
    request: &Request,
    peer: &Peer,
    proxy: &Proxy,
) -> Option<(Identity, ReadHead)> {
    let shown = request.shown();
    let admitted = proxy.access.admit(peer, Role::Client, shown, Place::Own);
    let by = match admitted.await {
        Ok(grant) => grant.identity,
        Err(denied) => return Some((Identity::Anyone, Err((denied.into(), Bytes::new())))),
    };
    let arrived = match head_if_arrived(body, request, &proxy.limits) {
        Ok(read) => return Some((by, read)),
        Err(arrived) => arrived,
    };
    // In a box, so that no push whose head is there carries the room for a wait.
    let reading = Box::pin(read_head(body, arrived, request, proxy));
    tokio::select! {
        read = reading => Some((by, read)),
        () = proxy.closing.cancelled() => None,
    }
}

/// The head of the message in a push, and what came behind it. Or why there is none, and what came.
type ReadHead = Result<(PushedHead, Bytes), (Refusal, Bytes)>;

/// Reads the head of the message in a push where it is there already, as nearly always. What has
/// arrived of it where it is not.
fn head_if_arrived(
    body: &mut RequestBody,
    request: &Request,
    limits: &Limits,
) -> Result<ReadHead, Bytes> {
    if request.expects_continue {
        return Err(Bytes::new());
    }
    let mut arrived = match body.ready_piece() {
        Some(Ok(Some(piece))) => piece,
        Some(Ok(None)) => {
            let refusal = MessageError::HeadUnfinished.into();
            return Ok(Err((refusal, Bytes::new())));
        }
        Some(Err(broken)) => return Ok(Err((broken.into(), Bytes::new()))),
        None => return Err(Bytes::new()),
    };
    match parse(&arrived, limits) {
        Ok(Some((head, length))) => Ok(Ok((head, arrived.split_off(length)))),
        Ok(None) => Err(arrived),
        Err(refusal) => Ok(Err((refusal, arrived))),
    }
}

/// Waits for the head of the message in a push, of which something may have `arrived`.
async fn read_head(
    body: &mut RequestBody,
    mut arrived: Bytes,
    request: &Request,
    proxy: &Proxy,
) -> ReadHead {
    let limits = &proxy.limits;
    // It outlives the reading, which may be cut short: an id may stand in what has come.
    let mut gathered = BytesMut::new();
    let reading = async {
        if request.expects_continue {
            body.go_on(&proxy.patience)
                .await
                .map_err(BrokenBody::from)?;
        }
        if arrived.is_empty() {
            arrived = body.piece().await?.ok_or(MessageError::HeadUnfinished)?;
        }
        let mut pace = Pace::default();
        let mut held = proxy.head_room.hold();
        loop {
            if pace.is_due(&arrived)
                && let Some(parsed) = parse(&arrived, limits)?
            {
                return Ok(parsed);
            }
            held.grow(arrived.len())?;
            // A buffer of its own, since this may be a long wait.
            gathered = BytesMut::from(&*arrived);
            arrived = Bytes::new();
            let more = gather(body, &mut gathered, limits.push_head_size).await;
            arrived = gathered.split().freeze();
            if !more? {
                let parsed = parse(&arrived, limits)?;
                return Ok(parsed.ok_or(MessageError::HeadUnfinished)?);
            }
        }
    };
    let time = limits.progress_timeout;
    let head = timeout(time, reading)
        .await
        .unwrap_or(Err(Refusal::TooSlow(time)));
    match head {
        Ok((head, length)) => Ok((head, arrived.split_off(length))),
        Err(refusal) if arrived.is_empty() => Err((refusal, gathered.freeze())),
        Err(refusal) => Err((refusal, arrived)),
    }
}

fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<(PushedHead, usize)>, Refusal> {
    let too_many = Refusal::TooManyHeaders(limits.headers);
    match PushedHead::parse(bytes, limits.push_head_size) {
        Ok(Some((head, _))) if head.passed_on() > limits.headers => Err(too_many),
        Err(MessageError::TooManyHeaders) => Err(too_many),
        parsed => Ok(parsed?),
    }
}

/// Waits for more of a body, and takes all that is there of it then, as far as a head may reach.
/// Whether there may be more.
async fn gather(
    body: &mut RequestBody,
    into: &mut BytesMut,
    limit: usize,
) -> Result<bool, BrokenBody> {
    let mut next = body.piece().await?;
    while let Some(piece) = next {
        into.extend_from_slice(&piece);
        tokio::task::consume_budget().await;
        if into.len() > limit {
            return Ok(true);
        }
        next = match body.ready_piece() {
            Some(piece) => piece?,
            None => return Ok(true),
        };
    }
    Ok(false)
}

/// An answer that has been joined to its scrape.
struct Delivery {
    /// Whether the scrape was still there to take it.
    is_taken: bool,
    /// Brings the push back when the answer has been passed on.
    end: oneshot::Receiver<PushEnd>,
}

/// Joins an answer to its scrape. The push comes back at once where that cannot be.
fn deliver(
    proxy: &Proxy,
    peer: &Peer,
    by: &Identity,
    read: ReadHead,
    push: RequestBody,
) -> Result<Delivery, Box<(Refusal, RequestBody)>> {
    let (head, arrived) = match read {
        Ok(read) => read,
        Err((refusal, arrived)) => {
            // Its scrape need not wait for its time to be up, where the id can still be read.
            let id = find_id(&arrived).and_then(|id| ScrapeId::parse(&id));
            if let Some(completion) = id.and_then(|id| proxy.rendezvous.complete(id, by).ok()) {
                let text = told(&refusal, refusal.limit());
                warn!(fqdn = %completion.name, error = text, "a client sent a broken answer");
                completion.fail(&text);
            }
            return Err(Box::new((refusal, push)));
        }
    };
    let id = head.id.ok_or(NotTaken::Gone);
    let completion = match id.and_then(|id| proxy.rendezvous.complete(id, by)) {
        Ok(completion) => completion,
        Err(NotTaken::Gone) => return Err(Box::new((Refusal::Gone, push))),
        Err(NotTaken::Anothers) => {
            let denied = Denied::NotAllowed("another client was given this scrape".to_owned());
            proxy.access.turn_away(peer, &denied);
            return Err(Box::new((denied.into(), push)));
        }
    };
    let framing = head.framing(completion.method());
    let checked = framing
        .map_err(Refusal::from)
        .and_then(|framing| Ok(check(framing, &arrived, &push).map(|()| framing)?));
    let framing = match checked {
        Ok(framing) => framing,
        Err(refusal) => {
            completion.fail(&refusal);
            return Err(Box::new((refusal, push)));
        }
    };
    let (body, end) = PushedBody::new(framing, arrived, push);
    let is_taken = completion.answer(ScrapeAnswer {
        head,
        framing,
        body,
    });
    Ok(Delivery { is_taken, end })
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Message(MessageError::HeadTooLarge(_)) | Self::TooManyHeaders(_) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Message(_) | Self::Answer(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::TooSlow(_) | Self::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Gone | Self::HungUp => StatusCode::GONE,
            Self::Denied(denied) => denied.status(Place::Own),
        }
    }

    fn limit(&self) -> Option<Limit> {
        match self {
            Self::Message(MessageError::HeadTooLarge(_)) => Some(Limit::PushHeadSize),
            Self::TooManyHeaders(_) => Some(Limit::Headers),
            Self::NoRoom(_) => Some(Limit::UnfinishedHeads),
            Self::TooSlow(_) | Self::Stalled(_) => Some(Limit::ProgressTimeout),
            _ => None,
        }
    }
}
