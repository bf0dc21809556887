//! Which handler serves a request: absolute form is a scrape, everything else is the proxy's own.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pushprox_daemon::{admin, respond};
use tokio::time::Instant;

use crate::Proxy;
use crate::connection::Line;
use crate::handlers::scrape::ScrapeBody;
use crate::handlers::{clients, poll, push, scrape};

/// The body of any answer.
pub(crate) type Body = Either<Full<Bytes>, ScrapeBody>;

/// Serves one request. A poll that parks never comes back from here.
pub(crate) async fn route(
    proxy: &Arc<Proxy>,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::CONNECT || request.uri().scheme().is_some() {
        return Ok(scrape::handle(proxy, line, request).await);
    }
    let started = Instant::now();
    let (path, response) = match request.uri().path() {
        "/poll" => ("/poll", poll::handle(proxy, line, request).await),
        "/push" => ("/push", push::handle(proxy, request).await),
        "/clients" => ("/clients", clients::handle(proxy, &request)),
        "/metrics" => ("/metrics", own(proxy, &request)),
        "/-/healthy" => ("/-/healthy", own(proxy, &request)),
        "/-/ready" => ("/-/ready", own(proxy, &request)),
        _ => ("other", respond::text(StatusCode::NOT_FOUND, NOT_FOUND)),
    };
    proxy
        .metrics
        .request_ended(path, response.status(), started.elapsed());
    Ok(response.map(Either::Left))
}

fn own(proxy: &Proxy, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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

const NOT_FOUND: &str =
    "not found; Prometheus reaches this proxy by proxy_url, clients by /poll and /push\n";
