//! Debian's node exporter, on a port of its own.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::process::{Daemon, command};

/// A running node exporter.
#[derive(Debug)]
pub struct NodeExporter {
    /// Its process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
}

impl NodeExporter {
    /// Starts it.
    pub async fn start() -> Self {
        Self::run(Self::command()).await
    }

    /// The command that runs it, on a port of loopback.
    pub fn command() -> Command {
        let mut exporter = command("prometheus-node-exporter");
        exporter.arg("--web.listen-address=127.0.0.1:0");
        exporter
    }

    /// Starts the node exporter that `command` runs.
    pub async fn run(command: Command) -> Self {
        let mut daemon = Daemon::start("prometheus-node-exporter", command);
        let address = daemon.address("Listening on").await;
        Self { daemon, address }
    }

    /// Where its metrics are.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}
