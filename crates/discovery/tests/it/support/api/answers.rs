//! The protocol: lists by pages, watches with bookmarks, statuses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{ENDPOINTS, Entry, Faults, SLICES, Shared};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a request asks for.
struct Asked {
    kind: &'static str,
    namespace: Option<String>,
    query: HashMap<String, String>,
}

impl Asked {
    fn parse(request: &Request<Incoming>) -> Option<Self> {
        let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
        let (kind, namespace) = match path[..] {
            ["apis", "discovery.k8s.io", "v1", "endpointslices"] => (SLICES, None),
            [
                "apis",
                "discovery.k8s.io",
                "v1",
                "namespaces",
                namespace,
                "endpointslices",
            ] => (SLICES, Some(namespace)),
            ["api", "v1", "endpoints"] => (ENDPOINTS, None),
            ["api", "v1", "namespaces", namespace, "endpoints"] => (ENDPOINTS, Some(namespace)),
            _ => return None,
        };
        let query = request.uri().query().unwrap_or_default();
        let query = query.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), decode(value)))
        });
        Some(Self {
            kind,
            namespace: namespace.map(str::to_owned),
            query: query.collect(),
        })
    }

    fn get(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn is_watch(&self) -> bool {
        matches!(self.get("watch"), "true" | "1")
    }

    fn verb(&self) -> &'static str {
        if self.is_watch() { "watch" } else { "list" }
    }

    fn selects(&self, object: &Value) -> bool {
        let in_namespace = self
            .namespace
            .as_deref()
            .is_none_or(|name| object["metadata"]["namespace"] == name);
        let mut pairs = self
            .get("labelSelector")
            .split(',')
            .filter(|pair| !pair.is_empty());
        in_namespace
            && pairs.all(|pair| {
                let (name, value) = pair.split_once('=').expect("the selector has pairs only");
                object["metadata"]["labels"][name] == value
            })
    }

    /// The event that a watch shows of a change, as a real server has it: an object that is
    /// relabelled out of the selection is deleted for it.
    fn event(&self, entry: &Entry) -> Option<Value> {
        if entry.kind != self.kind {
            return None;
        }
        let was = entry.before.as_ref().filter(|object| self.selects(object));
        let is = entry.after.as_ref().filter(|object| self.selects(object));
        let (kind, object) = match (was, is) {
            (None, None) => return None,
            (None, Some(object)) => ("ADDED", object.clone()),
            (Some(_), Some(object)) => ("MODIFIED", object.clone()),
            (Some(object), None) => {
                let mut object = object.clone();
                object["metadata"]["resourceVersion"] = entry.version.to_string().into();
                ("DELETED", object)
            }
        };
        Some(json!({"type": kind, "object": typed(self.kind, object)}))
    }
}

pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| answer(request, Arc::clone(&shared)));
            let connection = hyper::server::conn::http1::Builder::new();
            // It ends with the peer, or with the server.
            connection
                .serve_connection(TokioIo::new(stream), answer)
                .await
                .ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let faults = shared.state.lock().faults.clone();
    if faults.hangs {
        std::future::pending::<()>().await;
    }
    let token = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let token = token
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    if !shared.state.lock().tokens.contains(token) {
        return Ok(status(401, "Unauthorized", "Unauthorized"));
    }
    let Some(asked) = Asked::parse(&request).filter(|asked| !faults.unknown.contains(asked.kind))
    else {
        let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    };
    let verb = asked.verb();
    let place = asked.namespace.as_deref().unwrap_or("*");
    shared
        .state
        .lock()
        .requests
        .push(format!("{verb} {} {place}", asked.kind));
    let verb_on_kind = format!("{verb} {}", asked.kind);
    if faults.forbidden.contains(asked.kind) || faults.forbidden.contains(&*verb_on_kind) {
        let said = format!(
            "{} is forbidden: User \"tester\" cannot {verb} resource",
            asked.kind
        );
        return Ok(status(403, "Forbidden", &said));
    }
    Ok(if asked.is_watch() {
        watch_answer(asked, &shared, &faults)
    } else {
        list_answer(&asked, &shared, &faults)
    })
}

