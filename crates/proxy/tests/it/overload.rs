//! More connections than there may be: whoever is there is served, the newest are turned away, and
//! all is well once there is room again.

use std::net::SocketAddr;
use std::time::Duration;

use pushprox_testkit::process::command;
use pushprox_testkit::pushprox;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, ask, get, scrape_request};
use tokio::time::Instant;

use crate::support::{Proxy, answer, config, instruction, poll, push, start_with};

/// The three legs over connections that are open already.
struct Legs {
    poll: Connection,
    scrape: Connection,
    push: Connection,
}

impl Legs {
    async fn open(address: SocketAddr) -> Self {
        let open = async || Connection::open(address).await.unwrap();
        let mut legs = Self {
            poll: open().await,
            scrape: open().await,
            push: open().await,
        };
        legs.serve("first").await;
        legs
    }

    /// A scrape from end to end.
    async fn serve(&mut self, text: &str) {
        let request = "GET http://node/metrics HTTP/1.1\r\nHost: node\r\n\r\n";
        self.scrape.send(request.as_bytes()).await.unwrap();
        self.poll.send(&poll("node", "")).await.unwrap();
        let given = instruction(&mut self.poll).await;
        let message = push(answer(&given.id, text).as_bytes());
        self.push.send(&message).await.unwrap();
        assert_eq!(self.scrape.receive().await.unwrap().text(), text);
        assert_eq!(self.push.receive().await.unwrap().status(), 200);
    }
}

