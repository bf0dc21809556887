//! A real API server, with etcd behind it and nothing around it: there are no controllers, so a test
//! writes the slices that a cluster would have.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use pushprox_testkit::process::{Daemon, command};
use pushprox_testkit::wait::{free_port, until};
use pushprox_testkit::wire;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::support::tls::Authority;

/// A running API server.
pub struct Cluster {
    folder: TempDir,
    server: Daemon,
    /// Kept for its process.
    _etcd: Daemon,
    address: SocketAddr,
    etcd_address: SocketAddr,
}

impl Cluster {
    /// Starts one that takes [`ADMIN`] and [`PROMETHEUS`] as tokens.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [address, etcd_address, peers] =
            [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let etcd = start_etcd(&folder, etcd_address, peers);
        let authority = Authority::new();
        let signed = authority.sign("127.0.0.1");
        let account = rcgen::KeyPair::generate().unwrap();
        for (name, text) in [
            ("ca.crt", authority.pem()),
            ("tls.crt", signed.certificate.pem()),
            ("tls.key", signed.key.serialize_pem()),
            ("account.key", account.serialize_pem()),
            ("account.pub", account.public_key_pem()),
            (
                "tokens.csv",
                format!(
                    "{ADMIN},admin,1,system:masters\n{PROMETHEUS},system:serviceaccount:monitoring:prometheus,2\n"
                ),
            ),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut cluster = Self {
            server: start_server(&folder, address, etcd_address),
            folder,
            _etcd: etcd,
            address,
            etcd_address,
        };
        cluster.write_kubeconfig("admin", ADMIN);
        cluster.write_kubeconfig("prometheus", PROMETHEUS);
        cluster.serves().await;
        cluster
    }

    /// The flag for discovery to look here, as Prometheus's service account.
    pub fn flag(&self) -> String {
        format!("--kubeconfig={}", self.path("prometheus"))
    }

    /// The API server is killed.
    pub async fn go_away(&mut self) {
        self.server.kill();
        self.server.ended(START).await;
    }

    /// The API server is started again. It knows what it knew.
    pub async fn come_back(&mut self) {
        self.server = start_server(&self.folder, self.address, self.etcd_address);
        self.serves().await;
    }

    /// All history is forgotten: a watch from an older version has expired.
    pub async fn compact(&self) {
        let ask = async |path: &str, body: Value| -> Value {
            let body = body.to_string();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let answer = wire::ask(self.etcd_address, request.as_bytes())
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text());
            serde_json::from_slice(&answer.body).unwrap()
        };
        let status = ask("/v3/maintenance/status", json!({})).await;
        let revision = &status["header"]["revision"];
        ask(
            "/v3/kv/compaction",
            json!({"revision": revision, "physical": true}),
        )
        .await;
    }

    /// Applies an object.
    pub async fn apply(&self, object: &Value) {
        // By the server, since kubectl would patch slices in a way that an old server does not know for them.
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl(&arguments, &object.to_string()).await;
    }

    /// Runs `kubectl` as one who may do everything.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let (is_done, output) = self.try_kubectl(arguments, input).await;
        assert!(is_done, "kubectl {arguments:?} {input}: {output}");
        output
    }

    async fn try_kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut command = command("kubectl");
        command
            .env("HOME", self.folder.path())
            .arg(format!("--kubeconfig={}", self.path("admin")))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Makes EndpointSlices known where the API server is too old to have them in the version that
    /// discovery asks for.
    pub async fn know_slices(&self) {
        let object = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        self.apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": "endpointslices.discovery.k8s.io",
                "annotations": {"api-approved.kubernetes.io": "unapproved, as in newer servers"},
            },
            "spec": {
                "group": "discovery.k8s.io",
                "scope": "Namespaced",
                "names": {"kind": "EndpointSlice", "plural": "endpointslices", "singular": "endpointslice"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": object}}],
            },
        }))
        .await;
        until("slices are served", START, async || {
            self.try_kubectl(&["get", "endpointslices", "-A"], "")
                .await
                .0
                .then_some(())
        })
        .await;
    }

    async fn serves(&mut self) {
        until("the API server is ready", START, async || {
            assert!(self.server.runs(), "the API server does not start");
            self.try_kubectl(&["get", "--raw", "/readyz"], "")
                .await
                .0
                .then_some(())
        })
        .await;
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write_kubeconfig(&self, name: &str, token: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": "ca.crt",
            }}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(self.path(name), config.to_string()).unwrap();
    }
}

fn start_etcd(folder: &TempDir, address: SocketAddr, peers: SocketAddr) -> Daemon {
    let mut etcd = command("etcd");
    etcd.arg(format!(
        "--data-dir={}",
        folder.path().join("etcd").display()
    ))
    .arg(format!("--listen-client-urls=http://{address}"))
    .arg(format!("--advertise-client-urls=http://{address}"))
    .arg(format!("--listen-peer-urls=http://{peers}"))
    .arg(format!("--initial-advertise-peer-urls=http://{peers}"))
    .arg(format!("--initial-cluster=default=http://{peers}"))
    .arg("--unsafe-no-fsync");
    Daemon::start("etcd", etcd)
}

fn start_server(folder: &TempDir, address: SocketAddr, etcd: SocketAddr) -> Daemon {
    let program = std::env::var_os("KUBE_APISERVER");
    let mut server = command(program.expect("make test-kubernetes says where the API server is"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    server
        .arg(format!("--etcd-servers=http://{etcd}"))
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--secure-port={}", address.port()))
        .arg(format!("--tls-cert-file={}", path("tls.crt")))
        .arg(format!("--tls-private-key-file={}", path("tls.key")))
        .arg(format!("--cert-dir={}", path("certificates")))
        .arg(format!("--token-auth-file={}", path("tokens.csv")))
        .arg("--authorization-mode=RBAC")
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!(
            "--service-account-key-file={}",
            path("account.pub")
        ))
        .arg(format!(
            "--service-account-signing-key-file={}",
            path("account.key")
        ))
        .arg("--service-cluster-ip-range=10.0.0.0/24")
        // Slices of this version are not those that discovery asks for; the name is free then.
        .arg("--runtime-config=discovery.k8s.io/v1beta1=false");
    Daemon::start("kube-apiserver", server)
}

/// The token of one who may do everything.
const ADMIN: &str = "admin-token";

/// The token of the service account that the manifests give to Prometheus.
const PROMETHEUS: &str = "prometheus-token";

/// What the API server takes to start, on a machine that is busy.
const START: Duration = Duration::from_secs(120);
