//! Several clients under one name, and clients that vanish.

use std::collections::BTreeSet;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};
use tokio::task::JoinSet;

#[tokio::test]
async fn two_clients_under_one_name_share_its_scrapes_and_the_end_of_one_costs_none() {
    let proxy = Proxy::start(&[]).await;
    let targets = [Target::saying("one").await, Target::saying("two").await];
    let [mut first, second] =
        [0, 1].map(|which: usize| client(&proxy, &targets[which].url("/"), "shared.test"));
    // Both have polled once each has been asked: scrapes at the same time need both.
    until("both clients", SOON, async || {
        let answers = at_once(&proxy, "shared.test", 2).await;
        (answers.len() == 2).then_some(())
    })
    .await;
    for _ in 0..10 {
        at_once(&proxy, "shared.test", 4).await;
    }

    first.daemon.terminate();
    assert_eq!(first.daemon.ended(SOON).await.code(), Some(0));
    for _ in 0..10 {
        let answers = at_once(&proxy, "shared.test", 4).await;
        assert_eq!(answers, ["two".to_owned()].into());
    }
    drop(second);
}

#[tokio::test]
async fn a_client_killed_in_mid_poll_is_passed_over_for_one_that_lives() {
    let target = Target::saying("alive").await;
    let proxy = Proxy::start(&[]).await;
    let survivor = client(&proxy, &target.url("/"), "killed.test");
    proxy.registered("killed.test").await;
    // Each polled last, so that the proxy would choose it.
    for _ in 0..5 {
        let rest = proxy.settled().await;
        let mut victim = client(&proxy, "http://127.0.0.1:1/", "killed.test");
        proxy.holds(rest + 1, SOON).await;
        victim.daemon.kill();
        victim.daemon.ended(SOON).await;
        proxy.holds(rest, SOON).await;
        let answer = proxy.scrape("http://killed.test/", 5.0).await;
        assert_eq!(answer.text(), "alive", "{answer:?}");
    }
    drop(survivor);
}

#[tokio::test]
async fn a_client_killed_alone_is_missed_by_name_until_the_next_one_comes() {
    let target = Target::saying("again").await;
    let proxy = Proxy::start(&[]).await;
    let mut victim = client(&proxy, &target.url("/"), "lonely.test");
    proxy.registered("lonely.test").await;
    victim.daemon.kill();
    victim.daemon.ended(SOON).await;

    let answer = proxy.scrape("http://lonely.test/", 1.0).await;
    assert_eq!(answer.status(), 504, "{answer:?}");
    let reason = answer.reason();
    assert!(
        reason.contains("client lonely.test has not polled for"),
        "{reason:?}"
    );

    // The next scrape is there before the next client.
    let url = "http://lonely.test/";
    let (answer, _client) = tokio::join!(proxy.scrape(url, 10.0), async {
        client(&proxy, &target.url("/"), "lonely.test")
    });
    assert_eq!(answer.text(), "again", "{answer:?}");
}

#[tokio::test]
async fn a_client_that_stands_still_costs_one_scrape_and_its_late_push_reaches_nobody() {
    let targets = [
        Target::saying("frozen").await,
        Target::saying("lively").await,
    ];
    let proxy = Proxy::start(&[]).await;
    let frozen = client(&proxy, &targets[0].url("/"), "still.test");
    proxy.registered("still.test").await;
    frozen.daemon.freeze();
    let answer = proxy.scrape("http://still.test/", 1.0).await;
    assert_eq!(answer.status(), 504, "{answer:?}");
    let reason = answer.reason();
    let expected = "client still.test took the scrape and did not answer within";
    assert!(reason.contains(expected), "{reason:?}");

    let _lively = client(&proxy, &targets[1].url("/"), "still.test");
    for _ in 0..5 {
        let answers = at_once(&proxy, "still.test", 1).await;
        assert_eq!(answers, ["lively".to_owned()].into());
    }
    // What it had taken is answered by nobody any more; it polls again, and takes its share.
    frozen.daemon.thaw();
    until("the frozen client back at work", SOON, async || {
        let answers = at_once(&proxy, "still.test", 2).await;
        answers.contains("frozen").then_some(())
    })
    .await;
}

fn client(proxy: &Proxy, pull_url: &str, name: &str) -> Client {
    Client::start(&proxy.url(), pull_url, name, &[])
}

/// The answers to `count` scrapes of `name` at the same time, all of them good.
async fn at_once(proxy: &Proxy, name: &str, count: usize) -> BTreeSet<String> {
    let request = pushprox_testkit::wire::scrape_request(&format!("http://{name}/"), 10.0, "");
    let mut scrapes = JoinSet::new();
    for _ in 0..count {
        let (address, request) = (proxy.address, request.clone());
        scrapes.spawn(async move { pushprox_testkit::wire::ask(address, &request).await });
    }
    let mut answers = BTreeSet::new();
    while let Some(answer) = scrapes.join_next().await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}");
        answers.insert(answer.text());
    }
    answers
}
