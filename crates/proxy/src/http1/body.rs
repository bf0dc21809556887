//! The body of a request, read from its socket.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use pushprox_protocol::message::body::{BodyDecoder, BodyError, Piece};
use smallvec::SmallVec;
use tokio_util::io::poll_read_buf;

use super::buffers::{self, Buffers};
use super::request::Request;
use super::socket::Socket;
use crate::progress::Patience;

/// A body on its way in. It owns the socket until it is taken apart.
#[derive(Debug)]
pub(crate) struct RequestBody {
    socket: Socket,
    buffers: Arc<Buffers>,
    /// What the last bytes were read into. By the time of the next read they are gone, and it is
    /// still in the processor's cache.
    buffer: BytesMut,
    framing: BodyDecoder,
    /// What has been read and is not decoded yet.
    arrived: Bytes,
}

/// Pieces of a body. What fits into one read is mostly one.
pub(crate) type Pieces = SmallVec<[Bytes; 1]>;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenBody {
    #[error("the request broke off")]
    BrokeOff,
    #[error("the request broke off")]
    Io(#[from] io::Error),
    #[error("the body of the request is malformed: {0}")]
    Malformed(#[from] BodyError),
}

impl RequestBody {
    /// The body of a request whose head is in front of the socket.
    pub(crate) fn new(mut socket: Socket, request: &Request, buffers: Arc<Buffers>) -> Self {
        socket.split_ahead(request.head);
        // An empty rest would keep the buffer from being used again.
        let arrived = match socket.ahead().is_empty() {
            true => Bytes::new(),
            false => socket.split_ahead(usize::MAX).freeze(),
        };
        let buffer = socket.take_buffer();
        Self {
            socket,
            buffers,
            buffer,
            framing: BodyDecoder::new(request.body),
            arrived,
        }
    }

    /// Lets a sender that waits for it send the body.
    pub(crate) async fn go_on(&mut self, patience: &Patience) -> io::Result<()> {
        if self.arrived.is_empty() && !self.framing.is_complete() {
            let leave = b"HTTP/1.1 100 Continue\r\n\r\n";
            return self.socket.write(leave, patience).await;
        }
        Ok(())
    }

    /// The next piece of the body; none at its end.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BrokenBody>> {
        loop {
            match self.framing.decode(&mut self.arrived)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(data))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::NeedMore => {}
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(BrokenBody::BrokeOff));
            }
        }
    }

    /// Reads what comes next. A wait holds no buffer.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.buffer.try_reclaim(buffers::SIZE) {
            self.buffer = self.buffers.take();
        }
        let read = poll_read_buf(self.socket.stream_mut(), cx, &mut self.buffer);
        match read {
            Poll::Pending => self.buffers.give(std::mem::take(&mut self.buffer)),
            Poll::Ready(_) => self.arrived = self.buffer.split().freeze(),
        }
        read
    }

    /// Lets go of the buffer before a wait: what is left in it moves to one of its own size.
    pub(crate) fn settle(&mut self) {
        self.arrived = Bytes::copy_from_slice(&self.arrived);
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > 0 {
            self.buffers.give(buffer);
        }
    }

    /// As [`RequestBody::poll_piece`]. Cancel safe.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, BrokenBody> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// How many bytes of the body are still to come from here, where it tells its length.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.framing.remaining()
    }

    /// All that is left of the body, where it has arrived whole.
    pub(crate) fn rest_if_arrived(&self) -> Option<Pieces> {
        self.ahead().map(|(rest, ..)| rest)
    }

    /// Takes all that is left of the body, where it has arrived whole.
    pub(crate) fn take_if_arrived(&mut self) -> Option<Pieces> {
        let (rest, framing, arrived) = self.ahead()?;
        (self.framing, self.arrived) = (framing, arrived);
        Some(rest)
    }

    /// The rest of the body, and what stands behind it.
    fn ahead(&self) -> Option<(Pieces, BodyDecoder, Bytes)> {
        let (mut framing, mut arrived) = (self.framing.clone(), self.arrived.clone());
        let mut rest = Pieces::new();
        loop {
            match framing.decode(&mut arrived) {
                Ok(Piece::Data(data)) => rest.push(data),
                Ok(Piece::End) => return Some((rest, framing, arrived)),
                Ok(Piece::NeedMore) | Err(_) => return None,
            }
        }
    }

    /// Whether all of the body has been taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.framing.is_complete()
    }

    /// The socket, for an answer while the body may still be on its way.
    pub(crate) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The next piece of the body, where it is there already.
    pub(crate) fn ready_piece(&mut self) -> Option<Result<Option<Bytes>, BrokenBody>> {
        match self.poll_piece(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(piece) => Some(piece),
            Poll::Pending => None,
        }
    }

    /// The socket back, with what came behind the body.
    pub(crate) fn into_socket(self) -> Socket {
        let mut socket = self.socket;
        socket.put_back(&self.arrived);
        drop(self.arrived);
        if self.buffer.capacity() > 0 {
            self.buffers.give(self.buffer);
        }
        socket
    }
}
