//! A client's answer on its way from the push that carries it to the scrape that waits for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pushprox_protocol::message::body::{BodyDecoder, BodyError, Piece};
use pushprox_protocol::message::response::{Framing, ResponseHead};
use tokio::sync::oneshot;

use crate::http1::body::{BrokenBody, RequestBody};

/// The answer to one scrape: its head has been read, its body is still arriving.
#[derive(Debug)]
pub(crate) struct ScrapeAnswer {
    pub(crate) head: ResponseHead,
    pub(crate) framing: Framing,
    pub(crate) body: PushedBody,
}

/// The body of an answer, drawn from the push as fast as Prometheus takes it and no faster.
///
/// It owns the push's socket meanwhile, and reads it in the task that writes to Prometheus. It ends
/// in an error where the push breaks off, so that whoever sends it on cuts the connection rather
/// than ending it well.
#[derive(Debug)]
pub(crate) struct PushedBody {
    /// The push, and what tells its own task of the end; gone when that has been told.
    push: Option<(RequestBody, oneshot::Sender<PushEnd>)>,
    /// What has come of the push and is not decoded yet.
    arrived: Bytes,
    decoder: BodyDecoder,
}

/// What a push's own task gets back once its body has been passed on.
#[derive(Debug)]
pub(crate) struct PushEnd {
    pub(crate) push: RequestBody,
    /// Whether all of the answer was passed on.
    pub(crate) is_whole: bool,
}

/// Why a body could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenPush {
    /// The client's request failed.
    #[error("the push broke off")]
    Push(#[from] BrokenBody),
    /// The message in the push is malformed or incomplete.
    #[error("the pushed answer is broken: {0}")]
    Answer(#[from] BodyError),
}

impl PushedBody {
    /// The body that `arrived` begins and `push` goes on with; and what tells of its end.
    pub(crate) fn new(
        framing: Framing,
        arrived: Bytes,
        push: RequestBody,
    ) -> (Self, oneshot::Receiver<PushEnd>) {
        let (ended, end) = oneshot::channel();
        let body = Self {
            push: Some((push, ended)),
            arrived,
            decoder: BodyDecoder::new(framing),
        };
        (body, end)
    }

    /// Whether all of the body has been passed on.
    pub(crate) fn is_whole(&self) -> bool {
        self.push.is_none() || self.decoder.is_complete()
    }

    fn end(&mut self, is_whole: bool) {
        if let Some((push, ended)) = self.push.take() {
            // The push's task is gone when the proxy has given up at its end.
            ended.send(PushEnd { push, is_whole }).ok();
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
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::End => {
                    this.end(true);
                    return Poll::Ready(None);
                }
                Piece::NeedMore => {}
            }
            let Some((push, _)) = &mut this.push else {
                return Poll::Ready(None);
            };
            match ready!(push.poll_piece(cx))? {
                Some(data) => this.arrived = data,
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
        self.decoder
            .remaining()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for PushedBody {
    fn drop(&mut self) {
        self.end(self.decoder.is_complete());
    }
}

/// Finds what is wrong with an answer as far as it has arrived, while its scrape can still be told.
pub(crate) fn check(
    framing: Framing,
    arrived: &Bytes,
    push: &RequestBody,
) -> Result<(), BodyError> {
    if let (Framing::Length(promised), Some(left)) = (framing, push.remaining()) {
        let there = left.saturating_add(arrived.len() as u64);
        return (promised <= there)
            .then_some(())
            .ok_or(BodyError::Unfinished);
    }
    let Some(rest) = push.rest_if_arrived() else {
        return Ok(());
    };
    let mut decoder = BodyDecoder::new(framing);
    for mut piece in std::iter::once(arrived.clone()).chain(rest) {
        while let Piece::Data(_) = decoder.decode(&mut piece)? {}
    }
    decoder.finish()
}
