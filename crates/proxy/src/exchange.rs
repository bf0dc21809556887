//! One request for a page of the proxy's own, served by hyper.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::Proxy;
use crate::access::Peer;
use crate::http1::request::Request;
use crate::http1::socket::{MAX_READ_AHEAD, Socket};
use crate::limits::Limit;
use crate::router;

/// How an answer speaks to the connection that it goes out on.
#[derive(Debug, Default)]
struct Line {
    /// The answer's body has been handed over to the connection, all of it.
    is_answered: AtomicBool,
    /// The connection has bytes that its peer does not take yet.
    is_blocked: AtomicBool,
    /// The peer has taken some since the last look.
    has_moved: AtomicBool,
}

impl Line {
    /// There is nothing more to send than what the connection has already.
    fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed) && !self.is_blocked.load(Ordering::Relaxed)
    }
}

/// Serves the request in front of the socket. The socket comes back where more may follow on it.
pub(crate) async fn serve(
    socket: Socket,
    request: Request,
    peer: &Peer,
    proxy: &Arc<Proxy>,
) -> Option<Socket> {
    let line = Arc::new(Line::default());
    let service = service_fn(|request| {
        let (proxy, line) = (proxy.clone(), line.clone());
        async move {
            let response = router::route(&proxy, peer, &request).await;
            Ok::<_, Infallible>(response.map(|body| Body { body, line }))
        }
    });
    let io = OneRequest {
        socket,
        proxy: proxy.clone(),
        line: line.clone(),
        head_left: request.head,
        // Where a body ends is hyper's to know, and it does not tell: nothing follows on one.
        has_body: request.has_body(),
        is_closed: false,
    };
    let mut connection = http1::Builder::new()
        .keep_alive(request.keep_alive && !request.has_body())
        .header_read_timeout(None)
        .max_headers(proxy.limits.headers)
        .max_buf_size(MAX_BUFFERED.max(2 * proxy.limits.head_size))
        .serve_connection(TokioIo::new(io), service);
    let mut closing = pin!(proxy.closing.cancelled());
    let mut is_closing = false;
    let mut end = pin!(poll_fn(|cx| {
        if !is_closing && closing.as_mut().poll(cx).is_ready() {
            is_closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        if line.is_done() && request.keep_alive && !request.has_body() && !is_closing {
            return Poll::Ready(End::Answered);
        }
        Poll::Pending
    }));
    let last = Instant::now() + PAGE_TIMEOUT;
    let end = loop {
        let until = (Instant::now() + proxy.limits.progress_timeout).min(last);
        match timeout_at(until, end.as_mut()).await {
            Ok(end) => break end,
            Err(_) if Instant::now() < last && line.has_moved.swap(false, Ordering::Relaxed) => {}
            Err(_) => break End::Stalled,
        }
    };
    match end {
        End::Answered => return Some(connection.into_parts().io.into_inner().socket),
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            debug!(error = %pushprox_daemon::exit::causes(&error), "a connection failed");
        }
        End::Stalled => {
            proxy.hits.count(Some(Limit::ProgressTimeout));
            debug!("a page has not been read in time");
            connection
                .into_parts()
                .io
                .into_inner()
                .socket
                .stream()
                .reset();
        }
    }
    None
}

enum End {
    Closed(hyper::Result<()>),
    Answered,
    Stalled,
}

/// The socket as hyper sees it: one request, and the end of the connection when that comes. What
/// is sent behind the request stays with the socket.
struct OneRequest {
    socket: Socket,
    proxy: Arc<Proxy>,
    line: Arc<Line>,
    head_left: usize,
    has_body: bool,
    is_closed: bool,
}

impl AsyncRead for OneRequest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.head_left > 0 {
            let head = this
                .socket
                .split_ahead(this.head_left.min(buffer.remaining()));
            this.head_left -= head.len();
            buffer.put_slice(&head);
            return Poll::Ready(Ok(()));
        }
        if this.has_body {
            if this.socket.ahead().is_empty() {
                return this.socket.stream_mut().poll_read(cx, buffer);
            }
            let body = this.socket.split_ahead(buffer.remaining());
            buffer.put_slice(&body);
            return Poll::Ready(Ok(()));
        }
        while !this.is_closed && this.socket.ahead().len() < MAX_READ_AHEAD {
            let came = ready!(this.socket.poll_fill(cx, &this.proxy.buffers))?;
            this.is_closed = came == 0;
            this.socket.settle(&this.proxy.buffers);
        }
        match this.is_closed {
            true => Poll::Ready(Ok(())),
            // It is read on when the answer is out and its turn has come.
            false => Poll::Pending,
        }
    }
}

impl OneRequest {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.line
            .is_blocked
            .store(written.is_pending(), Ordering::Relaxed);
        if written.is_ready() {
            self.line.has_moved.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncWrite for OneRequest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.stream_mut().poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.stream_mut().poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.socket.stream_mut().poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.stream_mut().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.stream().is_write_vectored()
    }
}

/// The body of any answer. Its connection is told when hyper has all of it.
struct Body {
    body: Full<Bytes>,
    line: Arc<Line>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.line.answered();
    }
}

/// What hyper buffers in either direction.
const MAX_BUFFERED: usize = 256 * 1024;

/// For a page to be read by a peer that reads slowly, but does read.
const PAGE_TIMEOUT: Duration = Duration::from_secs(300);
