//! Instructions, pushes and ends that do not go as they should.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use tokio::time::{Instant, timeout};

use crate::peers::{Peer, Proxy};
use crate::support::{Client, Log, scrape, time_passes};

const QUICK: [&str; 2] = [
    "--proxy.retry.initial-wait=200ms",
    "--proxy.retry.max-wait=400ms",
];

#[tokio::test]
async fn an_unusable_instruction_with_an_id_is_answered_and_no_failure_of_the_poll() {
    let mut log = Log::start();
    let mut proxy = Proxy::start().await;
    let hours = ["--proxy.retry.initial-wait=1h", "--proxy.retry.max-wait=1h"];
    let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &hours);
    let usable = scrape("1", "", "10", "");
    let many = scrape("1", "", "10", &"X: y\r\n".repeat(1_100));
    for (instruction, reason) in [
        (
            usable.replacen("GET", "G(T", 1),
            "the head is not HTTP: invalid token",
        ),
        (
            usable.trim_end().to_owned(),
            "the message ends within its head",
        ),
        (many, "the message has more than 1024 headers"),
    ] {
        proxy.hand_out(&instruction).await;
        let push = proxy.push().await;
        assert_eq!(
            push.status_line(),
            format!("HTTP/1.1 400 the scrape did not reach the client as it should: {reason}")
        );
        assert!(push.text().contains("\r\nId: 1\r\n"), "{}", push.text());
        push.answer("200 OK", "");
    }
    proxy.poll().await;
    client.stop().await;
    let log = log.rest();
    assert!(!log.contains("poll failed"), "{log}");
}

#[tokio::test]
async fn a_closed_poll_is_repeated() {
    let mut proxy = Proxy::start().await;
    let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &QUICK);
    for _ in 0..3 {
        drop(proxy.poll().await);
    }
    client.stop().await;
}

#[tokio::test]
async fn an_agreed_wait_that_is_overdue_ends_the_poll_and_no_other() {
    let mut log = Log::start();
    let mut proxy = Proxy::start().await;
    let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &["--poll.wait=1s"]);
    let not_agreed = proxy.poll().await;
    time_passes(Duration::from_secs(3_600)).await;
    not_agreed.reply("HTTP/1.1 204 No Content\r\nPreference-Applied: wait=1\r\n\r\n");

    let agreed = proxy.poll().await;
    time_passes(Duration::from_secs(7)).await;
    agreed.gone().await;
    let line = log.line("poll failed").await;
    assert!(line.contains("did not end the poll in the time"), "{line}");

    // The next proxy may be one that never ends a poll, and has not agreed.
    let unknown = proxy.poll().await;
    time_passes(Duration::from_secs(3_600)).await;
    unknown.answer("200 OK", scrape("1", "", "10", ""));
    proxy.push().await.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn a_push_that_is_refused_early_does_not_stop_the_client() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &QUICK);
    for answer in ["410 Gone", "400 Bad Request", "500 Oh"] {
        proxy.hand_out(&scrape(answer, "", "10", "")).await;
        target.next().await.answer("200 OK", "abc");
        proxy.push().await.answer(answer, "the scrape is over\n");
    }
    proxy.poll().await;
    client.stop().await;
}

#[tokio::test]
async fn pushes_that_fail_again_and_again_are_a_warning_once_a_minute() {
    let mut log = Log::start();
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &QUICK);
    for (id, level) in ["warn", "debug", "debug", "warn"].into_iter().enumerate() {
        let poll = proxy.poll().await;
        if level == "warn" {
            time_passes(Duration::from_secs(60)).await;
        }
        poll.answer("200 OK", scrape(&id.to_string(), "", "10", ""));
        target.next().await.answer("200 OK", "abc");
        proxy.push().await.answer("403 Forbidden", "not yours\n");
        let line = log.line("push failed").await;
        let told = format!("level={level} ");
        assert!(line.contains(&told) && line.contains("not yours"), "{line}");
    }
    proxy.hand_out(&scrape("last", "", "10", "")).await;
    target.next().await.answer("200 OK", "abc");
    proxy.push().await.answer("200 OK", "");
    let line = log.line("the proxy takes pushes again").await;
    assert!(line.contains(" after=60"), "{line}");
    client.stop().await;
}

