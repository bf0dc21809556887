//! Clients and proxies come and go.

use pushprox_testkit::wait::{idle, until};
use std::time::Duration;

use crate::support::api::{ENDPOINTS, SLICES};
use crate::support::bench::{Bench, SOON, slice};
use crate::support::roster::Roster;

#[tokio::test]
async fn clients_come_and_go() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a", "b:9100"]).await;
    bench.service("web", &[(proxy.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench
        .clients_are(&[(proxy.address(), &["a", "b:9100"])])
        .await;
    let request = &proxy.requests()[0];
    assert_eq!(request.uri(), "/clients");
    assert_eq!(
        request.header("X-Prometheus-Refresh-Interval-Seconds"),
        Some("1")
    );

    proxy.lists(&["a", "b:9100", "c"]);
    bench
        .clients_are(&[(proxy.address(), &["a", "b:9100", "c"])])
        .await;
    discovery
        .metric_is("clients", |clients| clients == 3.0)
        .await;
    assert_eq!(bench.reloads.seen().len(), 1, "SD files need no reload");
    discovery.is_ready().await;
    discovery.stop().await;
}

#[tokio::test]
async fn proxies_come_and_go() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    let discovery = bench.start(&[]).await;
    discovery.has_published().await;
    assert!(bench.clients().is_empty());

    bench.service("web", &[(one.address(), true), (two.address(), false)]);
    bench.clients_are(&[(one.address(), &["a"])]).await;
    bench.service("web", &[(two.address(), true)]);
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    assert_eq!(bench.sd_files().len(), 2);
    bench.service("web", &[(one.address(), false)]);
    bench.clients_are(&[(two.address(), &["b"])]).await;
    until("its SD file removed", SOON, async || {
        (bench.sd_files().len() == 1).then_some(())
    })
    .await;
    bench
        .api
        .delete(SLICES, "demo", &format!("web-{}", two.address().port()));
    bench.clients_are(&[]).await;
    discovery
        .metric_is("proxies", |proxies| proxies == 0.0)
        .await;
}

#[tokio::test]
async fn services_that_do_not_match_are_left_alone() {
    let bench = Bench::new().await;
    let (one, two, three) = (
        Roster::of(&["a"]).await,
        Roster::of(&["b"]).await,
        Roster::of(&["c"]).await,
    );
    bench.service("web", &[(one.address(), true)]);
    let mut other = slice("other", two.address(), true);
    other["metadata"]["labels"]["app"] = "other".into();
    bench.api.apply(SLICES, "demo", "other", other.clone());
    bench.api.apply(
        SLICES,
        "elsewhere",
        "web",
        slice("web", three.address(), true),
    );
    let _discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    // Relabelled into the selection, and out of it.
    other["metadata"]["labels"]["app"] = "pushprox".into();
    bench.api.apply(SLICES, "demo", "other", other.clone());
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    other["metadata"]["labels"]["app"] = "other".into();
    bench.api.apply(SLICES, "demo", "other", other);
    bench.clients_are(&[(one.address(), &["a"])]).await;
    assert!(!two.requests().is_empty() && three.requests().is_empty());
}

#[tokio::test]
async fn all_namespaces_and_any_selector() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    bench.api.apply(
        SLICES,
        "elsewhere",
        "web",
        slice("web", two.address(), true),
    );
    let selector = "--label-selector=app=pushprox,kubernetes.io/service-name=web";
    let command = bench.bare_command(&[selector]);
    let _discovery = pushprox_testkit::process::Daemon::start("discovery", command);
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    assert!(
        bench
            .api
            .requests()
            .contains(&"list endpointslices *".to_owned())
    );
}

