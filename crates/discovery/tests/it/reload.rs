//! Prometheus refuses, is away, or does not let itself be reloaded; the operator's files change.

use std::time::Duration;

use pushprox_testkit::wait::{idle, until};

use crate::support::bench::{Bench, SOON};
use crate::support::roster::Roster;

#[tokio::test]
async fn a_base_that_prometheus_refuses_is_set_aside_and_proxies_still_come_and_go() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    let good = std::fs::read_to_string(bench.target()).unwrap();

    bench.reloads.dislikes(Some("typo"));
    bench.write("base", "global: {}\ntypo: 1\n");
    discovery
        .daemon
        .line(&[
            "level=error",
            "Prometheus refuses the configuration",
            "it has what I dislike",
        ])
        .await;
    discovery
        .daemon
        .line(&["the last good configuration is put back"])
        .await;
    until("put back and loaded", SOON, async || {
        let is_last = bench
            .reloads
            .seen()
            .last()
            .is_some_and(|(taken, config)| *taken && *config == good);
        (is_last && std::fs::read_to_string(bench.target()).unwrap() == good).then_some(())
    })
    .await;
    discovery
        .metric_is("source_unusable", |unusable| unusable == 1.0)
        .await;
    assert!(
        discovery
            .metric("reloads_total{outcome=\"refused\"}")
            .await
            .unwrap()
            >= 1.0
    );
    // Nobody tries the same again and again.
    let refusals = || {
        bench
            .reloads
            .seen()
            .iter()
            .filter(|(taken, _)| !taken)
            .count()
    };
    idle(Duration::from_secs(3)).await;
    assert_eq!(refusals(), 1);

    bench.service("web", &[(two.address(), true)]);
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    assert_eq!(refusals(), 1);
    // The operator mends it.
    bench.write("base", "global: {}\nrule_files: []\n");
    until("the mended base", SOON, async || {
        bench.reloads.config().contains("rule_files").then_some(())
    })
    .await;
    discovery
        .metric_is("source_unusable", |unusable| unusable == 0.0)
        .await;
    assert_eq!(bench.clients().len(), 2);
}

#[tokio::test]
async fn a_generated_part_that_prometheus_refuses_is_put_back_and_told_by_a_metric() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    bench.reloads.dislikes(Some("second"));
    bench.service("second", &[(two.address(), true)]);
    discovery
        .metric_is("config_refused", |refused| refused == 1.0)
        .await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    // Its SD files go on.
    one.lists(&["a", "c"]);
    bench.clients_are(&[(one.address(), &["a", "c"])]).await;
    // What is refused changes: it is tried at once.
    bench.reloads.dislikes(None);
    let three = Roster::of(&["d"]).await;
    bench.service("web", &[(three.address(), true)]);
    bench
        .clients_are(&[
            (one.address(), &["a", "c"]),
            (two.address(), &["b"]),
            (three.address(), &["d"]),
        ])
        .await;
    discovery
        .metric_is("config_refused", |refused| refused == 0.0)
        .await;
}

