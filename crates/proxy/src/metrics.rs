//! What the proxy counts, under the names that upstream's proxy uses.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use pushprox_daemon::metrics::Registry;

use crate::rendezvous::Rendezvous;

/// The proxy's metrics. What each scrape counts is looked up once, here.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    polls_answered: Counter,
    pushes_taken: Counter,
    durations: Family<PathLabels, Histogram, fn() -> Histogram>,
    poll_duration: Histogram,
    push_duration: Histogram,
    proxied: Family<CodeLabels, Counter>,
    proxied_ok: Counter,
    clients: Gauge<i64, AtomicI64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    code: u16,
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: u16,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations: Family<PathLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(GO_BUCKETS));
        let proxied = Family::<CodeLabels, Counter>::default();
        let clients = Gauge::default();
        registry.register(
            "pushprox_http_requests",
            "Number of http api requests",
            requests.clone(),
        );
        registry.register(
            "pushprox_http_duration_seconds",
            "Time taken by path",
            durations.clone(),
        );
        registry.register(
            "pushproxy_proxied_requests",
            "Number of http proxy requests",
            proxied.clone(),
        );
        registry.register(
            "pushprox_proxy_clients",
            "Number of known pushprox clients",
            clients.clone(),
        );
        let request = |code, path| requests.get_or_create_owned(&RequestLabels { code, path });
        let duration = |path| durations.get_or_create_owned(&PathLabels { path });
        Self {
            polls_answered: request(200, "/poll"),
            pushes_taken: request(200, "/push"),
            poll_duration: duration("/poll"),
            push_duration: duration("/push"),
            proxied_ok: proxied.get_or_create_owned(&CodeLabels { code: 200 }),
            requests,
            durations,
            proxied,
            clients,
        }
    }

    /// Brings the gauges up to date before they are read.
    pub(crate) fn update(&self, rendezvous: &Rendezvous) {
        self.clients
            .set(i64::try_from(rendezvous.name_count()).unwrap_or(i64::MAX));
    }

    /// A poll has been answered.
    pub(crate) fn poll_ended(&self, status: StatusCode, duration: Duration) {
        self.poll_duration.observe(duration.as_secs_f64());
        if status == StatusCode::OK {
            self.polls_answered.inc();
        } else {
            self.requests
                .get_or_create(&RequestLabels {
                    code: status.as_u16(),
                    path: "/poll",
                })
                .inc();
        }
    }

    /// A request to one of the proxy's own paths has been answered.
    pub(crate) fn request_ended(&self, path: &'static str, status: StatusCode, duration: Duration) {
        if path == "/push" && status == StatusCode::OK {
            self.pushes_taken.inc();
            self.push_duration.observe(duration.as_secs_f64());
            return;
        }
        let code = status.as_u16();
        self.requests
            .get_or_create(&RequestLabels { code, path })
            .inc();
        self.durations
            .get_or_create(&PathLabels { path })
            .observe(duration.as_secs_f64());
    }

    /// A scrape has been answered.
    pub(crate) fn proxied(&self, status: StatusCode) {
        if status == StatusCode::OK {
            self.proxied_ok.inc();
            return;
        }
        let code = status.as_u16();
        self.proxied.get_or_create(&CodeLabels { code }).inc();
    }
}

/// The default buckets of Go's client library, in seconds.
const GO_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
