//! The client's metrics. Names that upstream's client has are the same here.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use pushprox_daemon::metrics::Registry;

/// Counts what the legs do.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Scrapes taken on.
    pub scrapes: Counter,
    /// Scrapes whose pull failed.
    pub scrape_errors: Counter,
    /// Pushes that did not come through.
    pub push_errors: Counter,
    /// Polls that failed.
    pub poll_errors: Counter,
    /// From the instruction to the end of the push.
    pub scrape_seconds: Histogram,
}

impl Metrics {
    /// Makes the metrics part of `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            scrapes: Counter::default(),
            scrape_errors: Counter::default(),
            push_errors: Counter::default(),
            poll_errors: Counter::default(),
            scrape_seconds: Histogram::new(SCRAPE_SECONDS),
        };
        for (name, help, counter) in [
            (
                "scrapes",
                "Scrapes that the proxy handed out to this client",
                &metrics.scrapes,
            ),
            (
                "scrape_errors",
                "Scrapes whose pull failed",
                &metrics.scrape_errors,
            ),
            (
                "push_errors",
                "Pushes that did not come through",
                &metrics.push_errors,
            ),
            ("poll_errors", "Polls that failed", &metrics.poll_errors),
        ] {
            registry.register(&format!("pushprox_client_{name}"), help, counter.clone());
        }
        registry.register(
            "pushprox_client_scrape_duration_seconds",
            "Time from a scrape's arrival to the end of its push",
            metrics.scrape_seconds.clone(),
        );
        metrics
    }
}

/// Each twice the one before. Written out, they need no arithmetic library in memory.
const SCRAPE_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        let mut registry = Registry::new();
        let metrics = Metrics::register(&mut registry);
        metrics.scrapes.inc();
        let (_, body) = registry.encode(None);
        let text = String::from_utf8(body.to_vec()).unwrap();
        for name in [
            "pushprox_client_scrape_errors_total",
            "pushprox_client_push_errors_total",
            "pushprox_client_poll_errors_total",
        ] {
            assert!(
                text.contains(&format!("\n{name} 0\n")),
                "{name} is missing in {text}"
            );
        }
        assert!(
            text.contains("\npushprox_client_scrapes_total 1\n"),
            "{text}"
        );
    }
}
