//! What Prometheus reads when the target fails.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, free_port, until};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::peers::{Peer, Proxy, Request};
use crate::support::{Client, read_some, scrape, soon, time_passes};

/// Lets a client pull from `url` and gives its push.
async fn push_of(url: &str, seconds: &str) -> Request {
    let mut proxy = Proxy::start().await;
    let client = Client::start(&proxy.url(), url, &[]);
    proxy.hand_out(&scrape("1", "", seconds, "")).await;
    let push = proxy.push().await;
    assert!(push.is_whole);
    assert!(push.text().contains("\r\nId: 1\r\n"), "{}", push.text());
    client.shutdown.begin();
    push
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let push = push_of(
        &format!("http://u:secret@{address}/metrics?token=secret"),
        "10",
    )
    .await;
    assert_eq!(
        push.status_line(),
        format!("HTTP/1.1 502 cannot reach target http://{address}/metrics: connection refused")
    );
    let (_, body) = push.text().split_once("\r\n\r\n").unwrap();
    assert!(body.contains("tcp connect error"), "{body}");
    assert!(!push.text().contains("secret"), "{}", push.text());
}

#[tokio::test]
async fn a_host_without_an_address_is_told() {
    let push = push_of("http://no-such-host.invalid/metrics", "10").await;
    let line = push.status_line();
    let start = "HTTP/1.1 502 cannot reach target http://no-such-host.invalid/metrics: \
                 its host name has no address: ";
    assert!(line.starts_with(start), "{line}");
}

#[tokio::test]
async fn a_target_that_hangs_is_given_up_on_before_the_scrape_is_over() {
    // There is a second left to tell it in. A machine that stands still for as long says nothing of
    // that, and what comes of it late must not be taken for what comes of the next try.
    let (url, push, left) = until("a push in time", SOON, async || {
        let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
        let url = target.url("/metrics");
        let client = Client::start(&proxy.url(), &url, &[]);
        let before = Instant::now();
        proxy.hand_out(&scrape("1", "", "60", "")).await;
        let _pull = target.next().await;
        time_passes(Duration::from_secs(59) - before.elapsed()).await;
        let push = timeout(Duration::from_secs(3), proxy.push()).await.ok()?;
        let (_, left) = push.text().split_once("X-Prometheus-Scrape-Timeout: ")?;
        let left: f64 = left.lines().next()?.parse().ok()?;
        client.shutdown.begin();
        (push.is_whole && left > 0.0).then_some((url, push, left))
    })
    .await;
    assert_eq!(
        push.status_line(),
        format!("HTTP/1.1 504 target {url} did not answer within 59s")
    );
    assert!(left <= 1.0, "{left}");
}

#[tokio::test]
async fn a_target_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/metrics", listener.local_addr().unwrap());
    let speaking_http = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_some(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    };
    let push = tokio::select! {
        push = push_of(&url, "60") => push,
        () = speaking_http => unreachable!(),
    };
    let line = push.status_line();
    let start = format!("HTTP/1.1 502 cannot reach target {url}: no secure connection: ");
    assert!(line.starts_with(&start), "{line}");
}

/// Lets a target answer with `bytes` as often as it is asked, and gives the push.
async fn push_after(bytes: &'static [u8]) -> (Request, String) {
    let mut target = Peer::start().await;
    let url = target.url("/metrics");
    let push = tokio::select! {
        push = push_of(&url, "60") => push,
        () = async {
            loop {
                let pull = target.next().await;
                if bytes.is_empty() {
                    drop(pull);
                } else {
                    pull.reply(bytes);
                }
            }
        } => unreachable!(),
    };
    (push, url)
}

#[tokio::test]
async fn answers_that_are_none_are_told() {
    for (bytes, reason) in [
        (
            b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
            "502 target URL gave no answer: it is not HTTP: invalid HTTP version parsed",
        ),
        (
            b"",
            "502 target URL gave no answer: the connection was closed before the answer",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "502 target URL answered 101 Switching Protocols, which is no answer to a scrape",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n",
            "502 target URL answered in a transfer coding that cannot be undone: gzip, chunked",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n",
            "502 target URL answered in a transfer coding that cannot be undone: x",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "502 target URL answered in a transfer coding that cannot be undone: chunked, chunked",
        ),
    ] {
        let (push, url) = push_after(bytes).await;
        assert_eq!(
            push.status_line(),
            format!("HTTP/1.1 {}", reason.replace("URL", &url))
        );
    }
}

