//! Answers that break off: the scraper sees that they did, and never takes half an answer for a
//! whole one.

use std::sync::Arc;

use pushprox_testkit::prometheus::Prometheus;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::SOON;
use pushprox_testkit::wire::{Connection, Message, ask, scrape_request};
use tokio::sync::Notify;

#[tokio::test]
async fn a_target_that_ends_in_mid_body_gives_the_scraper_a_broken_answer() {
    for framing in FRAMINGS {
        for reset in [false, true] {
            let what = format!("{framing:?}, reset: {reset}");
            let go_on = Arc::new(Notify::new());
            let target = half(framing, reset, Some(Arc::clone(&go_on))).await;
            let (proxy, _client) = chain(&target).await;
            let mut scrape = open_scrape(&proxy).await;
            let head = scrape.receive_head().await.unwrap();
            assert_eq!(head.status(), 200, "{what}");
            // The target breaks off once its first half is known to have gone all the way.
            let mut pieces = scrape.pieces(&head);
            let first = pieces.next().await.unwrap().expect("the first half");
            assert!(HALF.starts_with(&first[..]), "{what}: {first:?}");
            go_on.notify_one();
            let mut rest = 0;
            while let Some(piece) = pieces.next().await.unwrap() {
                rest += piece.len();
            }
            assert!(first.len() + rest <= HALF.len(), "{what}");
            assert!(!pieces.is_whole(), "{what}: half an answer looks whole");
            assert_healthy(&proxy).await;
        }
    }
}

#[tokio::test]
async fn a_target_that_ends_at_once_in_mid_body_gives_no_answer_that_looks_good() {
    for framing in FRAMINGS {
        let target = half(framing, false, None).await;
        let (proxy, _client) = chain(&target).await;
        let request = scrape_request("http://half.test/", 10.0, "");
        // A head that has not gone yet may be taken back, and say what happened instead.
        match ask(proxy.address, &request).await {
            Ok(answer) if answer.status() == 200 => assert!(!answer.whole, "{answer:?}"),
            Ok(answer) => assert_explained(&answer, "half.test"),
            Err(_) => {}
        }
        assert_healthy(&proxy).await;
    }
}

#[tokio::test]
async fn a_client_killed_in_mid_push_gives_the_scraper_a_broken_answer() {
    for framing in FRAMINGS {
        let target = half(framing, false, Some(Arc::default())).await;
        let (proxy, mut client) = chain(&target).await;
        let mut scrape = open_scrape(&proxy).await;
        let head = scrape.receive_head().await.unwrap();
        let mut pieces = scrape.pieces(&head);
        pieces.next().await.unwrap().expect("the first half");
        client.daemon.kill();
        client.daemon.ended(SOON).await;
        while pieces.next().await.unwrap().is_some() {}
        assert!(
            !pieces.is_whole(),
            "{framing:?}: half an answer looks whole"
        );
        assert_healthy(&proxy).await;
    }
}

#[tokio::test]
async fn a_target_that_speaks_no_http_is_explained() {
    let garbage = Target::start(|_, mut connection| async move {
        connection.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await.ok()?;
        None
    })
    .await;
    let hangs_up = Target::start(|_, _| async { None }).await;
    for target in [garbage, hangs_up] {
        let (proxy, _client) = chain(&target).await;
        let answer = proxy.scrape("http://half.test/", 10.0).await;
        assert_explained(&answer, "");
    }
}

#[tokio::test]
async fn prometheus_takes_a_broken_answer_for_a_failed_scrape() {
    let target = half(FRAMINGS[0], false, None).await;
    let (proxy, _client) = chain(&target).await;
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: half
    proxy_url: {}
    static_configs: [{{targets: ['half.test:9100']}}]
",
        proxy.url()
    ))
    .await;
    prometheus.sample("up", SOON, |up| up == 0.0).await;
    assert!(prometheus.query("half").await.is_empty());
}

/// A target that sends half of its answer, waits until it is told to go on if it is to wait, and
/// breaks off.
async fn half(framing: &'static str, reset: bool, go_on: Option<Arc<Notify>>) -> Target {
    Target::start(move |_, mut connection: Connection| {
        let go_on = go_on.clone();
        async move {
            let half = String::from_utf8_lossy(HALF);
            let head = format!("HTTP/1.1 200 OK\r\n{framing}{half}");
            connection.send(head.as_bytes()).await.ok()?;
            if let Some(go_on) = go_on {
                go_on.notified().await;
            }
            if reset {
                connection.reset();
            }
            None
        }
    })
    .await
}

async fn chain(target: &Target) -> (Proxy, Client) {
    let proxy = Proxy::start(&["--log.level=debug"]).await;
    let client = Client::start(
        &proxy.url(),
        &target.url("/"),
        "half.test",
        &["--log.level=debug"],
    );
    proxy.registered("half.test").await;
    (proxy, client)
}

async fn open_scrape(proxy: &Proxy) -> Connection {
    let mut connection = Connection::open(proxy.address).await.unwrap();
    let request = scrape_request("http://half.test/", 30.0, "");
    connection.send(&request).await.unwrap();
    connection
}

fn assert_explained(answer: &Message, name: &str) {
    assert_eq!(answer.status(), 502, "{answer:?}");
    let reason = answer.reason();
    assert!(reason.contains(name), "{reason:?}");
    assert!(
        !["", "Bad Gateway"].contains(&reason),
        "{reason:?} tells nothing"
    );
}

/// A break costs its own scrape and no other.
async fn assert_healthy(proxy: &Proxy) {
    let target = Target::saying("healthy").await;
    let _client = Client::start(&proxy.url(), &target.url("/"), "healthy.test", &[]);
    proxy.registered("healthy.test").await;
    let answer = proxy.scrape("http://healthy.test/", 10.0).await;
    assert_eq!(answer.text(), "healthy", "{answer:?}");
}

const HALF: &[u8] = b"half 1\n";

/// The rest of a head, and the beginning of a body of which half is to come.
const FRAMINGS: [&str; 2] = [
    "Content-Length: 14\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\ne\r\n",
];
