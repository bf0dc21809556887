//! What goes over the wire when all is well.

use std::time::Duration;

use crate::peers::{Peer, Proxy};
use crate::support::{Client, recording, scrape, time_passes, with_more_time, without_time};

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
    poll.reply(with_more_time(&recording(
        "fork/03-proxy-to-client.poll-response.bin",
    )));

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
    // Of the nine seconds, twice half a one is kept for the way back.
    let time = pull.header("x-prometheus-scrape-timeout-seconds").unwrap();
    let time: f64 = time.parse().unwrap();
    assert!(time > 1.6 && time <= 8.0, "{time}");
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
async fn recorded_instructions_of_both_go_proxies_are_carried_out() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/metrics"), &[]);
    for line in ["fork", "upstream"] {
        let name = format!("{line}/03b-proxy-to-client.poll-response-params-basicauth.bin");
        proxy.poll().await.reply(with_more_time(&recording(&name)));
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
        let scrape = scrape(line, "", "10", "").replacen("/metrics", path, 1);
        proxy.hand_out(&scrape).await;
        let pull = target.next().await;
        assert_eq!(pull.head.lines().next(), Some(line));
        pull.answer("200 OK", "");
        proxy.push().await.answer("200 OK", "");
    }
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
