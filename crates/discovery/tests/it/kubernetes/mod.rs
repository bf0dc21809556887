//! Discovery against a real API server, with the rights that the manifests give it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bench::{Bench, Discovery, slice};
use crate::support::roster::Roster;
use cluster::Cluster;

mod cluster;

#[tokio::test]
async fn the_manifests_are_taken_and_their_rights_are_enough() {
    let (cluster, bench) = manifests_applied().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    cluster.apply(&proxy_slice(one.address(), true)).await;
    let discovery = start(&cluster, &bench).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;

    cluster.apply(&proxy_slice(two.address(), true)).await;
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    cluster.apply(&proxy_slice(one.address(), false)).await;
    bench.clients_are(&[(two.address(), &["b"])]).await;
    let name = proxy_slice(two.address(), true)["metadata"]["name"].to_string();
    cluster
        .kubectl(
            &[
                "-n",
                "monitoring",
                "delete",
                "endpointslice",
                name.trim_matches('"'),
            ],
            "",
        )
        .await;
    bench.clients_are(&[]).await;
    discovery.stop().await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_has_forgotten_all_history_is_followed_again() {
    let (mut cluster, bench) = manifests_applied().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    cluster.apply(&proxy_slice(one.address(), true)).await;
    let mut discovery = start(&cluster, &bench).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;

    cluster.go_away().await;
    discovery
        .daemon
        .line(&["level=warn", "the Kubernetes API fails"])
        .await;
    one.lists(&["a", "c"]);
    bench.clients_are(&[(one.address(), &["a", "c"])]).await;
    cluster.compact().await;
    cluster.come_back().await;
    cluster.apply(&proxy_slice(two.address(), true)).await;
    bench
        .clients_are(&[(one.address(), &["a", "c"]), (two.address(), &["b"])])
        .await;
    discovery.stop().await;
}

#[tokio::test]
async fn a_missing_right_is_named_and_used_once_it_is_there() {
    let cluster = Cluster::start().await;
    cluster.know_slices().await;
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    cluster
        .kubectl(&["create", "namespace", "monitoring"], "")
        .await;
    cluster.apply(&proxy_slice(one.address(), true)).await;
    let mut discovery = start(&cluster, &bench).await;
    let line = discovery
        .daemon
        .line(&["level=warn", "endpointslices"])
        .await;
    assert!(
        line.contains("list") && line.contains("monitoring"),
        "{line}"
    );
    let rights = deploy("rbac.yaml");
    cluster.kubectl(&["apply", "-f", &rights], "").await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery.stop().await;
}

#[tokio::test]
async fn where_slices_do_not_exist_endpoints_serve() {
    let cluster = Cluster::start().await;
    let bench = Bench::new().await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "pushprox-discovery", "namespace": "monitoring"},
        "rules": [{"apiGroups": [""], "resources": ["endpoints"], "verbs": ["list", "watch"]}],
    });
    cluster
        .kubectl(&["create", "namespace", "monitoring"], "")
        .await;
    let rights = deploy("rbac.yaml");
    cluster.kubectl(&["apply", "-f", &rights], "").await;
    cluster.apply(&role).await;
    let endpoints = |addresses: &[&str]| {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "pushprox-proxy", "namespace": "monitoring", "labels": {"app": "pushprox-proxy"}},
            "subsets": [{"addresses": addresses, "ports": [{"name": "http", "port": 8080}]}],
        })
    };
    cluster.apply(&endpoints(&["192.0.2.1"])).await;
    let mut discovery = start(&cluster, &bench).await;
    discovery.daemon.line(&["Endpoints"]).await;
    discovery.metric_is("proxies", |value| value == 1.0).await;
    cluster.apply(&endpoints(&["192.0.2.1", "192.0.2.2"])).await;
    discovery.metric_is("proxies", |value| value == 2.0).await;
    discovery.stop().await;
}

/// A cluster that has taken the manifests of this repository, and a bench for discovery.
async fn manifests_applied() -> (Cluster, Bench) {
    let cluster = Cluster::start().await;
    cluster.know_slices().await;
    cluster.kubectl(&["apply", "-k", &deploy("")], "").await;
    let found = cluster
        .kubectl(
            &[
                "-n",
                "monitoring",
                "get",
                "deployments,statefulsets,services",
                "-o",
                "name",
            ],
            "",
        )
        .await;
    for object in [
        "deployment.apps/pushprox-proxy",
        "statefulset.apps/prometheus",
        "service/pushprox-proxy",
    ] {
        assert!(found.contains(object), "{found}");
    }
    (cluster, Bench::new().await)
}

async fn start(cluster: &Cluster, bench: &Bench) -> Discovery {
    // As the manifests start it.
    let flags = [
        "-namespace=monitoring",
        "-labelname=app",
        "-labelvalue=pushprox-proxy",
    ];
    let kubeconfig = cluster.flag();
    bench.start(&[&flags[..], &[&kubeconfig]].concat()).await
}

/// What the cluster would say of one proxy.
fn proxy_slice(address: SocketAddr, is_ready: bool) -> Value {
    let mut slice = slice("pushprox-proxy", address, is_ready);
    slice["apiVersion"] = "discovery.k8s.io/v1".into();
    slice["kind"] = "EndpointSlice".into();
    slice["metadata"]["name"] = format!("pushprox-proxy-{}", address.port()).into();
    slice["metadata"]["namespace"] = "monitoring".into();
    slice["metadata"]["labels"]["app"] = "pushprox-proxy".into();
    slice
}

fn deploy(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes");
    folder.join(file).display().to_string()
}
