//! What goes into a push: the target's answer or a failure of the pull, as one HTTP response inside
//! the body, streamed piece by piece as the target sends it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use pushprox_daemon::exit::causes;
use pushprox_daemon::respond;
use pushprox_protocol::headers::{ID, SCRAPE_TIMEOUT, strip_hop_by_hop};
use pushprox_protocol::message::body::{CHUNK_END, Framing, LAST_CHUNK, chunk_start};
use pushprox_protocol::message::response::ResponseHead;

use crate::error::{PullError, TargetBrokeOff};
use crate::target_body::TargetBody;

/// A response that waits to be pushed.
#[derive(Debug)]
pub struct Answer {
    head: ResponseHead,
    framing: Framing,
    body: TargetBody,
}

impl Answer {
    /// The target's answer to a request with `method`, of whose body nothing has been read.
    #[must_use]
    pub fn of_target(method: &Method, response: reqwest::Response) -> Self {
        let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let mut headers = parts.headers;
        strip_hop_by_hop(&mut headers);
        headers.remove(ID);
        headers.remove(SCRAPE_TIMEOUT);
        let bodyless = method == Method::HEAD
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let framing = if bodyless {
            // The head is all there is. A length in it is that of the body that a GET would get.
            Framing::ToEnd
        } else {
            headers.remove(CONTENT_LENGTH);
            match body.size_hint().exact() {
                Some(length) => Framing::Length(length),
                None => Framing::Chunked,
            }
        };
        // Of a reason that is not ASCII, hyper keeps an empty one.
        let reason = match parts.extensions.get::<ReasonPhrase>() {
            Some(reason) if !reason.as_bytes().is_empty() => {
                String::from_utf8_lossy(reason.as_bytes()).into_owned()
            }
            _ => parts
                .status
                .canonical_reason()
                .unwrap_or_default()
                .to_owned(),
        };
        Self {
            head: ResponseHead {
                status: parts.status,
                reason,
                headers,
            },
            framing,
            body: if bodyless {
                TargetBody::default()
            } else {
                TargetBody::new(body)
            },
        }
    }

    /// Waits until something of the body is there, or all of it is.
    ///
    /// # Errors
    ///
    /// The target breaks off behind the head of its answer.
    pub async fn begin(&mut self) -> reqwest::Result<()> {
        self.body.begin().await
    }

    /// A failure of the pull: its text as the reason phrase, its causes as the body.
    #[must_use]
    pub fn of_failure(method: &Method, error: &PullError) -> Self {
        let reason = respond::reason_phrase(&error.to_string());
        let body = format!("{}\n", causes(error));
        let is_head = method == Method::HEAD;
        Self {
            head: ResponseHead {
                status: error.status(),
                reason: String::from_utf8_lossy(reason.as_bytes()).into_owned(),
                headers: HeaderMap::from_iter([(
                    CONTENT_TYPE,
                    HeaderValue::from_static(respond::TEXT),
                )]),
            },
            framing: match is_head {
                true => Framing::ToEnd,
                false => Framing::Length(body.len() as u64),
            },
            body: match is_head {
                true => TargetBody::default(),
                false => TargetBody::new(body.into()),
            },
        }
    }

    /// The status that Prometheus will see.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The body of the push for the scrape with this id, which has `left` of its time.
    #[must_use]
    pub fn into_push(self, id: &HeaderValue, left: Duration) -> PushBody {
        let head = self.head.encode(id, left, self.framing);
        PushBody {
            length: match self.framing {
                Framing::Length(length) => Some(head.len() as u64 + length),
                Framing::ToEnd => Some(head.len() as u64),
                Framing::Chunked => None,
            },
            next: [Some(head), None],
            chunks: (self.framing == Framing::Chunked).then_some(Chunks::None),
            body: self.body,
        }
    }
}

/// The body of a push. When the target breaks off it ends with an error, so that the push is cut
/// and never passes for a whole one.
#[derive(Debug)]
pub struct PushBody {
    /// Bytes that go out before anything more is read from the target.
    next: [Option<Bytes>; 2],
    /// What is left, where that is known.
    length: Option<u64>,
    /// How far the inner chunked coding has come, if there is one.
    chunks: Option<Chunks>,
    body: TargetBody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    None,
    Some,
    Ended,
}

impl PushBody {
    fn take_next(&mut self) -> Option<Bytes> {
        let [first, second] = &mut self.next;
        let next = first.take().or_else(|| second.take())?;
        if let Some(length) = &mut self.length {
            *length = length.saturating_sub(next.len() as u64);
        }
        Some(next)
    }

    /// Puts data of the target's, or the end of it, in line to go out.
    fn queue(&mut self, data: Option<Bytes>) {
        let Some(chunks) = self.chunks else {
            self.next = [data, None];
            return;
        };
        let mut frame = BytesMut::with_capacity(32);
        if chunks == Chunks::Some {
            frame.put_slice(CHUNK_END);
        }
        match &data {
            Some(data) => frame.put_slice(&chunk_start(data.len())),
            None if chunks == Chunks::Ended => return,
            None => frame.put_slice(LAST_CHUNK),
        }
        self.chunks = Some(match data {
            Some(_) => Chunks::Some,
            None => Chunks::Ended,
        });
        self.next = [Some(frame.freeze()), data];
    }
}

impl Body for PushBody {
    type Data = Bytes;
    type Error = TargetBrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TargetBrokeOff>>> {
        loop {
            if let Some(bytes) = self.take_next() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.chunks == Some(Chunks::Ended) {
                return Poll::Ready(None);
            }
            match ready!(self.body.poll_piece(context)).transpose()? {
                Some(data) => self.queue(Some(data)),
                None if self.chunks.is_some() => self.queue(None),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let [first, second] = &self.next;
        first.is_none()
            && second.is_none()
            && match self.chunks {
                Some(chunks) => chunks == Chunks::Ended,
                None => self.body.is_end(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
