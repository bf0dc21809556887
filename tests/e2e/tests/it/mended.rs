//! A cable that was cut and is whole again: the first scrape that is sent later than five seconds
//! after is answered, whatever the cut fell upon, and nothing of the time before stays open.

use std::time::Duration;

use pushprox_testkit::network::{Host, Network, runtime};
use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::process::command;
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, free_port, idle, until};
use pushprox_testkit::wire::Message;
use tokio::join;
use tokio::sync::watch;

#[test]
fn scrapes_succeed_after_a_cut_of_two_seconds() {
    if let Some(network) = enter("scrapes_succeed_after_a_cut_of_two_seconds") {
        runtime().block_on(cut_and_mend(network, Duration::from_secs(2)));
    }
}

#[test]
fn scrapes_succeed_after_a_cut_of_twenty_seconds() {
    if let Some(network) = enter("scrapes_succeed_after_a_cut_of_twenty_seconds") {
        runtime().block_on(cut_and_mend(network, Duration::from_secs(20)));
    }
}

#[test]
fn scrapes_succeed_after_a_cut_of_more_than_a_minute() {
    if let Some(network) = enter("scrapes_succeed_after_a_cut_of_more_than_a_minute") {
        // Twenty minutes are as good, for who can wait.
        let seconds = std::env::var("CUT_SECONDS").map_or(65, |text| text.parse().unwrap());
        runtime().block_on(cut_and_mend(network, Duration::from_secs(seconds)));
    }
}

/// Cuts the cables of hosts in different states, and has each scraped once after it.
async fn cut_and_mend(mut network: Network, cut: Duration) {
    let proxy = Proxy::start_at(&format!("{}:0", Network::OWN), &[]).await;
    // Nothing is sent meanwhile; a scrape is handed out over the cut cable, soon or late; and a pull
    // is under way, whose push falls into the cut.
    let quiet = Remote::start(&mut network, &proxy, "quiet.test").await;
    let soon = Remote::start(&mut network, &proxy, "soon.test").await;
    let late = Remote::start(&mut network, &proxy, "late.test").await;
    let pulling = Remote::start(&mut network, &proxy, "pulling.test").await;
    let remotes = [&quiet, &soon, &late, &pulling];
    // The switch's address is that of one of its cables, and so there only when all are.
    let shown = command("ip")
        .args(["-brief", "link", "show", "switch"])
        .output();
    let shown = String::from_utf8(shown.await.unwrap().stdout).unwrap();
    let switch = shown.split_whitespace().nth(2).expect("its address");
    let mut rest = Vec::new();
    for remote in remotes {
        remote.is_far_away(switch).await;
        assert_eq!(remote.scrape(&proxy, 20.0).await.status(), 200);
        rest.push(remote.client.daemon.descriptors());
    }

    let (cut_now, is_cut) = watch::channel(false);
    let frozen = async {
        pulling.exporter.daemon.freeze();
        let answer = pulling.scrape(&proxy, 2.0);
        let cutting = async {
            // The next poll has been parked when the pull has begun.
            idle(Duration::from_millis(500)).await;
            for remote in remotes {
                remote.host.cut();
            }
            pulling.exporter.daemon.thaw();
            cut_now.send_replace(true);
        };
        let (answer, ()) = join!(answer, cutting);
        assert_eq!(answer.status(), 504, "{answer:?}");
    };
    let asked = async |remote: &Remote, after| {
        is_cut.clone().wait_for(|is_cut| *is_cut).await.unwrap();
        idle(after).await;
        let answer = remote.scrape(&proxy, 1.0).await;
        // In the end the proxy forgets the name too.
        let status = if after < REGISTRATION { 504 } else { 503 };
        assert_eq!(answer.status(), status, "{answer:?}");
    };
    join!(
        frozen,
        asked(&soon, cut / 5),
        asked(&late, cut / 2),
        idle(cut)
    );

    for remote in remotes {
        remote.host.mend();
    }
    idle(Duration::from_secs(5)).await;
    let answers = join!(
        quiet.scrape(&proxy, 5.0),
        soon.scrape(&proxy, 5.0),
        late.scrape(&proxy, 5.0),
        pulling.scrape(&proxy, 5.0),
    );
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.status(), 200, "{}", answer.reason());
    }

    for (remote, rest) in remotes.into_iter().zip(rest) {
        until("the client's descriptors of before", DEAD, async || {
            (remote.client.daemon.descriptors() <= rest).then_some(())
        })
        .await;
        let warnings = remote.client.daemon.lines_with(&["poll failed"]);
        // Some at first, and one in each minute.
        assert!(
            warnings.len() as u64 <= 3 + cut.as_secs() / 60,
            "{warnings:#?}"
        );
    }
    // A poll, and a connection that a push has left.
    until("the proxy's connections of before", DEAD, async || {
        (proxy.connections() <= 2 * remotes.len()).then_some(())
    })
    .await;
}

