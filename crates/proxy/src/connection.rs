//! One connection, from accept to close: hyper serves it request by request, and while a poll is
//! parked there is nothing left of it but the socket.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use crate::Proxy;
use crate::parking::{self, AcceptedPoll};
use crate::prefixed::Prefixed;
use crate::router;

/// A stream that connections may run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the coming close a reset, which no peer can take for a good end.
    fn reset(&self);
}

impl Stream for TcpStream {
    fn reset(&self) {
        // A socket that is broken already needs no reset.
        self.set_zero_linger().ok();
    }
}

/// How a handler speaks to the connection that its request came on.
#[derive(Debug, Default)]
pub(crate) struct Line {
    signals: Mutex<Signals>,
}

#[derive(Debug, Default)]
struct Signals {
    parked: Option<AcceptedPoll>,
    cut_at: Option<Instant>,
}

impl Line {
    /// Gives the connection up to a parked poll. The handler that calls this is never polled again.
    pub(crate) fn park(&self, poll: AcceptedPoll) {
        self.signals.lock().parked = Some(poll);
    }

    /// From now on an answer is under way that must not outlast `deadline`, and must not be taken
    /// for whole unless it is.
    pub(crate) fn cut_at(&self, deadline: Instant) {
        self.signals.lock().cut_at = Some(deadline);
    }

    /// The answer has ended well.
    pub(crate) fn keep(&self) {
        self.signals.lock().cut_at = None;
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: Stream>(stream: S, proxy: Arc<Proxy>) {
    let mut stream = Prefixed::new(stream);
    loop {
        // In a box of its own, so that all of it goes while a poll is parked.
        let Some((bare, poll)) = Box::pin(exchange(stream, &proxy)).await else {
            return;
        };
        match parking::park(bare, poll, &proxy).await {
            Some(bare) => stream = bare,
            None => return,
        }
    }
}

/// Serves requests until the connection ends, or until a poll is parked on it.
async fn exchange<S: Stream>(
    stream: Prefixed<S>,
    proxy: &Arc<Proxy>,
) -> Option<(Prefixed<S>, AcceptedPoll)> {
    let line = Arc::new(Line::default());
    let service = service_fn(|request| {
        let (proxy, line) = (proxy.clone(), line.clone());
        async move { router::route(&proxy, &line, request).await }
    });
    let mut connection = http1(proxy).serve_connection(TokioIo::new(stream), service);
    let mut closing = std::pin::pin!(proxy.closing.cancelled());
    let mut is_closing = false;
    let mut cut: Option<(Instant, Pin<Box<Sleep>>)> = None;
    let end = poll_fn(|cx| {
        if !is_closing && closing.as_mut().poll(cx).is_ready() {
            is_closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        let mut signals = line.signals.lock();
        if let Some(poll) = signals.parked.take() {
            return Poll::Ready(End::Parked(poll));
        }
        let Some(deadline) = signals.cut_at else {
            return Poll::Pending;
        };
        drop(signals);
        if cut.as_ref().is_none_or(|(set, _)| *set != deadline) {
            cut = Some((deadline, Box::pin(sleep_until(deadline))));
        }
        match &mut cut {
            Some((_, sleep)) => sleep.as_mut().poll(cx).map(|()| End::Overdue),
            None => Poll::Pending,
        }
    })
    .await;
    match end {
        End::Parked(poll) => {
            let parts = connection.into_parts();
            let mut stream = parts.io.into_inner();
            stream.put_back(parts.read_buf);
            return Some((stream, poll));
        }
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            debug!(error = %pushprox_daemon::exit::causes(&error), "a connection failed");
        }
        End::Overdue => debug!("a scrape's time is up before its answer has been read"),
    }
    if line.signals.lock().cut_at.is_some() {
        connection.into_parts().io.into_inner().stream().reset();
    }
    None
}

enum End {
    Closed(hyper::Result<()>),
    Parked(AcceptedPoll),
    Overdue,
}

fn http1(proxy: &Proxy) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(proxy.limits.idle)
        .max_buf_size(proxy.limits.buffer);
    builder
}
