//! What polling clients get.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use tokio::time::Instant;

use crate::support::{answer, config, instruction, poll, start, start_with};

#[tokio::test]
async fn a_poll_that_prefers_a_wait_ends_with_204_in_that_time() {
    let proxy = start().await;
    let before = Instant::now();
    let mut connection = proxy.park_with("node", "Prefer: wait=1\r\n").await;
    let answer = connection.receive().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.header("Preference-Applied"), Some("wait=1"));
    assert!(before.elapsed() >= Duration::from_millis(900));
    // The connection goes on.
    connection
        .send(&poll("node", "Prefer: wait=1\r\n"))
        .await
        .unwrap();
    assert_eq!(connection.receive().await.unwrap().status(), 204);
    let ended = "pushprox_http_requests_total{code=\"204\",path=\"/poll\"}";
    proxy.metric_is(ended, 2.0).await;
}

#[tokio::test]
async fn the_operators_limit_ends_a_poll_of_a_go_client_with_408() {
    let mut config = config();
    config.poll_max_wait = Some(Duration::from_millis(200));
    let proxy = start_with(config).await;
    let mut connection = proxy.park_with("node", "").await;
    let answer = connection.receive().await.unwrap();
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.header("Preference-Applied"), None);
}

#[tokio::test]
async fn an_instruction_says_whether_the_wait_was_honoured() {
    let proxy = start().await;
    for (headers, applied) in [("Prefer: wait=45\r\n", Some("wait=45")), ("", None)] {
        let mut connection = proxy.park_with("node", headers).await;
        let _scrape = proxy.scrape("http://node/metrics", 10.0).await;
        let answer = connection.receive().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.header("Preference-Applied"), applied);
    }
}

#[tokio::test]
async fn bad_names_are_refused_with_a_reason_and_not_at_once() {
    let proxy = start().await;
    for (body, status, reason) in [
        ("", 400, "the name is empty"),
        ("   \r\n", 400, "the name is empty"),
        ("a b", 400, "the character ' '"),
        ("no\0de", 400, "the character '\\0'"),
        ("node:port", 400, "the port is not a number"),
        ("::1", 400, "an IPv6 address is written in brackets"),
        (&"x".repeat(300), 400, "has 300 characters"),
        (&"x".repeat(2_000), 413, "longer than 1024 bytes"),
    ] {
        let before = Instant::now();
        let answer = proxy.ask(poll(body, "")).await;
        assert_eq!(answer.status(), status, "{body:?}");
        assert!(
            answer.text().contains(reason),
            "{body:?}: {}",
            answer.text()
        );
        assert!(before.elapsed() >= Duration::from_millis(950), "{body:?}");
    }
    let latin = [
        b"POST /poll HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n".as_slice(),
        b"\xe9a",
    ];
    assert_eq!(proxy.ask(latin.concat()).await.status(), 400);
    assert!(proxy.names().await.is_empty());
}

#[tokio::test]
async fn a_poll_is_a_post() {
    let proxy = start().await;
    let answer = proxy.ask("GET /poll HTTP/1.1\r\nHost: p\r\n\r\n").await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.header("Allow"), Some("POST"));
}

#[tokio::test]
async fn the_end_of_one_poll_never_affects_another() {
    let proxy = start().await;
    let older = proxy.park("node").await;
    let mut kept = proxy.park("node").await;
    let newer = proxy.park("node").await;
    drop(older);
    newer.reset();
    for round in 0..2 {
        // Whichever of the two is left is asked; the dead ones are not.
        let mut scrape = proxy.scrape("http://node/metrics", 10.0).await;
        let given = instruction(&mut kept).await;
        proxy.push(answer(&given.id, "ok")).await;
        assert_eq!(scrape.receive().await.unwrap().text(), "ok", "{round}");
        kept.send(&poll("node", "")).await.unwrap();
    }
}

#[tokio::test]
async fn a_name_is_forgotten_its_time_after_its_last_poll_and_not_before() {
    let mut config = config();
    config.registration_timeout = Duration::from_millis(400);
    let proxy = start_with(config).await;
    let connection = proxy.park("node").await;
    pushprox_testkit::wait::idle(Duration::from_millis(1_200)).await;
    assert_eq!(proxy.names().await, ["node"], "its poll waits still");
    drop(connection);
    let before = Instant::now();
    until("the name expires", SOON, async || {
        proxy.names().await.is_empty().then_some(())
    })
    .await;
    assert!(before.elapsed() >= Duration::from_millis(350));
}

#[tokio::test]
async fn an_http_1_0_poll_is_answered_and_its_connection_closed() {
    let proxy = start().await;
    let mut connection = proxy.connect().await;
    let request = "POST /poll HTTP/1.0\r\nHost: p\r\nContent-Length: 4\r\n\r\nnode";
    connection.send(request.as_bytes()).await.unwrap();
    proxy.registered("node").await;
    let _scrape = proxy.scrape("http://node/metrics", 10.0).await;
    instruction(&mut connection).await;
    assert!(connection.rest().await.is_empty());
}
