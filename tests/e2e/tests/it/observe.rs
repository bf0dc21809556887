//! What proxy and client tell about themselves: metrics and log.

use pushprox_testkit::process::{Daemon, command, run};
use pushprox_testkit::pushprox::{Client, Proxy, binary, metric};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, free_port, until};
use pushprox_testkit::wire::{Message, ask, get, scrape_request};

#[tokio::test]
async fn metrics_have_the_names_of_upstream_and_count() {
    let target = Target::saying("").await;
    let proxy = Proxy::start(&[]).await;
    let address = ([127, 0, 0, 1], free_port()).into();
    let mut command = binary("client");
    command
        .arg(format!("--proxy-url={}", proxy.url()))
        .arg(format!("--pull-url={}", target.url("/")))
        .arg("--fqdn=counted.test")
        .arg(format!("--metrics-addr={address}"));
    let _client = Client::run(command);
    proxy.registered("counted.test").await;
    assert_eq!(
        proxy.scrape("http://counted.test/", 5.0).await.status(),
        200
    );
    assert_eq!(proxy.scrape("http://absent.test/", 0.5).await.status(), 503);

    for (line, least) in [
        (
            "pushprox_http_requests_total{code=\"200\",path=\"/push\"}",
            1.0,
        ),
        (
            "pushprox_http_requests_total{code=\"200\",path=\"/poll\"}",
            1.0,
        ),
        ("pushproxy_proxied_requests_total{code=\"200\"}", 1.0),
        ("pushproxy_proxied_requests_total{code=\"503\"}", 1.0),
        ("pushprox_http_duration_seconds_count{path=\"/push\"}", 1.0),
        ("pushprox_proxy_clients", 1.0),
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 5.0),
        ("process_start_time_seconds", 1e9),
    ] {
        // A request is counted when its answer has gone out, which is a moment after it has come
        // in.
        until(&format!("{line} at {least} or more"), SOON, async || {
            proxy.metric(line).await.filter(|value| *value >= least)
        })
        .await;
    }
    let own = get(address, "/metrics").await;
    for line in [
        "pushprox_client_scrape_errors_total",
        "pushprox_client_push_errors_total",
        "pushprox_client_poll_errors_total",
    ] {
        assert_eq!(
            metric(&own.text(), line),
            Some(0.0),
            "{line}:\n{}",
            own.text()
        );
    }
    for metrics in [get(proxy.address, "/metrics").await, own] {
        assert!(
            metrics.text().contains("_build_info{"),
            "{}",
            metrics.text()
        );
        assert_accepted_by_prometheus(&metrics).await;
    }
}

#[tokio::test]
async fn a_healthy_scrape_is_a_debug_line_and_an_unhealthy_one_a_warning() {
    let target = Target::saying("").await;
    let mut proxy = Proxy::start(&["--log.level=debug"]).await;
    let flags = ["--log.level=debug"];
    let mut client = Client::start(&proxy.url(), &target.url("/"), "logged.test", &flags);
    proxy.registered("logged.test").await;
    proxy.scrape("http://logged.test/", 5.0).await;
    let parts = ["level=debug", "scrape_id=", "fqdn=logged.test", "duration"];
    proxy.daemon.line(&parts).await;
    client.daemon.line(&parts).await;
    assert_eq!(proxy.daemon.lines_with(&["level=warn"]), [""; 0]);

    proxy.scrape("http://absent.test/", 0.5).await;
    let line = proxy
        .daemon
        .line(&["level=warn", "absent.test", "duration"])
        .await;
    assert!(line.contains("no client registered"), "{line}");
}

#[tokio::test]
async fn credentials_in_urls_are_never_logged() {
    let target = Target::start(|_, _| async { None }).await;
    let mut proxy = Proxy::start(&["--log.level=debug"]).await;
    let [proxy_url, pull_url] = [proxy.address, target.address()]
        .map(|address| format!("http://user:hush%20hush@{address}/"));
    let mut client = Client::start(&proxy_url, &pull_url, "quiet.test", &["--log.level=debug"]);
    proxy.registered("quiet.test").await;
    let request = scrape_request(
        "http://quiet.test/",
        5.0,
        "Authorization: Basic aHVzaA==\r\nProxy-Authorization: Basic aHVzaA==\r\n",
    );
    let answer = ask(proxy.address, &request).await.unwrap();
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert!(!format!("{answer:?}").contains("hush"), "{answer:?}");

    proxy.daemon.terminate();
    proxy.daemon.ended(SOON).await;
    client.daemon.line(&["level=warn", "poll"]).await;
    for daemon in [&proxy.daemon, &client.daemon] {
        let secrets = daemon.lines_with(&["hush", "aHVzaA", "aHVzaCBodXNo"]);
        assert_eq!(secrets, [""; 0]);
    }
}

#[tokio::test]
async fn json_logs_are_json() {
    let mut command = binary("proxy");
    command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]);
    let mut daemon = Daemon::start("proxy", command);
    let line = daemon.line(&["listening"]).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "info");
    assert!(
        line["address"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
}

/// Debian's Prometheus comes with a tool that tells whether Prometheus would take them.
async fn assert_accepted_by_prometheus(metrics: &Message) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &metrics.body).unwrap();
    let mut promtool = command("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(file.reopen().unwrap());
    let outcome = run(promtool).await;
    assert_eq!(
        outcome.code,
        Some(0),
        "{}{}",
        outcome.stderr,
        metrics.text()
    );
}
