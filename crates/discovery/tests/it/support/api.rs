//! A Kubernetes API server for EndpointSlices and Endpoints, with TLS, tokens, lists by pages,
//! watches with bookmarks, and the ways in which a real one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pushprox_testkit::wait::{free_port, listener_at};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::tls::Authority;
use answers::serve;

mod answers;

/// The kinds that are served.
pub const SLICES: &str = "endpointslices";
pub const ENDPOINTS: &str = "endpoints";

/// A running API server. It ends, with all its connections, on drop.
pub struct Api {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    ca: String,
    serving: JoinSet<()>,
}

struct Shared {
    state: Mutex<State>,
    /// The newest version; watches wait on it.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Entry>,
    /// Versions up to here are forgotten.
    compacted: u64,
    tokens: BTreeSet<String>,
    faults: Faults,
    requests: Vec<String>,
    /// Watches that began before it have been ended.
    watch_generation: u64,
    /// Watches see nothing, not even those that begin now.
    is_closed: bool,
    /// What a watch has been told of last.
    told: u64,
}

#[derive(Clone)]
struct Entry {
    version: u64,
    kind: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// How the server fails. All of it can be changed while it runs.
#[derive(Clone, Default)]
pub struct Faults {
    /// Kinds, and verbs on kinds (`watch endpoints`), that RBAC forbids.
    pub forbidden: BTreeSet<&'static str>,
    /// Kinds that do not exist.
    pub unknown: BTreeSet<&'static str>,
    /// Requests are read and never answered.
    pub hangs: bool,
    /// An old version is answered by a status, not by an event.
    pub gone_as_status: bool,
    /// No list is longer.
    pub page: Option<usize>,
}

impl Api {
    /// Starts a server that takes the token `token`.
    pub async fn start() -> Self {
        let authority = Authority::new();
        let state = State {
            tokens: BTreeSet::from(["token".to_owned()]),
            version: 200,
            ..State::default()
        };
        let mut api = Self {
            // Nobody else gets the port while it is away.
            address: ([127, 0, 0, 1], free_port()).into(),
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                version: watch::channel(200).0,
            }),
            acceptor: authority.acceptor("127.0.0.1", false),
            ca: authority.pem(),
            serving: JoinSet::new(),
        };
        api.come_back().await;
        api
    }

    /// Writes a kubeconfig, a CA and the token into `folder`.
    pub fn write_kubeconfig(&self, folder: &Path) {
        std::fs::write(folder.join("ca.crt"), &self.ca).unwrap();
        std::fs::write(folder.join("token"), "token").unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": "ca.crt",
            }}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(folder.join("kubeconfig"), config.to_string()).unwrap();
    }

    /// Creates or changes an object.
    pub fn apply(&self, kind: &str, namespace: &str, name: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            object["metadata"]["name"] = name.into();
            object["metadata"]["namespace"] = namespace.into();
            object["metadata"]["resourceVersion"] = state.version.to_string().into();
            let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
            let before = state.objects.insert(key, object.clone());
            state.note(kind, before, Some(object));
        });
    }

    /// Deletes an object.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
            let mut gone = state.objects.remove(&key).expect("there is such an object");
            gone["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.note(kind, Some(gone), None);
        });
    }

    /// Changes how it fails.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.state.lock().faults);
    }

    /// Changes the tokens that are taken.
    pub fn take_tokens(&self, tokens: &[&str]) {
        self.shared.state.lock().tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// Forgets all history: a watch from an older version has expired.
    pub fn compact(&self) {
        let mut state = self.shared.state.lock();
        state.compacted = state.version;
        state.history.clear();
    }

    /// Whether a watch has been told of all that has happened, on its connection before its end.
    pub fn is_all_told(&self) -> bool {
        let state = self.shared.state.lock();
        state.told == state.version
    }

    /// Ends all watches, lets `change` happen while nobody watches, and forgets all history.
    pub fn lose_history(&self, change: impl FnOnce()) {
        self.shared.state.lock().is_closed = true;
        self.end_watches();
        change();
        self.compact();
        self.shared.state.lock().is_closed = false;
    }

    /// Ends all watches, as the server does when their time is up.
    pub fn end_watches(&self) {
        self.change(|state| state.watch_generation += 1);
    }

    /// The server goes away: its connections break, and new ones are refused.
    pub async fn go_away(&mut self) {
        self.serving.shutdown().await;
    }

    /// The server is back, at the same address.
    pub async fn come_back(&mut self) {
        let listener = listener_at(self.address).await;
        self.serving.spawn(serve(
            listener,
            self.acceptor.clone(),
            Arc::clone(&self.shared),
        ));
    }

    /// The requests so far, as `list endpointslices demo` or `watch endpoints *`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state.lock().requests.clone()
    }

    /// How many of them were lists.
    pub fn lists(&self) -> usize {
        let requests = self.requests();
        let lists = requests
            .iter()
            .filter(|request| request.starts_with("list"));
        lists.count()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock();
        change(&mut state);
        self.shared.version.send_replace(state.version);
    }
}

impl State {
    fn note(&mut self, kind: &str, before: Option<Value>, after: Option<Value>) {
        self.history.push(Entry {
            version: self.version,
            kind: kind.to_owned(),
            before,
            after,
        });
    }
}
