//! A peer's socket, and what has been read from it ahead of its use.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls_pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use super::buffers::Buffers;
use super::link::Link;
use crate::progress::Patience;

/// A stream that connections may run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Waits until there may be something to read, where that is known without reading.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Makes the coming close a reset, which no peer can take for a good end.
    fn reset(&self);

    /// Whether the peer has left, as the system knows it now. The runtime learns of it with its next
    /// events, which may be too late for one who is about to write.
    fn is_gone(&self) -> bool;

    /// The connection below, where there is one.
    fn link(&self) -> Option<Link>;

    /// Has the system break the connection when it has sent again for so long without an answer.
    fn give_up_after(&self, time: Duration);

    /// The certificates that the peer has shown in its handshake.
    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        None
    }
}

impl Stream for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn reset(&self) {
        // A socket that is broken already needs no reset.
        self.set_zero_linger().ok();
    }

    fn is_gone(&self) -> bool {
        // A look at what can be read would not do: TLS says farewell before it closes, and what
        // comes before the end hides it.
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut asked = [PollFd::new(self, ends)];
        let told = poll(&mut asked, Some(&Timespec::default()));
        let [socket] = asked;
        told.is_ok() && socket.revents().intersects(ends)
    }

    fn link(&self) -> Option<Link> {
        Link::of(self)
    }

    fn give_up_after(&self, time: Duration) {
        // A system without the option breaks it in its own time.
        SockRef::from(self).set_tcp_user_timeout(Some(time)).ok();
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Stream for tokio::io::DuplexStream {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn reset(&self) {}

    fn is_gone(&self) -> bool {
        false
    }

    fn link(&self) -> Option<Link> {
        None
    }

    fn give_up_after(&self, _: Duration) {}
}

impl<S: Stream> Stream for TlsStream<S> {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There may be something that has been read and not been given away.
        Poll::Ready(Ok(()))
    }

    fn reset(&self) {
        self.get_ref().0.reset();
    }

    fn is_gone(&self) -> bool {
        self.get_ref().0.is_gone()
    }

    fn link(&self) -> Option<Link> {
        self.get_ref().0.link()
    }

    fn give_up_after(&self, time: Duration) {
        self.get_ref().0.give_up_after(time);
    }

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.get_ref().1.peer_certificates()
    }
}

/// One connection's bytes. While nothing is read ahead, it holds no buffer.
pub(crate) struct Socket(Box<Ends<dyn Stream>>);

/// What a socket is, in one place: whoever owns it for a while moves no more than a pointer. Of a
/// plain connection it is as large as a line of the processor's cache, and takes one of them, where
/// the proxy is built without the other daemons.
#[repr(align(64))]
struct Ends<S: ?Sized> {
    ahead: BytesMut,
    stream: S,
}

/// How much could be written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// All, and it is out.
    All,
    /// So many bytes. Even where that is all of them, they are not out yet.
    Part(usize),
}

