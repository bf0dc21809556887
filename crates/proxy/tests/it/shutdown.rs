//! How the proxy goes down.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, get};
use tokio::time::timeout;

use crate::support::{answer, config, instruction, push, start, start_with};

#[tokio::test]
async fn parked_polls_end_by_closing_and_waiting_scrapes_are_told() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut waits = proxy.scrape("http://other/metrics", 30.0).await;
    pushprox_testkit::wait::idle(Duration::from_millis(100)).await;
    proxy.shutdown.begin();
    assert!(poll.rest().await.is_empty());
    let answer = waits.receive().await.unwrap();
    assert_eq!(
        (answer.status(), answer.reason()),
        (503, "proxy is shutting down")
    );
    timeout(Duration::from_secs(5), proxy.ended)
        .await
        .unwrap()
        .unwrap();
    assert!(Connection::open(proxy.address).await.is_err());
}

#[tokio::test]
async fn a_scrape_in_hand_is_finished_even_over_a_new_connection() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
    let given = instruction(&mut poll).await;
    proxy.shutdown.begin();
    until("the proxy is not ready", SOON, async || {
        (get(proxy.address, "/-/ready").await.status() == 503).then_some(())
    })
    .await;
    let mut pushes = proxy.connect().await;
    pushes
        .send(&push(answer(&given.id, "last").as_bytes()))
        .await
        .unwrap();
    assert_eq!(scrape.receive().await.unwrap().text(), "last");
    timeout(Duration::from_secs(5), proxy.ended)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_grace_period_ends_what_does_not() {
    let mut config = config();
    config.shutdown_grace_period = Duration::from_millis(300);
    let proxy = start_with(config).await;
    let mut poll = proxy.park("node").await;
    let _scrape = proxy.scrape("http://node/metrics", 60.0).await;
    instruction(&mut poll).await;
    proxy.shutdown.begin();
    timeout(Duration::from_secs(10), proxy.ended)
        .await
        .unwrap()
        .unwrap();
}