#[tokio::test]
async fn errors_of_the_target_keep_their_status_and_reason() {
    for (bytes, line) in [
        (
            b"HTTP/1.1 500 Oh No\r\nContent-Length: 4\r\n\r\noops".as_slice(),
            "HTTP/1.1 500 Oh No",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found",
        ),
        (
            b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 599 ",
        ),
        // What stands in for a reason that is not ASCII, of which the HTTP library keeps nothing.
        (
            b"HTTP/1.1 503 \xdcberlastet\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable",
        ),
    ] {
        let (push, _) = push_after(bytes).await;
        assert_eq!(push.status_line(), line);
    }
}

#[tokio::test]
async fn other_methods_are_refused_without_asking_the_target() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for method in ["POST", "DELETE", "OPTIONS"] {
        let scrape = scrape(method, "", "10", "").replacen("GET", method, 1);
        proxy.hand_out(&scrape).await;
        let push = proxy.push().await;
        assert_eq!(
            push.status_line(),
            format!("HTTP/1.1 405 method {method} is not one of GET and HEAD")
        );
        push.answer("200 OK", "");
    }
    assert!(target.try_next().is_none());
    client.stop().await;
}

#[tokio::test]
async fn a_target_that_breaks_off_breaks_the_push_off() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
    ] {
        let mut proxy = Proxy::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let client = Client::start(&proxy.url(), &url, &[]);
        proxy.hand_out(&scrape("1", "", "60", "")).await;
        let breaking_off = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_some(&mut stream).await;
                stream.write_all(bytes).await.unwrap();
            }
        };
        let push = tokio::select! {
            push = proxy.push() => push,
            () = breaking_off => unreachable!(),
        };
        assert!(!push.is_whole, "{}", String::from_utf8_lossy(&push.body));
        assert!(
            push.body.ends_with(b"half"),
            "{}",
            String::from_utf8_lossy(&push.body)
        );
        client.shutdown.begin();
    }
}

#[tokio::test]
async fn a_target_that_breaks_off_behind_its_head_is_told() {
    for (bytes, why) in [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".as_slice(),
            "end of file before message length reached",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "unexpected EOF during chunk size line",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "Invalid chunk size line: missing size digit",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let breaking_off = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_some(&mut stream).await;
                stream.write_all(bytes).await.unwrap();
            }
        };
        let push = tokio::select! {
            push = push_of(&url, "5") => push,
            () = breaking_off => unreachable!(),
        };
        assert_eq!(
            push.status_line(),
            format!("HTTP/1.1 502 target {url} broke off behind the head of its answer: {why}")
        );
    }
}

#[tokio::test]
async fn a_head_does_not_wait_for_a_body_that_is_long_in_coming() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    proxy.hand_out(&scrape("1", "", "2", "")).await;
    let pull = target.next().await;
    pull.reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    let push = proxy.push().await;
    assert!(!push.is_whole);
    assert_eq!(push.status_line(), "HTTP/1.1 200 OK");
    client.stop().await;
}

#[tokio::test]
async fn a_target_that_stops_in_the_middle_is_cut_off_when_the_time_is_up() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    let before = Instant::now();
    proxy.hand_out(&scrape("1", "", "6", "")).await;
    let pull = target.next().await;
    pull.reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let push = proxy.push().await;
    assert!(!push.is_whole);
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(6), "{took:?}");
    client.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_target_has_just_closed_is_not_a_failure() {
    let mut proxy = Proxy::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let client = Client::start(&proxy.url(), &url, &[]);
    proxy.hand_out(&scrape("1", "", "60", "")).await;
    let (mut first, _) = soon(listener.accept()).await.unwrap();
    read_some(&mut first).await;
    first
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    proxy.push().await.answer("200 OK", "");
    proxy.hand_out(&scrape("2", "", "60", "")).await;
    // The second request arrives on the kept connection, which closes instead of answering.
    read_some(&mut first).await;
    drop(first);
    let (mut second, _) = soon(listener.accept()).await.unwrap();
    read_some(&mut second).await;
    second
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await
        .unwrap();
    let push = proxy.push().await;
    assert_eq!(push.status_line(), "HTTP/1.1 200 OK");
    client.shutdown.begin();
}

#[tokio::test]
async fn a_target_that_closes_a_fresh_connection_is_asked_once() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for round in 1..=3 {
        proxy
            .hand_out(&scrape(&round.to_string(), "", "60", ""))
            .await;
        drop(target.next().await);
        let push = proxy.push().await;
        assert_eq!(
            push.status_line(),
            format!(
                "HTTP/1.1 502 target {} gave no answer: \
                 the connection was closed before the answer",
                target.url("/metrics")
            )
        );
        push.answer("200 OK", "");
        assert_eq!(target.connections(), round);
        assert!(target.try_next().is_none());
    }
    client.stop().await;
}
