//! What discovery counts and shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use pushprox_daemon::metrics::Registry;
use tokio::time::Instant;

/// The metrics. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Proxies that are ready in Kubernetes.
    pub proxies: Gauge<i64, AtomicI64>,
    /// Those that did not answer when they were asked last.
    pub proxies_failing: Gauge<i64, AtomicI64>,
    /// Clients that are placed.
    pub clients: Gauge<i64, AtomicI64>,
    /// Names and labels of proxies that Prometheus could not use.
    pub clients_unusable: Gauge<i64, AtomicI64>,
    /// Questions to proxies that failed.
    pub fetch_failures: Counter,
    /// Writes and removals that failed.
    pub write_failures: Counter,
    /// Bases that could not be used, and templates.
    pub source_unusable: Gauge<i64, AtomicI64>,
    /// Whether Prometheus refuses what it should load.
    pub config_refused: Gauge<i64, AtomicI64>,
    /// Whether Endpoints are watched because EndpointSlices cannot be.
    pub fallback: Gauge<i64, AtomicI64>,
    reloads: Family<Outcome, Counter>,
    api_errors: Family<Reason, Counter>,
    last_success: Gauge<f64, AtomicU64>,
    contact: Contact,
}

/// When the API server last gave a good answer. A cheap handle.
#[derive(Debug, Clone)]
pub struct Contact {
    last: Arc<Mutex<Instant>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl Metrics {
    /// Metrics that `registry` shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let gauges = [
            (
                "proxies",
                "Proxies that are ready in Kubernetes",
                &all.proxies,
            ),
            (
                "proxies_failing",
                "Proxies that did not answer when they were asked last",
                &all.proxies_failing,
            ),
            (
                "clients",
                "Clients that Prometheus is told of",
                &all.clients,
            ),
            (
                "clients_unusable",
                "Names and labels from proxies that Prometheus could not use",
                &all.clients_unusable,
            ),
            (
                "source_unusable",
                "Whether the base or the job template cannot be used as it is now",
                &all.source_unusable,
            ),
            (
                "config_refused",
                "Whether Prometheus refuses the configuration that it should have",
                &all.config_refused,
            ),
            (
                "endpoints_fallback",
                "Whether Endpoints are watched because EndpointSlices cannot be",
                &all.fallback,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(&format!("{PREFIX}{name}"), help, gauge.clone());
        }
        let counters = [
            (
                "fetch_failures",
                "Questions to proxies that failed",
                &all.fetch_failures,
            ),
            (
                "write_failures",
                "Writes and removals of configuration and SD files that failed",
                &all.write_failures,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(&format!("{PREFIX}{name}"), help, counter.clone());
        }
        registry.register(
            &format!("{PREFIX}reloads"),
            "Reloads of Prometheus by outcome",
            all.reloads.clone(),
        );
        registry.register(
            &format!("{PREFIX}api_errors"),
            "Failures of the Kubernetes API by reason",
            all.api_errors.clone(),
        );
        registry.register(
            &format!("{PREFIX}last_success_timestamp_seconds"),
            "When Prometheus last had all that discovery knew, in seconds since the epoch",
            all.last_success.clone(),
        );
        registry.register(
            &format!("{PREFIX}kubernetes_contact_age_seconds"),
            "Time since the last good answer of the Kubernetes API, or since the start",
            all.contact.clone(),
        );
        all
    }

    /// Counts a reload.
    pub fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a failure of the API.
    pub fn api_error(&self, reason: &'static str) {
        self.api_errors.get_or_create(&Reason { reason }).inc();
    }

    /// Notes that everything is written and loaded.
    #[expect(clippy::disallowed_methods, reason = "it is shown")]
    pub fn succeeded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_success.set(now.unwrap_or_default().as_secs_f64());
    }

    /// What notes good answers of the API server.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.contact
    }
}

impl Contact {
    /// Notes a good answer.
    pub fn note(&self) {
        *self.last.lock() = Instant::now();
    }
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
        }
    }
}

impl EncodeMetric for Contact {
    /// The age is told, not the time: it grows by itself where nothing happens.
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.last.lock().elapsed().as_secs_f64())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

const PREFIX: &str = "pushprox_discovery_";
