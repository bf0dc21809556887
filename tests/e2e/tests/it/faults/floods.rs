//! Floods: more connections, names, ids and open files than anybody ought to need.

use std::cell::Cell;
use std::time::Duration;

use pushprox_testkit::pushprox::Proxy;
use pushprox_testkit::rest::{Bystander, Rest, withstands};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, ask, scrape_request};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_are_closed_by_the_proxy() {
    thousand_half_open("").await;
}

#[tokio::test]
async fn a_thousand_halves_of_a_head_are_closed_by_the_proxy() {
    thousand_half_open("POST /push HTTP/1.1\r\nHost: proxy\r\nContent-Len").await;
}

/// Opens 1,000 connections that get no further than `said`. The first time they leave by themselves,
/// the second time the proxy has to close them all.
async fn thousand_half_open(said: &str) {
    let proxy = Proxy::start(&[]).await;
    let is_rehearsal = Cell::new(true);
    withstands(&proxy, async || {
        let mut peers = Vec::new();
        for _ in 0..1_000 {
            let mut peer = Connection::open(proxy.address).await.unwrap();
            peer.send(said.as_bytes()).await.unwrap();
            peers.push(peer);
        }
        if is_rehearsal.replace(false) {
            return;
        }
        until("the end of all of them", HALF_OPEN, async || {
            peers.retain(|peer| !peer.is_closed());
            peers.is_empty().then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn three_thousand_large_halves_of_a_head_share_their_room() {
    // None of them ends by its time.
    let proxy = Proxy::start(&["--limit.head-timeout=10m"]).await;
    let at_rest = proxy.daemon.own_memory();
    let begun = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(15_000));
    let more = "x".repeat(45_000);
    let told = Cell::new(0.0);
    withstands(&proxy, async || {
        let mut peers = Vec::new();
        for _ in 0..3_000 {
            let mut peer = Connection::open(proxy.address).await.unwrap();
            peer.send(begun.as_bytes()).await.unwrap();
            peers.push(peer);
        }
        for peer in &mut peers {
            // One that has no room is told, and need not take all of it.
            peer.send(more.as_bytes()).await.ok();
        }
        let before = told.get();
        // 1,157 of them fill the room.
        let hits = until("those without room are told", SOON, async || {
            let hits = proxy.metric(HEADS_HIT).await?;
            (hits >= before + 1_800.0).then_some(hits)
        })
        .await;
        told.set(hits);
        let taken = proxy.daemon.own_memory().saturating_sub(at_rest);
        assert!(taken < WITHOUT_ROOM / 5 * 4, "{taken} KiB are taken");
    })
    .await;
}

#[tokio::test]
async fn a_thousand_polls_with_a_bad_name_wait_for_their_refusal_in_little_memory() {
    let proxy = Proxy::start(&[]).await;
    let address = proxy.address;
    withstands(&proxy, async || {
        let mut polls = JoinSet::new();
        for _ in 0..1_000 {
            polls.spawn(async move {
                let poll = "POST /poll HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\
                            Content-Length: 9\r\n\r\nnode test";
                let answer = ask(address, poll.as_bytes()).await.unwrap();
                assert_eq!(answer.status(), 400, "{answer:?}");
            });
        }
        while let Some(done) = polls.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_scrapes_of_names_that_do_not_exist_are_told_so() {
    let proxy = Proxy::start(&[]).await;
    let address = proxy.address;
    withstands(&proxy, async || {
        flood(move |number| async move {
            let url = format!("http://absent-{number}.test/metrics");
            let answer = ask(address, &scrape_request(&url, 0.5, "")).await.unwrap();
            assert_eq!(answer.status(), 503, "{answer:?}");
            let reason = answer.reason();
            let expected = format!("no client registered for absent-{number}.test");
            assert!(reason.starts_with(&expected), "{reason:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_pushes_for_unknown_ids_are_told_so() {
    let proxy = Proxy::start(&[]).await;
    let address = proxy.address;
    withstands(&proxy, async || {
        flood(move |number| async move {
            // A UUID as the proxy makes them, and what no proxy has ever made.
            let id = match number % 2 {
                0 => format!("{number:08x}-0000-4000-8000-{number:012x}"),
                _ => format!("1795546384-2-{number}"),
            };
            let message =
                format!("HTTP/1.1 200 OK\r\nId: {id}\r\nContent-Length: 7\r\n\r\nnothing");
            let request = format!(
                "POST /push HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{message}",
                message.len()
            );
            let answer = ask(address, request.as_bytes()).await.unwrap();
            assert_eq!(answer.status(), 410, "{answer:?}");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_proxy_without_descriptors_goes_on_with_what_it_has_and_recovers_by_itself() {
    let begun = Instant::now();
    let mut proxy = Proxy::start(&[]).await;
    let rest = Rest::of(&proxy.daemon);
    let bystander = Bystander::at(&proxy).await;
    // Room for the bystander, whose connections may change, and for a few strangers.
    proxy
        .daemon
        .limit_descriptors(proxy.daemon.descriptors() as u64 + 40);
    let mut strangers = Vec::new();
    // The first scrape comes before the shortage, on a connection that is kept.
    bystander
        .meanwhile(async {
            until("a scrape of the bystander", SOON, async || {
                let answered = proxy.daemon.connections(proxy.address.port()) > 2;
                answered.then_some(())
            })
            .await;
            for _ in 0..200 {
                strangers.push(Connection::open(proxy.address).await.unwrap());
            }
            until("all descriptors in use", SOON, async || {
                let told = proxy
                    .daemon
                    .lines_with(&["cannot accept connections for now"]);
                (!told.is_empty()).then_some(())
            })
            .await;
            pushprox_testkit::wait::idle(Duration::from_secs(2)).await;
            drop(std::mem::take(&mut strangers));
            // Whoever is new is served again, with nobody's help.
            proxy.names().await;
        })
        .await;
    bystander.leave().await;
    rest.descriptors_return(&proxy.daemon, SOON).await;
    let told = proxy
        .daemon
        .lines_with(&["cannot accept connections for now"]);
    // Another shortage is one that comes when there was none for 30 s.
    let most = 1 + begun.elapsed().as_secs() / 30;
    assert!(
        told.len() as u64 <= most,
        "said once, not every time: {told:?}"
    );
    assert!(proxy.daemon.runs());
}

/// Asks 10,000 times, a thousand at once.
async fn flood<F, Fut>(ask: F)
where
    F: Fn(u32) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    for start in (0..10_000).step_by(1_000) {
        let mut asking = JoinSet::new();
        for number in start..start + 1_000 {
            asking.spawn(ask(number));
        }
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
    }
}

/// What the heads alone would take if each had its own room, in KiB. Beside those that have room there
/// are the connections, and the holes that heads leave in the heap when they grow.
const WITHOUT_ROOM: u64 = 3_000 * 60_000 / 1024;

const HEADS_HIT: &str = "pushprox_limit_hits_total{limit=\"unfinished-heads\"}";

/// The proxy waits 10 s for the head of a first request.
const HALF_OPEN: Duration = Duration::from_secs(90);