#[test]
fn a_name_that_leads_elsewhere_is_looked_up_again() {
    let Some(_network) = enter("a_name_that_leads_elsewhere_is_looked_up_again") else {
        return;
    };
    runtime().block_on(async {
        let target = Target::saying("here").await;
        let port = free_port();
        let hosts = tempfile::NamedTempFile::new().unwrap();
        let resolve = |address: &str| {
            let text = format!("127.0.0.1 localhost\n{address} proxy.test\n");
            std::fs::write(hosts.path(), text).unwrap();
        };
        std::fs::write(hosts.path(), "127.0.0.1 localhost\n").unwrap();
        let mut client = command("unshare");
        client
            .args(["--mount", "--", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(hosts.path())
            .arg(binary("client").as_std().get_program())
            .arg(format!("--proxy-url=http://proxy.test:{port}/"))
            .arg(format!("--pull-url={}", target.url("/")))
            // It is back in less than the time for which the proxy waits for a name that it does not
            // know.
            .arg("--proxy.retry.max-wait=1s")
            .args(["--fqdn=moves.test", "--metrics-addr="]);
        let mut client = Client::run(client);
        let line = client.daemon.line(&["its host name has no address"]).await;
        assert!(line.contains("level=warn"), "{line}");

        for address in ["127.0.0.1", "127.0.0.2"] {
            let mut proxy = Proxy::start_at(&format!("{address}:{port}"), &[]).await;
            resolve(address);
            until("an answer from there", SOON, async || {
                let answer = proxy.scrape("http://moves.test/", 10.0).await;
                (answer.text() == "here").then_some(())
            })
            .await;
            proxy.daemon.kill();
            proxy.daemon.ended(SOON).await;
        }
    });
}

/// A host with a client and its target, a node exporter on the host's loopback.
struct Remote {
    name: &'static str,
    host: Host,
    client: Client,
    exporter: NodeExporter,
}

impl Remote {
    async fn start(network: &mut Network, proxy: &Proxy, name: &'static str) -> Self {
        let host = network.host().await;
        let exporter = NodeExporter::run(host.run(&NodeExporter::command())).await;
        let mut command = binary("client");
        command
            .arg(format!("--proxy-url={}", proxy.url()))
            .arg(format!("--pull-url={}", exporter.url()))
            .arg(format!("--fqdn={name}"))
            .arg("--metrics-addr=");
        let client = Client::run(host.run(&command));
        proxy.registered(name).await;
        Self {
            name,
            host,
            client,
            exporter,
        }
    }

    /// Lets it reach the proxy as over a router: what is sent into the cut vanishes, and nobody says
    /// that the proxy is out of reach.
    async fn is_far_away(&self, switch: &str) {
        let own = Network::OWN.to_string();
        let mut ip = self.host.command("ip");
        ip.args(["neighbour", "replace", &own, "lladdr", switch])
            .args(["nud", "permanent", "dev", "cable"]);
        assert!(ip.status().await.unwrap().success(), "{ip:?}");
    }

    /// Has it scraped, and gives the answer.
    async fn scrape(&self, proxy: &Proxy, seconds: f64) -> Message {
        let url = format!("http://{}:9100/metrics", self.name);
        proxy.scrape(&url, seconds).await
    }
}

fn enter(test: &str) -> Option<Network> {
    Network::enter(module_path!(), test)
}

/// The proxy's `--registration.timeout`.
const REGISTRATION: Duration = Duration::from_secs(300);

/// The most that either side takes to give a connection up: 45 s, and some time on top.
const DEAD: Duration = Duration::from_secs(120);
