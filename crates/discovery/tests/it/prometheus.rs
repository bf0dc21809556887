//! Real proxies, real clients and a real Prometheus.

use std::time::Duration;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{free_port, idle, until};

use crate::support::api::SLICES;
use crate::support::bench::{Bench, SOON};
use crate::support::server::Server;

const BASE: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n";

/// The first configuration is written before there is a Prometheus, as an init container does.
async fn prometheus_of(bench: &Bench, flags: &[&str]) -> Server {
    prometheus_at("127.0.0.1:0", bench, flags).await
}

async fn prometheus_at(address: &str, bench: &Bench, flags: &[&str]) -> Server {
    bench.write("base", BASE);
    let outcome = bench.once(&[&["-reloadurl="], flags].concat()).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    Server::start_at(bench, address).await
}

/// The name of the slice of a proxy.
fn slice_name(proxy: &Proxy) -> String {
    format!("web-{}", proxy.address.port())
}

#[tokio::test]
async fn clients_and_proxies_come_and_go_and_the_api_goes_away() {
    let mut bench = Bench::new().await;
    let exporter = Target::saying("metric 1\n").await;
    let pull = exporter.url("/metrics");
    let prometheus = prometheus_of(&bench, &[]).await;
    let discovery = bench.start(&[&prometheus.flag()]).await;
    let (one, two) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    bench.service("web", &[(one.address, true)]);
    let _a = Client::start(&one.url(), &pull, "a", &[]);
    let _both = Client::start(&one.url(), &pull, "both:9100", &[]);
    prometheus
        .targets_are(&[("web", "a:80", "up"), ("web", "both:9100", "up")])
        .await;

    // The same client at a second proxy: it appears once, and stays where it is.
    bench.service("web", &[(two.address, true)]);
    let _both_too = Client::start(&two.url(), &pull, "both:9100", &[]);
    let _b = Client::start(&two.url(), &pull, "b", &[]);
    prometheus
        .targets_are(&[
            ("web", "a:80", "up"),
            ("web", "b:80", "up"),
            ("web", "both:9100", "up"),
        ])
        .await;

    // The API is away for a minute: nothing changes, clients still come.
    bench.api.go_away().await;
    let _c = Client::start(&two.url(), &pull, "c", &[]);
    let all = [
        ("web", "a:80", "up"),
        ("web", "b:80", "up"),
        ("web", "both:9100", "up"),
        ("web", "c:80", "up"),
    ];
    prometheus.targets_are(&all).await;
    idle(Duration::from_secs(60)).await;
    prometheus.targets_are(&all).await;

    // Meanwhile a proxy was killed, and its pod is gone.
    one.daemon.kill();
    prometheus
        .targets_are(&[
            ("web", "a:80", "down"),
            ("web", "b:80", "up"),
            ("web", "both:9100", "down"),
            ("web", "c:80", "up"),
        ])
        .await;
    bench.api.delete(SLICES, "demo", &slice_name(&one));
    bench.api.come_back().await;
    prometheus
        .targets_are(&[
            ("web", "b:80", "up"),
            ("web", "both:9100", "up"),
            ("web", "c:80", "up"),
        ])
        .await;
    assert!(!prometheus.config().await.contains(&one.address.to_string()));
    discovery.stop().await;
    prometheus
        .targets_are(&[
            ("web", "b:80", "up"),
            ("web", "both:9100", "up"),
            ("web", "c:80", "up"),
        ])
        .await;
}

