//! How proxy and client end when they are told to.

use std::sync::Arc;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{self, Connection, Message, scrape_request};
use tokio::sync::Notify;

#[tokio::test]
async fn the_proxy_ends_parked_polls_at_once_and_exits_with_0() {
    for interrupt in [false, true] {
        let target = Target::saying("").await;
        let mut proxy = Proxy::start(&[PATIENT]).await;
        let client = Client::start(&proxy.url(), &target.url("/"), "ours.test", &[]);
        proxy.registered("ours.test").await;
        // A poll as the Go programs send it, without `Prefer`.
        let mut poll = Connection::open(proxy.address).await.unwrap();
        let request = "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\ngo.test:1";
        poll.send(request.as_bytes()).await.unwrap();
        proxy.registered("go.test:1").await;

        if interrupt {
            proxy.daemon.interrupt();
        } else {
            proxy.daemon.terminate();
        }
        let status = proxy.daemon.ended(SOON).await;
        assert_eq!(status.code(), Some(0));
        assert_eq!(
            poll.rest().await,
            b"",
            "the Go clients wait a second after a connection that closes, and none after an answer"
        );
        drop(client);
    }
}

#[tokio::test]
async fn the_proxy_lets_scrapes_in_flight_finish() {
    let (target, go_on) = slow().await;
    let mut proxy = Proxy::start(&[PATIENT]).await;
    let _client = Client::start(&proxy.url(), &target.url("/"), "slow.test", &[]);
    proxy.registered("slow.test").await;
    let mut scrape = scrape_in_flight(&proxy, &target).await;

    proxy.daemon.terminate();
    // The client may need a new connection for its push, so the proxy still takes connections,
    // but no more scrapes.
    let refused = until("a scrape refused", SOON, async || {
        let answer = proxy.scrape("http://other.test/", 1.0).await;
        let refused = answer.reason().contains("proxy is shutting down");
        refused.then_some(answer)
    })
    .await;
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(proxy.daemon.runs());
    go_on.notify_one();
    let answer = scrape.receive().await.unwrap();
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "slow"),
        "{answer:?}"
    );
    assert!(answer.whole);
    assert_eq!(proxy.daemon.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn the_proxy_tells_scrapes_that_wait_for_a_poll_that_it_goes_down() {
    let mut proxy = Proxy::start(&[PATIENT]).await;
    // Of a name that is not registered it would wait for five seconds only.
    let poll = "POST /poll HTTP/1.1\r\nHost: x\r\nPrefer: wait=1\r\nConnection: close\r\n\
                Content-Length: 9\r\n\r\ngone.test";
    let poll = wire::ask(proxy.address, poll.as_bytes()).await.unwrap();
    assert_eq!(poll.status(), 204, "{poll:?}");
    let mut scrape = Connection::open(proxy.address).await.unwrap();
    scrape
        .send(&scrape_request("http://gone.test/", 120.0, ""))
        .await
        .unwrap();
    // Its own pages are answered in the order of arrival, so the scrape is in once this one is.
    wire::get(proxy.address, "/-/healthy").await;
    proxy.daemon.terminate();
    let answer = scrape.receive().await.unwrap();
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(
        answer.reason().contains("proxy is shutting down"),
        "{answer:?}"
    );
    assert_eq!(proxy.daemon.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn the_proxy_waits_no_longer_than_its_grace_period() {
    let (target, _go_on) = slow().await;
    let mut proxy = Proxy::start(&["--shutdown.grace-period=1s"]).await;
    let _client = Client::start(&proxy.url(), &target.url("/"), "slow.test", &[]);
    proxy.registered("slow.test").await;
    let mut scrape = scrape_in_flight(&proxy, &target).await;
    proxy.daemon.terminate();
    // The scrape would go on for longer.
    let status = proxy.daemon.ended(SOON).await;
    assert_eq!(status.code(), Some(0));
    // Either is a failed scrape to Prometheus.
    if let Ok(answer) = scrape.receive().await {
        assert!(answer.status() >= 500, "{answer:?}");
    }
}

#[tokio::test]
async fn the_client_finishes_the_scrape_in_hand_and_exits_with_0() {
    let (target, go_on) = slow().await;
    let proxy = Proxy::start(&[]).await;
    let mut client = Client::start(&proxy.url(), &target.url("/"), "slow.test", &[PATIENT]);
    proxy.registered("slow.test").await;
    let mut scrape = scrape_in_flight(&proxy, &target).await;

    client.daemon.terminate();
    // It polls no more: the next scrape waits for its whole time.
    let next = until("the end of the polls", SOON, async || {
        let answer = proxy.scrape("http://slow.test/", 0.5).await;
        answer.reason().contains("has not polled").then_some(answer)
    })
    .await;
    assert_eq!(next.status(), 504, "{next:?}");
    assert!(client.daemon.runs());
    go_on.notify_waiters();
    let answer = scrape.receive().await.unwrap();
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "slow"),
        "{answer:?}"
    );
    assert_eq!(client.daemon.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_client_ends_at_once_and_its_poll_with_it() {
    for interrupt in [false, true] {
        let proxy = Proxy::start(&[]).await;
        let url = "http://127.0.0.1:1/";
        let mut client = Client::start(&proxy.url(), url, "idle.test", &[PATIENT]);
        proxy.registered("idle.test").await;
        if interrupt {
            client.daemon.interrupt();
        } else {
            client.daemon.terminate();
        }
        let status = client.daemon.ended(SOON).await;
        assert_eq!(status.code(), Some(0));
        proxy.holds(0, SOON).await;
        let answer: Message = proxy.scrape("http://idle.test/", 0.5).await;
        assert!(answer.reason().contains("has not polled"), "{answer:?}");
    }
}

/// For one that must not end because its grace period does.
const PATIENT: &str = "--shutdown.grace-period=1h";

/// A target that answers when it is told to.
async fn slow() -> (Target, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let target = Target::start(move |_, mut connection| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            connection.send(&ok("slow")).await.ok()?;
            Some(connection)
        }
    })
    .await;
    (target, go_on)
}

/// A scrape that has come as far as the target.
async fn scrape_in_flight(proxy: &Proxy, target: &Target) -> Connection {
    let mut scrape = Connection::open(proxy.address).await.unwrap();
    scrape
        .send(&scrape_request("http://slow.test/", 120.0, ""))
        .await
        .unwrap();
    until("the scrape at the target", SOON, async || {
        (!target.requests().is_empty()).then_some(())
    })
    .await;
    scrape
}
