//! Debian's Prometheus, which reads what discovery writes.

use std::net::SocketAddr;
use std::time::Duration;

use pushprox_testkit::process::{Daemon, command};
use pushprox_testkit::wait::until;
use pushprox_testkit::wire;
use serde_json::Value;

use super::bench::Bench;

/// A running Prometheus.
pub struct Server {
    pub daemon: Daemon,
    pub address: SocketAddr,
}

impl Server {
    /// Starts it at an address with the target of a bench, which must be there.
    pub async fn start_at(bench: &Bench, address: &str) -> Self {
        let mut prometheus = command("prometheus");
        prometheus
            .arg(format!("--config.file={}", bench.target().display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                bench.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-lifecycle");
        let mut daemon = Daemon::start("prometheus", prometheus);
        let address = daemon.address("Listening on").await;
        daemon.line(&["Server is ready"]).await;
        Self { daemon, address }
    }

    /// The flag that tells discovery of it.
    pub fn flag(&self) -> String {
        format!("-reloadurl=http://{}/-/reload", self.address)
    }

    /// Its targets.
    pub async fn targets(&self) -> Vec<Value> {
        let answer = wire::get(self.address, "/api/v1/targets?state=active").await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["data"]["activeTargets"].as_array().unwrap().clone()
    }

    /// The configuration that it has loaded.
    pub async fn config(&self) -> String {
        let answer = wire::get(self.address, "/api/v1/status/config").await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["data"]["yaml"].as_str().unwrap().to_owned()
    }

    /// Waits until its targets are these: job, instance, health.
    pub async fn targets_are(&self, wanted: &[(&str, &str, &str)]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(job, instance, health)| {
                (
                    (*job).to_owned(),
                    (*instance).to_owned(),
                    (*health).to_owned(),
                )
            })
            .collect();
        let mut last = Vec::new();
        until(
            &format!("{wanted:?}"),
            Duration::from_secs(120),
            async || {
                let targets = self.targets().await;
                let text = |target: &Value, name: &str| {
                    target["labels"][name]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                };
                let mut seen: Vec<_> = targets
                    .iter()
                    .map(|target| {
                        let health = target["health"].as_str().unwrap().to_owned();
                        (text(target, "job"), text(target, "instance"), health)
                    })
                    .collect();
                seen.sort();
                if seen != last {
                    eprintln!("targets: {seen:?}");
                    last.clone_from(&seen);
                }
                (seen == wanted).then_some(())
            },
        )
        .await;
    }
}
