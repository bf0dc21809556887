//! How a target's answer becomes a push.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::peers::{Peer, Proxy};
use crate::support::{Client, read_some, scrape, soon, without_time};

#[tokio::test]
async fn a_body_without_a_length_is_chunked_inside_and_outside() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("7", "", "10", "")).await;
    target.next().await.reply(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         3\r\nabc\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let push = proxy.push().await;
    assert!(push.is_whole);
    assert_eq!(push.header("transfer-encoding"), Some("chunked"));
    assert_eq!(push.header("content-length"), None);
    let text = without_time(push.text());
    let body = text
        .strip_prefix("HTTP/1.1 200 OK\r\nId: 7\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    assert_eq!(
        body,
        "3\r\nabc\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"
    );
    push.answer("200 OK", "");

    // An HTTP/1.0 target ends its body with the connection.
    proxy.hand_out(&scrape("8", "", "10", "")).await;
    let old = target.next().await;
    old.reply_and_close("HTTP/1.0 200 Fine\r\n\r\nab");
    let push = proxy.push().await;
    assert_eq!(
        without_time(push.text()),
        "HTTP/1.1 200 Fine\r\nId: 8\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    );
    push.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn answers_without_a_body_are_pushed_as_a_head() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    let head = scrape("1", "", "10", "").replacen("GET", "HEAD", 1);
    for (scrape, answer, pushed) in [
        (
            head.as_str(),
            "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nId: 1\r\n\r\n",
        ),
        (
            &scrape("2", "", "10", ""),
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nId: 2\r\n\r\n",
        ),
        (
            &scrape("3", "", "10", ""),
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nEtag: x\r\nId: 3\r\n\r\n",
        ),
        (
            &scrape("4", "", "10", ""),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nId: 4\r\n\r\n",
        ),
    ] {
        proxy.hand_out(scrape).await;
        target.next().await.reply(answer);
        let push = proxy.push().await;
        assert!(push.is_whole);
        assert_eq!(without_time(push.text()), pushed);
        push.answer("200 OK", "");
    }
    client.stop().await;
}

#[tokio::test]
async fn many_headers_of_a_target_go_through() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    let headers = "X-Many: y\r\n".repeat(200);
    let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n");
    target.next().await.reply(answer);
    let push = proxy.push().await;
    assert_eq!(push.status_line(), "HTTP/1.1 200 OK");
    assert_eq!(push.text().matches("X-Many: y\r\n").count(), 200);
    push.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn headers_that_are_not_as_they_should_be_do_not_fail_a_scrape() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for (line, pushed) in [
        ("X-Folded: a\r\n  b", "X-Folded: a"),
        ("X-Spaced : a", "X-Spaced: a\r\n"),
        ("X/Named(oddly): a", ""),
        ("X-Control: a\u{1}b", ""),
    ] {
        proxy.hand_out(&scrape("1", "", "10", "")).await;
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok");
        target.next().await.reply(answer);
        let push = proxy.push().await;
        assert_eq!(push.status_line(), "HTTP/1.1 200 OK", "{line}");
        assert!(push.text().ends_with("\r\n\r\nok"), "{}", push.text());
        assert!(push.text().contains(pushed), "{}", push.text());
        push.answer("200 OK", "");
    }
    client.stop().await;
}

#[tokio::test]
async fn redirects_are_pushed_and_not_followed() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        target.url("/elsewhere")
    );
    target.next().await.reply(elsewhere);
    let push = proxy.push().await;
    assert_eq!(push.status_line(), "HTTP/1.1 302 Found");
    assert!(push.text().contains("Location: http://"), "{}", push.text());
    assert!(target.try_next().is_none());
    push.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn the_answer_streams_into_the_push() {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_url = format!("http://{}/", front.local_addr().unwrap());
    let pull_url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let client = Client::start(&proxy_url, &pull_url, &[]);
    let (mut poll, _) = soon(front.accept()).await.unwrap();
    read_some(&mut poll).await;
    let scrape = scrape("1", "", "10", "");
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{scrape}",
        scrape.len()
    );
    poll.write_all(answer.as_bytes()).await.unwrap();

    let (mut target, _) = soon(listener.accept()).await.unwrap();
    read_some(&mut target).await;
    target
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        .await
        .unwrap();
    let (mut push, _) = soon(front.accept()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first") {
        seen.extend(read_some(&mut push).await);
    }
    target.write_all(b"after").await.unwrap();
    while !seen.ends_with(b"firstafter") {
        seen.extend(read_some(&mut push).await);
    }
    push.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    client.stop().await;
}