#[tokio::test]
async fn a_client_of_several_proxies_appears_once_and_moves_only_when_its_proxy_goes() {
    let bench = Bench::new().await;
    let (one, two) = (
        Roster::of(&["a", "only-one"]).await,
        Roster::of(&["a", "only-two"]).await,
    );
    bench.service("web", &[(one.address(), true)]);
    let first = bench.start(&[]).await;
    bench
        .clients_are(&[(one.address(), &["a", "only-one"])])
        .await;
    bench.service("web", &[(two.address(), true)]);
    bench
        .clients_are(&[
            (one.address(), &["a", "only-one"]),
            (two.address(), &["only-two"]),
        ])
        .await;
    // Another run knows where it was.
    first.stop().await;
    let second = bench.start(&[]).await;
    second.has_published().await;
    bench
        .clients_are(&[
            (one.address(), &["a", "only-one"]),
            (two.address(), &["only-two"]),
        ])
        .await;
    bench.service("web", &[(one.address(), false)]);
    bench
        .clients_are(&[(two.address(), &["a", "only-two"])])
        .await;
}

#[tokio::test]
async fn a_proxy_that_fails_keeps_its_last_good_answer_also_over_a_restart() {
    let bench = Bench::new().await;
    let (good, bad) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(good.address(), true), (bad.address(), true)]);
    let both: [(_, &[&str]); 2] = [(good.address(), &["a"]), (bad.address(), &["b"])];
    let discovery = bench.start(&[]).await;
    bench.clients_are(&both).await;
    for failure in ["503 Service Unavailable", "404 Not Found", "302 Found"] {
        bad.fails(failure);
        let asked = bad.requests().len();
        until("asked twice more", SOON, async || {
            (bad.requests().len() > asked + 1).then_some(())
        })
        .await;
        assert_eq!(bench.clients().len(), 2);
        assert_eq!(bench.clients()[&bad.address().to_string()], ["b"]);
    }
    for rubbish in ["<html>", "[{\"targets\":\"b\"}]", "{", ""] {
        bad.says(rubbish);
        let asked = bad.requests().len();
        until("asked twice more", SOON, async || {
            (bad.requests().len() > asked + 1).then_some(())
        })
        .await;
        assert_eq!(bench.clients()[&bad.address().to_string()], ["b"]);
    }
    discovery
        .metric_is("proxies_failing", |failing| failing == 1.0)
        .await;
    discovery.stop().await;
    bad.fails("503 Service Unavailable");
    let again = bench.start(&[]).await;
    again.has_published().await;
    bench.clients_are(&both).await;
    // Until it is gone from Kubernetes.
    bench
        .api
        .delete(SLICES, "demo", &format!("web-{}", bad.address().port()));
    bench.clients_are(&both[..1]).await;
}

#[tokio::test]
async fn a_proxy_that_is_gone_does_not_count_as_failing() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&[]).await;
    proxy.fails("503 Service Unavailable");
    bench.service("web", &[(proxy.address(), true)]);
    let discovery = bench.start(&[]).await;
    discovery
        .metric_is("proxies_failing", |failing| failing == 1.0)
        .await;
    bench
        .api
        .delete(SLICES, "demo", &format!("web-{}", proxy.address().port()));
    discovery
        .metric_is("proxies_failing", |failing| failing == 0.0)
        .await;
}

