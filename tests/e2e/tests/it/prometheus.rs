//! Prometheus scrapes through proxy and client as it would scrape directly.

use std::time::Duration;

use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::prometheus::Prometheus;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};

#[tokio::test]
async fn node_exporter_is_up_and_the_targets_page_tells_why_when_it_is_not() {
    let exporter = NodeExporter::start().await;
    let proxy = Proxy::start(&["--registration.timeout=20s"]).await;
    let mut client = Client::start(&proxy.url(), &exporter.url(), "node.test", &[]);
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
  - job_name: node
    proxy_url: {}
    static_configs: [{{targets: ['node.test:9100']}}]
",
        proxy.url()
    ))
    .await;

    let up = prometheus.sample("up", SOON, |up| up == 1.0).await;
    assert_eq!(up.labels["instance"], "node.test:9100");
    assert_eq!(up.labels["job"], "node");
    let cpus = prometheus
        .sample("count(node_cpu_seconds_total)", SOON, |count| count > 0.0)
        .await;
    assert_eq!(
        cpus.value % 8.0,
        0.0,
        "eight modes for each processor: {cpus:?}"
    );

    client.daemon.terminate();
    assert_eq!(client.daemon.ended(SOON).await.code(), Some(0));
    let polled = "client node.test has not polled for";
    prometheus.last_error("node", polled, SOON).await;
    prometheus.sample("up", SOON, |up| up == 0.0).await;
    let registered = "no client registered for node.test";
    prometheus.last_error("node", registered, SOON).await;
}

#[tokio::test]
async fn parameters_and_credentials_reach_the_target_and_only_those_meant_for_it() {
    let target = Target::saying("secured 1\n").await;
    let proxy = Proxy::start(&[]).await;
    let pull_url = target.url("/metrics?fixed=here");
    let client = Client::start(&proxy.url(), &pull_url, "target.test", &[]);
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
  - job_name: secured
    proxy_url: http://through:gate@{}/
    metrics_path: /elsewhere
    params: {{'collect[]': [cpu, 'mem info'], fixed: [overridden]}}
    basic_auth: {{username: user, password: pass}}
    static_configs: [{{targets: ['target.test:9100']}}]
",
        proxy.address
    ))
    .await;
    prometheus
        .sample("secured", SOON, |value| value == 1.0)
        .await;

    let request = target.requests().pop().unwrap();
    assert_eq!(
        request.uri(),
        "/metrics?fixed=here&collect%5B%5D=cpu&collect%5B%5D=mem+info",
        "the path and the fixed parameter are the pull URL's"
    );
    let header = |name| request.header(name);
    assert_eq!(header("Authorization"), Some("Basic dXNlcjpwYXNz"));
    assert_eq!(header("Host"), Some(target.address().to_string().as_str()));
    assert_eq!(header("Accept-Encoding"), Some("gzip"));
    let seconds = header("X-Prometheus-Scrape-Timeout-Seconds").unwrap();
    let seconds: f64 = seconds.parse().unwrap();
    assert!(seconds > 0.0 && seconds < 2.0, "{seconds} s are left");
    for name in [
        "Id",
        "Proxy-Authorization",
        "X-Prometheus-Scrape-Timeout",
        "X-Prom-Pull-Token",
    ] {
        assert_eq!(header(name), None, "{name} is not for the target");
    }
    drop(client);
}

#[tokio::test]
async fn registered_clients_are_found_by_http_service_discovery() {
    let target = Target::saying("found 1\n").await;
    let proxy = Proxy::start(&[]).await;
    let client = Client::start(&proxy.url(), &target.url("/metrics"), "found.test", &[]);
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
  - job_name: found
    proxy_url: {url}
    http_sd_configs: [{{url: '{url}clients', refresh_interval: 1s}}]
",
        url = proxy.url()
    ))
    .await;

    // For its first 15 s the proxy does not say who is there, as some may still be coming back.
    let limit = Duration::from_secs(15) + SOON;
    let up = prometheus.sample("up", limit, |up| up == 1.0).await;
    assert_eq!(up.labels["instance"], "found.test:80");
    drop(client);
}

#[tokio::test]
async fn scheme_https_is_explained_on_the_targets_page() {
    let proxy = Proxy::start(&[]).await;
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: tunnel
    scheme: https
    proxy_url: {}
    static_configs: [{{targets: ['node.test:9100']}}]
",
        proxy.url()
    ))
    .await;
    prometheus
        .last_error("tunnel", "use scheme http", SOON)
        .await;
}

#[tokio::test]
async fn two_servers_at_once_lose_no_scrape() {
    let exporter = NodeExporter::start().await;
    let proxy = Proxy::start(&[]).await;
    let client = Client::start(&proxy.url(), &exporter.url(), "node.test", &[]);
    proxy.registered("node.test").await;
    // Many targets that are one, and time for each that a machine has when it stands still.
    let targets: Vec<String> = (9_100..9_110)
        .map(|port| format!("'node.test:{port}'"))
        .collect();
    let configuration = format!(
        "global: {{scrape_interval: 10s, scrape_timeout: 10s}}
scrape_configs:
  - job_name: node
    proxy_url: {}
    static_configs: [{{targets: [{}]}}]
",
        proxy.url(),
        targets.join(", ")
    );
    let [first, second] = [
        Prometheus::start(&configuration).await,
        Prometheus::start(&configuration).await,
    ];
    for prometheus in [&first, &second] {
        let scrapes = "sum(count_over_time(up[1h]))";
        prometheus
            .sample(scrapes, SOON, |count| count >= 20.0)
            .await;
        let worst = "min(min_over_time(up[1h]))";
        let worst = prometheus.sample(worst, SOON, |_| true).await;
        assert_eq!(worst.value, 1.0, "a scrape was lost");
    }
    until("no scrape left behind", SOON, async || {
        let waiting = proxy.daemon.lines_with(&["level=warn", "level=error"]);
        assert!(waiting.is_empty(), "{waiting:?}");
        Some(())
    })
    .await;
    drop(client);
}
