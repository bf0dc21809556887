//! What the proxy bears of its peers: every limit in one place, each of them a flag, and each time
//! that one is hit counted.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use pushprox_daemon::cli::positive_go_duration;
use pushprox_daemon::file_limit;
use pushprox_daemon::metrics::Registry;
use tracing::warn;

/// The limits, as the operator types them.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Connections at once; 0 is as many as the limit on open files allows
    #[arg(long = "limit.connections", value_name = "NUMBER", default_value = "0", value_parser = number::<0, MANY>)]
    pub connections: usize,

    /// Names registered at once
    #[arg(long = "limit.names", value_name = "NUMBER", default_value = "1000000", value_parser = number::<1, MANY>)]
    pub names: usize,

    /// Scrapes that wait for a client's poll, in all
    #[arg(long = "limit.scrapes", value_name = "NUMBER", default_value = "16384", value_parser = number::<1, MANY>)]
    pub scrapes: usize,

    /// Scrapes that wait for a client's poll, for one host with all its ports
    #[arg(long = "limit.scrapes-per-host", value_name = "NUMBER", default_value = "128", value_parser = number::<1, MANY>)]
    pub scrapes_per_host: usize,

    /// Size of a request's head
    #[arg(long = "limit.head-size", value_name = "BYTES", default_value = "65536", value_parser = number::<1024, MEBIBYTE>)]
    pub head_size: usize,

    /// Headers of a request, and of a pushed answer
    #[arg(long = "limit.headers", value_name = "NUMBER", default_value = "256", value_parser = number::<16, 1000>)]
    pub headers: usize,

    /// Size of all heads together that have begun to come and not ended, without 2 KiB of each
    #[arg(long = "limit.unfinished-heads", value_name = "BYTES", default_value = "67108864", value_parser = number::<0, MANY>)]
    pub unfinished_heads: usize,

    /// Size of the body of a poll, which is a name
    #[arg(long = "limit.poll-size", value_name = "BYTES", default_value = "1024", value_parser = number::<1, MEBIBYTE>)]
    pub poll_size: usize,

    /// Size of the head of a pushed answer
    #[arg(long = "limit.push-head-size", value_name = "BYTES", default_value = "65536", value_parser = number::<1024, MEBIBYTE>)]
    pub push_head_size: usize,

    /// How long the head of a request may take: the first one on a connection from when that comes
    /// about, with the TLS handshake, and others from their first byte on
    #[arg(long = "limit.head-timeout", value_name = "DURATION", default_value = "10s", value_parser = positive_go_duration)]
    pub head_timeout: Duration,

    /// How long a peer may send nothing of a body, or take nothing of an answer
    #[arg(long = "limit.progress-timeout", value_name = "DURATION", default_value = "30s", value_parser = positive_go_duration)]
    pub progress_timeout: Duration,
}

/// Which limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    Names,
    Scrapes,
    ScrapesPerHost,
    HeadSize,
    Headers,
    UnfinishedHeads,
    PollSize,
    PushHeadSize,
    HeadTimeout,
    ProgressTimeout,
}

/// How often each limit was hit.
#[derive(Debug)]
pub(crate) struct LimitHits {
    /// In the order of [`Limit::ALL`].
    counters: [Counter; Limit::ALL.len()],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    limit: &'static str,
}

impl Default for Limits {
    /// What the command line comes to without any flag.
    fn default() -> Self {
        Self {
            connections: 0,
            names: 1_000_000,
            scrapes: 16_384,
            scrapes_per_host: 128,
            head_size: 64 * 1024,
            headers: 256,
            unfinished_heads: 64 * 1024 * 1024,
            poll_size: 1024,
            push_head_size: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Takes no more connections than so many open files leave room for.
    pub fn fit_into(&mut self, files: Option<u64>) {
        let Some(files) = files else { return };
        let room = usize::try_from(file_limit::connections(files)).unwrap_or(usize::MAX);
        if self.connections > room {
            warn!(
                limit = self.connections,
                connections = room,
                files,
                "--limit.connections is more than the limit on open files leaves room for"
            );
        }
        self.connections = match self.connections {
            0 => room,
            wanted => wanted.min(room),
        };
    }
}

impl Limit {
    pub(crate) const ALL: [Self; 11] = [
        Self::Connections,
        Self::Names,
        Self::Scrapes,
        Self::ScrapesPerHost,
        Self::HeadSize,
        Self::Headers,
        Self::UnfinishedHeads,
        Self::PollSize,
        Self::PushHeadSize,
        Self::HeadTimeout,
        Self::ProgressTimeout,
    ];

    /// The flag's name without what all of them begin with.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Names => "names",
            Self::Scrapes => "scrapes",
            Self::ScrapesPerHost => "scrapes-per-host",
            Self::HeadSize => "head-size",
            Self::Headers => "headers",
            Self::UnfinishedHeads => "unfinished-heads",
            Self::PollSize => "poll-size",
            Self::PushHeadSize => "push-head-size",
            Self::HeadTimeout => "head-timeout",
            Self::ProgressTimeout => "progress-timeout",
        }
    }
}

