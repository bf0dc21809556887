//! `POST /push`: a client answers the scrape that it was handed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use pushprox_daemon::respond;
use pushprox_protocol::ScrapeId;
use pushprox_protocol::headers::ID;
use pushprox_protocol::message::MessageError;
use pushprox_protocol::message::response::{Framing, ResponseHead};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::drain;
use crate::Proxy;
use crate::answer::{Answer, PushEnd, PushedBody};
use crate::rendezvous::Completion;

/// Why a push answers no scrape.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Body(#[from] pushprox_protocol::message::body::BodyError),
    #[error("the push broke off")]
    BrokeOff,
    #[error("the head of the pushed answer did not come within {} s", HEAD_TIMEOUT.as_secs())]
    TooSlow,
    #[error("no scrape waits for this id: it is unknown, over, or was answered before")]
    Gone,
    #[error("Prometheus has hung up")]
    HungUp,
}

/// Passes an answer on, and comes back when Prometheus has all of it.
pub(crate) async fn handle(
    proxy: &Arc<Proxy>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return respond::method_not_allowed("POST");
    }
    let mut body = request.into_body();
    let refusal = match read_head(&mut body).await {
        Ok((head, arrived)) => match deliver(proxy, head, arrived, body).await {
            Ok(()) => return Response::new(Full::default()),
            Err((refusal, rest)) => {
                if let Some(rest) = rest {
                    drain(rest).await;
                }
                refusal
            }
        },
        Err((refusal, arrived)) => {
            // Its scrape need not wait for its time to be up, where the id can still be read.
            if let Some(completion) = find_id(&arrived).and_then(|id| proxy.rendezvous.complete(id))
            {
                warn!(fqdn = %completion.name, error = %refusal, "a client sent a broken answer");
                completion.fail(&refusal);
            }
            drain(body).await;
            refusal
        }
    };
    debug!(error = %refusal, "a push is refused");
    respond::text(refusal.status(), format!("{refusal}\n"))
}

/// Reads the head of the message in a push: the head, and what came behind it.
async fn read_head(body: &mut Incoming) -> Result<(ResponseHead, Bytes), (Refusal, Bytes)> {
    let mut arrived = Bytes::new();
    let head = timeout(HEAD_TIMEOUT, async {
        loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    arrived = match arrived.is_empty() {
                        true => data,
                        false => {
                            let mut both = BytesMut::from(std::mem::take(&mut arrived));
                            both.extend_from_slice(&data);
                            both.freeze()
                        }
                    };
                }
                Some(Err(_)) => return Err(Refusal::BrokeOff),
                None => return Err(MessageError::HeadUnfinished.into()),
            }
            if let Some(parsed) = ResponseHead::parse(&arrived, MAX_HEAD)? {
                return Ok(parsed);
            }
        }
    })
    .await
    .unwrap_or(Err(Refusal::TooSlow));
    match head {
        Ok((head, length)) => Ok((head, arrived.split_off(length))),
        Err(refusal) => Err((refusal, arrived)),
    }
}

/// Joins an answer to its scrape and waits until it has been passed on.
async fn deliver(
    proxy: &Proxy,
    head: ResponseHead,
    arrived: Bytes,
    push: Incoming,
) -> Result<(), (Refusal, Option<Incoming>)> {
    let mut ids = head.headers.get_all(ID).iter();
    let id = match (ids.next(), ids.next()) {
        (Some(id), None) => ScrapeId::parse(id),
        _ => return Err((MessageError::Id.into(), Some(push))),
    };
    let Some(completion) = id.and_then(|id| proxy.rendezvous.complete(id)) else {
        return Err((Refusal::Gone, Some(push)));
    };
    let framing = match framing(&head, &completion, &arrived, &push) {
        Ok(framing) => framing,
        Err(refusal) => {
            completion.fail(&refusal);
            return Err((refusal, Some(push)));
        }
    };
    let (body, end) = PushedBody::new(framing, arrived, push);
    if let Err(error) = body.check() {
        completion.fail(&error);
        return Err((error.into(), None));
    }
    if !completion.answer(Answer { head, body }) {
        return Err((Refusal::HungUp, None));
    }
    match end.await {
        Ok(PushEnd {
            rest,
            is_whole: true,
        }) => {
            if let Some(rest) = rest {
                drain(rest).await;
            }
            Ok(())
        }
        _ => Err((Refusal::HungUp, None)),
    }
}

/// The inner framing, where the push as a whole can hold what it promises.
fn framing(
    head: &ResponseHead,
    completion: &Completion,
    arrived: &Bytes,
    push: &Incoming,
) -> Result<Framing, Refusal> {
    let framing = head.framing(completion.method())?;
    if let (Framing::Length(promised), Some(left)) = (framing, push.size_hint().exact())
        && promised > left.saturating_add(arrived.len() as u64)
    {
        return Err(pushprox_protocol::message::body::BodyError::Unfinished.into());
    }
    Ok(framing)
}

/// Looks for an id in what could not be read as a head.
fn find_id(bytes: &[u8]) -> Option<ScrapeId> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(3)?;
        if !name.eq_ignore_ascii_case(b"id:") {
            return None;
        }
        http::HeaderValue::from_bytes(value.trim_ascii())
            .ok()
            .and_then(|value| ScrapeId::parse(&value))
    })
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Message(MessageError::HeadTooLarge(_) | MessageError::TooManyHeaders) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::Message(_) | Self::Body(_) | Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Gone | Self::HungUp => StatusCode::GONE,
        }
    }
}

/// More than any exporter's head.
const MAX_HEAD: usize = 64 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