#[tokio::test]
async fn prometheus_refuses_is_restarted_and_has_the_right_targets_in_the_end() {
    let bench = Bench::new().await;
    let exporter = Target::saying("metric 1\n").await;
    let pull = exporter.url("/metrics");
    let (one, two) = (Proxy::start(&[]).await, Proxy::start(&[]).await);
    let _a = Client::start(&one.url(), &pull, "a", &[]);
    let _b = Client::start(&two.url(), &pull, "b", &[]);
    bench.service("web", &[(one.address, true)]);
    // A port that nobody else is given while Prometheus is away.
    let address = format!("127.0.0.1:{}", free_port());
    let mut prometheus = prometheus_at(&address, &bench, &[]).await;
    let mut discovery = bench.start(&[&prometheus.flag()]).await;
    prometheus.targets_are(&[("web", "a:80", "up")]).await;
    discovery.has_published().await;

    // Valid YAML that no Prometheus takes.
    bench.write("base", "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n- job_name: x\n  scheme: [1]\n");
    discovery
        .daemon
        .line(&[
            "level=error",
            "Prometheus refuses the configuration",
            "failed to reload config",
        ])
        .await;
    discovery
        .daemon
        .line(&["the last good configuration is put back"])
        .await;
    until("put back", SOON, async || {
        let config = std::fs::read_to_string(bench.target()).unwrap();
        (!config.contains("scheme: [1]")).then_some(())
    })
    .await;
    prometheus.targets_are(&[("web", "a:80", "up")]).await;
    bench.service("web", &[(two.address, true)]);
    prometheus
        .targets_are(&[("web", "a:80", "up"), ("web", "b:80", "up")])
        .await;

    // Prometheus is restarted with the operator's mistake still there: it starts.
    prometheus.daemon.terminate();
    prometheus.daemon.ended(SOON).await;
    let prometheus = Server::start_at(&bench, &address).await;
    prometheus
        .targets_are(&[("web", "a:80", "up"), ("web", "b:80", "up")])
        .await;
    bench.write("base", &format!("# mended\n{BASE}"));
    until("the mended base", SOON, async || {
        std::fs::read_to_string(bench.target())
            .unwrap()
            .contains("# mended")
            .then_some(())
    })
    .await;
    prometheus
        .targets_are(&[("web", "a:80", "up"), ("web", "b:80", "up")])
        .await;
}

#[tokio::test]
async fn labels_and_settings_reach_prometheus_in_both_modes() {
    for mode in ["--mode=config", "--mode=http-sd"] {
        let bench = Bench::new().await;
        let exporter = Target::saying("metric 1\n").await;
        let proxy = Proxy::start(&[]).await;
        let _a = Client::start(&proxy.url(), &exporter.url("/metrics"), "a:9100", &[]);
        bench.service("web", &[(proxy.address, true)]);
        bench.write(
            "template",
            "metrics_path: /mine\nrelabel_configs:\n\
             - {source_labels: [__meta_pushprox_namespace, __meta_pushprox_service, __meta_pushprox_proxy], target_label: from}\n",
        );
        let template = format!("--job-template={}", bench.path().join("template").display());
        let prometheus = prometheus_of(&bench, &[mode, &template]).await;
        let _discovery = bench.start(&[mode, &template, &prometheus.flag()]).await;
        prometheus.targets_are(&[("web", "a:9100", "up")]).await;
        let target = &prometheus.targets().await[0];
        assert_eq!(
            target["labels"]["from"],
            format!("demo;web;{}", proxy.address)
        );
        assert_eq!(target["scrapeUrl"], "http://a:9100/mine");
        let pool = format!("pushprox/demo/web/{}", proxy.address);
        assert_eq!(target["scrapePool"], pool);
    }
}

#[tokio::test]
async fn a_label_job_that_a_proxy_gives_is_kept() {
    let bench = Bench::new().await;
    let roster = crate::support::roster::Roster::of(&[]).await;
    roster.says(
        r#"[{"targets":["a"],"labels":{"job":"theirs","room":"x: \"y\" # é"}},{"targets":["b"]}]"#,
    );
    bench.service("web", &[(roster.address(), true)]);
    let prometheus = prometheus_of(&bench, &[]).await;
    until("both targets", SOON, async || {
        let targets = prometheus.targets().await;
        let mut labels: Vec<_> = targets
            .iter()
            .map(|target| target["labels"].clone())
            .collect();
        labels.sort_by_key(|labels| labels["instance"].to_string());
        let wanted = [
            serde_json::json!({"instance": "a:80", "job": "theirs", "room": "x: \"y\" # é"}),
            serde_json::json!({"instance": "b:80", "job": "web"}),
        ];
        (labels == wanted).then_some(())
    })
    .await;
}
