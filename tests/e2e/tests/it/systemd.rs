//! The programs as systemd starts them: sockets handed over, readiness and the watchdog told, and the
//! units that are shipped.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram as StdDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pushprox_testkit::process::{Outcome, command, run};
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{self, scrape_request};
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::timeout;

/// What systemd is told next.
async fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let received = timeout(SOON, socket.recv(&mut buffer)).await;
    let length = received.expect("systemd is told nothing").unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn the_proxy_tells_that_it_is_ready_lives_and_goes_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = binary("proxy");
    command
        .arg("--web.listen-address=127.0.0.1:0")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000");
    let mut proxy = Proxy::run(command).await;
    assert_eq!(told(&socket).await, "READY=1");
    for _ in 0..3 {
        assert_eq!(told(&socket).await, "WATCHDOG=1");
    }

    // One that does not run is not heard of. What was under way is heard first.
    proxy.daemon.freeze();
    let is_silent = async || {
        let next = timeout(std::time::Duration::from_secs(1), told(&socket));
        next.await.is_err().then_some(())
    };
    until("the silence of a proxy that is stuck", SOON, is_silent).await;
    proxy.daemon.thaw();
    assert_eq!(told(&socket).await, "WATCHDOG=1");

    proxy.daemon.terminate();
    let mut last = told(&socket).await;
    while last == "WATCHDOG=1" {
        last = told(&socket).await;
    }
    assert_eq!(last, "STOPPING=1");
    assert_eq!(proxy.daemon.ended(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn the_client_is_ready_when_it_polls_and_takes_an_abstract_socket() {
    let name = format!("pushprox-test-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let socket = StdDatagram::bind_addr(&address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UnixDatagram::from_std(socket).unwrap();
    let mut command = binary("client");
    command
        .args([
            "--proxy-url=http://127.0.0.1:1/",
            "--pull-url=http://127.0.0.1:1/",
        ])
        .args(["--fqdn=node.test", "--metrics-addr="])
        .env("NOTIFY_SOCKET", format!("@{name}"));
    let mut client = Client::run(command);
    // A proxy that cannot be reached keeps no machine from coming up.
    assert_eq!(told(&socket).await, "READY=1");
    client.daemon.terminate();
    assert_eq!(told(&socket).await, "STOPPING=1");
    assert_eq!(client.daemon.ended(SOON).await.code(), Some(0));
}

/// The proxy as it is started with these sockets as its descriptors 3 and 4. It gets them by way of a
/// shell, as its input and output, and that shell becomes the proxy.
fn with_sockets(first: OwnedFd, second: Option<OwnedFd>, names: &str) -> Command {
    let proxy = binary("proxy");
    let number = 1 + usize::from(second.is_some());
    let mut command = command("sh");
    let script =
        "exec 3<&0 4<&1 </dev/null >&2; export LISTEN_PID=$$; exec \"$0\" --web.systemd-socket";
    command
        .args(["-c", script])
        .arg(proxy.as_std().get_program())
        .env("LISTEN_FDS", number.to_string())
        .env("LISTEN_FDNAMES", names)
        .stdin(Stdio::from(first))
        .stdout(second.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::null());
    command
}

fn listener() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener.into())
}

#[tokio::test]
async fn sockets_of_systemds_are_doors_by_their_names() {
    let (scrapers, first) = listener();
    let (clients, second) = listener();
    let mut command = with_sockets(first, Some(second), "scrapers,operators:clients");
    let mut proxy = command.spawn().unwrap();

    let target = Target::saying("handed 1\n").await;
    let url = format!("http://{clients}/");
    let _client = Client::start(&url, &target.url("/"), "node.test", &[]);
    let scraped = until("a scrape answered", SOON, async || {
        let request = scrape_request("http://node.test/", 5.0, "");
        let answer = wire::ask(scrapers, &request).await.ok()?;
        (answer.status() == 200).then_some(answer)
    });
    assert_eq!(scraped.await.body, b"handed 1\n");

    let poll = b"POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\na";
    let refused = wire::ask(scrapers, poll).await.unwrap();
    assert_eq!(refused.status(), 403, "{refused:?}");
    let refused = wire::get(clients, "/clients").await;
    assert_eq!(refused.status(), 403, "{refused:?}");
    proxy.kill().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_was_not_named_is_for_everybody() {
    let (address, socket) = listener();
    let mut proxy = with_sockets(socket, None, "pushprox-proxy.socket")
        .spawn()
        .unwrap();
    assert_eq!(wire::get(address, "/clients").await.status(), 200);
    proxy.kill().await.unwrap();
}

/// How a proxy ends that cannot start.
async fn failed(mut command: Command) -> Outcome {
    command.stderr(Stdio::piped());
    run(command).await
}

#[tokio::test]
async fn what_cannot_be_served_on_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let local = UnixListener::bind(folder.path().join("socket")).unwrap();
    let (address, listening) = listener();
    let connection = std::net::TcpStream::connect(address).unwrap();
    for (socket, name, part) in [
        (
            listener().1,
            "client",
            "the socket named \"client\" has no role in its name",
        ),
        (
            local.into(),
            "clients",
            "the socket \"clients\" cannot be used",
        ),
        (
            connection.into(),
            "clients",
            "the socket \"clients\" cannot be used: it is a connection",
        ),
    ] {
        let outcome = failed(with_sockets(socket, None, name)).await;
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
        assert!(
            outcome.stderr.contains("--web.systemd-socket"),
            "{outcome:?}"
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    drop(listening);

    let mut alone = binary("proxy");
    alone.arg("--web.systemd-socket");
    let outcome = run(alone).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("systemd has handed over no socket"),
        "{outcome:?}"
    );

    let mut both = binary("proxy");
    both.args(["--web.systemd-socket", "--web.listen-address=:0"]);
    let outcome = run(both).await;
    assert_eq!(outcome.code, Some(2));
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("--web.listen-address"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_units_are_good_and_give_little_away() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd");
    let folder = tempfile::tempdir().unwrap();
    let mut units: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        let mut text = fs::read_to_string(&path).unwrap();
        for name in ["proxy", "client"] {
            let program = binary(name);
            let program = program.as_std().get_program().to_str().unwrap().to_owned();
            text = text.replace(&format!("/usr/local/bin/pushprox-{name}"), &program);
        }
        let unit = folder.path().join(path.file_name().unwrap());
        if unit.ends_with("pushprox-proxy.service") {
            // Without it the proxy cannot tell which hand-outs were acknowledged, and does without.
            let families = text
                .lines()
                .find(|line| line.starts_with("RestrictAddressFamilies="));
            assert!(families.unwrap().contains("AF_NETLINK"), "{families:?}");
        }
        fs::write(&unit, text).unwrap();
        units.push(unit);
    }
    units.sort();
    assert_eq!(units.len(), 3, "{units:?}");

    let mut verify = command("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .args(&units)
        .current_dir(folder.path());
    let outcome = run(verify).await;
    assert_eq!(
        (outcome.code, &*outcome.stderr),
        (Some(0), ""),
        "{outcome:?}"
    );

    for unit in units
        .iter()
        .filter(|unit| unit.extension().is_some_and(|end| end == "service"))
    {
        let mut security = command("systemd-analyze");
        // On a scale from 0 to 100, where most services are above 90.
        security
            .args(["security", "--offline=true", "--threshold=15"])
            .arg(unit);
        let outcome = run(security).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.stdout);
    }
}
