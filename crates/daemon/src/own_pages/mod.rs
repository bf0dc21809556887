//! What every daemon tells about itself: `/metrics`, `/-/healthy`, `/-/ready`.

mod address;

use std::convert::Infallible;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::debug;

use crate::Shutdown;
use crate::guard::{Denied, Place};
use crate::listen::Listener;
use crate::metrics::Registry;
use crate::respond;
use crate::web::{Accepted, Web};
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
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, (stream, peer)) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => return,
        };
        let pages = Arc::clone(&pages);
        shutdown.spawn(async move {
            let until = Instant::now() + HANDSHAKE_TIMEOUT;
            let served = match pages.web.accept(stream, until, || ()).await {
                Ok(Accepted::Plain(stream)) => pages.serve_connection(stream, peer).await,
                Ok(Accepted::Tls(stream, _)) => pages.serve_connection(stream, peer).await,
                Err(error) => {
                    debug!(%error, %peer, "a TLS handshake failed");
                    return;
                }
            };
            if let Err(error) = served {
                debug!(%error, %peer, "connection for the daemon's own pages broke off");
            }
            drop(permit);
        });
    }
}

struct Pages {
    registry: Arc<Registry>,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    web: Arc<Web>,
    shutdown: Shutdown,
}

impl Pages {
    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: SocketAddr,
    ) -> hyper::Result<()> {
        let answer = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.admit(&request, peer).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(LONGEST_CONNECTION) => {}
        }
        connection.as_mut().graceful_shutdown();
        // A peer that does not read its answer must neither hold the shutdown up nor keep the
        // connection from others.
        tokio::time::timeout(CLOSING_TIMEOUT, connection)
            .await
            .unwrap_or(Ok(()))
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

/// A peer that does not get on with it is let go of.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Also how long a connection may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 64;
const MAX_HEAD: usize = 16 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    async fn start(ready: Arc<AtomicBool>) -> (SocketAddr, Shutdown) {
        start_with(ready, Web::open()).await
    }

    async fn start_with(ready: Arc<AtomicBool>, web: Web) -> (SocketAddr, Shutdown) {
        let listener = "127.0.0.1:0"
            .parse::<crate::listen::ListenAddress>()
            .unwrap()
            .bind()
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let is_ready = move || ready.load(Ordering::Relaxed);
        shutdown.spawn(serve_on(
            listener,
            Arc::new(Registry::new()),
            is_ready,
            Arc::new(web),
            shutdown.clone(),
        ));
        (address, shutdown)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_answer_and_others_do_not() {
        let ready = Arc::new(AtomicBool::new(false));
        let (address, shutdown) = start(Arc::clone(&ready)).await;
        for (request, wanted) in [
            ("GET /-/healthy", "HTTP/1.1 200 OK\r\n"),
            ("GET /-/ready", "HTTP/1.1 503 not ready\r\n"),
            ("GET /metrics", "HTTP/1.1 200 OK\r\n"),
            (
                "POST /metrics",
                "HTTP/1.1 405 method not allowed here, use GET or HEAD\r\n",
            ),
            ("GET /", "HTTP/1.1 404 not found; there are"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(wanted), "{request}: {answer}");
        }
        ready.store(true, Ordering::Relaxed);
        assert!(
            ask(address, "GET /-/ready")
                .await
                .starts_with("HTTP/1.1 200")
        );
        let head = ask(address, "HEAD /metrics").await;
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(shutdown.drain(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_rate_limit_is_not_for_probes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yml");
        std::fs::write(&file, "rate_limit: {interval: 1h, burst: 1}\n").unwrap();
        let web = Web::load(Some(file)).unwrap();
        let (address, shutdown) = start_with(Arc::new(AtomicBool::new(true)), web).await;
        for (request, wanted) in [
            ("GET /-/healthy", "HTTP/1.1 200 "),
            ("GET /metrics", "HTTP/1.1 200 "),
            ("GET /metrics", "HTTP/1.1 429 "),
            ("GET /-/healthy", "HTTP/1.1 200 "),
            ("GET /-/ready", "HTTP/1.1 200 "),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(wanted), "{request}: {answer}");
        }
        assert!(shutdown.drain(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn the_shutdown_closes_idle_connections() {
        let (address, shutdown) = start(Arc::new(AtomicBool::new(true))).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut buffer = [0; 15];
        idle.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"HTTP/1.1 200 OK");
        assert!(shutdown.drain(Duration::from_secs(60)).await);
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
    }
}
