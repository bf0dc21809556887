//! What Prometheus gets.

use std::time::Duration;

use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{ask, scrape_request};
use tokio::time::{Instant, timeout};

use crate::support::{answer, config, instruction, push, start, start_with};

#[tokio::test]
async fn an_answer_comes_back_as_it_was_pushed() {
    let proxy = start().await;
    let mut poll = proxy.park("node:9100").await;
    let mut scrape = proxy.scrape("http://node:9100/metrics?a=%5B", 10.0).await;
    let given = instruction(&mut poll).await;
    assert!(
        given
            .text
            .starts_with("GET http://node:9100/metrics?a=%5B HTTP/1.1\r\nHost: node:9100\r\n"),
        "{}",
        given.text
    );
    let message = format!(
        "HTTP/1.1 418 I am a teapot\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\
         Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-Prometheus-Scrape-Timeout: 1\r\n\
         X-Prometheus-Scrape-Timeout: 1\r\nId: {}\r\n\r\nabc",
        given.id
    );
    assert_eq!(proxy.push(message).await.status(), 200);
    let answer = scrape.receive().await.unwrap();
    assert!(answer.whole);
    assert_eq!((answer.status(), answer.reason()), (418, "I am a teapot"));
    assert_eq!(answer.header("Content-Encoding"), Some("gzip"));
    assert_eq!(answer.header("Content-Length"), Some("3"));
    for gone in ["Id", "X-Prometheus-Scrape-Timeout", "X-Hop", "Keep-Alive"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.text(), "abc");
}

#[tokio::test]
async fn credentials_for_the_proxy_stop_there_and_those_for_the_target_pass() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.connect().await;
    let headers = "Proxy-Authorization: Basic cDpw\r\nAuthorization: Basic dTpw\r\n\
                   Accept: text/plain\r\nAccept-Encoding: gzip\r\nTE: trailers\r\nId: forged\r\n";
    scrape
        .send(&scrape_request("http://node/metrics", 10.0, headers))
        .await
        .unwrap();
    let given = instruction(&mut poll).await;
    assert!(given.text.contains("\r\nAuthorization: Basic dTpw\r\n"));
    assert!(given.text.contains("\r\nAccept-Encoding: gzip\r\n"));
    for gone in ["Proxy-Authorization", "Connection", "Te:", "forged"] {
        assert!(!given.text.contains(gone), "{gone} in {}", given.text);
    }
}

#[tokio::test]
async fn the_time_that_is_left_goes_on_to_the_client() {
    let proxy = start().await;
    let before = Instant::now();
    let mut scrape = proxy.scrape("http://node/metrics", 9.5).await;
    let mut poll = proxy.park("node").await;
    let given = instruction(&mut poll).await;
    let left: f64 = given
        .text
        .lines()
        .find_map(|line| line.strip_prefix("X-Prometheus-Scrape-Timeout-Seconds: "))
        .unwrap()
        .parse()
        .unwrap();
    let least = 9.4 - before.elapsed().as_secs_f64();
    assert!(left > least && left <= 9.5, "{left}");
    proxy.push(answer(&given.id, "late")).await;
    assert_eq!(scrape.receive().await.unwrap().text(), "late");
}