#[tokio::test]
async fn an_empty_answer_does_not_wipe_the_targets_until_it_has_lasted() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a"]).await;
    bench.service("web", &[(proxy.address(), true)]);
    let _discovery = bench.start(&[]).await;
    bench.clients_are(&[(proxy.address(), &["a"])]).await;
    // It was restarted, and its clients come back one by one.
    proxy.lists(&[]);
    let asked = proxy.requests().len();
    until("asked some more", SOON, async || {
        (proxy.requests().len() > asked + 2).then_some(())
    })
    .await;
    bench.clients_are(&[(proxy.address(), &["a"])]).await;
    proxy.lists(&["b"]);
    bench.clients_are(&[(proxy.address(), &["a", "b"])]).await;
    // Then it is believed.
    until("only b", Duration::from_secs(120), async || {
        (bench.clients()[&proxy.address().to_string()] == ["b"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_proxy_does_not_hold_the_others_up() {
    let bench = Bench::new().await;
    let (good, silent) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    silent.falls_silent();
    bench.service("web", &[(good.address(), true), (silent.address(), true)]);
    let _discovery = bench.start(&[]).await;
    bench
        .clients_are(&[(good.address(), &["a"]), (silent.address(), &[])])
        .await;
    let late = Roster::of(&["c"]).await;
    bench.service("web", &[(late.address(), true)]);
    bench
        .clients_are(&[
            (good.address(), &["a"]),
            (silent.address(), &[]),
            (late.address(), &["c"]),
        ])
        .await;
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a"]).await;
    proxy.says(&format!(
        "[{}{{\"targets\":[\"b\"]}}]",
        " ".repeat(9_000_000)
    ));
    bench.service("web", &[(proxy.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    discovery.daemon.line(&["level=warn", "longer than"]).await;
    assert!(discovery.daemon.peak_memory() < 64 * 1_024);
}

#[tokio::test]
async fn proxies_at_ipv6_addresses() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6: left out");
        return;
    }
    let bench = Bench::new().await;
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = pushprox_testkit::wire::Connection::over(stream);
            while connection.receive().await.is_ok() {
                let body = r#"[{"targets":["six"],"labels":{}}]"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                connection.send(answer.as_bytes()).await.ok();
            }
        }
    });
    bench.service("web", &[(address, true)]);
    let _discovery = bench.start(&[]).await;
    bench.clients_are(&[(address, &["six"])]).await;
}

#[tokio::test]
async fn a_service_with_several_ports_needs_to_be_told_which() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a"]).await;
    let mut object = slice("web", proxy.address(), true);
    object["ports"] = serde_json::json!([
        {"name": "metrics", "port": 1, "protocol": "TCP"},
        {"name": "proxy", "port": proxy.address().port(), "protocol": "TCP"}
    ]);
    bench.api.apply(SLICES, "demo", "web", object);
    let mut discovery = bench.start(&[]).await;
    let line = discovery.daemon.line(&["level=warn", "--port"]).await;
    assert!(
        line.contains("demo/web has several ports") && line.contains("metrics, proxy"),
        "{line}"
    );
    discovery.stop().await;
    let _discovery = bench.start(&["--port", "proxy"]).await;
    bench.clients_are(&[(proxy.address(), &["a"])]).await;
}

#[tokio::test]
async fn endpoints_serve_where_there_are_no_slices() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a"]).await;
    bench.api.faults(|faults| _ = faults.unknown.insert(SLICES));
    bench.api.apply(ENDPOINTS, "demo", "web", serde_json::json!({
        "metadata": {"labels": {"app": "pushprox"}},
        "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "http", "port": proxy.address().port()}]}]
    }));
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(proxy.address(), &["a"])]).await;
    discovery
        .daemon
        .line(&[
            "level=warn",
            "watching Endpoints, because EndpointSlices cannot be watched",
        ])
        .await;
    discovery
        .metric_is("endpoints_fallback", |fallback| fallback == 1.0)
        .await;
    bench.api.delete(ENDPOINTS, "demo", "web");
    bench.clients_are(&[]).await;
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let bench = Bench::new().await;
    let proxy = Roster::of(&["a"]).await;
    bench.service("web", &[(proxy.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench.clients_are(&[(proxy.address(), &["a"])]).await;
    discovery.has_published().await;
    let times = || {
        let files = bench
            .sd_files()
            .into_iter()
            .map(|name| bench.path().join("sd").join(name));
        let modified = |path| std::fs::metadata(path).unwrap().modified().unwrap();
        files
            .chain([bench.target()])
            .map(modified)
            .collect::<Vec<_>>()
    };
    let before = times();
    idle(Duration::from_secs(4)).await;
    assert_eq!(times(), before);
    assert_eq!(bench.reloads.seen().len(), 1);
}
