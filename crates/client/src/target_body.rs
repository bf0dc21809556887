//! The body of a target's answer: begun before it is pushed, so that a target which ends behind its
//! head is told as that, and never cut off before what came of it is out.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, SizeHint};

use crate::error::{TargetBrokeOff, why};

/// The data of a body, piece by piece, none of them empty.
#[derive(Debug, Default)]
pub struct TargetBody {
    /// What has come before anybody asked for it.
    first: Option<Bytes>,
    rest: reqwest::Body,
    /// How it broke off, to be told next.
    broken: Option<reqwest::Error>,
}

impl TargetBody {
    /// A body of which nothing has been read.
    #[must_use]
    pub fn new(body: reqwest::Body) -> Self {
        Self {
            rest: body,
            ..Self::default()
        }
    }

    /// Waits for the first piece, or for the end where there is none. Cancel safe.
    ///
    /// # Errors
    ///
    /// The body breaks off before there is anything of it.
    pub async fn begin(&mut self) -> reqwest::Result<()> {
        let piece = poll_fn(|context| Self::poll_rest(&mut self.rest, context)).await;
        self.first = piece.transpose()?;
        Ok(())
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// The body breaks off. That is not told in one breath with what came before: the HTTP library
    /// throws away what it has not written when a body fails, and writes when it has to wait.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TargetBrokeOff>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(TargetBrokeOff(why(&error)))));
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match ready!(Self::poll_rest(&mut self.rest, context)) {
            Some(Err(error)) => {
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(piece)) => Poll::Ready(Some(Ok(piece))),
            None => Poll::Ready(None),
        }
    }

    /// Whether there is nothing more to come.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.first.is_none() && self.broken.is_none() && self.rest.is_end_stream()
    }

    /// What is known of the length of a body of which nothing has been read.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }

    fn poll_rest(
        rest: &mut reqwest::Body,
        context: &mut Context<'_>,
    ) -> Poll<Option<reqwest::Result<Bytes>>> {
        loop {
            match ready!(Pin::new(&mut *rest).poll_frame(context)).transpose()? {
                // Trailers end at each hop, and an empty chunk would be the last one.
                Some(frame) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    _ => {}
                },
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::{Body, Frame};
    use std::collections::VecDeque;
    use std::io;
    use std::task::Waker;

    /// Says at once what it has to say.
    struct Said(VecDeque<io::Result<&'static str>>);

    impl Body for Said {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|piece| Ok(Frame::data(piece?.into()))))
        }
    }

    fn body<const N: usize>(pieces: [io::Result<&'static str>; N]) -> TargetBody {
        TargetBody::new(reqwest::Body::wrap(Said(pieces.into())))
    }

    fn broken() -> io::Result<&'static str> {
        Err(io::ErrorKind::ConnectionReset.into())
    }

    #[tokio::test]
    async fn what_came_can_be_written_before_it_is_told_that_the_rest_does_not() {
        let mut body = body([Ok(""), Ok("a"), Ok(""), Ok("b"), broken()]);
        body.begin().await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        for piece in ["a", "b"] {
            let Poll::Ready(Some(Ok(came))) = body.poll_piece(&mut context) else {
                panic!("{piece} has not come");
            };
            assert_eq!(came, piece);
        }
        assert!(body.poll_piece(&mut context).is_pending());
        assert!(!body.is_end());
        let told = body.poll_piece(&mut context);
        assert!(matches!(told, Poll::Ready(Some(Err(_)))), "{told:?}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_before_its_first_piece_does_not_begin() {
        assert!(body([Ok(""), broken()]).begin().await.is_err());
        let mut empty = body([]);
        empty.begin().await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(empty.poll_piece(&mut context), Poll::Ready(None)));
    }
}
