//! nginx before the proxy, with the limits that it has by default.

use std::time::Duration;

use pushprox_testkit::nginx::Nginx;
use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::idle;

#[tokio::test]
async fn two_idle_minutes_behind_nginx_lose_no_scrape_and_log_no_error() {
    let exporter = NodeExporter::start().await;
    let proxy = Proxy::start(&[]).await;
    let nginx = Nginx::start(proxy.address).await;
    let url = format!("http://{}/", nginx.address);
    let client = Client::start(&url, &exporter.url(), "node.test", &[]);
    proxy.registered("node.test").await;
    let scrape = async || {
        let answer = proxy.scrape("http://node.test:9100/metrics", 10.0).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.text().contains("node_cpu_seconds_total"));
    };
    scrape().await;

    // Past nginx's 60 s for an upstream that says nothing, twice.
    idle(Duration::from_secs(121)).await;
    for _ in 0..10 {
        scrape().await;
    }

    // What is larger than its 16 KiB it writes to a file by default, and says so each time.
    let errors = nginx.errors();
    let mut errors = errors
        .lines()
        .filter(|line| !line.contains("is buffered to a temporary file"));
    assert_eq!(errors.next(), None);
    let trouble = ["level=warn", "level=error"];
    assert_eq!(proxy.daemon.lines_with(&trouble), [""; 0]);
    assert_eq!(client.daemon.lines_with(&trouble), [""; 0]);
    let accesses = nginx.accesses();
    let ended = |status: &str| {
        let polls = accesses.iter().filter(|line| line.contains("/poll"));
        polls.filter(|line| line.contains(status)).count()
    };
    assert!(
        ended("\" 204 ") >= 2,
        "the polls of two minutes: {accesses:?}"
    );
    assert_eq!(ended("\" 50"), 0, "{accesses:?}");
}

#[tokio::test]
async fn a_proxy_url_may_have_a_prefix() {
    let target = Target::saying("behind a prefix").await;
    let proxy = Proxy::start(&[]).await;
    let nginx = Nginx::start(proxy.address).await;
    for (name, prefix) in [("slash.test", "prefix/"), ("bare.test", "prefix")] {
        let url = format!("http://{}/{prefix}", nginx.address);
        let _client = Client::start(&url, &target.url("/"), name, &[]);
        proxy.registered(name).await;
        let answer = proxy.scrape(&format!("http://{name}/metrics"), 10.0).await;
        assert_eq!(answer.text(), "behind a prefix", "{answer:?}");
    }
}
