//! Debian's node exporter, on a port of its own.

use std::net::SocketAddr;

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
        let mut exporter = command("prometheus-node-exporter");
        exporter.arg("--web.listen-address=127.0.0.1:0");
        let mut daemon = Daemon::start("prometheus-node-exporter", exporter);
        let address = daemon.address("Listening on").await;
        Self { daemon, address }
    }

    /// Where its metrics are.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}
