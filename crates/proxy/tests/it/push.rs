//! What becomes of pushed answers, good and broken.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, Message};
use tokio::time::Instant;

use crate::support::{Proxy, answer, instruction, start};

/// A scrape that a client has in hand.
async fn in_hand(proxy: &Proxy) -> (Connection, String) {
    let mut poll = proxy.park("node").await;
    let scrape = proxy.scrape("http://node/metrics", 60.0).await;
    let given = instruction(&mut poll).await;
    (scrape, given.id)
}

/// Pushes a message for a scrape and gives both answers.
async fn pushed(proxy: &Proxy, message: impl Fn(&str) -> String) -> (Message, Message) {
    let (mut scrape, id) = in_hand(proxy).await;
    let taken = proxy.push(message(&id)).await;
    (scrape.receive().await.unwrap(), taken)
}

#[tokio::test]
async fn an_id_is_answered_once_and_by_nobody_who_guesses() {
    let proxy = start().await;
    let (mut scrape, id) = in_hand(&proxy).await;
    for guess in [
        "",
        "1795546384-2-16969",
        "00000000-0000-0000-0000-000000000000",
        &id.replace('-', ""),
    ] {
        let refused = proxy.push(answer(guess, "forged")).await;
        assert_eq!(refused.status(), 410, "{guess}");
    }
    proxy.push(answer(&id, "right")).await;
    assert_eq!(scrape.receive().await.unwrap().text(), "right");
    assert_eq!(proxy.push(answer(&id, "again")).await.status(), 410);
}

#[tokio::test]
async fn every_inner_framing_is_undone() {
    let proxy = start().await;
    let (chunked, _) = pushed(&proxy, |id| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nId: {id}\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: 1\r\n\r\n")
    })
    .await;
    assert_eq!((chunked.text().as_str(), chunked.whole), ("abcde", true));
    assert_eq!(chunked.header("Content-Length"), None);
    let (to_end, _) = pushed(&proxy, |id| {
        format!("HTTP/0.0 500 Oh No\r\nId: {id}\r\n\r\nall of it")
    })
    .await;
    assert_eq!((to_end.status(), to_end.reason()), (500, "Oh No"));
    assert_eq!((to_end.text().as_str(), to_end.whole), ("all of it", true));
    let (empty, _) = pushed(&proxy, |id| {
        format!("HTTP/1.1 204 No Content\r\nId: {id}\r\n\r\n")
    })
    .await;
    assert_eq!(empty.status(), 204);
}

#[tokio::test]
async fn a_push_with_an_outer_chunked_framing_is_taken_and_its_connection_goes_on() {
    let proxy = start().await;
    let mut pushes = proxy.connect().await;
    for body in ["one", "two"] {
        let (mut scrape, id) = in_hand(&proxy).await;
        let message = answer(&id, body);
        let (head, rest) = message.split_at(20);
        pushes
            .send(b"POST /push HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        for part in [head, rest] {
            let chunk = format!("{:x}\r\n{part}\r\n", part.len());
            pushes.send(chunk.as_bytes()).await.unwrap();
        }
        assert_eq!(scrape.receive().await.unwrap().text(), body);
        pushes.send(b"0\r\n\r\n").await.unwrap();
        assert_eq!(pushes.receive().await.unwrap().status(), 200);
    }
}

type MessageFor = fn(&str) -> String;

