//! How the proxy goes down.

use std::time::Duration;

use pushprox_testkit::hanging::Hanging;
use pushprox_testkit::process::command;
use pushprox_testkit::pushprox;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, get};
use tokio::time::timeout;

use crate::support::{Proxy, answer, config, instruction, push, start_with};

/// A proxy that does not end because its grace period does.
async fn patient() -> Proxy {
    let mut config = config();
    config.shutdown_grace_period = Duration::from_secs(3_600);
    start_with(config).await
}

#[tokio::test]
async fn parked_polls_end_by_closing_and_waiting_scrapes_are_told() {
    let proxy = patient().await;
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
    timeout(SOON, proxy.ended).await.unwrap().unwrap();
    assert!(Connection::open(proxy.address).await.is_err());
}

#[tokio::test]
async fn a_scrape_in_hand_is_finished_even_over_a_new_connection() {
    let proxy = patient().await;
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
    timeout(SOON, proxy.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_period_ends_what_does_not() {
    let mut config = config();
    config.shutdown_grace_period = Duration::from_millis(300);
    let proxy = start_with(config).await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 60.0).await;
    instruction(&mut poll).await;
    proxy.shutdown.begin();
    let answer = scrape.receive().await.unwrap();
    assert_eq!(
        (answer.status(), answer.reason()),
        (503, "proxy is shutting down")
    );
    timeout(SOON, proxy.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn half_a_request_does_not_hold_the_proxy_up() {
    let proxy = patient().await;
    let mut halves = Vec::new();
    for half in [
        "POST /poll HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\n\r\na",
        "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 500\r\n\r\nHTTP/1.1 200 OK",
        "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 500\r\n\r\nHTTP/1.1 200 OK\r\nId: 1\r\n\r\n",
        "GET /clients HTTP",
    ] {
        let mut connection = proxy.connect().await;
        connection.send(half.as_bytes()).await.unwrap();
        halves.push(connection);
    }
    // A request of its own, behind the others in the proxy's one thread.
    get(proxy.address, "/-/healthy").await;
    proxy.shutdown.begin();
    timeout(SOON, proxy.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_does_not_hold_up_the_proxys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    std::fs::write(&file, "rate_limit: {interval: 1ms, burst: 1000}\n").unwrap();
    let mut program = command(env!("CARGO_BIN_EXE_proxy"));
    program
        .arg("--web.listen-address=127.0.0.1:0")
        .arg(format!("--web.config.file={}", file.display()));
    let mut proxy = pushprox::Proxy::run(program).await;
    let _reading = Hanging::replace(&file).await.is_read().await;
    proxy.daemon.terminate();
    assert_eq!(proxy.daemon.ended(SOON).await.code(), Some(0));
}
