//! Which page of the proxy's own a request is for.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pushprox_daemon::guard::Place;
use pushprox_daemon::{own_pages, respond};
use tokio::time::Instant;

use crate::Proxy;
use crate::access::{Peer, Role};
use crate::clients;
use crate::error::Failure;

/// Serves one request.
pub(crate) async fn route(
    proxy: &Proxy,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() == Method::CONNECT {
        tunnel(proxy, peer, request).await
    } else {
        own_page(proxy, peer, request).await
    }
}

/// Refuses a tunnel, which is a scrape in Prometheus's eyes.
async fn tunnel(proxy: &Proxy, peer: &Peer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (access, headers) = (&proxy.access, request.headers());
    let admitted = access.admit(peer, Role::Scraper, headers, Place::Proxied);
    let response = match admitted.await {
        Ok(_) => respond::refusal(Failure::Tunnel.status(), &Failure::Tunnel.to_string()),
        Err(denied) => denied.respond(Place::Proxied),
    };
    proxy.metrics.proxied(response.status());
    response
}

async fn own_page(
    proxy: &Proxy,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let access = &proxy.access;
    let admit = async |role| {
        let admitted = access.admit(peer, role, request.headers(), Place::Own);
        let grant = admitted.await;
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
            admit(Role::Operator)
                .await
                .map(|_| every_daemons(proxy, request)),
        ),
        // Probes have no credentials, and learn nothing.
        "/-/healthy" => ("/-/healthy", Ok(every_daemons(proxy, request))),
        "/-/ready" => ("/-/ready", Ok(every_daemons(proxy, request))),
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

/// A page that every daemon has.
fn every_daemons(proxy: &Proxy, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    proxy.metrics.update(&proxy.rendezvous);
    own_pages::answer(
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
