//! A client's answer on its way from the push that carries it to the scrape that waits for it.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use pushprox_protocol::message::body::{BodyDecoder, BodyError, Framing, Piece};
use pushprox_protocol::message::pushed::PushedHead;
use tokio::sync::oneshot;

use crate::http1::body::{BrokenBody, RequestBody};
use crate::progress::Stalled;

/// The answer to one scrape: its head has been read, its body is still arriving.
#[derive(Debug)]
pub(crate) struct ScrapeAnswer {
    pub(crate) head: PushedHead,
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
    pub(crate) how: Passed,
}

/// How much of an answer was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    Whole,
    /// Prometheus has gone.
    InPart,
    /// The push broke off.
    BrokeOff,
    /// What came is malformed.
    Broken(BodyError),
    /// The push stood still.
    Stalled(Stalled),
}

/// Why a body could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenPush {
    /// The client's request failed.
    #[error(transparent)]
    Push(#[from] BrokenBody),
    /// The message in the push is malformed or incomplete.
    #[error(transparent)]
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

    /// The next piece of the body; none at its end. Cancel safe.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, BrokenPush> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// The next piece of the body, where it is there already.
    pub(crate) fn ready_piece(&mut self) -> Option<Result<Option<Bytes>, BrokenPush>> {
        match self.poll_piece(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(piece) => Some(piece),
            Poll::Pending => None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BrokenPush>> {
        let piece = self.poll_decoded(cx);
        if let Poll::Ready(Err(error)) = &piece {
            self.end(match error {
                BrokenPush::Answer(error) | BrokenPush::Push(BrokenBody::Malformed(error)) => {
                    Passed::Broken(*error)
                }
                BrokenPush::Push(BrokenBody::BrokeOff | BrokenBody::Io(_)) => Passed::BrokeOff,
            });
        }
        piece
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BrokenPush>> {
        loop {
            match self.decoder.decode(&mut self.arrived)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(data))),
                Piece::End => {
                    self.end(Passed::Whole);
                    return Poll::Ready(Ok(None));
                }
                Piece::NeedMore => {}
            }
            let Some((push, _)) = &mut self.push else {
                return Poll::Ready(Ok(None));
            };
            match ready!(push.poll_piece(cx))? {
                Some(data) => self.arrived = data,
                None => {
                    self.decoder.finish()?;
                    self.end(Passed::Whole);
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    /// Tells the push that it stood still for too long.
    pub(crate) fn give_up(&mut self, stalled: Stalled) {
        self.end(Passed::Stalled(stalled));
    }

    fn end(&mut self, how: Passed) {
        if let Some((push, ended)) = self.push.take() {
            // The push's task is gone when the proxy has given up at its end.
            ended.send(PushEnd { push, how }).ok();
        }
    }
}

impl Drop for PushedBody {
    fn drop(&mut self) {
        self.end(Passed::InPart);
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