#[tokio::test]
async fn each_failure_has_its_status_and_tells_its_reason() {
    let proxy = start().await;
    let unknown = ask(proxy.address, &scrape_request("http://none:9100/", 0.5, "")).await;
    let unknown = unknown.unwrap();
    assert_eq!(unknown.status(), 503);
    assert_eq!(unknown.reason(), "no client registered for none:9100");

    let mut poll = proxy.park("node:9100").await;
    let mut taken = proxy.scrape("http://node:9100/metrics", 0.5).await;
    let given = instruction(&mut poll).await;
    let taken = taken.receive().await.unwrap();
    assert_eq!(taken.status(), 504);
    assert!(
        taken
            .reason()
            .starts_with("client node:9100 took the scrape and did not answer within "),
        "{}",
        taken.reason()
    );
    assert_eq!(
        proxy.push(answer(&given.id, "late")).await.status(),
        410,
        "the scrape is over"
    );

    let idle = scrape_request("http://node:9100/metrics", 0.5, "");
    let idle = ask(proxy.address, &idle).await.unwrap();
    assert_eq!(idle.status(), 504);
    assert!(
        idle.reason()
            .starts_with("client node:9100 has not polled for "),
        "{}",
        idle.reason()
    );

    for (request, status, reason) in [
        (
            "CONNECT node:443 HTTP/1.1\r\nHost: node:443\r\nConnection: close\r\n\r\n",
            501,
            "use scheme http: the client's pull URL decides about TLS",
        ),
        (
            "POST http://node/ HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            405,
            "a scrape is a GET or a HEAD",
        ),
        (
            "GET ftp://node/ HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
            400,
            "cannot scrape this target: the target is not an http URL with a host",
        ),
    ] {
        let answer = ask(proxy.address, request.as_bytes()).await.unwrap();
        assert_eq!((answer.status(), answer.reason()), (status, reason));
    }
    let proxied = |code| format!("pushproxy_proxied_requests_total{{code=\"{code}\"}}");
    proxy.metric_is(&proxied(504), 2.0).await;
    proxy.metric_is(&proxied(503), 1.0).await;
}

