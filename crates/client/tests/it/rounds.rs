//! What goes over the wire when all is well.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::peers::{Peer, Proxy};
use crate::support::{Client, read_some, recording, scrape, soon, time_passes};

/// Takes the time that is left, which differs from run to run, out of a push, and puts the headers
/// in order, which have none.
fn without_time(push: &str) -> String {
    let (head, body) = push.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    let time = lines
        .iter()
        .position(|line| line.starts_with("X-Prometheus-Scrape-Timeout: "))
        .expect("the push tells the time that is left");
    let seconds: f64 = lines
        .remove(time)
        .split(": ")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds > 0.0 && seconds <= 15.0, "{seconds}");
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[tokio::test]
async fn a_scrape_goes_to_the_target_and_its_answer_back() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);

    let poll = proxy.poll().await;
    assert_eq!(
        poll.head,
        format!(
            "POST /poll HTTP/1.1\r\nContent-Type: text/plain\r\nPrefer: wait=45\r\n\
             Accept: */*\r\nHost: {}\r\nContent-Length: 4\r\n\r\n",
            proxy.peer.address
        )
    );
    assert_eq!(poll.text(), "node");
    poll.reply(recording("fork/03-proxy-to-client.poll-response.bin"));

    let pull = target.next().await;
    assert!(
        pull.head.starts_with("GET /metrics HTTP/1.1\r\n"),
        "{}",
        pull.head
    );
    assert_eq!(pull.header("host").unwrap(), target.address.to_string());
    assert_eq!(pull.header("user-agent"), Some("Prometheus/2.42.0+ds"));
    assert_eq!(pull.header("accept-encoding"), Some("gzip"));
    assert!(
        pull.header("accept")
            .unwrap()
            .starts_with("application/openmetrics-text;")
    );
    // Of the two seconds, twice a tenth is kept for the way back.
    let time = pull.header("x-prometheus-scrape-timeout-seconds").unwrap();
    let time: f64 = time.parse().unwrap();
    assert!(time > 1.0 && time <= 1.6, "{time}");
    assert_eq!(pull.header("id"), None);
    pull.reply(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nId: forged\r\nX-Prometheus-Scrape-Timeout: 99\r\n\
         Content-Encoding: gzip\r\nX-Target: yes\r\nContent-Length: 3\r\n\r\nabc",
    );

    let push = proxy.push().await;
    assert!(push.is_whole);
    assert!(
        push.head.starts_with("POST /push HTTP/1.1\r\n"),
        "{}",
        push.head
    );
    assert_eq!(
        push.header("content-length").unwrap(),
        push.body.len().to_string()
    );
    assert_eq!(
        without_time(push.text()),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\
         Content-Type: text/plain\r\nId: 1795546384-2-16969\r\nX-Target: yes\r\n\r\nabc"
    );
    push.reply(recording("fork/06-proxy-to-client.push-response.bin"));
    client.stop().await;
}

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
async fn recorded_instructions_of_both_go_proxies_are_carried_out() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for line in ["fork", "upstream"] {
        let name = format!("{line}/03b-proxy-to-client.poll-response-params-basicauth.bin");
        proxy.poll().await.reply(recording(&name));
        let pull = target.next().await;
        assert!(
            pull.head
                .starts_with("GET /metrics?collect%5B%5D=cpu&collect%5B%5D=meminfo HTTP/1.1\r\n"),
            "{}",
            pull.head
        );
        assert_eq!(pull.header("authorization"), Some("Basic dTpw"));
        let recorded = recording(&format!("{line}/04rb-target-to-client.response-params.bin"));
        let gzip = recorded
            .windows(2)
            .position(|two| two == [0x1f, 0x8b])
            .unwrap();
        pull.reply(recorded.clone());
        let push = proxy.push().await;
        assert_eq!(push.status_line(), "HTTP/1.1 200 OK");
        let pushed = push
            .body
            .windows(2)
            .position(|two| two == [0x1f, 0x8b])
            .unwrap();
        assert_eq!(push.body[pushed..pushed + 100], recorded[gzip..gzip + 100]);
        push.reply(recording(&format!(
            "{line}/06-proxy-to-client.push-response.bin"
        )));
    }
    let connect = recording("upstream/03c-proxy-to-client.poll-response-CONNECT.bin");
    proxy.poll().await.reply(connect);
    let push = proxy.push().await;
    assert_eq!(
        push.status_line(),
        "HTTP/1.1 405 method CONNECT is not one of GET and HEAD"
    );
    push.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn a_target_that_no_strict_parser_takes_is_scraped_with_its_query() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for (path, line) in [
        ("/<x>", "GET /metrics HTTP/1.1"),
        (
            "/m?a=\"b\"&c=%zz#d",
            "GET /metrics?a=%22b%22&c=%zz HTTP/1.1",
        ),
        (
            "/m?match[]={job=\"x\"}",
            "GET /metrics?match[]={job=%22x%22} HTTP/1.1",
        ),
    ] {
        let scrape = scrape("1", "", "10", "").replacen("/metrics", path, 1);
        proxy.hand_out(&scrape).await;
        let pull = target.next().await;
        assert_eq!(pull.head.lines().next(), Some(line));
        pull.answer("200 OK", "");
        proxy.push().await.answer("200 OK", "");
    }
    client.stop().await;
}

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
    let first = target.next().await;
    let second = target.next().await;
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
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let grace = ["--shutdown.grace-period=0s"];
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &grace);
    let mut held = Vec::new();
    for _ in 0..64 {
        proxy.hand_out(&scrape("1", "", "60", "")).await;
        held.push(target.next().await);
    }
    let handed_out = Instant::now();
    proxy.hand_out(&scrape("one too many", "", "60", "")).await;
    let unanswered = proxy.push().await;
    proxy.hand_out(&scrape("another", "", "60", "")).await;
    assert!(handed_out.elapsed() < Duration::from_secs(5));
    unanswered.gone().await;
    let _unanswered = proxy.push().await;
    let ended = Instant::now();
    client.stop().await;
    assert!(ended.elapsed() < Duration::from_millis(1_900));
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
            &scrape("1", "", "10", ""),
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nId: 1\r\n\r\n",
        ),
        (
            &scrape("1", "", "10", ""),
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nEtag: x\r\nId: 1\r\n\r\n",
        ),
        (
            &scrape("1", "", "10", ""),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nId: 1\r\n\r\n",
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

#[tokio::test]
async fn a_poll_whose_wait_is_over_is_followed_by_the_next() {
    let mut proxy = Proxy::start().await;
    let client = Client::start(
        &proxy.url(),
        "http://127.0.0.1:1/",
        &[
            "--poll.wait=1s",
            "--proxy.retry.initial-wait=1h",
            "--proxy.retry.max-wait=1h",
        ],
    );
    for _ in 0..2 {
        let poll = proxy.poll().await;
        assert_eq!(poll.header("prefer"), Some("wait=1"));
        time_passes(Duration::from_secs(1)).await;
        poll.reply("HTTP/1.1 204 No Content\r\nPreference-Applied: wait=1\r\n\r\n");
    }
    proxy.poll().await;
    assert_eq!(proxy.peer.connections(), 1);
    client.stop().await;
}

#[tokio::test]
async fn without_a_wait_there_is_no_preference() {
    let mut proxy = Proxy::start().await;
    let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &["--poll.wait=0"]);
    assert_eq!(proxy.poll().await.header("prefer"), None);
    client.stop().await;
}
