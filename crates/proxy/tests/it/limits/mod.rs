//! Each limit, hit from outside: what is told, what is counted, and that others are served
//! meanwhile.

use std::time::Duration;

use pushprox_proxy::Config;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::Message;

use crate::support::{Proxy, answer, config, instruction, poll, start_with};

mod slow;

/// A proxy with small limits.
async fn limited() -> Proxy {
    start_with(small()).await
}

fn small() -> Config {
    let mut config = config();
    config.limits.names = 3;
    config.limits.scrapes = 4;
    config.limits.scrapes_per_host = 2;
    config.limits.head_size = 2_000;
    config.limits.headers = 20;
    config.limits.poll_size = 50;
    config.limits.push_head_size = 1_000;
    config.limits.head_timeout = Duration::from_millis(700);
    config.limits.progress_timeout = Duration::from_millis(900);
    config
}

impl Proxy {
    /// Waits until a limit has been hit so many times.
    async fn hit(&self, limit: &str, times: f64) {
        let line = format!("pushprox_limit_hits_total{{limit=\"{limit}\"}}");
        self.metric_is(&line, times).await;
    }

    /// A scrape from end to end, which has nothing to do with any limit.
    async fn is_well(&self) {
        let mut poll = self.park("well").await;
        let mut scrape = self.scrape("http://well/metrics", 10.0).await;
        let given = instruction(&mut poll).await;
        assert_eq!(self.push(answer(&given.id, "ok")).await.status(), 200);
        assert_eq!(scrape.receive().await.unwrap().text(), "ok");
    }
}

fn assert_told(refused: &Message, status: u16, limit: &str) {
    let told = refused.text();
    assert_eq!(refused.status(), status, "{told}");
    assert!(told.contains(&format!("(--limit.{limit})")), "{told}");
}

fn scrape_with(headers: &str) -> String {
    format!("GET http://well/ HTTP/1.1\r\nHost: well\r\n{headers}\r\n")
}

