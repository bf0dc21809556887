//! The limits on time and on what is unfinished, hit by peers that are slow or never finish.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{assert_told, limited, small};
use crate::support::{answer, config, instruction, push, start_with};

#[tokio::test]
async fn a_head_that_does_not_end_in_time_gets_408_and_silence_gets_nothing() {
    let proxy = limited().await;
    let mut slow = proxy.connect().await;
    slow.send(b"POST /poll HTTP/1.1\r\nHost:").await.unwrap();
    let mut silent = proxy.connect().await;
    proxy.is_well().await;
    assert_told(&slow.receive().await.unwrap(), 408, "head-timeout");
    assert!(slow.rest().await.is_empty());
    assert!(silent.rest().await.is_empty());
    proxy.hit("head-timeout", 2.0).await;
}

#[tokio::test]
async fn heads_that_do_not_end_share_their_room_and_whole_ones_need_none() {
    let mut config = config();
    config.limits.unfinished_heads = 100_000;
    config.limits.head_timeout = Duration::from_secs(300);
    let proxy = start_with(config).await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/", 60.0).await;
    let given = instruction(&mut poll).await;
    let unfinished = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(30_000));
    let mut peers = JoinSet::new();
    for _ in 0..4 {
        let (mut peer, unfinished) = (proxy.connect().await, unfinished.clone());
        peers.spawn(async move {
            peer.send(unfinished.as_bytes()).await.unwrap();
            peer.receive().await.unwrap()
        });
    }
    let refused = peers.join_next().await.unwrap().unwrap();
    assert_told(&refused, 503, "unfinished-heads");
    proxy.hit("unfinished-heads", 1.0).await;

    // The head of a pushed answer takes up such room as well.
    let mut pusher = proxy.connect().await;
    let head = "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 40000\r\n\r\n";
    let x = "x".repeat(30_000);
    let begun = format!("{head}HTTP/1.1 200 OK\r\nId: {}\r\nA: {x}", given.id);
    pusher.send(begun.as_bytes()).await.unwrap();
    assert_told(&pusher.receive().await.unwrap(), 503, "unfinished-heads");
    let failed = scrape.receive().await.unwrap();
    assert_eq!(failed.status(), 502);
    assert!(
        failed.reason().ends_with("(--limit.unfinished-heads)"),
        "{}",
        failed.reason()
    );

    // One that comes at once needs none, and those that have gone leave theirs.
    proxy.is_well().await;
    drop(peers);
    until("there is room again", SOON, async || {
        let mut peer = proxy.connect().await;
        peer.send(unfinished.as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_millis(500), peer.receive()).await;
        answer.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_prolong_a_head() {
    let proxy = limited().await;
    let mut slow = proxy.connect().await;
    let before = Instant::now();
    slow.send(b"GET /").await.unwrap();
    let answer = until("the answer", SOON, async || {
        if slow.send(b"x").await.is_err() || before.elapsed() > Duration::from_millis(600) {
            return Some(slow.receive().await.unwrap());
        }
        None
    })
    .await;
    assert_told(&answer, 408, "head-timeout");
    assert!(before.elapsed() >= Duration::from_millis(650));
}

#[tokio::test]
async fn a_poll_whose_name_does_not_come_gets_408() {
    let proxy = limited().await;
    let mut slow = proxy.connect().await;
    slow.send(b"POST /poll HTTP/1.1\r\nHost: p\r\nContent-Length: 4\r\n\r\nno")
        .await
        .unwrap();
    proxy.is_well().await;
    assert_told(&slow.receive().await.unwrap(), 408, "progress-timeout");
    proxy.hit("progress-timeout", 1.0).await;
}

#[tokio::test]
async fn a_push_whose_head_does_not_come_gets_408_and_fails_its_scrape() {
    let proxy = limited().await;
    let mut poll = proxy.park("well").await;
    let mut scrape = proxy.scrape("http://well/", 10.0).await;
    let given = instruction(&mut poll).await;
    let mut slow = proxy.connect().await;
    let head = "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 400\r\n\r\n";
    let start = format!("{head}HTTP/1.1 200 OK\r\nId: {}\r\nA:", given.id);
    slow.send(start.as_bytes()).await.unwrap();
    assert_told(&slow.receive().await.unwrap(), 408, "progress-timeout");
    let failed = scrape.receive().await.unwrap();
    assert_eq!(failed.status(), 502);
    assert!(
        failed.reason().ends_with("(--limit.progress-timeout)"),
        "{}",
        failed.reason()
    );
    proxy.hit("progress-timeout", 1.0).await;
    proxy.is_well().await;
}

#[tokio::test]
async fn a_push_that_stops_breaks_both_ends() {
    let proxy = limited().await;
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut poll = proxy.park("well").await;
        let mut scrape = proxy.scrape("http://well/", 30.0).await;
        let given = instruction(&mut poll).await;
        let mut slow = proxy.connect().await;
        let head = "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 200000\r\n\r\n";
        let id = given.id;
        let start = format!("{head}HTTP/1.1 200 OK\r\n{framing}\r\nId: {id}\r\n\r\n9000\r\nab");
        let before = Instant::now();
        slow.send(start.as_bytes()).await.unwrap();
        proxy.is_well().await;
        let head = scrape.receive_head().await.unwrap();
        assert_eq!(head.status(), 200);
        let mut pieces = scrape.pieces(&head);
        while let Ok(Some(_)) = pieces.next().await {}
        assert!(!pieces.is_whole(), "{framing}");
        assert!(before.elapsed() >= Duration::from_millis(850));
        assert_told(&slow.receive().await.unwrap(), 408, "progress-timeout");
    }
    proxy.hit("progress-timeout", 2.0).await;
    proxy.is_well().await;
}

#[tokio::test]
async fn a_push_that_goes_on_slowly_is_passed_on() {
    let mut limits = small();
    limits.limits.progress_timeout = Duration::from_secs(6);
    let proxy = start_with(limits).await;
    let mut poll = proxy.park("well").await;
    let mut scrape = proxy.scrape("http://well/", 60.0).await;
    let given = instruction(&mut poll).await;
    let message = answer(&given.id, "slowly");
    let mut slow = proxy.connect().await;
    let whole = push(message.as_bytes());
    let (start, rest) = whole.split_at(whole.len() - 4);
    slow.send(start).await.unwrap();
    // Longer than may pass without a byte, in all.
    for byte in rest {
        pushprox_testkit::wait::idle(Duration::from_secs(2)).await;
        slow.send(&[*byte]).await.unwrap();
    }
    assert_eq!(scrape.receive().await.unwrap().text(), "slowly");
    assert_eq!(slow.receive().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_prometheus_that_stops_reading_breaks_both_ends() {
    let proxy = limited().await;
    let mut poll = proxy.park("well").await;
    let mut scrape = proxy.scrape("http://well/", 60.0).await;
    let given = instruction(&mut poll).await;
    let body = "x".repeat(64_000_000);
    let message = answer(&given.id, &body);
    let message = push(message.as_bytes());
    let pushing = proxy.connect().await.send_and_receive(&message);
    let reading = async {
        let head = scrape.receive_head().await.unwrap();
        assert_eq!(head.status(), 200);
        proxy.hit("progress-timeout", 1.0).await;
        // What is still on its way is not all of it.
        let mut pieces = scrape.pieces(&head);
        while let Ok(Some(_)) = pieces.next().await {}
        assert!(!pieces.is_whole());
    };
    let (refused, ()) = tokio::join!(pushing, reading);
    // The client may see the answer, or the end of what it could not send on.
    if let Ok(refused) = refused {
        assert_eq!(refused.status(), 410, "{}", refused.text());
    }
    proxy.is_well().await;
}

#[tokio::test]
async fn a_page_that_nobody_reads_is_given_up() {
    let proxy = limited().await;
    let mut reader = proxy.connect().await;
    // More than any socket takes of the answers.
    let asked = "GET /metrics HTTP/1.1\r\nHost: proxy\r\n\r\n".repeat(20_000);
    let (sent, ()) = tokio::join!(
        reader.send(asked.as_bytes()),
        proxy.hit("progress-timeout", 1.0)
    );
    // The connection may end before everything has been asked.
    drop(sent);
    let answers = String::from_utf8(reader.rest().await).unwrap();
    let count = answers.matches("HTTP/1.1 200").count();
    assert!((1..20_000).contains(&count), "{count} pages");
    proxy.is_well().await;
}
