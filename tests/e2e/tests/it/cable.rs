//! Cut cables: packets vanish and no socket is closed. Each test runs in a network of its own.

use std::time::Duration;

use pushprox_testkit::network::{Host, Network, runtime};
use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::pushprox::{self, Client, Proxy, binary};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, idle, until};
use pushprox_testkit::wire::{Connection, Message, scrape_request};

#[test]
fn a_short_cut_costs_the_scrapes_meanwhile_and_heals_by_itself() {
    let Some(mut network) = enter("a_short_cut_costs_the_scrapes_meanwhile_and_heals_by_itself")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        let remote = Remote::start(&mut network, &proxy, &[]).await;
        assert_eq!(proxy.scrape(URL, 20.0).await.status(), 200);

        remote.host.cut();
        let answer = proxy.scrape(URL, 2.0).await;
        assert_eq!(answer.status(), 504, "{answer:?}");
        let reason = answer.reason();
        let expected = "client host.test took the scrape and did not answer within";
        assert!(reason.contains(expected), "{reason:?}");

        remote.host.mend();
        heals(&proxy).await;
    });
}

#[test]
fn a_parked_poll_behind_a_cut_cable_is_forgotten_and_never_chosen() {
    let Some(mut network) = enter("a_parked_poll_behind_a_cut_cable_is_forgotten_and_never_chosen")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        // Polls that never end by themselves, so that each is a connection as long as it lasts.
        let flags = ["--poll.wait=1h"];
        let alive = Remote::start(&mut network, &proxy, &flags).await;
        proxy.holds(1, SOON).await;
        let lost = Remote::start(&mut network, &proxy, &flags).await;
        proxy.holds(2, SOON).await;
        lost.host.cut();
        proxy.holds(1, KEEPALIVE).await;
        for _ in 0..5 {
            let answer = proxy.scrape(URL, 20.0).await;
            assert_eq!(answer.status(), 200, "{answer:?}");
        }
        drop(alive);
    });
}

#[test]
fn a_scrape_handed_out_over_a_cut_cable_leaves_nothing_behind() {
    let Some(mut network) = enter("a_scrape_handed_out_over_a_cut_cable_leaves_nothing_behind")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        let remote = Remote::start(&mut network, &proxy, &[]).await;
        assert_eq!(proxy.scrape(URL, 20.0).await.status(), 200);
        remote.host.cut();
        assert_eq!(proxy.scrape(URL, 1.0).await.status(), 504);
        // The instruction is in the kernel, unacknowledged: keep-alive does not count there.
        proxy.holds(0, KEEPALIVE).await;
        let answer = proxy.scrape(URL, 1.0).await;
        assert_eq!(answer.status(), 504, "{answer:?}");
        let reason = answer.reason();
        assert!(
            reason.contains("client host.test has not polled for"),
            "{reason:?}"
        );
    });
}

#[test]
fn a_client_whose_poll_never_ends_notices_that_the_cable_was_cut() {
    let Some(mut network) = enter("a_client_whose_poll_never_ends_notices_that_the_cable_was_cut")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        let mut remote = Remote::start(&mut network, &proxy, &["--poll.wait=1h"]).await;
        assert_eq!(proxy.scrape(URL, 20.0).await.status(), 200);
        remote.host.cut();
        let client = &mut remote.client.daemon;
        until("a warning of the client's", KEEPALIVE, async || {
            (!client.lines_with(&["level=warn", "level=error"]).is_empty()).then_some(())
        })
        .await;
        assert!(client.runs());
        remote.host.mend();
        heals(&proxy).await;
    });
}

#[test]
fn a_scrape_sent_into_a_cut_cable_goes_to_another_client_that_polls() {
    let Some(mut network) =
        enter("a_scrape_sent_into_a_cut_cable_goes_to_another_client_that_polls")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        let lost = Remote::start(&mut network, &proxy, &[]).await;
        lost.host.cut();
        let mut scrape = sent(&proxy).await;
        let target = Target::saying("from another").await;
        let other = Client::start(&proxy.url(), &target.url("/"), "host.test", &[]);
        let answer = scrape.receive().await.unwrap();
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, "from another")
        );
        drop(other);
    });
}

#[test]
fn a_scrape_sent_into_a_cable_that_is_mended_is_pulled_once() {
    let Some(mut network) = enter("a_scrape_sent_into_a_cable_that_is_mended_is_pulled_once")
    else {
        return;
    };
    runtime().block_on(async {
        let proxy = proxy().await;
        let remote = Remote::start(&mut network, &proxy, &[]).await;
        // How often the exporter has answered before.
        let pulls = |answer: &Message| {
            let counter = "promhttp_metric_handler_requests_total{code=\"200\"}";
            pushprox::metric(&answer.text(), counter).unwrap()
        };
        let before = pulls(&proxy.scrape(URL, 20.0).await);
        remote.host.cut();
        let mut scrape = sent(&proxy).await;
        // By now the proxy has asked whether it was acknowledged.
        idle(Duration::from_secs(4)).await;
        remote.host.mend();
        let answer = scrape.receive().await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(pulls(&answer), before + 1.0);
        let after = pulls(&proxy.scrape(URL, 20.0).await);
        assert_eq!(after, before + 2.0);
    });
}

/// A scrape that has been handed out, and is still to be received.
async fn sent(proxy: &Proxy) -> Connection {
    let answered = "pushprox_http_requests_total{code=\"200\",path=\"/poll\"}";
    let before = proxy.metric(answered).await;
    let mut scrape = Connection::open(proxy.address).await.unwrap();
    let request = scrape_request(URL, 30.0, "");
    scrape.send(&request).await.unwrap();
    until("the scrape is handed out", SOON, async || {
        (proxy.metric(answered).await > before).then_some(())
    })
    .await;
    scrape
}

/// A host with a client and its target, a node exporter on the host's loopback.
struct Remote {
    host: Host,
    client: Client,
    _exporter: NodeExporter,
}

impl Remote {
    async fn start(network: &mut Network, proxy: &Proxy, flags: &[&str]) -> Self {
        let host = network.host().await;
        let exporter = NodeExporter::run(host.run(&NodeExporter::command())).await;
        let mut command = binary("client");
        command
            .arg(format!("--proxy-url={}", proxy.url()))
            .arg(format!("--pull-url={}", exporter.url()))
            .args(["--fqdn=host.test", "--metrics-addr="])
            .args(flags);
        let client = Client::run(host.run(&command));
        proxy.registered("host.test").await;
        Self {
            host,
            client,
            _exporter: exporter,
        }
    }
}

async fn proxy() -> Proxy {
    Proxy::start_at(&format!("{}:0", Network::OWN), &[]).await
}

/// Waits until a scrape is answered well again.
async fn heals(proxy: &Proxy) {
    until(
        "a good scrape after the cable was mended",
        HEALED,
        async || (proxy.scrape(URL, 5.0).await.status() == 200).then_some(()),
    )
    .await;
}

fn enter(test: &str) -> Option<Network> {
    Network::enter(module_path!(), test)
}

const URL: &str = "http://host.test:9100/metrics";

/// 30 s idle and three tries 5 s apart, and some time on top for a busy machine.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// Both sides send again what got lost at growing intervals, which are 8 s long after such a cut.
const HEALED: Duration = Duration::from_secs(60);
