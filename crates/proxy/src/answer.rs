//! A client's answer on its way from the push that carries it to the scrape that waits for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use pushprox_protocol::message::body::{BodyDecoder, BodyError, Piece};
use pushprox_protocol::message::response::{Framing, ResponseHead};
use tokio::sync::oneshot;

/// The answer to one scrape: its head has been read, its body is still arriving.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) body: PushedBody,
}

/// The body of an answer, drawn from the push as fast as Prometheus takes it and no faster.
///
/// It ends in an error where the push breaks off, so that whoever sends it on cuts the connection
/// rather than ending it well.
#[derive(Debug)]
pub(crate) struct PushedBody {
    push: Option<Incoming>,
    /// What has come of the push and is not decoded yet.
    arrived: Bytes,
    decoder: BodyDecoder,
    /// The exact length, where the inner framing tells it.
    left: Option<u64>,
    ended: Option<oneshot::Sender<PushEnd>>,
}

/// What a push's own handler gets back once its body has been passed on.
#[derive(Debug)]
pub(crate) struct PushEnd {
    /// What is left of the push behind the message in it.
    pub(crate) rest: Option<Incoming>,
    /// Whether all of the answer was passed on.
    pub(crate) is_whole: bool,
}

/// Why a body could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenPush {
    /// The client's connection failed.
    #[error("the push broke off")]
    Outer(#[source] hyper::Error),
    /// The message in the push is malformed or incomplete.
    #[error("the pushed answer is broken: {0}")]
    Inner(#[from] BodyError),
}

impl PushedBody {
    /// The body that `arrived` begins and `push` goes on with; and what tells of its end.
    pub(crate) fn new(
        framing: Framing,
        arrived: Bytes,
        push: Incoming,
    ) -> (Self, oneshot::Receiver<PushEnd>) {
        let (ended, end) = oneshot::channel();
        let body = Self {
            push: Some(push),
            arrived,
            decoder: BodyDecoder::new(framing),
            left: match framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked | Framing::ToEnd => None,
            },
            ended: Some(ended),
        };
        (body, end)
    }

    /// Finds what is wrong with a body that has arrived already, while its scrape can still be
    /// told so.
    pub(crate) fn check(&self) -> Result<(), BodyError> {
        if !self.push.as_ref().is_some_and(Body::is_end_stream) {
            return Ok(());
        }
        let mut decoder = self.decoder.clone();
        let mut arrived = self.arrived.clone();
        while let Piece::Data(_) = decoder.decode(&mut arrived)? {}
        decoder.finish()
    }

    /// Whether all of the body has been passed on.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended.is_none() || self.decoder.is_complete()
    }

    fn end(&mut self, is_whole: bool) {
        if let Some(ended) = self.ended.take() {
            let rest = self.push.take();
            // The push's handler is gone when its connection is.
            ended.send(PushEnd { rest, is_whole }).ok();
        }
    }
}

impl Body for PushedBody {
    type Data = Bytes;
    type Error = BrokenPush;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenPush>>> {
        let this = &mut *self;
        loop {
            match this.decoder.decode(&mut this.arrived)? {
                Piece::Data(data) => {
                    if let Some(left) = &mut this.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Piece::End => {
                    this.end(true);
                    return Poll::Ready(None);
                }
                Piece::NeedMore => {}
            }
            let Some(push) = &mut this.push else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(push).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers of the push mean nothing.
                    if let Ok(data) = frame.into_data() {
                        this.arrived = data;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BrokenPush::Outer(error)))),
                None => {
                    this.decoder.finish()?;
                    this.end(true);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for PushedBody {
    fn drop(&mut self) {
        self.end(self.decoder.is_complete());
    }
}