#[tokio::test]
async fn what_a_killed_run_left_is_judged_by_the_next() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery.has_published().await;
    discovery.stop().await;
    let good = std::fs::read_to_string(bench.target()).unwrap();
    // Killed between the write and Prometheus's refusal.
    bench.reloads.dislikes(Some("typo"));
    bench.write("base", "global: {}\ntypo: 1\n");
    std::fs::write(bench.target(), good.replace("global", "typo: 1\nglobal")).unwrap();
    let _discovery = bench.start(&[]).await;
    until("put back", SOON, async || {
        (std::fs::read_to_string(bench.target()).unwrap() == good).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reload_is_tried_until_prometheus_says_200() {
    let mut bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    bench.reloads.go_away().await;
    let mut discovery = bench.start(&[]).await;
    discovery
        .daemon
        .line(&["level=error", "cannot connect to Prometheus"])
        .await;
    until("written nevertheless", SOON, async || {
        (bench.clients().len() == 1).then_some(())
    })
    .await;
    // Prometheus may be waiting for its file.
    discovery.is_ready().await;
    bench.reloads.says(Some("503 Service Unavailable"));
    bench.reloads.come_back().await;
    discovery
        .daemon
        .line(&["Prometheus does not reload: 503"])
        .await;
    bench.reloads.says(Some("403 Forbidden"));
    discovery.daemon.line(&["--web.enable-lifecycle"]).await;
    bench.reloads.says(None);
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery
        .daemon
        .line(&["Prometheus has all that is known again"])
        .await;
    discovery
        .metric_is("reloads_total{outcome=\"ok\"}", |count| count == 1.0)
        .await;
    idle(Duration::from_secs(3)).await;
    assert_eq!(bench.reloads.seen().len(), 1);
}

#[tokio::test]
async fn a_prometheus_that_stays_down_gets_its_last_good_configuration_until_it_is_up() {
    let mut bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    let good = std::fs::read_to_string(bench.target()).unwrap();
    bench.reloads.go_away().await;
    bench.service("web", &[(two.address(), true)]);
    until("the new one written", SOON, async || {
        (bench.clients().len() == 2).then_some(())
    })
    .await;
    until(
        "the last good one put back",
        Duration::from_secs(180),
        async || (std::fs::read_to_string(bench.target()).unwrap() == good).then_some(()),
    )
    .await;
    discovery
        .daemon
        .line(&["its last good one is put back"])
        .await;
    // It is not up as long as it says nothing.
    bench.reloads.says(Some(""));
    let asked = bench.reloads.asked();
    bench.reloads.come_back().await;
    until("asked again", SOON, async || {
        (bench.reloads.asked() > asked + 1).then_some(())
    })
    .await;
    assert_eq!(std::fs::read_to_string(bench.target()).unwrap(), good);
    bench.reloads.says(None);
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
}

#[tokio::test]
async fn a_reload_that_takes_long_is_waited_for_while_clients_still_come_and_go() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    bench.reloads.answers(false);
    bench.service("web", &[(two.address(), true)]);
    let long = Duration::from_secs(180);
    let unanswered = "reloads_total{outcome=\"unanswered\"}";
    until("it takes long", long, async || {
        discovery.metric(unanswered).await
    })
    .await;
    discovery
        .daemon
        .line(&["level=error", "the reload takes more than 60s"])
        .await;
    one.lists(&["a", "c"]);
    until("its SD file", long, async || {
        let clients = bench.clients();
        (clients.get(&one.address().to_string())? == &["a", "c"]).then_some(())
    })
    .await;
    assert_eq!(bench.reloads.asked(), 2);
    bench.reloads.answers(true);
    discovery
        .daemon
        .line(&["Prometheus has all that is known again"])
        .await;
    assert_eq!(bench.reloads.asked(), 2);
    bench
        .clients_are(&[(one.address(), &["a", "c"]), (two.address(), &["b"])])
        .await;
}

#[tokio::test]
async fn a_base_that_cannot_be_extended_is_told_and_the_last_good_one_used() {
    let bench = Bench::new().await;
    let (one, two) = (Roster::of(&["a"]).await, Roster::of(&["b"]).await);
    bench.service("web", &[(one.address(), true)]);
    bench.write("base", "scrape_configs: {}\n");
    let mut discovery = bench.start(&[]).await;
    discovery
        .daemon
        .line(&[
            "level=error",
            "the base cannot be used: scrape_configs is not a list",
        ])
        .await;
    assert!(!bench.target().exists());
    assert_eq!(discovery.page("/-/ready").await, 503);
    bench.write("base", "global: {}\n# mine\n");
    bench.clients_are(&[(one.address(), &["a"])]).await;
    bench.write("base", "a: [\n");
    discovery
        .daemon
        .line(&[
            "level=error",
            "the base cannot be used: it is not valid YAML",
        ])
        .await;
    let success = "last_success_timestamp_seconds";
    let last = discovery.metric(success).await;
    bench.service("web", &[(two.address(), true)]);
    bench
        .clients_are(&[(one.address(), &["a"]), (two.address(), &["b"])])
        .await;
    // Prometheus has all but the base.
    let asked = two.requests().len();
    until("asked once more", SOON, async || {
        (two.requests().len() > asked).then_some(())
    })
    .await;
    assert_eq!(discovery.metric(success).await, last);
    assert!(bench.reloads.config().contains("# mine"));
    std::fs::remove_file(bench.path().join("base")).unwrap();
    discovery
        .daemon
        .line(&["base: there is no such file"])
        .await;
}

#[tokio::test]
async fn the_template_and_the_base_are_read_again_when_they_change() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    bench.write("template", "scrape_interval: 7s\n");
    let template = bench.path().join("template");
    let _discovery = bench
        .start(&["--job-template", template.to_str().unwrap()])
        .await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    until("the template is used", SOON, async || {
        let config = bench.reloads.config();
        config.contains("scrape_interval: 7s").then_some(())
    })
    .await;
    bench.write("template", "scrape_interval: 8s\n");
    bench.write("base", "global: {}\nrule_files: []\n");
    until("both", SOON, async || {
        let config = bench.reloads.config();
        (config.contains("scrape_interval: 8s") && config.contains("rule_files")).then_some(())
    })
    .await;
}
