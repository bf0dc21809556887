//! Fifty proxies with two thousand clients each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use pushprox_testkit::wait::until;

use crate::support::bench::Bench;
use crate::support::roster::Roster;

const PROXIES: usize = 50;
const CLIENTS: usize = 2_000;
/// What a pass may cost, in hundredths of a second.
const PASS: u64 = if cfg!(debug_assertions) { 1_000 } else { 100 };
const MEMORY: u64 = 64 * 1_024;

fn name(proxy: usize, client: usize) -> String {
    format!("client-{client:04}.site-{proxy:02}.example.org:9100")
}

/// When each file was written. Temporary files are on their way to be one.
fn times(bench: &Bench) -> BTreeMap<PathBuf, SystemTime> {
    let files = bench
        .sd_files()
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .map(|name| bench.path().join("sd").join(name));
    let time = |path: PathBuf| {
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        (path, modified)
    };
    files.chain([bench.target()]).map(time).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_is_cheap_memory_is_bounded_and_one_change_changes_one_file() {
    let bench = Bench::new().await;
    let mut proxies = Vec::new();
    for proxy in 0..PROXIES {
        let names: Vec<String> = (0..CLIENTS).map(|client| name(proxy, client)).collect();
        let roster = Roster::of(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        bench.service("web", &[(roster.address(), true)]);
        proxies.push((roster, names));
    }
    let discovery = bench.start(&["--resync-interval=5s"]).await;
    let total = (PROXIES * CLIENTS) as f64;
    let all = Duration::from_secs(120);
    until("all clients", all, async || {
        discovery
            .metric("clients")
            .await
            .filter(|clients| *clients == total)
    })
    .await;
    until("all files", all, async || {
        (bench.sd_files().len() == PROXIES).then_some(())
    })
    .await;
    let success = "last_success_timestamp_seconds";
    until("all loaded", all, async || {
        discovery.metric(success).await.filter(|time| *time > 0.0)
    })
    .await;
    let (first_pass, first_memory) = (
        discovery.daemon.processor_ticks(),
        discovery.daemon.peak_memory(),
    );

    let questions = || {
        proxies
            .iter()
            .map(|(roster, _)| roster.requests().len())
            .min()
            .unwrap()
    };
    let rounds = async |count: usize| {
        let start = questions();
        until("one more round", all, async || {
            (questions() >= start + count).then_some(())
        })
        .await;
    };
    // A client that comes changes the file of its proxy, and nothing else.
    rounds(1).await;
    let (before, cost_before) = (times(&bench), discovery.daemon.processor_ticks());
    let mut names: Vec<&str> = proxies[7].1.iter().map(String::as_str).collect();
    names.push("new.example.org:9100");
    proxies[7].0.lists(&names);
    until("one more client", all, async || {
        discovery
            .metric("clients")
            .await
            .filter(|clients| *clients == total + 1.0)
    })
    .await;
    let changed = |before: &BTreeMap<PathBuf, SystemTime>| {
        let after = times(&bench);
        assert_eq!(after.len(), before.len());
        after
            .into_iter()
            .filter(|(path, time)| before[path] != *time)
            .map(|(path, _)| path)
            .collect::<Vec<_>>()
    };
    until("its file written", all, async || {
        (!changed(&before).is_empty()).then_some(())
    })
    .await;
    rounds(1).await;
    let files = changed(&before);
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(
        files[0]
            .to_str()
            .unwrap()
            .contains(&format!("_{}.json", proxies[7].0.address().port()))
    );
    let passes = (discovery.daemon.processor_ticks() - cost_before) / 2;

    // One that moves changes nothing while both proxies list it, then the two files that it is in.
    let before = times(&bench);
    let mut names: Vec<&str> = proxies[9].1.iter().map(String::as_str).collect();
    names.push("new.example.org:9100");
    proxies[9].0.lists(&names);
    rounds(2).await;
    assert_eq!(changed(&before), Vec::<PathBuf>::new());
    proxies[7]
        .0
        .lists(&proxies[7].1.iter().map(String::as_str).collect::<Vec<_>>());
    until("it has moved", all, async || {
        (changed(&before).len() == 2).then_some(())
    })
    .await;
    rounds(1).await;
    assert_eq!(changed(&before).len(), 2);
    assert_eq!(bench.reloads.seen().len(), 1);

    let peak = discovery.daemon.peak_memory();
    eprintln!(
        "the start and the first pass: {first_pass}0 ms of CPU, {first_memory} KiB; a later pass: {passes}0 ms; \
         at rest {} KiB, at most {peak} KiB",
        discovery.daemon.memory()
    );
    assert!(
        passes <= PASS && first_pass <= PASS * 2,
        "{first_pass}, then {passes}"
    );
    assert!(peak <= MEMORY, "{peak} KiB");
}
