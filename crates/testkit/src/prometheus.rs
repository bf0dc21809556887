//! Debian's Prometheus with a configuration of the test's, and the questions that a test asks it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Daemon, command};
use crate::wait::until;
use crate::wire;

/// A running Prometheus. Its folder goes with it.
#[derive(Debug)]
pub struct Prometheus {
    /// Its process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
    _folder: TempDir,
}

/// One series of an answer to a query.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Starts it with this content of `prometheus.yml`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let mut prometheus = command("prometheus");
        prometheus
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0");
        let mut daemon = Daemon::start("prometheus", prometheus);
        // "Start listening for connections" stands before it and has the port as it was asked for,
        // 0.
        let address = daemon.address("Listening on").await;
        daemon.line(&["Server is ready"]).await;
        Self {
            daemon,
            address,
            _folder: folder,
        }
    }

    /// What an instant query finds now.
    ///
    /// # Panics
    /// When Prometheus does not answer with a vector.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        let path = format!("/api/v1/query?query={}", escaped(expression));
        let answer = self.api(&path).await;
        let found = answer["data"]["result"].as_array().expect("a vector");
        found
            .iter()
            .map(|series| Sample {
                labels: serde_json::from_value(series["metric"].clone()).unwrap(),
                value: series["value"][1].as_str().unwrap().parse().unwrap(),
            })
            .collect()
    }

    /// Waits until a query finds a single series whose value satisfies `test`, and returns it.
    pub async fn sample(
        &self,
        expression: &str,
        limit: Duration,
        test: impl Fn(f64) -> bool,
    ) -> Sample {
        until(&format!("{expression} in Prometheus"), limit, async || {
            let mut found = self.query(expression).await;
            let single = found.pop().filter(|sample| test(sample.value))?;
            found.is_empty().then_some(single)
        })
        .await
    }

    /// Waits until the targets page shows an error with `part` for the only target of `job`, and
    /// returns it whole.
    pub async fn last_error(&self, job: &str, part: &str, limit: Duration) -> String {
        let mut seen = String::new();
        let what = format!("{part:?} as lastError of {job}");
        until(&what, limit, async || {
            let answer = self.api("/api/v1/targets?state=active").await;
            let targets = answer["data"]["activeTargets"].as_array().unwrap();
            let target = targets.iter().find(|target| target["scrapePool"] == job)?;
            let error = target["lastError"].as_str().unwrap();
            if error != seen {
                // A failed test shows which errors there were instead.
                error.clone_into(&mut seen);
                self.note(&format!("lastError of {job}: {error:?}"));
            }
            error.contains(part).then(|| error.to_owned())
        })
        .await
    }

    #[expect(
        clippy::print_stderr,
        reason = "the test runner shows it with a failure"
    )]
    fn note(&self, text: &str) {
        eprintln!("prometheus at {}: {text}", self.address);
    }

    async fn api(&self, path: &str) -> Value {
        let answer = wire::get(self.address, path).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }
}

/// Text as it may stand in a query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(byte.into());
        } else {
            write!(escaped, "%{byte:02X}").unwrap();
        }
        escaped
    })
}
