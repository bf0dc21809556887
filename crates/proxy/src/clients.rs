//! `GET /clients`: who is registered, as Prometheus's http_sd and file_sd take it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pushprox_daemon::respond;
use pushprox_protocol::Fqdn;
use pushprox_protocol::headers::REFRESH_INTERVAL_SECONDS;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::Proxy;
use crate::access::Grant;

/// The list as it was last asked for. Writing it out anew takes milliseconds where there are many
/// names, so that is done away from the connections, and only when the names have changed.
#[derive(Debug, Default)]
pub(crate) struct ClientList {
    last: Arc<Mutex<Option<(u64, Bytes)>>>,
}

/// One entry of the list.
#[derive(Serialize)]
struct TargetGroup {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Lists the registered names that the scraper may reach, sorted.
pub(crate) async fn handle(
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
    let list = match grant.is_for_everything() {
        true => proxy.client_list.get(proxy).await,
        false => {
            let mut names = proxy.rendezvous.names();
            names.retain(|name| grant.may_see(name.as_ref()));
            write_apart(names).await
        }
    };
    match list {
        Some(list) => respond::json(list),
        None => respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the list could not be written\n",
        ),
    }
}

impl ClientList {
    async fn get(&self, proxy: &Proxy) -> Option<Bytes> {
        // Held until the list is written, even where whoever asked has gone: many who ask have it
        // written once, one after the other.
        let mut last = self.last.clone().lock_owned().await;
        let version = proxy.rendezvous.names_version();
        if let Some((_, list)) = last.as_ref().filter(|(of, _)| *of == version) {
            return Some(list.clone());
        }
        let names = proxy.rendezvous.names();
        tokio::task::spawn_blocking(move || {
            let list = write(names)?;
            *last = Some((version, list.clone()));
            Some(list)
        })
        .await
        .ok()?
    }
}

async fn write_apart(names: Vec<Fqdn>) -> Option<Bytes> {
    tokio::task::spawn_blocking(move || write(names))
        .await
        .ok()?
}

fn write(mut names: Vec<Fqdn>) -> Option<Bytes> {
    names.sort_unstable_by(|a, b| (a.host(), a.port()).cmp(&(b.host(), b.port())));
    let groups: Vec<TargetGroup> = names
        .iter()
        .map(|name| TargetGroup {
            targets: [name.to_string()],
            labels: BTreeMap::new(),
        })
        .collect();
    let mut list = serde_json::to_vec(&groups).ok()?;
    list.push(b'\n');
    Some(list.into())
}
