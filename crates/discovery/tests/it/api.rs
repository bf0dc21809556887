//! The API server fails in every way that it has.

use std::time::Duration;

use pushprox_testkit::wait::{idle, until};
use tokio::time::Instant;

use crate::support::api::{ENDPOINTS, SLICES};
use crate::support::bench::{Bench, SOON};
use crate::support::roster::Roster;

#[tokio::test]
async fn a_server_that_comes_back_after_a_minute_is_seen_at_once_and_nothing_is_lost_meanwhile() {
    let mut bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;

    bench.api.go_away().await;
    discovery
        .daemon
        .line(&["level=warn", "the Kubernetes API fails", "endpointslices"])
        .await;
    // Clients still come and go.
    one.lists(&["a", "c"]);
    bench.clients_are(&[(one.address(), &["a", "c"])]).await;
    bench.service("web", &[(two.address(), true)]);
    idle(Duration::from_secs(60)).await;
    assert_eq!(discovery.metric("proxies").await, Some(1.0));
    assert!(
        discovery
            .metric("kubernetes_contact_age_seconds")
            .await
            .unwrap()
            >= 60.0
    );
    assert!(
        discovery
            .metric("api_errors_total{reason=\"unreachable\"}")
            .await
            .unwrap()
            >= 10.0
    );
    let told = discovery
        .daemon
        .lines_with(&["the Kubernetes API fails"])
        .len();
    assert!(told <= 6, "{told} lines in a minute");

    bench.api.come_back().await;
    let back = Instant::now();
    bench
        .clients_are(&[(one.address(), &["a", "c"]), (two.address(), &["b"])])
        .await;
    // Without a limit of its own to the waits between attempts, the next would come after half a
    // minute.
    assert!(
        back.elapsed() < Duration::from_secs(20),
        "{:?}",
        back.elapsed()
    );
    discovery
        .metric_is("kubernetes_contact_age_seconds", |age| age < 60.0)
        .await;
}

#[tokio::test]
async fn a_watch_from_an_old_version_lists_again_whichever_way_it_is_told() {
    for as_status in [false, true] {
        let bench = Bench::new().await;
        bench.api.faults(|faults| faults.gone_as_status = as_status);
        let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
        bench.service("web", &[(one.address(), true)]);
        let discovery = bench.start(&[]).await;
        bench.clients_are(&[(one.address(), &["a"])]).await;
        // The end of the watch, what it misses, and the loss of history fall together.
        bench.api.lose_history(|| {
            bench.service("web", &[(two.address(), true)]);
            bench
                .api
                .delete(SLICES, "demo", &format!("web-{}", one.address().port()));
        });
        bench.clients_are(&[(two.address(), &["b"])]).await;
        discovery
            .metric_is("api_errors_total{reason=\"expired\"}", |count| count >= 1.0)
            .await;
        let requests = bench.api.requests();
        let lists = requests
            .iter()
            .filter(|request| *request == "list endpointslices demo");
        assert_eq!(lists.count(), 2, "{requests:?}");
    }
}

#[tokio::test]
async fn watches_that_end_in_time_are_continued_without_a_list() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    for _ in 0..3 {
        let watches = || {
            bench
                .api
                .requests()
                .iter()
                .filter(|request| request.starts_with("watch"))
                .count()
        };
        let before = watches();
        bench.api.end_watches();
        until("one more watch", SOON, async || {
            (watches() > before).then_some(())
        })
        .await;
    }
    // A watch that begins is a sign of life, also where nothing ever happens.
    let age = "kubernetes_contact_age_seconds";
    discovery.metric_is(age, |age| age >= 3.0).await;
    let ended = Instant::now();
    bench.api.end_watches();
    discovery
        .metric_is(age, |age| age < ended.elapsed().as_secs_f64())
        .await;
    // Bookmarks keep the version young: other objects change, then history is forgotten.
    bench.api.apply(
        SLICES,
        "elsewhere",
        "x",
        serde_json::json!({"metadata": {}}),
    );
    until("the watch is told", SOON, async || {
        bench.api.is_all_told().then_some(())
    })
    .await;
    bench.api.compact();
    bench.api.end_watches();
    bench.service("web", &[(one.address(), false)]);
    bench.clients_are(&[]).await;
    assert_eq!(bench.api.lists(), 1);
}

