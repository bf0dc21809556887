//! The client's metrics. Names that upstream's client has are the same here.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
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
            // 5 ms to 40 s.
            scrape_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
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
