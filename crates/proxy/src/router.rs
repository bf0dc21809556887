//! Which handler serves a request that is neither a poll nor a push: absolute form is a scrape,
//! everything else is one of the proxy's own pages.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pushprox_daemon::guard::Place;
use pushprox_daemon::{admin, respond};
use tokio::time::Instant;

use crate::Proxy;
use crate::access::{Peer, Role};
use crate::exchange::Line;
use crate::handlers::scrape::ScrapeBody;
use crate::handlers::{clients, scrape};

/// Serves one request.
pub(crate) async fn route(
    proxy: &Arc<Proxy>,
    peer: &Peer,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let response = if request.method() == Method::CONNECT || request.uri().scheme().is_some() {
        scrape::handle(proxy, peer, line, request).await
    } else {
        line.end_at(Instant::now() + PAGE_TIMEOUT);
        own_page(proxy, peer, &request).await.map(Either::Left)
    };
    Ok(response.map(|body| Body {
        body,
        line: line.clone(),
    }))
}

async fn own_page(
    proxy: &Proxy,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let access = &proxy.access;
    let admit = async |role| {
        let grant = access
            .admit(peer, role, request.headers(), Place::Own)
            .await;
        grant.map_err(|denied| denied.respond(Place::Own))
    };
    let (path, response) = match request.uri().path() {
        "/poll" => ("/poll", Ok(respond::method_not_allowed("POST"))),
        "/push" => ("/push", Ok(respond::method_not_allowed("POST"))),
        "/clients" => (
            "/clients",
            match admit(Role::Scraper).await {
                Ok(grant) => Ok(clients::handle(proxy, &grant, request).await),
                Err(denial) => Err(denial),
            },
        ),
        "/metrics" => (
            "/metrics",
            admit(Role::Operator).await.map(|_| admin(proxy, request)),
        ),
        // Probes have no credentials, and learn nothing.
        "/-/healthy" => ("/-/healthy", Ok(admin(proxy, request))),
        "/-/ready" => ("/-/ready", Ok(admin(proxy, request))),
        _ => (
            "other",
            admit(Role::Operator)
                .await
                .map(|_| respond::text(StatusCode::NOT_FOUND, NOT_FOUND)),
        ),
    };
    let mut response = response.unwrap_or_else(|denial| denial);
    access.dress(response.headers_mut());
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
    body: Either<Full<Bytes>, ScrapeBody>,
    line: Arc<Line>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = <Either<Full<Bytes>, ScrapeBody> as http_body::Body>::Error;

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

/// For a page to be written to a peer that may not read it.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

const NOT_FOUND: &str =
    "not found; Prometheus reaches this proxy by proxy_url, clients by /poll and /push\n";