impl Socket {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self(Box::new(Ends {
            ahead: BytesMut::new(),
            stream,
        }))
    }

    /// What has been read and not used yet.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.0.ahead
    }

    /// Uses the first `length` bytes of what was read ahead.
    pub(crate) fn split_ahead(&mut self, length: usize) -> BytesMut {
        self.0.ahead.split_to(length.min(self.0.ahead.len()))
    }

    /// Takes the buffer of what was read ahead, which must have been used.
    pub(crate) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.0.ahead)
    }

    /// Puts bytes that were used too early back in front.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut both = BytesMut::from(bytes);
            both.extend_from_slice(&self.0.ahead);
            self.0.ahead = both;
        }
    }

    /// Lets go of the buffer before a wait: what is left in it moves to one of its own size.
    pub(crate) fn settle(&mut self, buffers: &Buffers) {
        if self.0.ahead.capacity() > 0 {
            let ahead = std::mem::take(&mut self.0.ahead);
            self.0.ahead = BytesMut::from(&*ahead);
            buffers.give(ahead);
        }
    }

    /// Reads on, behind what was read ahead. How much came; 0 is the end.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        ready!(self.0.stream.poll_readable(cx))?;
        let mut buffer = buffers.take();
        let read = poll_read_buf(Pin::new(&mut self.0.stream), cx, &mut buffer);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            buffers.give(buffer);
        } else if self.0.ahead.is_empty() {
            self.0.ahead = buffer;
        } else {
            self.0.ahead.extend_from_slice(&buffer);
            buffers.give(buffer);
        }
        read
    }

    /// As [`Socket::poll_fill`]. Cancel safe.
    pub(crate) async fn fill(&mut self, buffers: &Buffers) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx, buffers)).await
    }

    /// Ready when the peer has left. What it sends early is kept for its turn, and behind
    /// [`MAX_READ_AHEAD`] bytes of that it is not seen to leave.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<()> {
        while self.ahead().len() < MAX_READ_AHEAD {
            match ready!(self.poll_fill(cx, buffers)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => self.settle(buffers),
            }
        }
        Poll::Pending
    }

    /// As [`Socket::poll_left`]. Cancel safe.
    pub(crate) async fn left(&mut self, buffers: &Buffers) {
        std::future::poll_fn(|cx| self.poll_left(cx, buffers)).await;
    }

    /// Writes all of `bytes`, to a peer that takes them in time.
    pub(crate) async fn write(&mut self, bytes: &[u8], patience: &Patience) -> io::Result<()> {
        // What is written here fits into the socket's buffer nearly always, and then needs neither
        // a timer nor the room for one.
        let at_once = std::future::poll_fn(|cx| Poll::Ready(self.try_write(cx, bytes)));
        match at_once.await? {
            Written::All => Ok(()),
            Written::Part(length) => {
                let rest = bytes.get(length..).unwrap_or_default();
                Box::pin(self.write_patiently(rest, patience)).await
            }
        }
    }

    /// Says something to a peer that is left alone then, whether it takes it or not.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        self.try_write(&mut cx, bytes).ok();
    }

    /// As [`Socket::write`], where it is known that it will take its time.
    pub(crate) async fn write_patiently(
        &mut self,
        bytes: &[u8],
        patience: &Patience,
    ) -> io::Result<()> {
        let writing = async {
            self.0.stream.write_all(bytes).await?;
            self.0.stream.flush().await
        };
        patience.wait(writing).await?
    }

    /// Writes what can be written now.
    pub(crate) fn try_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Written> {
        let Poll::Ready(written) = Pin::new(&mut self.0.stream).poll_write(cx, bytes)? else {
            return Ok(Written::Part(0));
        };
        if written < bytes.len() {
            return Ok(Written::Part(written));
        }
        match Pin::new(&mut self.0.stream).poll_flush(cx)? {
            Poll::Ready(()) => Ok(Written::All),
            Poll::Pending => Ok(Written::Part(written)),
        }
    }

    /// Ends the sending half, to a peer that may still be sending. One that does not take that is left
    /// alone.
    pub(crate) fn shutdown(&mut self, patience: &Patience) -> impl Future<Output = ()> + Send {
        Box::pin(async {
            patience.wait(self.0.stream.shutdown()).await.ok();
        })
    }

    pub(crate) fn stream(&self) -> &dyn Stream {
        &self.0.stream
    }

    pub(crate) fn stream_mut(&mut self) -> Pin<&mut dyn Stream> {
        Pin::new(&mut self.0.stream)
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("ahead", &self.0.ahead.len())
            .finish_non_exhaustive()
    }
}

/// What a peer may send ahead of its answer: a request or two of its own kind.
pub(crate) const MAX_READ_AHEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use pushprox_testkit::wait::{SOON, until};
    use tokio::net::TcpListener;

    #[test]
    fn a_plain_connection_takes_a_line_of_the_cache() {
        // A runtime for many threads, which a build of the whole workspace brings along, has larger
        // handles, one of which is in each stream.
        let is_small = size_of::<tokio::runtime::Handle>() == size_of::<usize>();
        let lines = if is_small { 1 } else { 2 };
        assert_eq!(size_of::<Ends<TcpStream>>(), lines * 64);
    }

    #[tokio::test]
    async fn a_peer_has_left_though_its_last_words_are_unread() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap());
        let (mut peer, accepted) = (peer.await.unwrap(), listener.accept().await.unwrap());
        let stream = accepted.0;
        peer.write_all(b"farewell").await.unwrap();
        stream.readable().await.unwrap();
        assert!(!stream.is_gone());
        drop(peer);
        until("the end is known", SOON, async || {
            stream.is_gone().then_some(())
        })
        .await;
        assert_eq!(stream.try_read(&mut [0; 16]).unwrap(), 8);
    }

    #[tokio::test]
    async fn nothing_is_lost_and_nothing_changes_place() {
        let buffers = Buffers::default();
        let (mut peer, end) = tokio::io::duplex(64);
        let mut socket = Socket::new(end);
        peer.write_all(b"abcd").await.unwrap();
        assert_eq!(socket.fill(&buffers).await.unwrap(), 4);
        assert_eq!(&*socket.split_ahead(3), b"abc");
        socket.put_back(b"bc");
        socket.settle(&buffers);
        peer.write_all(b"ef").await.unwrap();
        assert_eq!(socket.fill(&buffers).await.unwrap(), 2);
        assert_eq!(socket.ahead(), b"bcdef");
        socket.split_ahead(99);
        socket.settle(&buffers);
        drop(peer);
        assert_eq!(socket.fill(&buffers).await.unwrap(), 0);
    }
}
