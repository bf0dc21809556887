//! The examples under deploy/examples work as they stand, but for addresses and the place of files.

use std::fs;
use std::net::SocketAddr;

use pushprox_testkit::process::{command, run};
use pushprox_testkit::prometheus::Prometheus;
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::SOON;
use pushprox_testkit::wire;
use tempfile::TempDir;

use crate::secured::repository;

/// An example whose files lie in a folder of the test's.
struct Example {
    name: &'static str,
    folder: TempDir,
    target: Target,
    proxy: Proxy,
    /// The proxy's last listener, by which Prometheus comes in.
    inner: SocketAddr,
    _client: Client,
}

impl Example {
    /// Starts the proxy and a client of an example that lists as many addresses as `doors`.
    async fn start(name: &'static str, doors: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let example = repository("deploy/examples").join(name);
        for file in fs::read_dir(&example).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let mut certificates = command("sh");
        certificates
            .arg(repository("deploy/examples/certificates.sh"))
            .arg(folder.path())
            .args(["127.0.0.1", "node1.example.org", "node2.example.org"])
            .arg("prometheus.example.org");
        let made = run(certificates).await;
        assert_eq!(made.code, Some(0), "{made:?}");

        let mut proxy = binary("proxy");
        for flag in flags(&folder, name, "proxy.flags") {
            proxy.arg(
                flag.replace("127.0.0.1:8081", ":8080")
                    .replace(":8080", "127.0.0.1:0"),
            );
        }
        let mut proxy = Proxy::run(proxy).await;
        let listening = proxy.daemon.lines_with(&["msg=listening"]);
        assert!(listening.len() <= doors, "{listening:?}");
        let inner = match doors {
            1 => proxy.address,
            _ => {
                let line = proxy
                    .daemon
                    .line(&["msg=listening", "roles=scrapers"])
                    .await;
                let (_, address) = line.split_once("address=").unwrap();
                address.split(' ').next().unwrap().parse().unwrap()
            }
        };
        let target = Target::saying("example 1\n").await;
        let mut client = binary("client");
        client.args(client_flags(&folder, name, &proxy, &target));
        Self {
            name,
            folder,
            target,
            proxy,
            inner,
            _client: Client::run(client),
        }
    }

    /// Starts another client with this one's credentials.
    fn client_named(&self, node: &str) -> Client {
        let mut command = binary("client");
        for flag in client_flags(&self.folder, self.name, &self.proxy, &self.target) {
            match flag.starts_with("--fqdn") {
                true => command.arg(format!("--fqdn={node}.example.org")),
                false => command.arg(flag),
            };
        }
        Client::run(command)
    }

    async fn prometheus(&self) -> Prometheus {
        let file = repository("deploy/examples")
            .join(self.name)
            .join("prometheus.yml");
        let text = fs::read_to_string(file).unwrap();
        let address = |address: SocketAddr| address.to_string();
        let text = text
            .replace("127.0.0.1:8081", &address(self.inner))
            .replace("proxy.example.org:8080", &address(self.proxy.address))
            .replace("/etc/pushprox", &self.folder.path().display().to_string())
            .replace("scrape_interval: 15s", "scrape_interval: 1s");
        Prometheus::start(&text).await
    }
}

fn flags(folder: &TempDir, name: &str, file: &str) -> Vec<String> {
    let file = repository("deploy/examples").join(name).join(file);
    let folder = folder.path().display().to_string();
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .filter(|line| line.starts_with("--"))
        .map(|line| line.replace("/etc/pushprox", &folder))
        .collect()
}

fn client_flags(folder: &TempDir, name: &str, proxy: &Proxy, target: &Target) -> Vec<String> {
    let address = proxy.address.to_string();
    let target = target.address().to_string();
    let mut flags = flags(folder, name, "client.flags");
    for flag in &mut flags {
        *flag = flag
            .replace("proxy.example.org:8080", &address)
            .replace("localhost:9100", &target);
    }
    flags.push("--metrics-addr=".to_owned());
    flags
}

async fn is_scraped(prometheus: &Prometheus) {
    let example = "example{instance=~'node1.example.org(:80)?'}";
    prometheus.sample(example, SOON, |value| value == 1.0).await;
}

#[tokio::test]
async fn two_doors() {
    let example = Example::start("1-two-doors", 2).await;
    is_scraped(&example.prometheus().await).await;
    let scrape = wire::scrape_request("http://node1.example.org/", 5.0, "");
    let refused = wire::ask(example.proxy.address, &scrape).await.unwrap();
    assert_eq!(refused.status(), 403, "not by the clients' door");
}

#[tokio::test]
async fn tokens() {
    let example = Example::start("2-tokens", 2).await;
    is_scraped(&example.prometheus().await).await;
    let mut other = example.client_named("node2");
    let why = "403 Forbidden: token ";
    other
        .daemon
        .line(&["poll failed", why, "may not register node2.example.org"])
        .await;
}

#[tokio::test]
async fn tls() {
    let example = Example::start("3-tls", 1).await;
    let prometheus = example.prometheus().await;
    is_scraped(&prometheus).await;
    let own = "up{job='pushprox'}";
    prometheus.sample(own, SOON, |up| up == 1.0).await;
    let mut other = example.client_named("node2");
    other
        .daemon
        .line(&["poll failed", "may not register node2.example.org"])
        .await;
}

#[tokio::test]
async fn mutual_tls() {
    let example = Example::start("4-mutual-tls", 1).await;
    let prometheus = example.prometheus().await;
    is_scraped(&prometheus).await;
    let own = "up{job='pushprox'}";
    prometheus.sample(own, SOON, |up| up == 1.0).await;
    let mut other = example.client_named("node2");
    let why = "403 Forbidden: node1.example.org may not register node2.example.org";
    other.daemon.line(&["poll failed", why]).await;
}
