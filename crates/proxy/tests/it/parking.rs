//! What a client may do while its poll is parked.

use pushprox_testkit::process::command;
use pushprox_testkit::pushprox;
use pushprox_testkit::rest::Rest;
use pushprox_testkit::wait::SOON;
use pushprox_testkit::wire::{Connection, scrape_request};

use crate::support::{answer, instruction, poll, push, start};

#[tokio::test]
async fn a_request_sent_ahead_is_served_in_its_turn() {
    let proxy = start().await;
    let mut connection = proxy.connect().await;
    let ahead = [
        poll("node", ""),
        b"GET /-/healthy HTTP/1.1\r\nHost: p\r\n\r\n".to_vec(),
    ];
    connection.send(&ahead.concat()).await.unwrap();
    proxy.registered("node").await;
    connection
        .send(b"GET /clients HTTP/1.1\r\nHost: p\r\n\r\n")
        .await
        .unwrap();
    let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
    let given = instruction(&mut connection).await;
    assert_eq!(connection.receive().await.unwrap().status(), 200);
    assert!(connection.receive().await.unwrap().text().contains("node"));
    connection
        .send(&push(answer(&given.id, "ok").as_bytes()))
        .await
        .unwrap();
    assert_eq!(scrape.receive().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_client_that_half_closes_has_left() {
    let proxy = start().await;
    let mut left = proxy.park("node").await;
    left.finish().await.unwrap();
    assert!(left.rest().await.is_empty());
    let mut stays = proxy.park("node").await;
    let _scrape = proxy.scrape("http://node/metrics", 10.0).await;
    instruction(&mut stays).await;
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_cut_off() {
    let proxy = start().await;
    let mut connection = proxy.park("node").await;
    let rubbish = vec![b'x'; 64 * 1024];
    connection.send(&rubbish).await.ok();
    assert!(connection.rest().await.is_empty());
    let healthy = pushprox_testkit::wire::get(proxy.address, "/-/healthy").await;
    assert_eq!(healthy.status(), 200);
}

#[tokio::test]
async fn rubbish_behind_a_poll_is_refused_once_the_poll_is_answered() {
    let proxy = start().await;
    let mut connection = proxy.park("node").await;
    connection.send(b"rubbish\r\n\r\n").await.unwrap();
    let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
    let given = instruction(&mut connection).await;
    assert_eq!(connection.receive().await.unwrap().status(), 400);
    assert!(connection.rest().await.is_empty());
    proxy.push(answer(&given.id, "ok")).await;
    assert_eq!(scrape.receive().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_connection_goes_on_behind_whatever_its_poll_was_answered() {
    let proxy = start().await;
    let mut connection = proxy.park_with("node", "Prefer: wait=1\r\n").await;
    assert_eq!(connection.receive().await.unwrap().status(), 204);
    connection.send(&poll("node", "")).await.unwrap();
    let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
    let given = instruction(&mut connection).await;
    let pushed = push(answer(&given.id, "ok").as_bytes());
    connection.send(&pushed).await.unwrap();
    assert_eq!(connection.receive().await.unwrap().status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "ok");
    connection.send(&poll("node", "")).await.unwrap();
    let _scrape = proxy.scrape("http://node/metrics", 10.0).await;
    instruction(&mut connection).await;
}

#[tokio::test]
async fn a_poll_that_comes_in_single_bytes_is_parked_too() {
    let proxy = start().await;
    let mut connection = proxy.connect().await;
    for byte in poll("node", "Prefer: wait=45\r\n") {
        connection.send(&[byte]).await.unwrap();
    }
    proxy.registered("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
    let given = instruction(&mut connection).await;
    proxy.push(answer(&given.id, "ok")).await;
    assert_eq!(scrape.receive().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_scrape_in_the_moment_of_a_departure_goes_to_who_stays() {
    let proxy = start().await;
    let mut stays = proxy.park("node").await;
    for _ in 0..100 {
        let leaves = proxy.park("node").await;
        drop(leaves);
        let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
        let given = instruction(&mut stays).await;
        stays.send(&poll("node", "")).await.unwrap();
        proxy.push(answer(&given.id, "ok")).await;
        assert_eq!(scrape.receive().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_very_moment_of_its_poll_is_handed_nothing() {
    let proxy = start().await;
    let mut stays = proxy.park("node").await;
    for _ in 0..60 {
        let mut leaves = proxy.connect().await;
        leaves.send(&poll("node", "")).await.unwrap();
        drop(leaves);
        let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
        let given = instruction(&mut stays).await;
        stays.send(&poll("node", "")).await.unwrap();
        proxy.push(answer(&given.id, "ok")).await;
        assert_eq!(scrape.receive().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn nothing_of_a_connection_stays_behind() {
    // In a process of its own: in this one other tests have descriptors too.
    let mut program = command(env!("CARGO_BIN_EXE_proxy"));
    program.arg("--web.listen-address=127.0.0.1:0");
    let proxy = pushprox::Proxy::run(program).await;
    let rest = Rest::of(&proxy.daemon);
    let say = async |request: &[u8]| {
        let mut connection = Connection::open(proxy.address).await.unwrap();
        connection.send(request).await.unwrap();
        connection
    };
    for _ in 0..20 {
        let polls = [say(&poll("a", "")).await, say(&poll("b", "")).await];
        proxy.registered("a").await;
        proxy.registered("b").await;
        drop(polls);
        drop(say(&scrape_request("http://none/", 30.0, "")).await);
    }
    rest.descriptors_return(&proxy.daemon, SOON).await;
}
