//! The registry of a daemon's metrics, with those that every daemon has, and the formats that
//! Prometheus may ask for.

use bytes::Bytes;
use http::HeaderValue;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Metric;

use crate::process::Process;

/// A registry that has the build's and the process's metrics from the start.
#[derive(Debug)]
pub struct Registry {
    metrics: prometheus_client::registry::Registry,
}

impl Registry {
    /// The metrics that every daemon has: `pushprox_build_info` and `process_*`.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = prometheus_client::registry::Registry::default();
        let mut labels = vec![("version".into(), crate::VERSION.into())];
        if let Some(revision) = crate::REVISION {
            labels.push(("revision".into(), revision.into()));
        }
        metrics
            .sub_registry_with_labels(labels.into_iter())
            .register(
                "pushprox_build_info",
                "The build of this program",
                ConstGauge::new(1i64),
            );
        metrics.register_collector(Box::new(Process::default()));
        Self { metrics }
    }

    /// Adds a metric. A counter's name comes without `_total`, which both formats append; a help
    /// text comes without its full stop.
    pub fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        debug_assert!(!name.ends_with("_total"), "{name}: _total is appended");
        self.metrics.register(name, help, metric);
    }

    /// All metrics and the content type of their format: the text format, unless `accept` prefers
    /// `OpenMetrics`.
    #[must_use]
    pub fn encode(&self, accept: Option<&HeaderValue>) -> (HeaderValue, Bytes) {
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
        let mut body = String::new();
        // Writing to a string does not fail, and the metrics' own encoders have nothing to fail on.
        let content_type = if prefers_openmetrics(accept) {
            text::encode(&mut body, &self.metrics).ok();
            OPENMETRICS
        } else {
            prometheus_text::encode(&mut body, &self.metrics).ok();
            prometheus_text::CONTENT_TYPE
        };
        (HeaderValue::from_static(content_type), body.into())
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an `Accept` header ranks OpenMetrics 1.0 above plain text.
fn prefers_openmetrics(accept: &str) -> bool {
    let (mut openmetrics, mut plain) = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1_000, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", value)) => quality = thousandths(value),
                Some(("version", value)) => version = Some(value.trim_matches('"')),
                _ => {}
            }
        }
        if name.eq_ignore_ascii_case("application/openmetrics-text") {
            if matches!(version, None | Some("1.0.0" | "0.0.1")) {
                openmetrics = openmetrics.max(quality);
            }
        } else if ["text/plain", "text/*", "*/*"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
        {
            plain = plain.max(quality);
        }
    }
    openmetrics > 0 && openmetrics >= plain
}

/// A q value (RFC 9110, section 12.4.2) in thousandths. A wrong one counts as none at all.
fn thousandths(value: &str) -> u32 {
    match value.trim().parse::<f32>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 1000"
            )]
            {
                (quality * 1_000.0) as u32
            }
        }
        _ => 0,
    }
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;

    const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

    fn exposition(accept: Option<&'static str>) -> (String, String) {
        let mut registry = Registry::new();
        let polls = Family::<[(&str, &str); 1], Counter>::default();
        registry.register("pushprox_polls", "Polls", polls.clone());
        polls.get_or_create(&[("code", "200")]).inc();
        let (content_type, body) = registry.encode(accept.map(HeaderValue::from_static).as_ref());
        (
            content_type.to_str().unwrap().to_owned(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[test]
    fn counters_end_in_total_once_in_both_formats() {
        for accept in [None, Some(PROMETHEUS_2_42)] {
            let (_, body) = exposition(accept);
            assert!(
                body.contains("\npushprox_polls_total{code=\"200\"} 1\n"),
                "{body}"
            );
            assert!(!body.contains("total_total"), "{body}");
        }
    }

    #[test]
    fn every_daemon_has_build_and_process_metrics() {
        let (_, body) = exposition(None);
        let info = format!("pushprox_build_info{{version=\"{}\"", crate::VERSION);
        assert!(body.contains(&info), "{body}");
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let value: f64 = body
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .unwrap_or_else(|| panic!("{name} is missing in {body}"));
            assert!(value >= 0.0);
        }
    }

    #[test]
    fn openmetrics_is_given_to_who_prefers_it() {
        let (content_type, body) = exposition(Some(PROMETHEUS_2_42));
        assert_eq!(content_type, OPENMETRICS);
        assert!(body.ends_with("# EOF\n"), "{body}");
        let (content_type, body) = exposition(None);
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(!body.contains("# EOF"), "{body}");
    }

    #[test]
    fn the_accept_header_is_weighed() {
        for (accept, openmetrics) in [
            ("", false),
            ("*/*", false),
            ("text/plain", false),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;q=0, */*", false),
            (
                "application/openmetrics-text; q=0.4, text/plain; q=0.5",
                false,
            ),
            (
                "application/openmetrics-text; version=1.0.0; q=0.6, text/plain; q=0.5",
                true,
            ),
            ("application/openmetrics-text; version=2.0.0", false),
            ("application/openmetrics-text;q=wrong", false),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"", true),
        ] {
            assert_eq!(prefers_openmetrics(accept), openmetrics, "{accept}");
        }
    }
}
