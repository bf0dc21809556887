//! Certificates are replaced while scrapes go on.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pushprox_testkit::target::Target;
use pushprox_testkit::tls::Authority;
use pushprox_testkit::wait::{SOON, until};
use tokio::join;

use crate::secured::Folder;

const AUTH: &str = "scrapers:
- {san: prometheus.test, names: ['*']}
clients:
- {san: 'node.test', names: ['{san}']}
";

/// Waits until a program has read its files again, as often as this in all.
macro_rules! reloaded {
    ($daemon:expr, $times:expr) => {
        until("files are read again", SOON, async || {
            let lines = $daemon.lines_with(&["read again after a change"]);
            (lines.len() >= $times).then_some(())
        })
        .await
    };
}

#[tokio::test]
async fn no_scrape_is_lost_while_every_certificate_is_replaced() {
    let folder = Folder::new();
    let next = Authority::new("next authority");
    let target = Target::saying("x 1\n").await;
    let proxy = folder.proxy(AUTH).await;
    let node = folder.issue("node.test");
    let scraper = folder.issue("prometheus.test");
    let client = folder.client(&proxy, &node, "node.test", &target.url("/"));
    let first = Arc::new(scraper.flags("--proxy-"));
    let flags = Mutex::new(Arc::clone(&first));
    folder.scraped(&proxy, "http://node.test/", &first).await;

    let (done, scrapes) = (AtomicBool::new(false), AtomicUsize::new(0));
    let scrape = async || {
        while !done.load(Ordering::Relaxed) {
            let shown = Arc::clone(&flags.lock());
            let answer = folder.scrape(&proxy, "http://node.test/", &shown).await;
            assert!(answer.stdout.ends_with("\r\n\r\nx 1\n"), "{answer:?}");
            scrapes.fetch_add(1, Ordering::Relaxed);
        }
    };
    let rotate = async {
        // Both authorities are trusted before anything is signed by the new one.
        let both = folder.authority.pem() + &next.pem();
        folder.write("ca.crt", &both);
        reloaded!(client.daemon, 1);
        reloaded!(proxy.daemon, 1);
        // Whole files take the place of the old ones, as a careful program has it.
        for (name, names) in [
            ("server", &["127.0.0.1", "localhost"][..]),
            ("node.test", &["node.test"]),
        ] {
            let staged = next.issue(folder.path(), "staged", names);
            for (from, ending) in [(&staged.key, "key"), (&staged.cert, "crt")] {
                fs::rename(from, folder.path().join(format!("{name}.{ending}"))).unwrap();
            }
        }
        let renewed = next.issue(folder.path(), "renewed", &["prometheus.test"]);
        *flags.lock() = Arc::new(renewed.flags("--proxy-"));
        reloaded!(client.daemon, 2);
        reloaded!(proxy.daemon, 2);
        until("nobody shows the old certificate", SOON, async || {
            (Arc::strong_count(&first) == 1).then_some(())
        })
        .await;
        folder.write("ca.crt", &next.pem());
        reloaded!(client.daemon, 3);
        reloaded!(proxy.daemon, 3);
        let before = scrapes.load(Ordering::Relaxed);
        until("scrapes by the new certificates", SOON, async || {
            (scrapes.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let all = async { join!(rotate, scrape(), scrape(), scrape()) };
    tokio::time::timeout(Duration::from_secs(300), all)
        .await
        .unwrap();
    let lost = client
        .daemon
        .lines_with(&["poll failed", "push failed", "pull failed"]);
    assert_eq!(lost, [""; 0]);
    // What was issued by the old authority proves nothing any more.
    let old = folder.issue("old.test").flags("--proxy-");
    let refused = folder.scrape(&proxy, "http://node.test/", &old).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
}

#[tokio::test]
async fn who_came_in_by_an_authority_that_is_dropped_is_handed_nothing_more() {
    let folder = Folder::new();
    let next = Authority::new("next authority");
    let target = Target::saying("x 1\n").await;
    let mut proxy = folder.proxy(AUTH).await;
    let node = folder.issue("node.test");
    let client = folder.client(&proxy, &node, "node.test", &target.url("/"));
    let scraper = folder.issue("prometheus.test").flags("--proxy-");
    folder.scraped(&proxy, "http://node.test/", &scraper).await;
    let pulls = target.requests().len();
    let renewed = next.issue(folder.path(), "renewed", &["prometheus.test"]);
    folder.write("ca-of-server.crt", &folder.authority.pem());
    folder.write("ca.crt", &next.pem());
    proxy.daemon.line(&["read again after a change"]).await;
    // The connection of its poll is as old as its certificate, and has been there all the time.
    let mut flags = vec!["--proxy".to_owned(), crate::secured::https(&proxy)];
    flags.extend(["--proxy-cacert".to_owned(), folder.file("ca-of-server.crt")]);
    flags.extend(renewed.flags("--proxy-"));
    flags.extend(["--header", "X-Prometheus-Scrape-Timeout-Seconds: 3"].map(str::to_owned));
    flags.push("http://node.test/".to_owned());
    let refused = pushprox_testkit::tls::curl(&flags).await;
    assert!(
        refused
            .stdout
            .contains("HTTP/1.1 504 client node.test has not polled"),
        "{refused:?}"
    );
    assert_eq!(target.requests().len(), pulls);
    drop(client);
}