#[tokio::test]
async fn long_lists_come_by_pages() {
    let bench = Bench::new().await;
    bench.api.faults(|faults| faults.page = Some(2));
    let mut proxies = Vec::new();
    for number in 0..7 {
        proxies.push((
            Roster::of(&[&format!("client-{number}")]).await,
            format!("client-{number}"),
        ));
    }
    for (proxy, _) in &proxies {
        bench.service("web", &[(proxy.address(), true)]);
    }
    let names: Vec<[&str; 1]> = proxies.iter().map(|(_, name)| [name.as_str()]).collect();
    let wanted: Vec<_> = proxies
        .iter()
        .zip(&names)
        .map(|((proxy, _), names)| (proxy.address(), &names[..]))
        .collect();
    let _discovery = bench.start(&[]).await;
    bench.clients_are(&wanted).await;
    assert_eq!(bench.api.lists(), 4);
}

#[tokio::test]
async fn missing_rights_are_told_and_granted_later() {
    let bench = Bench::new().await;
    bench
        .api
        .faults(|faults| faults.forbidden.extend([SLICES, ENDPOINTS]));
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&["--sync-timeout=2s"]).await;
    for resource in ["endpointslices.discovery.k8s.io", "endpoints"] {
        let cannot = format!(
            "cannot list {resource} in namespace demo: grant the verbs list and watch on it"
        );
        discovery
            .daemon
            .line(&["level=warn", &cannot, "by a Role"])
            .await;
    }
    discovery
        .daemon
        .line(&["level=warn", "Kubernetes has not said yet"])
        .await;
    assert_eq!(discovery.page("/-/ready").await, 503);
    assert_eq!(discovery.page("/-/healthy").await, 200);
    assert!(discovery.daemon.runs());
    until("several attempts", SOON, async || {
        discovery
            .metric("api_errors_total{reason=\"forbidden\"}")
            .await
            .filter(|count| *count >= 4.0)
    })
    .await;
    // kube's own words about it are not repeated.
    assert!(
        !discovery
            .daemon
            .log()
            .iter()
            .any(|line| line.contains("watch list error"))
    );
    bench.api.faults(|faults| faults.forbidden.clear());
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery.is_ready().await;
}

#[tokio::test]
async fn without_slices_endpoints_serve_and_a_missing_watch_is_told_too() {
    let bench = Bench::new().await;
    bench
        .api
        .faults(|faults| _ = faults.forbidden.insert("watch endpointslices"));
    let one = Roster::of(&["a"]).await;
    bench.api.apply(ENDPOINTS, "demo", "web", serde_json::json!({
        "metadata": {"labels": {"app": "pushprox"}},
        "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": one.address().port()}]}]
    }));
    let mut discovery = bench.start(&[]).await;
    discovery
        .daemon
        .line(&["cannot watch endpointslices.discovery.k8s.io in namespace demo"])
        .await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
}

#[tokio::test]
async fn a_token_that_is_replaced_is_read_again() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    bench.api.take_tokens(&["fresh"]);
    bench.api.end_watches();
    discovery
        .daemon
        .line(&["level=warn", "does not accept the credentials"])
        .await;
    bench.service("web", &[(two.address(), true)]);
    bench.write("token", "fresh");
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    discovery
        .daemon
        .line(&["level=info", "the Kubernetes API answers again"])
        .await;
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed() {
    let bench = Bench::new().await;
    bench.api.faults(|faults| faults.hangs = true);
    let mut discovery = bench.start(&["--sync-timeout=1s"]).await;
    discovery
        .daemon
        .line(&["Kubernetes has not said yet"])
        .await;
    assert_eq!(discovery.page("/-/ready").await, 503);
    // Prometheus gets at least its own part.
    until("the base alone", SOON, async || {
        bench.target().is_file().then_some(())
    })
    .await;
    until("the list given up", Duration::from_secs(120), async || {
        discovery
            .metric("api_errors_total{reason=\"unreachable\"}")
            .await
    })
    .await;
    bench.api.faults(|faults| faults.hangs = false);
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    bench.clients_are(&[(one.address(), &["a"])]).await;
}

#[tokio::test]
async fn what_another_run_has_written_stays_while_the_api_is_away() {
    let mut bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery.has_published().await;
    discovery.stop().await;
    bench.api.go_away().await;
    let before = std::fs::read(bench.target()).unwrap();
    let mut discovery = bench.start(&["--sync-timeout=1s"]).await;
    discovery
        .daemon
        .line(&["Kubernetes has not said yet"])
        .await;
    idle(Duration::from_secs(2)).await;
    assert_eq!(std::fs::read(bench.target()).unwrap(), before);
    assert_eq!(bench.clients()[&one.address().to_string()], ["a"]);
    bench.api.come_back().await;
    discovery.has_published().await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    assert_eq!(bench.reloads.seen().len(), 1, "nothing has changed");
}