#[tokio::test]
async fn every_limit_is_counted_from_the_start() {
    let proxy = limited().await;
    for limit in [
        "connections",
        "names",
        "scrapes",
        "scrapes-per-host",
        "head-size",
        "headers",
        "unfinished-heads",
        "poll-size",
        "push-head-size",
        "head-timeout",
        "progress-timeout",
    ] {
        proxy.hit(limit, 0.0).await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let proxy = limited().await;
    for (hits, request) in [
        (1.0, scrape_with(&format!("A: {}\r\n", "x".repeat(3_000)))),
        // It never ends.
        (2.0, format!("GET /{}", "x".repeat(3_000))),
        // More than any buffer of a socket.
        (3.0, format!("POST /poll?{}", "x".repeat(8_000_000))),
    ] {
        let refused = proxy.ask(request).await;
        assert_told(&refused, 431, "head-size");
        assert!(refused.text().contains("larger than 2000 bytes"));
        proxy.hit("head-size", hits).await;
    }
    proxy.is_well().await;
}

#[tokio::test]
async fn too_many_headers_are_refused_in_a_request_and_in_a_push() {
    let proxy = limited().await;
    let refused = proxy.ask(scrape_with(&"A: b\r\n".repeat(20))).await;
    assert_told(&refused, 431, "headers");

    let mut poll = proxy.park("well").await;
    for (count, status) in [(20, 200), (21, 502), (2_000, 502)] {
        let mut scrape = proxy.scrape("http://well/", 10.0).await;
        let given = instruction(&mut poll).await;
        poll.send(&crate::support::poll("well", "")).await.unwrap();
        // What joins it to its scrape and frames it is not counted.
        let message = format!(
            "HTTP/1.1 200 OK\r\nId: {}\r\nContent-Length: 0\r\nX-Prometheus-Scrape-Timeout: 1\r\n{}\r\n",
            given.id,
            "a:b\r\n".repeat(count)
        );
        let pushed = proxy.push(message).await;
        let answer = scrape.receive().await.unwrap();
        assert_eq!(answer.status(), status, "{count}");
        if status == 502 {
            assert_told(&pushed, 431, "headers");
            assert!(
                answer.reason().contains("sent a broken answer")
                    && answer.reason().ends_with("(--limit.headers)"),
                "{}",
                answer.reason()
            );
        }
    }
    proxy.hit("headers", 3.0).await;
    proxy.is_well().await;
}

#[tokio::test]
async fn two_hundred_and_fifty_six_headers_of_a_target_pass() {
    let proxy = start_with(config()).await;
    let mut poll = proxy.park("node").await;
    let mut scrape = proxy.scrape("http://node/", 10.0).await;
    let given = instruction(&mut poll).await;
    let headers = "X-Many: y\r\n".repeat(256);
    let id = given.id;
    let message = format!("HTTP/1.1 200 OK\r\n{headers}Id: {id}\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(proxy.push(message).await.status(), 200);
    let answer = scrape.receive().await.unwrap();
    assert_eq!(answer.head.matches("X-Many: y").count(), 256);
}

#[tokio::test]
async fn a_name_that_is_too_long_is_refused_before_it_has_come() {
    let proxy = limited().await;
    let refused = proxy.ask(poll(&"x".repeat(60), "")).await;
    assert_told(&refused, 413, "poll-size");
    let mut promised = proxy.connect().await;
    let head = "POST /poll HTTP/1.1\r\nHost: p\r\nContent-Length: 99999999999\r\n\r\n";
    promised.send(head.as_bytes()).await.unwrap();
    assert_told(&promised.receive().await.unwrap(), 413, "poll-size");
    proxy.hit("poll-size", 2.0).await;
    proxy.is_well().await;
}

#[tokio::test]
async fn one_name_too_many_is_refused_and_the_others_stay() {
    let proxy = limited().await;
    let mut kept = Vec::new();
    for name in ["a", "b", "well"] {
        kept.push(proxy.park(name).await);
    }
    let refused = proxy.ask(poll("d", "")).await;
    assert_told(&refused, 503, "names");
    proxy.hit("names", 1.0).await;
    // One that is registered may poll as often as it likes.
    proxy.is_well().await;
}

#[tokio::test]
async fn the_newest_scrapes_are_shed_and_it_recovers() {
    let proxy = limited().await;
    let mut a = Vec::new();
    for host in ["a:1", "a:2", "b", "c"] {
        a.push(proxy.scrape(&format!("http://{host}/"), 30.0).await);
    }
    // Each of them waits once the next is refused.
    until("two scrapes wait for a", SOON, async || {
        let mut shed = proxy.scrape("http://a:3/", 1.0).await;
        let shed = shed.receive().await.unwrap();
        shed.reason()
            .contains("(--limit.scrapes-per-host)")
            .then_some(())
    })
    .await;
    let shed = until("four scrapes wait", SOON, async || {
        let mut shed = proxy.scrape("http://d/", 1.0).await;
        let shed = shed.receive().await.unwrap();
        shed.reason().contains("--limit").then_some(shed)
    })
    .await;
    assert_eq!(shed.status(), 503);
    assert_eq!(
        shed.reason(),
        "too many scrapes are waiting (--limit.scrapes)"
    );
    // A client that polls already is served all the same.
    proxy.is_well().await;
    // One that comes takes what waits for it, and there is room again.
    let mut poll = proxy.park("b").await;
    let given = instruction(&mut poll).await;
    assert_eq!(proxy.push(answer(&given.id, "late")).await.status(), 200);
    assert_eq!(a[2].receive().await.unwrap().text(), "late");
    let mut again = proxy.scrape("http://well/", 10.0).await;
    let mut poll = proxy.park("well").await;
    let given = instruction(&mut poll).await;
    proxy.push(answer(&given.id, "again")).await;
    assert_eq!(again.receive().await.unwrap().text(), "again");
}

#[tokio::test]
async fn a_pushed_head_that_is_too_large_fails_its_scrape_at_once() {
    let proxy = limited().await;
    let mut poll = proxy.park("well").await;
    let mut scrape = proxy.scrape("http://well/", 10.0).await;
    let given = instruction(&mut poll).await;
    let message = format!(
        "HTTP/1.1 200 OK\r\nId: {}\r\nA: {}\r\n\r\n",
        given.id,
        "x".repeat(2_000)
    );
    assert_told(&proxy.push(message).await, 431, "push-head-size");
    let failed = scrape.receive().await.unwrap();
    assert_eq!(failed.status(), 502);
    assert!(
        failed.reason().ends_with("(--limit.push-head-size)"),
        "{}",
        failed.reason()
    );
    proxy.hit("push-head-size", 1.0).await;
    proxy.is_well().await;
}
