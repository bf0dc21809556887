//! The body of a push, which can be sent once more from its beginning as long as little of it has
//! gone out: a connection that was kept may turn out dead only when it is used again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::answer::PushBody;
use crate::error::TargetBrokeOff;

/// A push that is sent until it comes through.
#[derive(Debug, Clone)]
pub struct Repeatable(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    rest: PushBody,
    /// What has been taken from the target so far, unless it is too much to keep.
    kept: Option<Vec<Bytes>>,
    /// The memory that this takes.
    kept_bytes: usize,
    length: Option<u64>,
    /// Counts the times that it is sent: what is left of an earlier one takes nothing any more.
    attempt: u32,
}

impl Repeatable {
    /// Takes over a body of which nothing has been sent.
    #[must_use]
    pub fn new(body: PushBody) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            length: body.size_hint().exact(),
            rest: body,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            attempt: 0,
        })))
    }

    /// The body, to be sent for the first time.
    #[must_use]
    pub fn first(&self) -> reqwest::Body {
        self.send(&self.0.lock())
    }

    /// The body once more, from its beginning. None if that is gone.
    #[must_use]
    pub fn again(&self) -> Option<reqwest::Body> {
        let mut shared = self.0.lock();
        shared.kept.as_ref()?;
        shared.attempt += 1;
        Some(self.send(&shared))
    }

    fn send(&self, shared: &Shared) -> reqwest::Body {
        reqwest::Body::wrap(Sending {
            shared: Arc::clone(&self.0),
            attempt: shared.attempt,
            sent: 0,
            length: shared.length,
        })
    }
}

impl Shared {
    fn keep(&mut self, piece: &Bytes) {
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
            self.kept_bytes += piece.len() + PER_PIECE;
            if self.kept_bytes > MOST_KEPT {
                self.kept = None;
            }
        }
    }
}

/// The body on its way.
struct Sending {
    shared: Arc<Mutex<Shared>>,
    attempt: u32,
    /// How many of the kept pieces have been sent.
    sent: usize,
    /// How many bytes are to come, where that is known.
    length: Option<u64>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = TargetBrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TargetBrokeOff>>> {
        let this = &mut *self;
        let mut shared = this.shared.lock();
        if shared.attempt != this.attempt {
            let why = "it is being sent once more".to_owned();
            return Poll::Ready(Some(Err(TargetBrokeOff(why))));
        }
        let again = shared.kept.as_ref().and_then(|kept| kept.get(this.sent));
        let piece = match again {
            Some(piece) => piece.clone(),
            None => match ready!(Pin::new(&mut shared.rest).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        shared.keep(&piece);
                        piece
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            },
        };
        this.sent += 1;
        if let Some(length) = &mut this.length {
            *length = length.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let all_sent = shared
            .kept
            .as_ref()
            .is_none_or(|kept| self.sent >= kept.len());
        all_sent && shared.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Many exporters' answers whole. What goes out before a dead connection shows itself is no more
/// than the system's buffers hold.
const MOST_KEPT: usize = 256 * 1024;

/// What a piece takes besides its bytes. A target may send them one by one.
const PER_PIECE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method, StatusCode};
    use std::time::Duration;

    use crate::answer::Answer;

    fn repeatable(target_says: impl Into<reqwest::Body>) -> Repeatable {
        let response = http::Response::builder()
            .status(StatusCode::OK)
            .body(target_says)
            .unwrap();
        let answer = Answer::of_target(&Method::GET, response.into());
        let id = HeaderValue::from_static("1");
        Repeatable::new(answer.into_push(&id, Duration::from_secs(1)))
    }

    /// A body of single bytes.
    struct Trickle(usize);

    impl Body for Trickle {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let left = self.0.checked_sub(1);
            self.0 = left.unwrap_or(0);
            Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    async fn piece(body: &mut reqwest::Body) -> Option<Bytes> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    async fn all(mut body: reqwest::Body) -> Vec<u8> {
        let mut all = Vec::new();
        let length = body.size_hint().exact().unwrap();
        while let Some(piece) = piece(&mut body).await {
            all.extend_from_slice(&piece);
        }
        assert!(body.is_end_stream());
        assert_eq!(all.len() as u64, length);
        all
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_and_then_the_rest() {
        let push = repeatable(b"metrics".to_vec());
        let mut first = push.first();
        let head = piece(&mut first).await.unwrap();
        let second = all(push.again().unwrap()).await;
        let stale = std::future::poll_fn(|context| Pin::new(&mut first).poll_frame(context)).await;
        assert!(stale.unwrap().is_err());
        assert!(second.starts_with(&head) && second.ends_with(b"metrics"));
        assert_eq!(all(push.again().unwrap()).await, second);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_to_keep_is_sent_once() {
        let push = repeatable(vec![b'x'; MOST_KEPT + 1]);
        let sent = all(push.first()).await;
        assert!(sent.len() > MOST_KEPT);
        assert!(push.again().is_none());
    }

    #[tokio::test]
    async fn an_answer_in_too_many_pieces_to_keep_is_sent_once() {
        let push = repeatable(reqwest::Body::wrap(Trickle(MOST_KEPT / PER_PIECE)));
        let mut sending = push.first();
        while let Some(sent) = piece(&mut sending).await {
            assert!(!sent.is_empty());
        }
        assert!(push.again().is_none());
    }
}
