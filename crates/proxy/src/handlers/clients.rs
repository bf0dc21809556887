//! `GET /clients`: who is registered, as Prometheus's http_sd and file_sd take it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pushprox_daemon::respond;
use pushprox_protocol::headers::REFRESH_INTERVAL_SECONDS;
use serde::Serialize;

use crate::Proxy;
use crate::access::Grant;

/// One entry of the list.
#[derive(Serialize)]
struct TargetGroup {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Lists the registered names that the scraper may reach, sorted.
pub(crate) fn handle(
    proxy: &Proxy,
    grant: &Grant,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return respond::method_not_allowed("GET, HEAD");
    }
    // Service discovery drops whatever is not on the list, and just after a start most clients
    // have not come back yet. An error makes it keep the list that it has.
    if request.headers().contains_key(&REFRESH_INTERVAL_SECONDS) && proxy.is_young() {
        return respond::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the proxy has just started: its clients are still coming back",
        );
    }
    let groups: Vec<TargetGroup> = proxy
        .rendezvous
        .names()
        .iter()
        .filter(|name| grant.may_see(name.as_ref()))
        .map(|name| TargetGroup {
            targets: [name.to_string()],
            labels: BTreeMap::new(),
        })
        .collect();
    match serde_json::to_vec(&groups) {
        Ok(mut list) => {
            list.push(b'\n');
            respond::json(list)
        }
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
