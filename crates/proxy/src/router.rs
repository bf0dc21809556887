//! Which page of the proxy's own a request is for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use pushprox_daemon::{admin, respond};
use tokio::time::Instant;

use crate::Proxy;
use crate::clients;
use crate::error::Failure;
use crate::exchange::Line;

/// Serves one request.
pub(crate) async fn route(
    proxy: &Arc<Proxy>,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let response = if request.method() == Method::CONNECT {
        let failure = Failure::Tunnel;
        proxy.metrics.proxied(failure.status());
        respond::refusal(failure.status(), &failure.to_string())
    } else {
        own_page(proxy, &request).await
    };
    Ok(response.map(|body| Body {
        body,
        line: line.clone(),
    }))
}

async fn own_page(proxy: &Proxy, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let (path, response) = match request.uri().path() {
        "/poll" => ("/poll", respond::method_not_allowed("POST")),
        "/push" => ("/push", respond::method_not_allowed("POST")),
        "/clients" => ("/clients", clients::handle(proxy, request).await),
        "/metrics" => ("/metrics", admin(proxy, request)),
        "/-/healthy" => ("/-/healthy", admin(proxy, request)),
        "/-/ready" => ("/-/ready", admin(proxy, request)),
        _ => ("other", respond::text(StatusCode::NOT_FOUND, NOT_FOUND)),
    };
    proxy
        .metrics
        .request_ended(path, response.status(), started.elapsed());
    response
}

fn admin(proxy: &Proxy, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    proxy.metrics.update(&proxy.rendezvous);
    admin::respond(
        request.method(),
        request.uri().path(),
        &proxy.registry,
        !proxy.draining.is_cancelled(),
        request.headers().get(ACCEPT),
    )
    .unwrap_or_else(|| respond::text(StatusCode::NOT_FOUND, NOT_FOUND))
}

/// The body of any answer. Its connection is told when hyper has all of it.
#[derive(Debug)]
pub(crate) struct Body {
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

const NOT_FOUND: &str =
    "not found; Prometheus reaches this proxy by proxy_url, clients by /poll and /push\n";