impl fmt::Display for Limit {
    /// The flag that sets it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--limit.{}", self.label())
    }
}

impl LimitHits {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let hits = Family::<Label, Counter>::default();
        registry.register(
            "pushprox_limit_hits",
            "What was refused or given up because a limit was reached",
            hits.clone(),
        );
        let counter = |limit: Limit| {
            hits.get_or_create_owned(&Label {
                limit: limit.label(),
            })
        };
        Self {
            counters: Limit::ALL.map(counter),
        }
    }

    /// The counter of one limit.
    pub(crate) fn counter(&self, limit: Limit) -> Counter {
        self.counters
            .get(limit as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// Counts a hit, if it is one.
    pub(crate) fn count(&self, limit: Option<Limit>) {
        if let Some(counter) = limit.and_then(|limit| self.counters.get(limit as usize)) {
            counter.inc();
        }
    }
}

/// What was refused, with the flag behind it where it was a limit that did it.
pub(crate) fn told(refusal: &dyn fmt::Display, limit: Option<Limit>) -> String {
    match limit {
        Some(limit) => format!("{refusal} ({limit})"),
        None => refusal.to_string(),
    }
}

fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    number
        .filter(|number| (MIN..=MAX).contains(number))
        .ok_or_else(|| format!("it is not a number from {MIN} to {MAX}"))
}

const MANY: usize = 1_000_000_000;
const MEBIBYTE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_own_counter_from_the_start() {
        let mut registry = Registry::new();
        let hits = LimitHits::register(&mut registry);
        let assert_counts = |count: fn(Limit) -> u64| {
            let (_, text) = registry.encode(None);
            let text = String::from_utf8(text.to_vec()).unwrap();
            for limit in Limit::ALL {
                let (label, count) = (limit.label(), count(limit));
                let line = format!("pushprox_limit_hits_total{{limit=\"{label}\"}} {count}\n");
                assert!(text.contains(&line), "{line}{text}");
            }
        };
        assert_counts(|_| 0);
        for limit in Limit::ALL {
            hits.count(Some(limit));
        }
        hits.count(Some(Limit::Names));
        hits.count(None);
        assert_counts(|limit| if limit == Limit::Names { 2 } else { 1 });
    }

    #[test]
    fn nonsense_is_a_usage_error_that_says_what_would_be_right() {
        use pushprox_daemon::cli::{Stop, parse_from};
        for (flag, told) in [
            ("names=0", "\"0\" is not a number from 1 to 1000000000"),
            ("names=-1", "\"-1\" is not a number from 1 to 1000000000"),
            (
                "connections=x",
                "\"x\" is not a number from 0 to 1000000000",
            ),
            (
                "head-size=1023",
                "\"1023\" is not a number from 1024 to 1048576",
            ),
            ("headers=1001", "\"1001\" is not a number from 16 to 1000"),
            (
                "progress-timeout=0",
                "\"0\" is zero; write one like 5m, 1m30s or 500ms",
            ),
        ] {
            let flag = format!("--limit.{flag}");
            let name = flag.split('=').next().unwrap_or_default();
            match parse_from::<crate::cli::Args>("proxy", [&flag]) {
                Err(Stop::Usage(error)) => {
                    assert_eq!(error.to_string(), format!("{name}: {told}"));
                }
                other => panic!("{flag}: {other:?}"),
            }
        }
    }

    #[test]
    fn open_files_bound_the_connections() {
        for (flag, files, connections) in [
            (0, None, 0),
            (0, Some(1024), 976),
            (500, Some(1024), 500),
            (5_000, Some(1024), 976),
            (5_000, None, 5_000),
            (0, Some(40), 20),
        ] {
            let mut limits = Limits {
                connections: flag,
                ..Limits::default()
            };
            limits.fit_into(files);
            assert_eq!(limits.connections, connections, "{flag} {files:?}");
        }
    }
}
