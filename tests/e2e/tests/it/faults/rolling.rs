//! Two proxies behind nginx, as deploy/examples/nginx has it, restarted one after the other under
//! load: no scrape fails that a poll which is tried again could have saved.
//!
//! What cannot be saved by a poll: a scrape that is sent to a proxy from its SIGTERM until its
//! successor listens. It is told so, or finds nobody. Any other is answered: one in a client's
//! hands, one that comes before its client is back, and all of the other proxy's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pushprox_testkit::nginx::Nginx;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, free_port, idle, until};
use pushprox_testkit::wire::{ask, scrape_request};
use tokio::task::JoinSet;

use crate::secured::repository;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_no_scrape_that_a_poll_could_save() {
    let target = Arc::new(target().await);
    let addresses = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let mut proxies = Vec::new();
    for address in addresses {
        proxies.push(Proxy::start_at(&address.to_string(), &[]).await);
    }
    let example = repository("deploy/examples/nginx/two-proxies.conf");
    let example = std::fs::read_to_string(example).unwrap();
    let nginx = Nginx::with(|address| {
        example
            .replace("proxy-a.example.org:8080", &addresses[0].to_string())
            .replace("proxy-b.example.org:8080", &addresses[1].to_string())
            .replace("listen 8080", &format!("listen {address}"))
    })
    .await;
    let url = format!("http://{}/", nginx.address);
    // Each is scraped through the proxy that lists it, as service discovery has it.
    let mut clients = Vec::new();
    let mut homes = BTreeMap::new();
    // By their names' hashes all of a few may have the same proxy.
    while clients.len() < 6
        || !addresses
            .iter()
            .all(|home| homes.values().any(|its| its == home))
    {
        assert!(clients.len() < 64, "one of the proxies has no clients");
        let name = format!("node{}.test", clients.len());
        let header = format!("--proxy.header=X-PushProx-Client: {name}");
        // It is back well within the time for which a proxy waits for names that it does not know.
        let flags = [&*header, "--proxy.retry.max-wait=1s"];
        clients.push(Client::start(&url, &target.url("/"), &name, &flags));
        until("the client's proxy", SOON, async || {
            for proxy in &proxies {
                if proxy.names().await.contains(&name) {
                    homes.insert(name.clone(), proxy.address);
                }
            }
            homes.contains_key(&name).then_some(())
        })
        .await;
    }
    let count = clients.len() as u64;
    let account = Arc::new(Account::default());
    let mut scrapers = JoinSet::new();
    for (name, home) in homes {
        let which = usize::from(home == addresses[1]);
        let (account, target) = (Arc::clone(&account), Arc::clone(&target));
        scrapers.spawn(scrape_without_end(name, home, which, account, target));
    }
    account.another(10 * count).await;
    for (which, proxy) in proxies.iter_mut().enumerate() {
        // Odd while nobody can be there.
        account.restarts[which].fetch_add(1, Ordering::SeqCst);
        proxy.daemon.terminate();
        let status = proxy.daemon.ended(SOON).await;
        assert_eq!(status.code(), Some(0));
        *proxy = Proxy::start_at(&proxy.address.to_string(), &[]).await;
        account.restarts[which].fetch_add(1, Ordering::SeqCst);
        account.another(20 * count).await;
    }
    scrapers.shutdown().await;
    let lost = std::mem::take(&mut *account.lost.lock());
    assert!(lost.is_empty(), "{} scrapes: {lost:#?}", lost.len());
}

/// A target that takes a while now and then, so that scrapes are in hand whenever the end comes.
async fn target() -> Target {
    Target::start(|request, mut connection| async move {
        let (_, nonce) = request.uri().split_once('?')?;
        if nonce.ends_with(['1', '4', '7']) {
            idle(Duration::from_millis(300)).await;
        }
        connection.send(&ok(nonce)).await.ok()?;
        Some(connection)
    })
    .await
}

/// What became of the scrapes.
#[derive(Default)]
struct Account {
    right: AtomicU64,
    restarts: [AtomicU64; 2],
    lost: Mutex<Vec<String>>,
}

impl Account {
    /// Waits until that many more scrapes were answered well.
    async fn another(&self, count: u64) {
        let goal = self.right.load(Ordering::SeqCst) + count;
        until("good scrapes", Duration::from_secs(300), async || {
            (self.right.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }
}

async fn scrape_without_end(
    name: String,
    home: SocketAddr,
    which: usize,
    account: Arc<Account>,
    target: Arc<Target>,
) {
    for number in 0_u64.. {
        let nonce = format!("{name}-{number}");
        let request = scrape_request(&format!("http://{name}/?{nonce}"), 30.0, "");
        let before = account.restarts[which].load(Ordering::SeqCst);
        let answer = ask(home, &request).await;
        let after = account.restarts[which].load(Ordering::SeqCst);
        let is_refusal = match &answer {
            Ok(answer) => answer.reason() == "proxy is shutting down",
            Err(_) => true,
        };
        // What a client has in its hands is finished first.
        let was_in_hand = || {
            let requests = target.requests();
            requests
                .iter()
                .any(|request| request.uri().ends_with(&nonce))
        };
        if let Ok(answer) = &answer
            && (answer.status(), answer.text(), answer.whole) == (200, nonce.clone(), true)
        {
            account.right.fetch_add(1, Ordering::SeqCst);
        } else if !is_refusal || (before == after && before.is_multiple_of(2)) || was_in_hand() {
            account.lost.lock().push(format!("{nonce}: {answer:?}"));
        }
        idle(Duration::from_millis(20)).await;
    }
}
