//! This workspace's own programs as their users run them: the binaries, by their flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::process::Command;

use crate::process::{Daemon, command};
use crate::wait::{SOON, idle, until};
use crate::wire::{self, Message};

/// The command that runs the binary `name` of this workspace.
///
/// It is looked for in the folder that `PUSHPROX_BIN_DIR` names, else beside the test's own
/// executable, where cargo leaves it.
///
/// # Panics
/// When it is not there, or is older than its sources.
pub fn binary(name: &str) -> Command {
    let chosen = std::env::var_os("PUSHPROX_BIN_DIR").map(PathBuf::from);
    let path = match &chosen {
        Some(folder) => std::path::absolute(folder.join(name)).unwrap(),
        None => built(name),
    };
    assert!(
        path.is_file(),
        "{} is missing: `make test` builds it, and so does `cargo build --workspace --bins`",
        path.display()
    );
    command(path)
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    /// Its process.
    pub daemon: Daemon,
}

impl Proxy {
    /// Starts a proxy on a port of loopback that the kernel picks.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", flags).await
    }

    /// Starts a proxy at an address.
    pub async fn start_at(address: &str, flags: &[&str]) -> Self {
        let mut command = binary("proxy");
        command
            .arg(format!("--web.listen-address={address}"))
            .args(flags);
        Self::run(command).await
    }

    /// Starts the proxy that `command` runs.
    pub async fn run(command: Command) -> Self {
        let mut daemon = Daemon::start("proxy", command);
        let address = daemon.address("listening").await;
        Self { daemon, address }
    }

    /// Its URL, for a client or for Prometheus.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Scrapes `url` through it, as Prometheus does with a scrape timeout of `seconds`.
    ///
    /// # Panics
    /// When there is no answer at all, or more than one.
    pub async fn scrape(&self, url: &str, seconds: f64) -> Message {
        wire::ask(self.address, &wire::scrape_request(url, seconds, ""))
            .await
            .unwrap_or_else(|error| panic!("no answer to the scrape of {url}: {error}"))
    }

    /// The names that are registered, as `/clients` lists them.
    pub async fn names(&self) -> Vec<String> {
        let list: Value = serde_json::from_slice(&wire::get(self.address, "/clients").await.body)
            .expect("JSON from /clients");
        let groups = list.as_array().expect("a list from /clients").iter();
        groups
            .flat_map(|group| group["targets"].as_array().expect("targets").clone())
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect()
    }

    /// Waits until `name` is registered.
    pub async fn registered(&self, name: &str) {
        until(&format!("{name} on /clients"), SOON, async || {
            let names = self.names().await;
            let found = names.iter().any(|found| found.eq_ignore_ascii_case(name));
            found.then_some(())
        })
        .await;
    }

    /// How many connections it holds, with Prometheus and clients alike.
    pub fn connections(&self) -> usize {
        self.daemon.connections(self.address.port())
    }

    /// Waits until it holds as many connections.
    pub async fn holds(&self, connections: usize, limit: Duration) {
        until(&format!("{connections} connections"), limit, async || {
            (self.connections() == connections).then_some(())
        })
        .await;
    }

    /// The number of connections that it holds once they have stopped coming and going.
    pub async fn settled(&self) -> usize {
        let mut before = usize::MAX;
        until("connections at rest", SOON, async || {
            let now = self.connections();
            idle(Duration::from_millis(250)).await;
            (now == std::mem::replace(&mut before, now)).then_some(now)
        })
        .await
    }

    /// The value of one of its own metrics, as the line in `/metrics` begins. None if there is no
    /// such line.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        metric(&wire::get(self.address, "/metrics").await.text(), line)
    }
}

impl Client {
    /// Starts a client that is registered as `name` at `proxy_url` and pulls from `pull_url`, with
    /// no metrics of its own.
    pub fn start(proxy_url: &str, pull_url: &str, name: &str, flags: &[&str]) -> Self {
        let mut command = binary("client");
        command
            .arg(format!("--proxy-url={proxy_url}"))
            .arg(format!("--pull-url={pull_url}"))
            .arg(format!("--fqdn={name}"))
            .arg("--metrics-addr=")
            .args(flags);
        Self::run(command)
    }

    /// Starts the client that `command` runs.
    pub fn run(command: Command) -> Self {
        Self {
            daemon: Daemon::start("client", command),
        }
    }
}

/// The value in a text of metrics of the line that begins with `line`.
pub fn metric(text: &str, line: &str) -> Option<f64> {
    text.lines().find_map(|found| {
        found
            .strip_prefix(line)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// Where cargo has left the binary `name`.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    // Tests lie in `deps`, a folder below the binaries; the executables of other targets beside
    // them.
    let folder = own.parent().unwrap();
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap()
    } else {
        folder
    };
    let path = folder.join(name);
    static FRESH: OnceLock<()> = OnceLock::new();
    FRESH.get_or_init(|| {
        for name in ["proxy", "client"] {
            assert_fresh(&folder.join(name));
        }
    });
    path
}

/// Cargo rebuilds a test when the test has changed, but not the binaries that it only runs: an old
/// one would be tested without a word.
fn assert_fresh(binary: &Path) {
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified());
    let Ok(built) = modified(binary) else { return };
    let sources = std::fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    for source in sources
        .split_whitespace()
        .filter(|word| word.ends_with(".rs"))
    {
        let changed = modified(Path::new(source)).unwrap_or(SystemTime::UNIX_EPOCH);
        assert!(
            changed <= built,
            "{} is older than {source}: run `cargo build --workspace --bins`",
            binary.display()
        );
    }
}