#[tokio::test]
async fn a_push_on_a_kept_connection_that_turns_out_dead_is_repeated() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &QUICK);
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    target.next().await.answer("200 OK", "abc");
    proxy.push().await.answer("200 OK", "");

    proxy.hand_out(&scrape("2", "", "10", "")).await;
    target.next().await.answer("200 OK", "def");
    let dead = proxy.push().await;
    let sent = dead.text().to_owned();
    drop(dead);
    let push = proxy.push().await;
    assert!(push.is_whole);
    assert_eq!(push.text(), sent);
    push.answer("200 OK", "");
    assert!(target.try_next().is_none(), "the target is pulled once");
    client.stop().await;
}

#[tokio::test]
async fn a_push_on_a_fresh_connection_is_sent_once() {
    let mut log = Log::start();
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &QUICK);
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    target.next().await.answer("200 OK", "abc");
    drop(proxy.push().await);
    let line = log.line("push failed").await;
    assert!(line.contains("closed before the answer"), "{line}");
    client.stop().await;
    while let Some(request) = proxy.peer.try_next() {
        assert!(request.head.starts_with("POST /poll "), "{}", request.head);
    }
}

#[tokio::test]
async fn a_path_prefix_leads_polls_and_pushes() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.peer.url("/a/b/"), &target.url("/metrics"), &[]);
    let poll = proxy.poll().await;
    assert!(
        poll.head.starts_with("POST /a/b/poll HTTP/1.1\r\n"),
        "{}",
        poll.head
    );
    poll.answer("200 OK", scrape("1", "", "10", ""));
    target.next().await.answer("200 OK", "");
    let push = proxy.push().await;
    assert!(
        push.head.starts_with("POST /a/b/push HTTP/1.1\r\n"),
        "{}",
        push.head
    );
    client.shutdown.begin();
}

#[tokio::test]
async fn a_shutdown_drops_the_poll_and_finishes_the_scrapes_in_hand() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    let pull = target.next().await;
    let poll = proxy.poll().await;
    client.shutdown.begin();
    poll.gone().await;
    pull.answer("200 OK", "last words");
    let push = proxy.push().await;
    assert!(push.text().ends_with("last words"), "{}", push.text());
    push.answer("200 OK", "");
    client.stop().await;
    assert!(
        proxy.peer.try_next().is_none(),
        "nothing is polled any more"
    );
}

#[tokio::test]
async fn a_scrape_that_the_grace_period_is_too_short_for_is_told() {
    // There is a second to tell it in. A machine that stands still for as long says nothing of that.
    until("the last words", SOON, async || {
        let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
        let grace = ["--shutdown.grace-period=300ms"];
        let client = Client::start(&proxy.url(), &target.url("/metrics"), &grace);
        proxy.hand_out(&scrape("1", "", "300", "")).await;
        let pull = target.next().await;
        let begun = Instant::now();
        client.shutdown.begin();
        let push = timeout(Duration::from_secs(5), proxy.push()).await.ok()?;
        assert!(begun.elapsed() >= Duration::from_millis(300));
        if !push.is_whole {
            return None;
        }
        assert_eq!(push.status_line(), "HTTP/1.1 503 client is shutting down");
        pull.gone().await;
        push.answer("200 OK", "");
        client.stop().await;
        Some(())
    })
    .await;
}

#[tokio::test]
async fn the_grace_period_bounds_the_end() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let grace = ["--shutdown.grace-period=300ms"];
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &grace);
    proxy.hand_out(&scrape("1", "", "300", "")).await;
    let _pull = target.next().await;
    let begun = Instant::now();
    // The proxy never answers the push that tells it.
    client.stop().await;
    // By default the grace period is ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8));
}
