//! Bad cables: late, lossy and cut. Each test runs in a network of its own.

use std::time::Duration;

use pushprox_testkit::network::{Bad, Host, Network, runtime};
use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::process::Daemon;
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::rest::{Bystander, Rest};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};

#[test]
fn every_scrape_over_a_late_cable_is_answered() {
    over(Bad::Late, "every_scrape_over_a_late_cable_is_answered");
}

#[test]
fn every_scrape_over_a_lossy_cable_is_answered() {
    over(Bad::Lossy, "every_scrape_over_a_lossy_cable_is_answered");
}

/// Scrapes a client behind a bad cable: each answer comes, whole, in the time that it has.
fn over(how: Bad, test: &str) {
    let Some(mut network) = Network::enter(module_path!(), test) else {
        return;
    };
    runtime().block_on(async {
        let proxy = Proxy::start_at(&format!("{}:0", Network::OWN), &[]).await;
        let rest = Rest::of(&proxy.daemon);
        let host = network.host().await;
        let exporter = NodeExporter::run(host.run(&NodeExporter::command())).await;
        let client = client(&host, &proxy, &exporter);
        proxy.registered(NAME).await;
        host.worsen(how).await;
        let bystander = Bystander::at(&proxy).await;
        let scraping = async {
            for number in 0..SCRAPES {
                let answer = proxy.scrape(&format!("http://{NAME}/"), 30.0).await;
                assert_eq!(answer.status(), 200, "scrape {number}: {answer:?}");
                assert!(answer.whole, "scrape {number}");
                assert!(answer.text().contains("node_cpu_seconds_total"));
            }
        };
        bystander.meanwhile(scraping).await;
        if matches!(how, Bad::Lossy) {
            let lost = host.lost().await;
            assert!(lost > 0, "the cable has lost nothing");
        }
        bystander.leave().await;
        drop((client, exporter));
        rest.returns(&proxy.daemon, SOON).await;
    });
}

#[test]
fn nothing_of_a_cut_cable_stays_at_the_proxy() {
    let test = "nothing_of_a_cut_cable_stays_at_the_proxy";
    let Some(mut network) = Network::enter(module_path!(), test) else {
        return;
    };
    runtime().block_on(async {
        // Half a head is there for as long as the others.
        let flags = ["--limit.head-timeout=1m"];
        let proxy = Proxy::start_at(&format!("{}:0", Network::OWN), &flags).await;
        let rest = Rest::of(&proxy.daemon);
        let bystander = Bystander::at(&proxy).await;
        let near = Target::saying(&"x".repeat(10_000_000)).await;
        let near_client = Client::start(&proxy.url(), &near.url("/"), "near.test", &[]);
        proxy.registered("near.test").await;

        // One connection of each kind that may be there when the cable is cut.
        let host = network.host().await;
        let poll = "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n";
        let push = "POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nHTTP/1.1 200";
        let far = [
            // A parked poll, and one that is handed a scrape after the cut.
            say(&host, &proxy, &format!("{poll}parked.test")),
            say(&host, &proxy, &format!("{poll}handed.test")),
            say(&host, &proxy, "POST /push HTTP/1.1\r\nHo"),
            say(&host, &proxy, push),
            say(&host, &proxy, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"),
            // A scrape with a long answer, of which nothing is read.
            say(
                &host,
                &proxy,
                "GET http://near.test/ HTTP/1.1\r\nHost: near.test\r\n\
                 X-Prometheus-Scrape-Timeout-Seconds: 300\r\n\r\n",
            ),
        ];
        proxy.registered("parked.test").await;
        proxy.registered("handed.test").await;
        until("all of them", SOON, async || {
            (from(&host, &proxy) == far.len()).then_some(())
        })
        .await;

        bystander
            .meanwhile(async {
                host.cut();
                let answer = proxy.scrape("http://handed.test/", 2.0).await;
                assert_eq!(answer.status(), 504, "{answer:?}");
                until("their end at the proxy", DEAD, async || {
                    (from(&host, &proxy) == 0).then_some(())
                })
                .await;
                host.mend();
            })
            .await;
        bystander.leave().await;
        drop((near_client, far));
        rest.descriptors_return(&proxy.daemon, SOON).await;
    });
}

/// Says something to the proxy from a host, and then nothing; what comes is not read.
fn say(host: &Host, proxy: &Proxy, text: &str) -> Daemon {
    let mut bash = host.command("bash");
    let text = text.replace('\r', "\\r").replace('\n', "\\n");
    let (ip, port) = (proxy.address.ip(), proxy.address.port());
    bash.arg("-c").arg(format!(
        "exec 3<>/dev/tcp/{ip}/{port}; printf '{text}' >&3; exec sleep 1h"
    ));
    Daemon::start("peer", bash)
}

/// How many connections from a host the proxy holds.
fn from(host: &Host, proxy: &Proxy) -> usize {
    let peers = proxy.daemon.peers(proxy.address.port());
    peers.iter().filter(|peer| **peer == host.address).count()
}

fn client(host: &Host, proxy: &Proxy, exporter: &NodeExporter) -> Client {
    let mut command = binary("client");
    command
        .arg(format!("--proxy-url={}", proxy.url()))
        .arg(format!("--pull-url={}", exporter.url()))
        .arg(format!("--fqdn={NAME}"))
        .arg("--metrics-addr=");
    Client::run(host.run(&command))
}

const NAME: &str = "far.test";
const SCRAPES: usize = 8;

/// 16 to 30 s idle and three questions 5 s apart, or 45 s without an acknowledgement.
const DEAD: Duration = Duration::from_secs(120);