#[tokio::test]
async fn a_push_that_is_broken_as_it_stands_becomes_a_502_with_the_reason() {
    let proxy = start().await;
    let cases: [(&str, MessageFor); 6] = [
        ("the body breaks off before its end", |id| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nId: {id}\r\n\r\nabc")
        }),
        ("the body breaks off before its end", |id| {
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nId: {id}\r\n\r\n3\r\nabc\r\n")
        }),
        ("the chunked body is malformed", |id| {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nId: {id}\r\n\r\nzzz\r\nabc\r\n"
            )
        }),
        ("the content-length is not one number", |id| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\nId: {id}\r\n\r\nabc"
            )
        }),
        ("the head is not HTTP", |id| {
            format!("total garbage\r\nId: {id}\r\n\r\n")
        }),
        ("the message ends within its head", |id| {
            format!("HTTP/1.1 200 OK\r\nId: {id}\r\nContent-")
        }),
    ];
    for (reason, message) in cases {
        let (answer, refused) = pushed(&proxy, message).await;
        assert_eq!(answer.status(), 502, "{reason}");
        assert!(
            answer
                .reason()
                .starts_with("client node sent a broken answer: ")
                && answer.reason().contains(reason),
            "{}",
            answer.reason()
        );
        assert_eq!(refused.status(), 400, "{reason}");
        assert!(refused.text().contains(reason), "{}", refused.text());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_on_its_way_never_looks_whole() {
    let proxy = start().await;
    for framing in [
        "Content-Length: 900000",
        "Transfer-Encoding: chunked",
        "X: to the end",
    ] {
        let (mut scrape, id) = in_hand(&proxy).await;
        let mut push = proxy.connect().await;
        push.send(b"POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 1000000\r\n\r\n")
            .await
            .unwrap();
        let start = format!("HTTP/1.1 200 OK\r\n{framing}\r\nId: {id}\r\n\r\n10000\r\nabc");
        push.send(start.as_bytes()).await.unwrap();
        let head = scrape.receive_head().await.unwrap();
        assert_eq!(head.status(), 200);
        drop(push);
        let mut pieces = scrape.pieces(&head);
        while let Ok(Some(_)) = pieces.next().await {}
        assert!(!pieces.is_whole(), "{framing}");
    }
}

#[tokio::test]
async fn a_push_is_told_that_it_became_malformed_on_its_way() {
    let proxy = start().await;
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked";
    let to_end = "HTTP/1.1 200 OK";
    for (head, outer, end) in [
        (whole, "3\r\nabc\r\n", "5\r\nZZZZZ\r\n"),
        (whole, "3\r\nabc\r\n", "0\r\n\r\n"),
        (to_end, "abc", "no chunk\r\n"),
    ] {
        let (mut scrape, id) = in_hand(&proxy).await;
        let message = format!("{head}\r\nId: {id}\r\n\r\n{outer}");
        let mut push = proxy.connect().await;
        let start = format!(
            "POST /push HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{message}\r\n",
            message.len()
        );
        push.send(start.as_bytes()).await.unwrap();
        let head = scrape.receive_head().await.unwrap();
        let mut pieces = scrape.pieces(&head);
        assert_eq!(pieces.next().await.unwrap().unwrap(), "abc");
        push.send(end.as_bytes()).await.unwrap();
        while let Ok(Some(_)) = pieces.next().await {}
        assert!(!pieces.is_whole(), "{end:?}");
        let refused = push.receive().await.unwrap();
        assert_eq!(refused.status(), 400, "{end:?}: {}", refused.text());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_where_its_end_is_its_length() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.connect().await;
    // An HTTP/1.0 answer without a length ends with the connection.
    scrape
        .send(b"GET http://node/metrics HTTP/1.0\r\nHost: node\r\n\r\n")
        .await
        .unwrap();
    let given = instruction(&mut poll).await;
    let mut push = proxy.connect().await;
    push.send(b"POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    let start = format!("HTTP/1.1 200 OK\r\nId: {}\r\n\r\nabc", given.id);
    push.send(start.as_bytes()).await.unwrap();
    let head = scrape.receive_head().await.unwrap();
    drop(push);
    let mut pieces = scrape.pieces(&head);
    while let Ok(Some(_)) = pieces.next().await {}
    assert!(
        !pieces.is_whole(),
        "an end that cannot be told from a good one"
    );
}

#[tokio::test]
async fn bad_pushes_are_refused_with_a_reason() {
    let proxy = start().await;
    let unknown = "3caff62d-f468-48df-9611-0d2eddf18a98";
    for (message, status) in [
        (String::new(), 400),
        ("garbage".to_owned(), 400),
        ("\0\0\0\0".to_owned(), 400),
        ("HTTP/1.1 200 OK\r\n".to_owned(), 400),
        ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), 400),
        (
            format!("HTTP/1.1 200 OK\r\nId: {unknown}\r\nId: {unknown}\r\n\r\n"),
            400,
        ),
        (
            format!("HTTP/1.1 100 Continue\r\nId: {unknown}\r\n\r\n"),
            400,
        ),
        (answer(unknown, "who?"), 410),
        (answer(unknown, &"x".repeat(3_000_000)), 410),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000)), 431),
        (
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(2_000)),
            431,
        ),
    ] {
        let refused = proxy.push(&message).await;
        let start: String = message.chars().take(40).collect();
        assert_eq!(refused.status(), status, "{start}: {}", refused.text());
        assert!(refused.text().len() > 10, "{start}: {}", refused.text());
    }
    let get = proxy.ask("GET /push HTTP/1.1\r\nHost: p\r\n\r\n").await;
    assert_eq!((get.status(), get.header("Allow")), (405, Some("POST")));
}

