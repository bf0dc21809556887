//! Killed at any moment, stopped at any moment, out of disk or kept from writing: files are whole, and
//! the next run brings everything to its end.

use std::path::PathBuf;
use std::time::Duration;

use pushprox_testkit::hanging::Hanging;
use pushprox_testkit::process::Daemon;
use pushprox_testkit::wait::{idle, until};
use pushprox_testkit::wire::get;

use crate::support::bench::{Bench, SOON, clients_of};
use crate::support::mounts::with_mounts;
use crate::support::roster::Roster;

/// A base that takes a while to be written, told apart by its number.
fn base(number: usize) -> String {
    let jobs = (0..1_000).map(|job| format!("- job_name: job-{job}\n  metrics_path: /{number}\n"));
    format!(
        "# {number}\nscrape_configs:\n{}# end {number}\n",
        jobs.collect::<String>()
    )
}

async fn end_at_every_moment(end: impl Fn(&Daemon)) {
    let bench = Bench::new().await;
    let names: Vec<String> = (0..2_000)
        .map(|name| format!("client-{name}.example.org:9100"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (one, two) = (Roster::of(&names).await, Roster::of(&names).await);
    bench.service("web", &[(one.address(), true), (two.address(), true)]);
    bench.write("base", &base(0));
    assert_eq!(bench.once(&[]).await.code, Some(0));

    let mut whole = 0;
    let mut changed = 0;
    let mut moment = Duration::from_millis(20);
    for number in 1..=60 {
        let before = std::fs::read_to_string(bench.target()).unwrap();
        let kept = if number % 2 == 0 {
            &names[..]
        } else {
            &names[..1_000]
        };
        one.lists(kept);
        bench.write("base", &base(number));
        let mut daemon = Daemon::start("discovery", bench.command(&["--metrics-addr="]));
        // Whatever the machine is at, the moments close in on that of the write.
        idle(moment).await;
        end(&daemon);
        daemon.ended(SOON).await;

        let after = std::fs::read_to_string(bench.target()).unwrap();
        moment = if after == before {
            // On a slow machine the first write is far away.
            let growth = if changed == 0 { 1.5 } else { 1.1 };
            moment.mul_f64(growth) + Duration::from_millis(1)
        } else {
            moment.mul_f64(0.93)
        };
        if after != before {
            changed += 1;
            assert!(
                after.starts_with(&format!("# {number}\n"))
                    && after.ends_with(&format!("# end {number}\n"))
            );
        }
        // Panics where an SD file is not whole.
        let clients = clients_of(&after);
        assert_eq!(clients.len(), 2);
        whole += clients.values().filter(|names| names.len() > 100).count();
    }
    eprintln!("{changed} of 60 had written the configuration, {whole} of 120 SD files were long");
    assert!((5..=55).contains(&changed), "the moments are badly chosen");

    one.lists(&["a"]);
    two.lists(&["b"]);
    let _discovery = bench.start(&[]).await;
    until(
        "the right clients in the end",
        Duration::from_secs(120),
        async || {
            let clients = bench.clients();
            (clients[&one.address().to_string()] == ["a"]
                && clients[&two.address().to_string()] == ["b"])
            .then_some(())
        },
    )
    .await;
    until("nothing left behind", SOON, async || {
        (bench.sd_files().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn killed_at_any_moment_files_are_whole() {
    end_at_every_moment(Daemon::kill).await;
}

#[tokio::test]
async fn stopped_at_any_moment_files_are_whole() {
    end_at_every_moment(Daemon::terminate).await;
}

#[tokio::test]
async fn a_full_disk_leaves_whole_files_and_is_overcome() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let Some(mut disk) = small_disk(&bench).await else {
        return;
    };
    let address = disk.daemon.address("listening").await;
    let metric = async |line: &str| {
        let text = pushprox_testkit::wire::get(address, "/metrics")
            .await
            .text();
        pushprox_testkit::pushprox::metric(&text, &format!("pushprox_discovery_{line}"))
    };
    let sd_file = async || {
        until("an SD file", SOON, async || {
            let mut entries = std::fs::read_dir(&disk.folder).ok()?;
            let is_json = |path: &PathBuf| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            };
            entries.find_map(|entry| Some(entry.ok()?.path()).filter(is_json))
        })
        .await
    };
    let file = sd_file().await;
    until("the first list", SOON, async || {
        std::fs::read_to_string(&file)
            .ok()?
            .contains("\"a\"")
            .then_some(())
    })
    .await;
    let before = std::fs::read_to_string(&file).unwrap();

    std::fs::write(disk.folder.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let names: Vec<String> = (0..200)
        .map(|name| format!("client-{name}.example.org:9100"))
        .collect();
    one.lists(&names.iter().map(String::as_str).collect::<Vec<_>>());
    disk.daemon
        .line(&["level=error", "no space left on device"])
        .await;
    until("counted", SOON, async || {
        metric("write_failures_total")
            .await
            .filter(|count| *count >= 1.0)
    })
    .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert!(disk.daemon.runs());

    std::fs::remove_file(disk.folder.join("filler")).unwrap();
    until("all clients", SOON, async || {
        std::fs::read_to_string(&file)
            .ok()?
            .contains("client-199")
            .then_some(())
    })
    .await;
    disk.daemon
        .line(&["Prometheus has all that is known again"])
        .await;
    let left = std::fs::read_dir(&disk.folder).unwrap().count();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn whatever_cannot_be_written_or_removed_is_counted() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let stale = "sd/pushprox-prometheus.yaml-10.0.0.9_80.json";
    std::fs::create_dir(bench.path().join(stale)).unwrap();
    let mut discovery = bench.start(&[]).await;
    bench.clients_are(&[(one.address(), &["a"])]).await;
    discovery
        .daemon
        .line(&["level=error", "cannot remove", stale])
        .await;
    discovery
        .metric_is("write_failures_total", |count| count >= 1.0)
        .await;
    discovery.stop().await;

    bench.api.faults(|faults| faults.hangs = true);
    let nowhere = format!("-target={}/missing/p.yaml", bench.path().display());
    let mut discovery = bench.start(&["--sync-timeout=1s", &nowhere]).await;
    discovery
        .daemon
        .line(&["cannot give Prometheus its configuration without proxies"])
        .await;
    discovery
        .metric_is("write_failures_total", |count| count >= 1.0)
        .await;
}

struct SmallDisk {
    daemon: Daemon,
    /// Its folder for SD files, as seen from here.
    folder: PathBuf,
}

/// Discovery with 64 KiB for its SD files. None, outside of CI, where there cannot be a mount.
async fn small_disk(bench: &Bench) -> Option<SmallDisk> {
    let (sd, pid) = (bench.path().join("sd"), bench.path().join("pid"));
    let script = format!(
        "mount -t tmpfs -o size=64k none {}; echo $$ > {pid}.new; mv {pid}.new {pid}",
        sd.display(),
        pid = pid.display()
    );
    let command = with_mounts(&script, &bench.command(&[]))?;
    let daemon = Daemon::start("discovery", command);
    let pid = until("its id", SOON, async || std::fs::read_to_string(&pid).ok()).await;
    let folder = PathBuf::from(format!("/proc/{}/root{}", pid.trim(), sd.display()));
    Some(SmallDisk { daemon, folder })
}

#[tokio::test]
async fn a_base_that_cannot_be_read_to_its_end_holds_up_neither_the_pages_nor_the_end() {
    let bench = Bench::new().await;
    let mut discovery = bench.start(&[]).await;
    discovery.has_published().await;
    let base = Hanging::replace(&bench.path().join("base")).await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let _reading = base.is_read().await;
    assert_eq!(get(discovery.address, "/-/healthy").await.status(), 200);
    discovery.daemon.terminate();
    assert_eq!(discovery.daemon.ended(SOON).await.code(), Some(0));
}
