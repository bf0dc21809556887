//! One connection, from its first request to its last: request after request, each served by whoever
//! serves its kind, and between two of them nothing but the socket.

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use crate::access::Peer;
use crate::http1::answer::Answer;
use crate::http1::pace::Pace;
use crate::http1::request::{BadRequest, Kind, Request};
use crate::http1::socket::Socket;
use crate::limits::{Limit, told};
use crate::parting::part;
use crate::{Proxy, exchange, parked, poll, push, scrape};

/// Serves a connection to its end, once its first request has been heard.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would keep its argument twice for as long as it runs"
)]
pub(crate) fn serve(
    heard: impl Future<Output = Option<(Socket, Peer, Arc<Proxy>)>> + Send,
) -> impl Future<Output = ()> + Send {
    async move {
        let Some((mut socket, peer, proxy)) = heard.await else {
            return;
        };
        let bad = loop {
            let request = match next_request(&mut socket, None, &proxy).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(bad) => break bad,
            };
            let certificate = peer.certificate.as_deref();
            if !proxy.access.still_trusts(certificate, socket.stream()) {
                debug!(peer = %peer.ip, "the certificate of a connection is no longer good");
                return;
            }
            let served = match request.kind {
                Kind::Poll { wait } => {
                    let accepted = poll::accept(socket, request, wait, &peer, &proxy);
                    parked::park(accepted, &proxy).await
                }
                // In boxes of their own, so that nothing of them is left while a poll is parked.
                Kind::Push => Box::pin(push::serve(socket, request, &peer, &proxy)).await,
                Kind::Scrape => Box::pin(scrape::serve(socket, request, &peer, &proxy)).await,
                Kind::Other => Box::pin(exchange::serve(socket, request, &peer, &proxy)).await,
            };
            match served {
                Some(more) => socket = more,
                None => return,
            }
        };
        // Out here, where no request is that would keep its room meanwhile.
        Box::pin(refuse(socket, bad, &proxy)).await;
    }
}

/// Waits for the head of the first request on a connection, which stays in front of the socket. It
/// is to be there by `until`, however much or little has come by then. `None` when there will be
/// none.
pub(crate) async fn first_request(
    socket: &mut Socket,
    until: Instant,
    proxy: &Proxy,
) -> Result<Option<Request>, BadRequest> {
    next_request(socket, Some(until), proxy).await
}

/// Waits for the head of the next request, till `until` if it is the first one. `None` when there
/// will be none.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would keep its arguments twice for as long as it waits"
)]
fn next_request<'a>(
    socket: &'a mut Socket,
    until: Option<Instant>,
    proxy: &'a Proxy,
) -> impl Future<Output = Result<Option<Request>, BadRequest>> + Send + 'a {
    async move {
        if socket.ahead().is_empty() {
            socket.settle(&proxy.buffers);
            let filled = poll_fn(|cx| socket.poll_fill(cx, &proxy.buffers));
            let filled = match until {
                Some(until) => proxy.idle.wait(until, filled),
                None => proxy.idle.stay(filled),
            };
            match filled.await {
                Some(Ok(1..)) => {}
                Some(Ok(0) | Err(_)) => return Ok(None),
                None => {
                    if until.is_some() && !proxy.closing.is_cancelled() {
                        // An answer to nothing may be taken for that to the next request.
                        proxy.hits.count(Some(Limit::HeadTimeout));
                    }
                    return Ok(None);
                }
            }
        }
        {
            // It ends here, so that it has no room in what waits.
            let request = Request::parse(socket.ahead(), &proxy.limits)?;
            if request.is_some() {
                return Ok(request);
            }
        }
        // In a box, since nearly all heads come in one piece.
        Box::pin(rest_of_head(socket, until, proxy)).await
    }
}

/// Waits for the rest of a head that has begun to come. `None` when it will not come.
async fn rest_of_head(
    socket: &mut Socket,
    until: Option<Instant>,
    proxy: &Proxy,
) -> Result<Option<Request>, BadRequest> {
    let deadline = until.unwrap_or_else(|| Instant::now() + proxy.limits.head_timeout);
    let mut pace = Pace::default();
    pace.is_due(socket.ahead());
    let mut held = proxy.head_room.hold();
    held.grow(socket.ahead().len())?;
    // The rest may be long in coming, and a thousand such peers are not to have a buffer each.
    socket.settle(&proxy.buffers);
    loop {
        let filled = poll_fn(|cx| socket.poll_fill(cx, &proxy.buffers));
        match proxy.idle.wait(deadline, filled).await {
            Some(Ok(1..)) => {}
            None if !proxy.closing.is_cancelled() => {
                return Err(BadRequest::TooSlow(proxy.limits.head_timeout));
            }
            Some(Ok(0) | Err(_)) | None => return Ok(None),
        }
        if pace.is_due(socket.ahead())
            && let Some(request) = Request::parse(socket.ahead(), &proxy.limits)?
        {
            return Ok(Some(request));
        }
        held.grow(socket.ahead().len())?;
    }
}

/// Says what is wrong with what came, and closes.
pub(crate) async fn refuse(mut socket: Socket, bad: BadRequest, proxy: &Proxy) {
    let limit = bad.limit();
    proxy.hits.count(limit);
    let text = told(&bad, limit);
    debug!(error = text, "a request is refused");
    let answer = Answer::new(bad.status(), false).text(format!("{text}\n").as_bytes());
    if socket.write(&answer, &proxy.patience).await.is_ok() {
        part(socket, proxy).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::access::{Access, Roles};
    use tokio_util::sync::CancellationToken;

    fn proxy() -> Arc<Proxy> {
        let access = Access::open();
        let proxy = Proxy::new(&Config::default(), access, CancellationToken::new());
        Arc::new(proxy)
    }

    fn peer() -> Peer {
        Peer {
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            certificate: None,
            roles: Roles::ALL,
        }
    }

    fn socket() -> Socket {
        Socket::new(tokio::io::duplex(1).0)
    }

    #[tokio::test]
    async fn what_waits_is_small() {
        let heard = Box::pin(async { Some((socket(), peer(), proxy())) });
        let size = size_of_val(&serve(heard));
        // A million of them wait. With the task around it, this is what fits into three times 128
        // bytes, by which the runtime takes memory for tasks.
        assert!(size <= 272, "{size} bytes");
    }

    #[tokio::test]
    async fn what_is_under_way_is_small_enough_for_the_allocators_cache() {
        let (peer, proxy) = (peer(), proxy());
        let head = b"GET http://node/ HTTP/1.1\r\n\r\n";
        let request = Request::parse(head, &proxy.limits).unwrap().unwrap();
        let push = size_of_val(&push::serve(socket(), request.clone(), &peer, &proxy));
        let scrape = size_of_val(&scrape::serve(socket(), request, &peer, &proxy));
        // Above that, glibc takes each from its heap and joins it with its neighbours again.
        assert!(push.max(scrape) <= 1032, "{push} and {scrape} bytes");
    }
}