/// Waits until a probe is answered.
async fn hears_again(address: SocketAddr) {
    until("it hears again", SOON, async || {
        let request = "GET /-/healthy HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n";
        let answer = ask(address, request.as_bytes()).await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
}

async fn crowded() -> (Proxy, Legs) {
    let mut config = config();
    config.limits.connections = 3;
    let proxy = start_with(config).await;
    let legs = Legs::open(proxy.address).await;
    (proxy, legs)
}

#[tokio::test]
async fn one_connection_too_many_is_told_and_closed() {
    let (proxy, mut legs) = crowded().await;
    for request in [
        scrape_request("http://node/metrics", 5.0, ""),
        poll("other", ""),
        push(answer("1", "x").as_bytes()),
    ] {
        let mut more = proxy.connect().await;
        more.send(&request).await.unwrap();
        let refused = more.receive().await.unwrap();
        let told = "too many connections (--limit.connections)";
        assert_eq!((refused.status(), refused.reason()), (503, told));
        assert_eq!(refused.text(), format!("{told}\n"));
        assert!(more.rest().await.is_empty());
    }
    legs.serve("meanwhile").await;
    let hits = proxy
        .metric("pushprox_limit_hits_total{limit=\"connections\"}")
        .await;
    // Three, and the one that asks.
    assert_eq!(hits, Some(4.0));
}

#[tokio::test]
async fn probes_and_operators_are_served_all_the_same() {
    let (proxy, legs) = crowded().await;
    for path in ["/-/healthy", "/-/ready", "/metrics", "/clients"] {
        let answer = get(proxy.address, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.header("Connection"), Some("close"), "{path}");
    }
    drop(legs);
}

#[tokio::test]
async fn there_is_room_again_when_somebody_leaves() {
    let (proxy, legs) = crowded().await;
    drop(legs);
    until("there is room", SOON, async || {
        let mut connection = proxy.connect().await;
        connection
            .send(&poll("node", "Prefer: wait=1\r\n"))
            .await
            .ok()?;
        let answer = connection.receive().await.ok()?;
        (answer.status() == 204).then_some(())
    })
    .await;
}

#[tokio::test]
async fn in_a_flood_of_strangers_each_probe_is_answered() {
    for said in ["", "G", "POST /poll HTTP/1.1\r\nHost: proxy\r\nContent-Le"] {
        let mut small = command(PROGRAM);
        small.args([LISTEN, "--limit.connections=3"]);
        let mut proxy = pushprox::Proxy::run(small).await;
        let rest = proxy.daemon.descriptors();
        let mut legs = Legs::open(proxy.address).await;
        let mut strangers = Vec::new();
        for _ in 0..30 {
            // More than can be given a hearing, and none of them leaves by itself.
            for _ in 0..20 {
                let mut stranger = Connection::open(proxy.address).await.unwrap();
                stranger.send(said.as_bytes()).await.unwrap();
                strangers.push(stranger);
            }
            let answer = get(proxy.address, "/-/healthy").await;
            assert_eq!(answer.status(), 200, "beside {said:?}: {answer:?}");
        }
        legs.serve("meanwhile").await;
        proxy.daemon.line(&["too many connections"]).await;
        drop(legs);
        // A stranger takes no place, however long it stays.
        let mut others = Legs::open(proxy.address).await;
        others.serve("after it").await;
        drop((others, strangers));
        until("nothing is left of it", SOON, async || {
            (proxy.daemon.descriptors() <= rest).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn whoever_has_been_silent_for_the_longest_makes_room_and_is_told() {
    let (proxy, mut legs) = crowded().await;
    let mut strangers = Vec::new();
    for _ in 0..17 {
        strangers.push(proxy.connect().await);
    }
    let told = strangers[0].receive().await.unwrap();
    assert_eq!(told.status(), 503);
    assert_eq!(told.reason(), "too many connections (--limit.connections)");
    assert!(strangers[0].rest().await.is_empty());
    legs.serve("meanwhile").await;
    assert!(strangers[1..].iter().all(|stranger| !stranger.is_closed()));
}

#[tokio::test]
async fn strangers_that_say_nothing_take_no_place() {
    let mut config = config();
    config.limits.connections = 3;
    let proxy = start_with(config).await;
    let mut strangers = Vec::new();
    for _ in 0..30 {
        strangers.push(proxy.connect().await);
    }
    let mut legs = Legs::open(proxy.address).await;
    legs.serve("beside them").await;
}

#[tokio::test]
async fn few_open_files_bound_the_connections_by_themselves() {
    let mut limited = command("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM, LISTEN]);
    let begun = Instant::now();
    let mut proxy = pushprox::Proxy::run(limited).await;
    let mut legs = Legs::open(proxy.address).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(Connection::open(proxy.address).await.unwrap());
    }
    let mut refused = 0;
    for connection in &mut crowd {
        connection.send(&poll("crowd", "")).await.ok();
    }
    until("most have been told", SOON, async || {
        refused = crowd.iter().filter(|c| c.is_closed()).count();
        (refused > 150).then_some(())
    })
    .await;
    legs.serve("meanwhile").await;
    assert!(proxy.daemon.descriptors() < 64);
    // Those that are told have the places for a hearing until they have gone.
    hears_again(proxy.address).await;
    drop(crowd);
    until("it takes new ones", SOON, async || {
        let mut connection = Connection::open(proxy.address).await.unwrap();
        connection
            .send(&poll("new", "Prefer: wait=1\r\n"))
            .await
            .ok()?;
        let answer = connection.receive().await.ok()?;
        (answer.status() == 204).then_some(())
    })
    .await;
    proxy.daemon.line(&["too many connections"]).await;
    let told = proxy.daemon.lines_with(&["too many connections"]);
    assert!(told.len() <= most_told(begun), "{told:?}");
}

#[tokio::test]
async fn a_process_that_is_out_of_files_serves_whom_it_has_and_recovers() {
    let mut unlimited = command(PROGRAM);
    unlimited.arg(LISTEN);
    let begun = Instant::now();
    let mut proxy = pushprox::Proxy::run(unlimited).await;
    let mut legs = Legs::open(proxy.address).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(proxy.address).await.unwrap();
        connection.send(&poll("crowd", "")).await.unwrap();
        crowd.push(connection);
    }
    proxy.holds(23, SOON).await;
    let files = proxy.daemon.descriptors();
    proxy.daemon.limit_files(u64::try_from(files).unwrap());
    let mut waits = Connection::open(proxy.address).await.unwrap();
    waits
        .send(&poll("late", "Prefer: wait=1\r\n"))
        .await
        .unwrap();
    proxy.daemon.line(&["cannot accept connections"]).await;
    for _ in 0..5 {
        legs.serve("meanwhile").await;
        pushprox_testkit::wait::idle(Duration::from_millis(150)).await;
    }
    drop(crowd);
    assert_eq!(waits.receive().await.unwrap().status(), 204);
    let told = proxy.daemon.lines_with(&["cannot accept connections"]);
    assert!(told.len() <= most_told(begun), "{told:?}");
}

/// How often a shortage may have been told: it counts as another when there was none for 30 s.
fn most_told(begun: Instant) -> usize {
    1 + usize::try_from(begun.elapsed().as_secs() / 30).unwrap()
}

#[tokio::test]
async fn out_of_files_those_that_say_nothing_make_room_for_those_that_speak() {
    let mut unlimited = command(PROGRAM);
    unlimited.arg(LISTEN);
    let mut proxy = pushprox::Proxy::run(unlimited).await;
    let mut legs = Legs::open(proxy.address).await;
    let files = u64::try_from(proxy.daemon.descriptors()).unwrap();
    proxy.daemon.limit_files(files + 5);
    let mut strangers = Vec::new();
    for _ in 0..30 {
        for _ in 0..20 {
            strangers.push(Connection::open(proxy.address).await.unwrap());
        }
        assert_eq!(get(proxy.address, "/-/healthy").await.status(), 200);
    }
    proxy.daemon.line(&["cannot accept connections"]).await;
    legs.serve("meanwhile").await;
    let told = strangers[0].receive().await.unwrap();
    assert_eq!(told.status(), 503);
    // Not all that have been accepted had to go.
    assert!(!strangers.last().unwrap().is_closed());
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_proxy");
const LISTEN: &str = "--web.listen-address=127.0.0.1:0";