#[tokio::test]
async fn an_unknown_id_is_refused_before_its_body_has_come() {
    let proxy = start().await;
    let head = "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 5000\r\n\r\n\
                HTTP/1.1 200 OK\r\nId: 3caff62d-f468-48df-9611-0d2eddf18a98\r\n\r\nhalf";
    // What still comes is waited for behind the answer, for two seconds. A machine that stands still
    // for as long says nothing of that.
    until("an answer at once", SOON, async || {
        let mut connection = proxy.connect().await;
        let before = Instant::now();
        connection.send(head.as_bytes()).await.unwrap();
        let refused = connection.receive().await.unwrap();
        assert_eq!(refused.status(), 410);
        assert_eq!(refused.header("Connection"), Some("close"));
        (before.elapsed() < Duration::from_millis(1_500)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_in_single_bytes_is_read_as_one() {
    let proxy = start().await;
    let (mut scrape, id) = in_hand(&proxy).await;
    let mut connection = proxy.connect().await;
    let start = b"POST /push HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(start).await.unwrap();
    for byte in answer(&id, "ok").into_bytes() {
        let chunk = [b"1\r\n".as_slice(), &[byte], b"\r\n"].concat();
        connection.send(&chunk).await.unwrap();
    }
    connection.send(b"0\r\n\r\n").await.unwrap();
    assert_eq!(scrape.receive().await.unwrap().text(), "ok");
    assert_eq!(connection.receive().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_without_a_body_tells_the_length_that_it_may() {
    let proxy = start().await;
    for (line, length) in [("204 No Content", None), ("304 Not Modified", Some("9"))] {
        let (answer, _) = pushed(&proxy, |id| {
            format!("HTTP/1.1 {line}\r\nContent-Length: 9\r\nId: {id}\r\n\r\n")
        })
        .await;
        assert_eq!(answer.header("Content-Length"), length, "{line}");
    }
}

#[tokio::test]
async fn a_push_is_told_when_prometheus_has_hung_up() {
    let proxy = start().await;
    let (scrape, id) = in_hand(&proxy).await;
    let mut sends = proxy.connect().await;
    sends
        .send(b"POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 900\r\nId: {id}\r\n\r\nabc");
    sends.send(head.as_bytes()).await.unwrap();
    drop(scrape);
    assert_eq!(sends.receive().await.unwrap().status(), 410);
}

#[tokio::test]
async fn a_push_that_breaks_off_is_not_told_that_prometheus_has() {
    let proxy = start().await;
    let (mut scrape, id) = in_hand(&proxy).await;
    let mut sends = proxy.connect().await;
    let head = format!(
        "POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 900\r\nId: {id}\r\n\r\nabc"
    );
    sends.send(head.as_bytes()).await.unwrap();
    scrape.receive_head().await.unwrap();
    sends.finish().await.unwrap();
    let told = sends.receive().await.unwrap();
    let told = (told.status(), told.text());
    assert_eq!(told, (400, "the request broke off\n".to_owned()));
}

#[tokio::test]
async fn nothing_of_a_scrape_outlasts_its_time() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/metrics", 5.0).await;
    let given = instruction(&mut poll).await;
    // A client that sends the beginning of its answer, and never the rest.
    let mut sends = proxy.connect().await;
    sends
        .send(b"POST /push HTTP/1.1\r\nHost: p\r\nContent-Length: 1000\r\n\r\n")
        .await
        .unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 900\r\nId: {}\r\n\r\nabc",
        given.id
    );
    sends.send(head.as_bytes()).await.unwrap();
    let head = scrape.receive_head().await.unwrap();
    let mut pieces = scrape.pieces(&head);
    while let Ok(Some(_)) = pieces.next().await {}
    assert!(!pieces.is_whole());
    assert_eq!(sends.receive().await.unwrap().status(), 410);
}
