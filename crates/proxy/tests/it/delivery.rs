//! Instructions that do not reach their client: the scrape goes to the next that polls, unless the
//! client may have it.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, idle, until};
use pushprox_testkit::wire::Connection;
use tokio::time::timeout;

use crate::support::{Instruction, Proxy, answer, instruction, poll, start};

/// A scrape that was sent to a client which has not read it.
async fn sent(proxy: &Proxy) -> (Connection, Connection) {
    let poll = proxy.park("node").await;
    (poll, sent_to_the_only_client(proxy).await)
}

async fn sent_to_the_only_client(proxy: &Proxy) -> Connection {
    let scrape = proxy.scrape("http://node/metrics", 30.0).await;
    // The poll has been answered once it is counted.
    until("the poll is answered", SOON, async || {
        let line = "pushprox_http_requests_total{code=\"200\",path=\"/poll\"}";
        (proxy.metric(line).await >= Some(1.0)).then_some(())
    })
    .await;
    scrape
}

/// Whether a client that polls under the name is given a scrape without waiting for another.
async fn is_given_one(proxy: &Proxy) -> Option<Instruction> {
    let mut next = proxy.park("node").await;
    let limit = Duration::from_millis(500);
    timeout(limit, instruction(&mut next)).await.ok()
}

#[tokio::test]
async fn a_client_that_dies_with_the_instruction_unread_has_not_got_it() {
    let proxy = start().await;
    let (poll, mut scrape) = sent(&proxy).await;
    // As the system does for a process that is killed: there are bytes that nobody has read.
    drop(poll);
    let given = until("the next client is given it", SOON, async || {
        is_given_one(&proxy).await
    })
    .await;
    assert_eq!(proxy.push(answer(&given.id, "second")).await.status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "second");
}

#[tokio::test]
async fn a_client_that_polls_on_a_connection_of_its_own_has_not_got_it_either() {
    for line in ["HTTP/1.1\r\nHost: p\r\nConnection: close", "HTTP/1.0"] {
        let proxy = start().await;
        let mut poll = proxy.connect().await;
        let polls = format!("POST /poll {line}\r\nContent-Length: 4\r\n\r\nnode");
        poll.send(polls.as_bytes()).await.unwrap();
        proxy.registered("node").await;
        let mut scrape = sent_to_the_only_client(&proxy).await;
        drop(poll);
        let given = until("the next client is given it", SOON, async || {
            is_given_one(&proxy).await
        })
        .await;
        proxy.push(answer(&given.id, "second")).await;
        assert_eq!(scrape.receive().await.unwrap().text(), "second", "{line}");
    }
}

#[tokio::test]
async fn a_client_that_has_read_it_and_leaves_may_have_pulled() {
    let proxy = start().await;
    let (mut poll, mut scrape) = sent(&proxy).await;
    let given = instruction(&mut poll).await;
    drop(poll);
    assert!(is_given_one(&proxy).await.is_none());
    // Its push comes on another connection.
    assert_eq!(proxy.push(answer(&given.id, "first")).await.status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "first");
}

#[tokio::test]
async fn a_client_that_lives_has_it_however_long_it_is_silent() {
    let proxy = start().await;
    let (mut poll, mut scrape) = sent(&proxy).await;
    // Longer than it takes to ask the system.
    idle(Duration::from_millis(2_500)).await;
    assert!(is_given_one(&proxy).await.is_none());
    let given = instruction(&mut poll).await;
    assert_eq!(proxy.push(answer(&given.id, "late")).await.status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "late");
}

#[tokio::test]
async fn a_scrape_that_is_handed_out_again_takes_the_first_answer() {
    let proxy = start().await;
    let mut first = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 30.0).await;
    let given = instruction(&mut first).await;
    // A reset although it has been read: what a broken middlebox does.
    first.reset();
    let again = until("the next client is given it", SOON, async || {
        is_given_one(&proxy).await
    })
    .await;
    assert_eq!(again.id, given.id, "a client may see that it had it before");
    assert_eq!(proxy.push(answer(&given.id, "first")).await.status(), 200);
    assert_eq!(proxy.push(answer(&again.id, "second")).await.status(), 410);
    assert_eq!(scrape.receive().await.unwrap().text(), "first");
    // And is handed to nobody any more.
    assert!(is_given_one(&proxy).await.is_none());
}

#[tokio::test]
async fn an_answer_is_taken_while_its_scrape_waits_to_be_handed_out_again() {
    let proxy = start().await;
    let mut first = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 30.0).await;
    let given = instruction(&mut first).await;
    first.reset();
    until("it waits again, or is answered", SOON, async || {
        let pushed = proxy.push(answer(&given.id, "first")).await;
        (pushed.status() == 200).then_some(())
    })
    .await;
    assert_eq!(scrape.receive().await.unwrap().text(), "first");
    assert!(is_given_one(&proxy).await.is_none());
}

#[tokio::test]
async fn another_client_under_the_name_gets_what_was_lost() {
    let proxy = start().await;
    let mut other = proxy.park("node").await;
    let (newest, mut scrape) = sent(&proxy).await;
    drop(newest);
    let given = instruction(&mut other).await;
    other.send(&poll("node", "")).await.unwrap();
    proxy.push(answer(&given.id, "other")).await;
    assert_eq!(scrape.receive().await.unwrap().text(), "other");
}