#[tokio::test]
async fn the_proxy_answers_before_prometheus_gives_up() {
    let proxy = start().await;
    // Again where the machine has stood still in between.
    until("an answer in the last tenth", SOON, async || {
        let before = Instant::now();
        let scrape = scrape_request("http://none/", 1.0, "");
        let answer = timeout(Duration::from_secs(1), ask(proxy.address, &scrape)).await;
        let took = before.elapsed();
        assert!(took >= Duration::from_millis(900), "{took:?}");
        assert_eq!(answer.ok()?.unwrap().status(), 503);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn unusable_and_long_times_are_bounded_by_the_flags() {
    let mut config = config();
    config.scrape_timeouts.default = Duration::from_millis(300);
    config.scrape_timeouts.max = Duration::from_millis(600);
    let proxy = start_with(config).await;
    // A scrape of a registered name waits for a poll as long as it may.
    let mut poll = proxy.park_with("node", "Prefer: wait=1\r\n").await;
    assert_eq!(poll.receive().await.unwrap().status(), 204);
    for (time, at_least) in [("NaN", 250), ("-1", 250), ("0", 250), ("3600", 500)] {
        let request = format!(
            "GET http://node/ HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: {time}\r\n\r\n"
        );
        let before = Instant::now();
        let answer = ask(proxy.address, request.as_bytes()).await.unwrap();
        assert_eq!(answer.status(), 504);
        let took = before.elapsed();
        assert!(took >= Duration::from_millis(at_least), "{time}: {took:?}");
        // By default it would be ten seconds.
        assert!(took < Duration::from_secs(8), "{time}: {took:?}");
    }
}

#[tokio::test]
async fn a_head_scrape_needs_no_body() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.connect().await;
    let request = "HEAD http://node/metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    scrape.send(request.as_bytes()).await.unwrap();
    let given = instruction(&mut poll).await;
    assert!(given.text.starts_with("HEAD http://node/metrics"));
    let message = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 77\r\nId: {}\r\n\r\n",
        given.id
    );
    assert_eq!(proxy.push(message).await.status(), 200);
    let answer = String::from_utf8(scrape.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.to_lowercase().contains("content-length: 77\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_failed_head_scrape_has_no_body_that_the_next_answer_would_stand_behind() {
    let proxy = start().await;
    for target in ["nobody", "[::1"] {
        let mut connection = proxy.connect().await;
        let both = format!(
            "HEAD http://{target}/ HTTP/1.1\r\nHost: n\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.1\r\n\r\n\
             GET /-/healthy HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"
        );
        connection.send(both.as_bytes()).await.unwrap();
        let answers = String::from_utf8(connection.rest().await).unwrap();
        let (failed, next) = answers.split_once("\r\n\r\n").unwrap();
        assert!(failed.starts_with("HTTP/1.1 "), "{answers}");
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
    }
}

#[tokio::test]
async fn a_scrape_with_a_long_body_is_answered_and_its_peer_can_send_it_to_its_end() {
    let proxy = start().await;
    let length = 12_000_000;
    let head = format!(
        "GET http://nobody/ HTTP/1.1\r\nHost: n\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.1\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let body = vec![b'x'; length];
    // Two seconds are given to what is sent in vain. A machine that stands still for as long says
    // nothing of that.
    until("the body sent, and the answer", SOON, async || {
        let mut connection = proxy.connect().await;
        connection.send(head.as_bytes()).await.unwrap();
        connection.send(&body).await.ok()?;
        let answer = connection.receive().await.unwrap();
        assert_eq!(answer.header("Connection"), Some("close"));
        assert_eq!(answer.status(), 503);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn what_comes_early_behind_a_scrape_is_served_in_its_turn() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut connection = proxy.connect().await;
    // More than the proxy reads ahead.
    let scrapes = 200;
    let scrape = format!(
        "GET http://node/metrics HTTP/1.1\r\nHost: node\r\nX: {}\r\n\r\n",
        "x".repeat(400)
    );
    connection
        .send(scrape.repeat(scrapes).as_bytes())
        .await
        .unwrap();
    for number in 0..scrapes {
        let given = instruction(&mut poll).await;
        poll.send(&crate::support::poll("node", "")).await.unwrap();
        proxy
            .push(answer(&given.id, &format!("answer {number}")))
            .await;
        let answer = connection.receive().await.unwrap();
        assert_eq!(answer.text(), format!("answer {number}"));
    }
}

#[tokio::test]
async fn a_scrape_whose_prometheus_hung_up_is_never_handed_out() {
    // Again where the machine has stood still, so that the poll came before the news.
    until("the second is handed out first", SOON, async || {
        let proxy = start().await;
        let first = proxy.scrape("http://node/first", 10.0).await;
        first.reset();
        let mut second = proxy.scrape("http://node/second", 10.0).await;
        let mut poll = proxy.park("node").await;
        let given = instruction(&mut poll).await;
        if given.text.contains("/first") {
            return None;
        }
        proxy.push(answer(&given.id, "2")).await;
        assert_eq!(second.receive().await.unwrap().text(), "2");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn three_prometheus_servers_are_all_served() {
    let proxy = start().await;
    let mut scrapes = Vec::new();
    for server in ["a", "b", "c"] {
        scrapes.push((
            server,
            proxy.scrape(&format!("http://node/{server}"), 10.0).await,
        ));
    }
    let mut poll = proxy.connect().await;
    for _ in 0..3 {
        poll.send(&crate::support::poll("node", "")).await.unwrap();
        let given = instruction(&mut poll).await;
        let asked = given.text[given.text.find("http://node/").unwrap()..][12..13].to_owned();
        assert_eq!(proxy.push(answer(&given.id, &asked)).await.status(), 200);
    }
    for (server, mut scrape) in scrapes {
        assert_eq!(scrape.receive().await.unwrap().text(), server);
    }
}

#[tokio::test]
async fn one_connection_serves_scrape_after_scrape() {
    let proxy = start().await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.connect().await;
    let mut pushes = proxy.connect().await;
    for round in 0..50 {
        let request = "GET http://node/metrics HTTP/1.1\r\nHost: node\r\n\r\n";
        scrape.send(request.as_bytes()).await.unwrap();
        let given = instruction(&mut poll).await;
        poll.send(&crate::support::poll("node", "Prefer: wait=45\r\n"))
            .await
            .unwrap();
        let body = format!("round {round}");
        pushes
            .send(&push(answer(&given.id, &body).as_bytes()))
            .await
            .unwrap();
        assert_eq!(scrape.receive().await.unwrap().text(), body);
        assert_eq!(pushes.receive().await.unwrap().status(), 200);
    }
}
