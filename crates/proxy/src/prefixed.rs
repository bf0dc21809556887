//! A stream with bytes put back in front of it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was read ahead of its time is read again before the stream goes on.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            prefix: Bytes::new(),
            stream,
        }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Bytes that have been put back and not read again.
    pub(crate) fn prefix_len(&self) -> usize {
        self.prefix.len()
    }

    /// Puts `bytes` in front of what comes next.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = bytes;
        } else if !bytes.is_empty() {
            let mut both = BytesMut::from(bytes);
            both.extend_from_slice(&self.prefix);
            self.prefix = both.freeze();
        }
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Reads on while something else is waited for, and keeps what comes behind what was put back.
    /// How much came; 0 is the end of the stream.
    pub(crate) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; 1024];
        let mut buffer = ReadBuf::new(&mut space);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let came = buffer.filled();
        if !came.is_empty() {
            let mut both = BytesMut::from(std::mem::take(&mut self.prefix));
            both.extend_from_slice(came);
            self.prefix = both.freeze();
        }
        Poll::Ready(Ok(came.len()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(self.prefix.get(..length).unwrap_or_default());
        self.prefix.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn nothing_is_lost_and_nothing_changes_place() {
        let (mut peer, end) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(end);
        peer.write_all(b"cd").await.unwrap();
        let came = std::future::poll_fn(|cx| stream.poll_read_ahead(cx)).await;
        assert_eq!(came.unwrap(), 2);
        stream.put_back(Bytes::from_static(b"ab"));
        peer.write_all(b"ef").await.unwrap();
        let came = std::future::poll_fn(|cx| stream.poll_read_ahead(cx)).await;
        assert_eq!(came.unwrap(), 2);
        peer.write_all(b"gh").await.unwrap();
        drop(peer);
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "abcdefgh");
        let came = std::future::poll_fn(|cx| stream.poll_read_ahead(cx)).await;
        assert_eq!(came.unwrap(), 0);
    }
}
