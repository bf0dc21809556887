//! Discovery among its neighbours, in a folder of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pushprox_testkit::process::{self, Daemon, Outcome};
pub use pushprox_testkit::wait::SOON;
use pushprox_testkit::wait::until;
use pushprox_testkit::{pushprox, wire};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::api::{Api, SLICES};
use super::reloads::Reloads;

/// An API server, a Prometheus that reloads, and a folder.
pub struct Bench {
    pub folder: TempDir,
    pub api: Api,
    pub reloads: Reloads,
}

/// A running discovery.
pub struct Discovery {
    pub daemon: Daemon,
    /// Where its own pages are.
    pub address: SocketAddr,
}

impl Bench {
    /// A bench with a base that has nothing.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sd")).unwrap();
        let reloads = Reloads::start(&folder.path().join("prometheus.yaml")).await;
        let bench = Self {
            api: Api::start().await,
            reloads,
            folder,
        };
        bench.api.write_kubeconfig(bench.path());
        bench.write("base", "global: {}\n");
        bench
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn target(&self) -> PathBuf {
        self.path().join("prometheus.yaml")
    }

    pub fn write(&self, name: &str, text: &str) {
        // As Kubernetes updates a mounted ConfigMap: at once.
        let temporary = self.path().join(format!("{name}.new"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.path().join(name)).unwrap();
    }

    /// Tells Kubernetes of a service `name` in `demo` with these addresses, ready or not.
    pub fn service(&self, name: &str, endpoints: &[(SocketAddr, bool)]) {
        for (address, is_ready) in endpoints {
            self.api.apply(
                SLICES,
                "demo",
                &format!("{name}-{}", address.port()),
                slice(name, *address, *is_ready),
            );
        }
    }

    /// The command that starts discovery, with these flags besides, or instead of the bench's own.
    pub fn command(&self, flags: &[&str]) -> Command {
        let own = ["-labelname=app", "-labelvalue=pushprox", "-namespace=demo"];
        let mut command = self.bare_command(flags);
        command.args(own.iter().filter(|flag| !is_given(flag, flags)));
        command
    }

    /// Without the flags that say what is looked for.
    pub fn bare_command(&self, flags: &[&str]) -> Command {
        let path = |name| self.path().join(name).display().to_string();
        let own = [
            format!("-source={}", path("base")),
            format!("-target={}", self.target().display()),
            format!("-reloadurl=http://{}/-/reload", self.reloads.address),
            format!("--sd-dir={}", path("sd")),
            format!("--kubeconfig={}", path("kubeconfig")),
            "--resync-interval=1s".to_owned(),
            "--metrics-addr=127.0.0.1:0".to_owned(),
        ];
        let mut command = process::command(env!("CARGO_BIN_EXE_discovery"));
        command
            .args(own.iter().filter(|flag| !is_given(flag, flags)))
            .args(flags);
        command
    }

    /// Starts discovery.
    pub async fn start(&self, flags: &[&str]) -> Discovery {
        let mut daemon = Daemon::start("discovery", self.command(flags));
        let address = daemon.address("listening").await;
        Discovery { daemon, address }
    }

    /// Runs discovery once.
    pub async fn once(&self, flags: &[&str]) -> Outcome {
        let mut command = self.command(flags);
        command.arg("--once");
        process::run(command).await
    }

    /// The clients of all SD files that the target names, by proxy.
    pub fn clients(&self) -> BTreeMap<String, Vec<String>> {
        let config = std::fs::read_to_string(self.target()).unwrap_or_default();
        clients_of(&config)
    }

    /// Waits until the clients are these, `proxy: names`, in what Prometheus has loaded.
    pub async fn clients_are(&self, wanted: &[(SocketAddr, &[&str])]) {
        let wanted: BTreeMap<String, Vec<String>> = wanted
            .iter()
            .map(|(proxy, names)| {
                (
                    proxy.to_string(),
                    names.iter().map(|name| (*name).to_owned()).collect(),
                )
            })
            .collect();
        let mut last = BTreeMap::new();
        until(&format!("{wanted:?}"), SOON, async || {
            let loaded = clients_of(&self.reloads.config());
            if loaded != last {
                eprintln!("clients: {loaded:?}");
                last.clone_from(&loaded);
            }
            (loaded == wanted && self.clients() == wanted).then_some(())
        })
        .await;
    }

    /// The names of the files in the folder for SD files.
    pub fn sd_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join("sd")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Discovery {
    /// The value of a metric, by how its line begins behind the prefix that all have.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let text = wire::get(self.address, "/metrics").await.text();
        pushprox::metric(&text, &format!("pushprox_discovery_{line}"))
    }

    /// Waits until a metric satisfies `test`.
    pub async fn metric_is(&self, line: &str, test: impl Fn(f64) -> bool) {
        until(&format!("the metric {line}"), SOON, async || {
            self.metric(line).await.filter(|value| test(*value))
        })
        .await;
    }

    /// Waits until it is ready, which it is at the end of the pass that has written the files.
    pub async fn is_ready(&self) {
        until("ready", SOON, async || {
            (self.page("/-/ready").await == 200).then_some(())
        })
        .await;
    }

    /// Waits until Prometheus has all that is known: files are there before that, and Prometheus
    /// has them before discovery has noted so.
    pub async fn has_published(&self) {
        self.metric_is("last_success_timestamp_seconds", |time| time > 0.0)
            .await;
    }

    /// The status of one of its own pages.
    pub async fn page(&self, path: &str) -> u16 {
        wire::get(self.address, path).await.status()
    }

    /// Stops it in order.
    pub async fn stop(mut self) {
        self.daemon.terminate();
        let status = self.daemon.ended(SOON).await;
        assert!(status.success(), "{status}");
    }
}

fn is_given(flag: &str, flags: &[&str]) -> bool {
    let name = |flag: &str| {
        flag.split('=')
            .next()
            .unwrap_or_default()
            .trim_start_matches('-')
            .to_owned()
    };
    flags.iter().any(|given| name(given) == name(flag))
}

/// An EndpointSlice of one endpoint, labelled as the tests look for.
pub fn slice(service: &str, address: SocketAddr, is_ready: bool) -> Value {
    json!({
        "metadata": {"labels": {"app": "pushprox", "kubernetes.io/service-name": service}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": is_ready}}],
        "ports": [{"name": "http", "port": address.port(), "protocol": "TCP"}],
    })
}

/// The clients in the SD files that a configuration names, by the proxy that they are scraped
/// through.
pub fn clients_of(config: &str) -> BTreeMap<String, Vec<String>> {
    let config: serde_yaml::Value = serde_yaml::from_str(config).unwrap();
    let jobs = config
        .get("scrape_configs")
        .and_then(serde_yaml::Value::as_sequence);
    let mut clients = BTreeMap::new();
    for job in jobs.into_iter().flatten() {
        let Some(file) = job
            .get("file_sd_configs")
            .map(|sd| sd[0]["files"][0].as_str().unwrap())
        else {
            continue;
        };
        let Ok(text) = std::fs::read_to_string(file) else {
            continue;
        };
        let groups: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}: {text:?}"));
        let targets = groups
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["targets"].as_array().unwrap());
        let mut names: Vec<_> = targets
            .map(|target| target.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        let proxy = job["proxy_url"].as_str().unwrap();
        // Without scheme and user.
        let proxy = proxy.rsplit(['/', '@']).nth(1).unwrap_or_default();
        clients.insert(proxy.to_owned(), names);
    }
    clients
}
