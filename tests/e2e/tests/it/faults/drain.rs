//! SIGTERM under full load: what can finish does, nothing new is taken, and everybody is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{self, Message, ask, scrape_request};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_full_load_loses_no_scrape_that_could_finish() {
    let (target, held, go_on) = slow().await;
    // What can finish does, and nothing else ends it.
    let mut proxy = Proxy::start(&["--shutdown.grace-period=1h"]).await;
    let _clients = clients(&proxy, &target).await;
    let address = proxy.address;

    // As many in hand as clients take, held at the target.
    let mut in_hand = JoinSet::new();
    for name in NAMES {
        for number in 0..IN_HAND {
            in_hand.spawn(async move {
                let nonce = format!("held-{name}-{number}");
                let url = format!("http://{name}/?{nonce}");
                let answer = ask(address, &scrape_request(&url, 120.0, "")).await;
                (nonce, answer)
            });
        }
    }
    until("all of them at the target", SOON, async || {
        (held.load(Ordering::SeqCst) == NAMES.len() * IN_HAND).then_some(())
    })
    .await;
    // And short ones without end beside them.
    let told = Arc::new(AtomicBool::new(false));
    let good = Arc::new(AtomicUsize::new(0));
    let mut short = JoinSet::new();
    for name in NAMES {
        let (told, good) = (Arc::clone(&told), Arc::clone(&good));
        short.spawn(short_scrapes(address, name, told, good));
    }
    until("the load", SOON, async || {
        (good.load(Ordering::SeqCst) > 100).then_some(())
    })
    .await;

    told.store(true, Ordering::SeqCst);
    proxy.daemon.terminate();
    proxy.daemon.line(&["shutting down"]).await;
    let ready = wire::get(address, "/-/ready").await;
    assert_eq!(ready.status(), 503, "from the first moment: {ready:?}");
    assert_eq!(wire::get(address, "/-/healthy").await.status(), 200);
    while let Some(done) = short.join_next().await {
        done.unwrap();
    }
    // The clients' polls are over, the last that they could take is pushed, and these go on.
    go_on.send_replace(true);
    while let Some(done) = in_hand.join_next().await {
        let (nonce, answer) = done.unwrap();
        let answer = answer.unwrap_or_else(|error| panic!("{nonce}: {error}"));
        assert_eq!(
            (answer.status(), answer.text(), answer.whole),
            (200, nonce, true),
            "{answer:?}"
        );
    }
    let status = proxy.daemon.ended(SOON).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_proxy_at_once() {
    let (target, held, _go_on) = slow().await;
    let mut proxy = Proxy::start(&["--shutdown.grace-period=1h"]).await;
    let _clients = clients(&proxy, &target).await;
    let address = proxy.address;
    let mut scrape = JoinSet::new();
    let url = format!("http://{}/?held", NAMES[0]);
    scrape.spawn(async move { ask(address, &scrape_request(&url, 120.0, "")).await });
    until("the scrape at the target", SOON, async || {
        (held.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    proxy.daemon.terminate();
    proxy.daemon.line(&["shutting down"]).await;
    assert!(proxy.daemon.runs());
    proxy.daemon.terminate();
    let status = proxy.daemon.ended(SOON).await;
    assert_eq!(status.code(), Some(1));
    let scrape = scrape.join_next().await.unwrap().unwrap();
    assert!(scrape.is_err(), "{scrape:?}");
}

/// Scrapes until the first refusal. Each scrape is answered well, unless the proxy was told to end
/// before it had its answer: then it may be told so, or find nobody.
async fn short_scrapes(
    address: SocketAddr,
    name: &'static str,
    told: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
) {
    for number in 0.. {
        let nonce = format!("short-{number}");
        let url = format!("http://{name}/?{nonce}");
        let answer = ask(address, &scrape_request(&url, 120.0, "")).await;
        let answer: Message = match answer {
            Ok(answer) => answer,
            Err(error) => panic!("{nonce} of {name}: {error}"),
        };
        if answer.status() == 200 {
            assert_eq!((answer.text(), answer.whole), (nonce, true));
            good.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        assert_eq!(answer.reason(), "proxy is shutting down", "{answer:?}");
        assert!(told.load(Ordering::SeqCst), "before it was told to");
        return;
    }
}

async fn clients(proxy: &Proxy, target: &Target) -> Vec<Client> {
    let clients = NAMES.map(|name| Client::start(&proxy.url(), &target.url("/"), name, &[]));
    for name in NAMES {
        proxy.registered(name).await;
    }
    clients.into()
}

/// A target that says the query back: what begins with `held` when it is told to, anything else at
/// once. And how many it holds.
async fn slow() -> (Target, Arc<AtomicUsize>, watch::Sender<bool>) {
    let (go_on, told) = watch::channel(false);
    let held = Arc::new(AtomicUsize::new(0));
    let holding = Arc::clone(&held);
    let target = Target::start(move |request, mut connection| {
        let (mut told, holding) = (told.clone(), Arc::clone(&holding));
        async move {
            let (_, query) = request.uri().split_once('?')?;
            if query.starts_with("held") {
                holding.fetch_add(1, Ordering::SeqCst);
                told.wait_for(|told| *told).await.ok()?;
            }
            connection.send(&ok(query)).await.ok()?;
            Some(connection)
        }
    })
    .await;
    (target, held, go_on)
}

const NAMES: [&str; 3] = ["one.test", "two.test", "three.test"];

/// A client takes 64 at once; the short ones need room too.
const IN_HAND: usize = 40;
