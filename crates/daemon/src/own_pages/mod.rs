//! What every daemon tells about itself: `/metrics`, `/-/healthy`, `/-/ready`.

mod address;
mod crowd;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use self::crowd::{Crowd, Guest};
use crate::Shutdown;
use crate::exit::causes;
use crate::guard::{Denied, Place};
use crate::listen::Listener;
use crate::metrics::Registry;
use crate::respond;
use crate::web::{Accepted, ClientCertificate, Web};
pub use address::{MetricsAddress, serve};

/// Answers a request for one of the daemon's own pages, or nothing where `path` is none of them.
#[must_use]
pub fn answer(
    method: &Method,
    path: &str,
    registry: &Registry,
    ready: bool,
    accept: Option<&HeaderValue>,
) -> Option<Response<Full<Bytes>>> {
    if !matches!(path, METRICS | HEALTHY | READY) {
        return None;
    }
    if method != Method::GET && method != Method::HEAD {
        return Some(respond::method_not_allowed("GET, HEAD"));
    }
    Some(match path {
        METRICS => {
            let (content_type, body) = registry.encode(accept);
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        READY if !ready => respond::refusal(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        READY => respond::text(StatusCode::OK, "ready\n"),
        _ => respond::text(StatusCode::OK, "healthy\n"),
    })
}

/// Serves those pages alone until the shutdown begins, as `web` has it: with TLS, to users only, and
/// so on. `/-/healthy` and `/-/ready` are for everyone and as often as they are asked for, since
/// probes have no credentials, and whoever sends them takes a refusal for a failure.
///
/// `ready` is asked at each request for `/-/ready`; while the daemon shuts down it is not ready.
async fn serve_on(
    mut listener: Listener,
    registry: Arc<Registry>,
    ready: impl Fn() -> bool + Send + Sync + 'static,
    web: Arc<Web>,
    shutdown: Shutdown,
) {
    let pages = Arc::new(Pages {
        registry,
        ready: Box::new(ready),
        web,
        shutdown: shutdown.clone(),
    });
    let crowd = Arc::new(Crowd::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await;
            (stream, peer, crowd.join().await)
        };
        let (stream, peer, guest) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => return,
        };
        let Some(guest) = guest else { return };
        let pages = Arc::clone(&pages);
        shutdown.spawn(async move {
            tokio::select! {
                () = pages.serve(stream, peer, &guest) => {}
                () = guest.is_turned_out() => {
                    debug!(%peer, "a connection for the daemon's own pages makes room for another");
                }
            }
        });
    }
}

struct Pages {
    registry: Arc<Registry>,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    web: Arc<Web>,
    shutdown: Shutdown,
}

/// Who asks.
struct Peer<'a> {
    address: SocketAddr,
    guest: &'a Guest,
    /// What was verified in the handshake, and the whole chain that was shown then.
    certificate: Option<(ClientCertificate, Vec<CertificateDer<'static>>)>,
}

impl Pages {
    async fn serve(&self, stream: TcpStream, address: SocketAddr, guest: &Guest) {
        let until = Instant::now() + FIRST_HEAD_TIMEOUT;
        let accepted = tokio::select! {
            accepted = self.web.accept(stream, until, || ()) => accepted,
            () = self.shutdown.cancelled() => return,
        };
        let mut peer = Peer {
            address,
            guest,
            certificate: None,
        };
        let served = match accepted {
            Ok(Accepted::Plain(stream)) => self.serve_connection(stream, &peer, until).await,
            Ok(Accepted::Tls(stream, certificate)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                peer.certificate = certificate.map(|certificate| (certificate, chain.to_vec()));
                self.serve_connection(stream, &peer, until).await
            }
            Err(error) => {
                debug!(%error, peer = %address, "a TLS handshake failed");
                return;
            }
        };
        if let Err(error) = served {
            debug!(
                error = causes(&error),
                peer = %address,
                "connection for the daemon's own pages broke off"
            );
        }
    }

    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: &Peer<'_>,
        until: Instant,
    ) -> hyper::Result<()> {
        let answer = service_fn(|request: Request<Incoming>| async move {
            peer.guest.ask();
            match self.still_trusts(peer) {
                true => Ok(self.admit(&request, peer.address).await),
                false => Err("the client's certificate is no longer good"),
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        let asks_for_nothing = async {
            sleep_until(until).await;
            if peer.guest.has_asked() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = asks_for_nothing => return Ok(()),
            () = self.shutdown.cancelled() => {}
            () = sleep(LONGEST_CONNECTION) => {}
        }
        connection.as_mut().graceful_shutdown();
        // A peer that does not read its answer must neither hold the shutdown up nor keep the
        // connection from others.
        timeout(CLOSING_TIMEOUT, connection).await.unwrap_or(Ok(()))
    }

    /// Whether the certificate that a connection began with, if it did with one, is still good.
    fn still_trusts(&self, peer: &Peer<'_>) -> bool {
        let certificate = peer.certificate.as_ref();
        certificate.is_none_or(|(certificate, chain)| self.web.still_trusts(certificate, chain))
    }

    async fn admit(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let (web, config) = (&self.web, self.web.config());
        let checked = async {
            if !matches!(request.uri().path(), HEALTHY | READY) {
                web.check_rate(&config)?;
                web.check_user(&config, request.headers(), Place::Own, peer.ip())
                    .await?;
            }
            Ok::<(), Denied>(())
        };
        let mut response = match checked.await {
            Ok(()) => self.answer(request),
            Err(denied) => {
                debug!(error = %denied, %peer, "a request is turned away");
                web.guard.count(&denied);
                denied.respond(Place::Own)
            }
        };
        let headers = config.headers().iter();
        response
            .headers_mut()
            .extend(headers.map(|(name, value)| (name.clone(), value.clone())));
        response
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let ready = !self.shutdown.is_cancelled() && (self.ready)();
        answer(
            request.method(),
            request.uri().path(),
            &self.registry,
            ready,
            request.headers().get(ACCEPT),
        )
        .unwrap_or_else(|| {
            respond::refusal(
                StatusCode::NOT_FOUND,
                "not found; there are /metrics, /-/healthy and /-/ready",
            )
        })
    }
}

/// Path of the metrics.
const METRICS: &str = "/metrics";
/// Path that answers as long as the process lives.
const HEALTHY: &str = "/-/healthy";
/// Path that answers 503 while the daemon cannot do its work.
const READY: &str = "/-/ready";

/// For the head of the first request on a connection, with the TLS handshake.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may idle between requests, the head of the next one included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;
const MAX_HEAD: usize = 16 * 1_024;

#[cfg(test)]
mod tests;
