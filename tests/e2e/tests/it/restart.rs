//! A proxy restarted under load: an account of every scrape.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, free_port, idle, until};
use pushprox_testkit::wire::{ask, scrape_request};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scrape_around_a_restart_has_one_answer_and_nothing_is_left_behind() {
    let target = Target::echoing().await;
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let start = async || Proxy::start_at(&address.to_string(), &[]).await;
    let mut proxy = start().await;
    let clients: Vec<Client> = NAMES
        .iter()
        .map(|name| Client::start(&proxy.url(), &target.url("/metrics"), name, &[]))
        .collect();
    for name in NAMES {
        proxy.registered(name).await;
    }

    let account = Arc::new(Account::default());
    let mut scrapers = JoinSet::new();
    for scraper in 0..SCRAPERS {
        scrapers.spawn(scrape_without_end(address, scraper, Arc::clone(&account)));
    }
    account.another(400).await;
    let busy: Vec<u64> = clients
        .iter()
        .map(|client| client.daemon.memory())
        .collect();

    // As a service manager does it, and as the kernel does it that has no memory left.
    for orderly in [true, false] {
        account.disturbed();
        if orderly {
            proxy.daemon.terminate();
        } else {
            proxy.daemon.kill();
        }
        let status = proxy.daemon.ended(SOON).await;
        assert_eq!(status.code(), orderly.then_some(0), "{status}");
        proxy = start().await;
        for name in NAMES {
            proxy.registered(name).await;
        }
        account.calm();
        account.another(400).await;
    }
    scrapers.shutdown().await;

    let wrong = std::mem::take(&mut *account.wrong.lock());
    assert!(
        wrong.is_empty(),
        "{} scrapes: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );

    // Clients keep connections for their polls and for as many pushes as they had at once. What is
    // left behind by scrapes would be counted in hundreds.
    let mut fresh = Proxy::start(&[]).await;
    let rest = fresh.daemon.descriptors() + NAMES.len() + SCRAPERS * NAMES.len();
    until("descriptors back at rest", SOON, async || {
        (proxy.daemon.descriptors() <= rest).then_some(())
    })
    .await;
    let (now, new) = (proxy.daemon.memory(), fresh.daemon.memory());
    assert!(
        now < new + 4 * MIB,
        "{now} KiB after the load, {new} KiB when new"
    );
    for (client, busy) in clients.iter().zip(busy) {
        let now = client.daemon.memory();
        assert!(
            now < busy + 2 * MIB,
            "{now} KiB after the load, {busy} KiB in it"
        );
    }
    for name in NAMES {
        let answer = proxy.scrape(&format!("http://{name}/?last"), 5.0).await;
        assert_eq!(answer.text(), "last", "{answer:?}");
    }
    assert!(fresh.daemon.runs());
}

#[tokio::test]
async fn a_client_outlives_a_proxy_that_stays_away_and_does_not_hammer() {
    let target = Target::saying("back").await;
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let mut client = Client::start(
        &format!("http://{address}/"),
        &target.url("/"),
        "away.test",
        &[
            "--proxy.retry.initial-wait=100ms",
            "--proxy.retry.max-wait=1s",
            "--log.level=debug",
        ],
    );
    client.daemon.line(&["poll failed"]).await;
    let before = Instant::now();
    idle(Duration::from_secs(5)).await;
    assert!(client.daemon.runs());
    // With full jitter a wait is half its bound on average: 100, 200, 400, 800 ms, then 1 s.
    let polls = client.daemon.lines_with(&["poll failed"]).len();
    let most = 8.0 * before.elapsed().as_secs_f64();
    assert!((polls as f64) < most, "{polls} polls, {most} would be many");

    let proxy = Proxy::start_at(&address.to_string(), &[]).await;
    let answer = proxy.scrape("http://away.test/", 10.0).await;
    assert_eq!(answer.text(), "back", "{answer:?}");
}

/// What became of the scrapes.
#[derive(Default)]
struct Account {
    right: AtomicU64,
    /// Odd while the proxy is being restarted.
    epoch: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Account {
    fn disturbed(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn calm(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until that many more scrapes were answered as they should.
    async fn another(&self, count: u64) {
        let goal = self.right.load(Ordering::SeqCst) + count;
        until("good scrapes", Duration::from_secs(300), async || {
            (self.right.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }
}

async fn scrape_without_end(address: SocketAddr, scraper: usize, account: Arc<Account>) {
    for (round, name) in NAMES.iter().cycle().enumerate() {
        // The target says the query back, so that an answer shows whose it is.
        let nonce = format!("{scraper}-{round}");
        let request = scrape_request(&format!("http://{name}/metrics?{nonce}"), 10.0, "");
        let epoch = account.epoch.load(Ordering::SeqCst);
        let answer = ask(address, &request).await;
        let calm = epoch.is_multiple_of(2) && epoch == account.epoch.load(Ordering::SeqCst);
        let wrong = match &answer {
            Ok(answer) if answer.status() == 200 && answer.whole => answer.text() != nonce,
            // An answer cut off in its body is seen as such by whoever scrapes.
            Ok(answer) if answer.status() == 200 => calm,
            Ok(answer) => calm || !is_about_the_restart(answer.reason()),
            Err(_) => calm,
        };
        if wrong {
            let when = if calm { "in calm" } else { "around a restart" };
            account
                .wrong
                .lock()
                .push(format!("{nonce} of {name} {when}: {answer:?}"));
        } else if answer.is_ok_and(|answer| answer.status() == 200 && answer.whole) {
            account.right.fetch_add(1, Ordering::SeqCst);
        } else {
            idle(Duration::from_millis(50)).await;
        }
    }
}

/// Whether a scrape may fail with this reason while the proxy goes and comes back.
fn is_about_the_restart(reason: &str) -> bool {
    [
        "proxy is shutting down",
        "no client registered for",
        "sent a broken answer",
    ]
    .iter()
    .any(|expected| reason.contains(expected))
}

const SCRAPERS: usize = 8;

const NAMES: [&str; 4] = ["zero.test", "one.test", "two.test", "three.test"];

/// In KiB, as the kernel counts memory.
const MIB: u64 = 1024;