fn list_answer(asked: &Asked, shared: &Shared, faults: &Faults) -> Response<Body> {
    let state = shared.state.lock();
    let wanted = |((kind, ..), object): &(&(String, String, String), &Value)| {
        kind == asked.kind && asked.selects(object)
    };
    let all: Vec<&Value> = state
        .objects
        .iter()
        .filter(wanted)
        .map(|(_, object)| object)
        .collect();
    let limit = asked
        .get("limit")
        .parse()
        .unwrap_or(usize::MAX)
        .min(faults.page.unwrap_or(usize::MAX));
    let start: usize = asked.get("continue").parse().unwrap_or(0);
    let items: Vec<&Value> = all.iter().copied().skip(start).take(limit).collect();
    let mut meta = json!({"resourceVersion": state.version.to_string()});
    if start + items.len() < all.len() {
        meta["continue"] = (start + items.len()).to_string().into();
    }
    let (api, name) = api_and_name(asked.kind);
    let list =
        json!({"kind": format!("{name}List"), "apiVersion": api, "metadata": meta, "items": items});
    json_answer(200, &list)
}

fn watch_answer(asked: Asked, shared: &Arc<Shared>, faults: &Faults) -> Response<Body> {
    let from: u64 = asked.get("resourceVersion").parse().unwrap_or(0);
    let (compacted, generation) = {
        let state = shared.state.lock();
        (state.compacted, state.watch_generation)
    };
    if from < compacted {
        let said = format!("too old resource version: {from} ({compacted})");
        if faults.gone_as_status {
            return status(410, "Expired", &said);
        }
        let event = json!({"type": "ERROR", "object": status_object(410, "Expired", &said)});
        return stream_answer(stream::once(async move { line(&event) }).boxed());
    }
    let seconds = asked.get("timeoutSeconds").parse().unwrap_or(300);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let watching = Watching {
        version: shared.version.subscribe(),
        shared: Arc::clone(shared),
        asked,
        seen: from,
        generation,
        deadline,
    };
    let lines = stream::unfold(watching, |mut watching| async move {
        let lines = watching.next().await?;
        Some((stream::iter(lines), watching))
    });
    stream_answer(lines.flatten().boxed())
}

struct Watching {
    version: watch::Receiver<u64>,
    shared: Arc<Shared>,
    asked: Asked,
    seen: u64,
    generation: u64,
    deadline: tokio::time::Instant,
}

impl Watching {
    /// The next lines, or the end.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let mut lines = Vec::new();
            {
                let mut state = self.shared.state.lock();
                if state.is_closed || state.watch_generation != self.generation {
                    return None;
                }
                for entry in state
                    .history
                    .iter()
                    .filter(|entry| entry.version > self.seen)
                {
                    lines.extend(self.asked.event(entry).map(|event| line(&event)));
                }
                let has_news = state.version > self.seen;
                self.seen = state.version;
                state.told = state.version;
                if has_news && lines.is_empty() {
                    // Nothing for this watch: the version alone.
                    let (api, name) = api_and_name(self.asked.kind);
                    let mut object = json!({"kind": name, "apiVersion": api, "metadata": {"resourceVersion": state.version.to_string()}});
                    if self.asked.kind == SLICES {
                        object["addressType"] = "".into();
                        object["endpoints"] = Value::Null;
                        object["ports"] = Value::Null;
                    }
                    lines.push(line(&json!({"type": "BOOKMARK", "object": object})));
                }
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            tokio::select! {
                changed = self.version.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.deadline) => return None,
            }
        }
    }
}

fn typed(kind: &str, mut object: Value) -> Value {
    let (api, name) = api_and_name(kind);
    object["apiVersion"] = api.into();
    object["kind"] = name.into();
    object
}

fn api_and_name(kind: &str) -> (&'static str, &'static str) {
    match kind {
        SLICES => ("discovery.k8s.io/v1", "EndpointSlice"),
        _ => ("v1", "Endpoints"),
    }
}

fn line(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    json_answer(code, &status_object(code, reason, message))
}

fn json_answer(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    response.body(body).unwrap()
}

fn stream_answer(lines: stream::BoxStream<'static, Bytes>) -> Response<Body> {
    let frames = lines.map(|bytes| Ok(Frame::data(bytes)));
    let response = Response::builder().header("content-type", "application/json");
    response
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap()
}

fn decode(text: &str) -> String {
    let bytes = percent_encoding::percent_decode_str(text);
    bytes.decode_utf8().unwrap().replace('+', " ")
}
