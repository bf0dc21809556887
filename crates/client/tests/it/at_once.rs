//! Many scrapes, one after the other and at once.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use tokio::time::Instant;

use crate::peers::{Peer, Proxy};
use crate::support::{Client, scrape};

#[tokio::test]
async fn connections_are_kept_for_many_scrapes() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for round in 0..50 {
        proxy
            .hand_out(&scrape(&round.to_string(), "", "10", ""))
            .await;
        target.next().await.answer("200 OK", "abc");
        let push = proxy.push().await;
        assert_eq!(push.status_line(), "HTTP/1.1 200 OK");
        push.answer(
            if round % 2 == 0 { "200 OK" } else { "410 Gone" },
            "over and done\n",
        );
    }
    proxy.poll().await;
    assert!(
        proxy.peer.connections() <= 2,
        "{}",
        proxy.peer.connections()
    );
    assert_eq!(target.connections(), 1);
    client.stop().await;
}

#[tokio::test]
async fn scrapes_do_not_wait_for_each_other() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("first", "?n=1", "10", "")).await;
    proxy.hand_out(&scrape("second", "?n=2", "10", "")).await;
    let (one, other) = (target.next().await, target.next().await);
    let (first, second) = match one.head.contains("n=1") {
        true => (one, other),
        false => (other, one),
    };
    for (pull, id) in [(second, "Id: second\r\n"), (first, "Id: first\r\n")] {
        pull.answer("200 OK", "");
        let push = proxy.push().await;
        assert!(push.text().contains(id), "{}", push.text());
        push.answer("200 OK", "");
    }
    client.stop().await;
}

#[tokio::test]
async fn too_many_scrapes_are_turned_down_and_told() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    let mut held = Vec::new();
    for round in 0..64 {
        proxy
            .hand_out(&scrape(&round.to_string(), "", "60", ""))
            .await;
        held.push(target.next().await);
    }
    proxy.hand_out(&scrape("one too many", "", "60", "")).await;
    let push = proxy.push().await;
    assert_eq!(
        push.status_line(),
        "HTTP/1.1 503 client is busy with 64 scrapes already"
    );
    push.answer("200 OK", "");
    held.pop().unwrap().answer("200 OK", "");
    let push = proxy.push().await;
    push.answer("200 OK", "");
    proxy.hand_out(&scrape("again", "", "60", "")).await;
    target.next().await.answer("200 OK", "");
    assert_eq!(proxy.push().await.status_line(), "HTTP/1.1 200 OK");
    drop(held);
    client.shutdown.begin();
}

#[tokio::test]
async fn a_proxy_that_takes_no_refusals_stops_neither_the_polls_nor_the_end() {
    // A refusal has two seconds. A machine that stands still for as long says nothing of the end.
    until("an end without them", SOON, async || {
        (end_with_a_refusal().await < Duration::from_millis(1_900)).then_some(())
    })
    .await;
}

/// Has a client end while the proxy takes no refusal: how long that took.
async fn end_with_a_refusal() -> Duration {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let grace = ["--shutdown.grace-period=0s"];
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &grace);
    let mut held = Vec::new();
    for round in 0..64 {
        proxy
            .hand_out(&scrape(&round.to_string(), "", "60", ""))
            .await;
        held.push(target.next().await);
    }
    let handed_out = Instant::now();
    proxy.hand_out(&scrape("one too many", "", "60", "")).await;
    let unanswered = proxy.push().await;
    proxy.hand_out(&scrape("another", "", "60", "")).await;
    // The scrapes have a minute.
    assert!(handed_out.elapsed() < Duration::from_secs(30));
    unanswered.gone().await;
    let _unanswered = proxy.push().await;
    let ended = Instant::now();
    client.stop().await;
    ended.elapsed()
}

#[tokio::test]
async fn a_scrape_that_is_handed_out_again_is_pulled_and_pushed_once() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    let first = scrape("1", "", "60", "");
    proxy.hand_out(&first).await;
    let pull = target.next().await;
    for _ in 0..3 {
        proxy.hand_out(&first).await;
    }
    let _poll = proxy.poll().await;
    pull.answer("200 OK", "");
    proxy.push().await.answer("200 OK", "");
    client.stop().await;
    assert!(target.try_next().is_none());
    assert!(proxy.peer.try_next().is_none());
}
