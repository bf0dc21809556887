//! The program as a process: its exit codes, its signals, its environment, its own pages.

use std::process::Stdio;
use std::time::Duration;

use pushprox_testkit::network::{self, Network};
use pushprox_testkit::process::command;
use pushprox_testkit::wait::{SOON, until};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::peers::{Peer, Proxy};
use crate::support::{scrape, soon};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs to the end: exit code, stdout, stderr.
async fn run(command: &mut Command) -> (i32, String, String) {
    let output = soon(command.output()).await.unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    let status = std::process::Command::new("kill")
        .args(["-s", name, &id])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn mistakes_are_one_line_and_code_2() {
    for (args, line) in [
        (
            vec!["--proxy-url=http://p"],
            "client: --pull-url is required (or PULL_URL in the environment)\n",
        ),
        (
            vec!["--pull-ulr=x"],
            "client: there is no flag --pull-ulr; did you mean --pull-url?\n",
        ),
    ] {
        let (code, out, err) = run(program().args(args)).await;
        assert_eq!((code, out.as_str(), err.as_str()), (2, "", line));
    }
    let (code, _, err) = run(program()
        .env("PROXY_URL", "nonsense")
        .env("PULL_URL", "http://t"))
    .await;
    assert_eq!(
        (code, err.as_str()),
        (
            2,
            "client: --proxy-url (from PROXY_URL in the environment): the URL begins neither with \
             http:// nor with https://; write http://host:port/\n"
        )
    );
    let with_token = ["--proxy-url=http://p", "--pull-url=http://t"];
    let (code, _, err) = run(program().args(with_token).env("PROM_TOKEN", "a\nb")).await;
    assert_eq!(code, 2);
    assert!(
        err.starts_with("client: PROM_TOKEN in the environment has"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1);
}

#[tokio::test]
async fn help_and_version_are_code_0_and_show_no_secret() {
    let (code, out, err) = run(program().arg("-h").env("PROXY_URL", "http://u:secret@p")).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("--proxy.retry.initial-wait"), "{out}");
    assert!(!out.contains("secret"), "{out}");
    let (code, out, _) = run(program().arg("--version")).await;
    assert_eq!(
        (code, out.as_str()),
        (0, concat!("client ", env!("CARGO_PKG_VERSION"), "\n"))
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_code_1() {
    let args = [
        "--proxy-url=https://p",
        "--pull-url=http://t",
        "--tls.cacert=/no/such/file",
    ];
    let (code, _, err) = run(program().args(args)).await;
    assert_eq!(
        (code, err.as_str()),
        (
            1,
            "client: --tls.cacert: cannot read /no/such/file: no such file or directory\n"
        )
    );
}

#[tokio::test]
async fn sigterm_finishes_the_scrape_in_hand_and_exits_with_0() {
    for name in ["TERM", "INT"] {
        let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
        let mut child = program()
            .args(["-fqdn=node", "-metrics-addr="])
            .env("PROXY_URL", proxy.url())
            .env("PULL_URL", target.url("/metrics"))
            .spawn()
            .unwrap();
        proxy.hand_out(&scrape("1", "", "10", "")).await;
        let pull = target.next().await;
        let poll = proxy.poll().await;
        signal(&child, name);
        poll.gone().await;
        pull.answer("200 OK", "");
        proxy.push().await.answer("200 OK", "");
        assert!(soon(child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once_with_1() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let mut child = program()
        .args(["--fqdn=node", "--metrics-addr="])
        .args([
            "--proxy-url",
            &proxy.url(),
            "--pull-url",
            &target.url("/metrics"),
        ])
        .spawn()
        .unwrap();
    proxy.hand_out(&scrape("1", "", "100", "")).await;
    let _pull = target.next().await;
    let poll = proxy.poll().await;
    signal(&child, "TERM");
    poll.gone().await;
    signal(&child, "INT");
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(1));
}

#[test]
fn a_resolver_that_does_not_answer_does_not_hold_the_end_up() {
    let name = "a_resolver_that_does_not_answer_does_not_hold_the_end_up";
    let Some(_network) = Network::enter(module_path!(), name) else {
        return;
    };
    network::runtime().block_on(async {
        let resolver = UdpSocket::bind((Network::OWN, 53)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let nameserver = format!("nameserver {}\n", Network::OWN);
        std::fs::write(folder.path().join("resolv.conf"), nameserver).unwrap();
        std::fs::write(folder.path().join("nsswitch.conf"), "hosts: dns\n").unwrap();
        let script = "for file in *; do mount --bind $file /etc/$file || exit; done; exec \"$@\"";
        let child = command("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .args([env!("CARGO_BIN_EXE_client"), "--metrics-addr="])
            .args([
                "--proxy-url=http://127.0.0.1:1",
                "--pull-url=http://127.0.0.1:1",
            ])
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        soon(resolver.recv(&mut [0; 512])).await.unwrap();
        signal(&child, "TERM");
        let output = soon(child.wait_with_output()).await.unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{log}");
        assert!(!log.contains("client started"), "{log}");
    });
}

#[tokio::test]
async fn own_pages_tell_whether_the_proxy_takes_polls() {
    let mut proxy = Proxy::start().await;
    let sent = Instant::now();
    let mut child = program()
        .args([
            "--fqdn=node",
            "--metrics-addr=127.0.0.1:0",
            "--pull-url=http://127.0.0.1:1/",
        ])
        .args(["--proxy-url", &proxy.url()])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = soon(log.next_line()).await.unwrap().unwrap();
        if let Some((_, address)) = line.split_once("address=") {
            break address.to_owned();
        }
    };
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    // A poll that the proxy holds for two seconds is taken.
    let is_not_ready = async |since: Instant| {
        let ready = get("/-/ready").await;
        let was_held = since.elapsed() >= Duration::from_secs(2);
        assert!(ready.starts_with("HTTP/1.1 503 ") || was_held, "{ready}");
    };
    let poll = proxy.poll().await;
    is_not_ready(sent).await;
    assert!(get("/-/healthy").await.starts_with("HTTP/1.1 200 "));
    poll.answer("200 OK", scrape("1", "", "10", ""));
    proxy.push().await.answer("200 OK", "");
    let poll = proxy.poll().await;
    assert!(get("/-/ready").await.starts_with("HTTP/1.1 200 "));
    let sent = Instant::now();
    poll.answer("401 Unauthorized", "");
    let _poll = proxy.poll().await;
    is_not_ready(sent).await;
    for line in [
        "pushprox_client_poll_errors_total 1",
        "pushprox_client_scrape_errors_total 1",
        "pushprox_client_push_errors_total 0",
        "pushprox_client_scrapes_total 1",
        "pushprox_client_scrape_duration_seconds_count 1",
    ] {
        until(line, SOON, async || {
            let metrics = get("/metrics").await;
            metrics.contains(&format!("\n{line}\n")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_taken_port_is_a_warning() {
    let mut proxy = Proxy::start().await;
    let taken = proxy.peer.address.to_string();
    let mut child = program()
        .args([
            "--fqdn=node",
            "--pull-url=http://127.0.0.1:1/",
            "--metrics-addr",
            &taken,
        ])
        .args(["--proxy-url", &proxy.url()])
        .spawn()
        .unwrap();
    proxy.poll().await;
    signal(&child, "TERM");
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .await
        .unwrap();
    let line = format!("error=\"cannot listen on {taken}: address already in use\"");
    assert!(log.contains("level=warn") && log.contains(&line), "{log}");
    assert!(soon(child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_proxy_in_the_environment_leads_to_the_pushprox_and_not_to_the_target() {
    let (mut forward, mut target) = (Proxy::start().await, Peer::start().await);
    let _child = program()
        .args([
            "--fqdn=node",
            "--metrics-addr=",
            "--proxy-url=http://pushprox.invalid:8080/",
        ])
        .args(["--pull-url", &target.url("/metrics")])
        .env("HTTP_PROXY", format!("http://u:p@{}", forward.peer.address))
        .env("ALL_PROXY", forward.url())
        .spawn()
        .unwrap();
    let poll = forward.poll().await;
    assert!(
        poll.head
            .starts_with("POST http://pushprox.invalid:8080/poll HTTP/1.1\r\n"),
        "{}",
        poll.head
    );
    assert_eq!(poll.header("proxy-authorization"), Some("Basic dTpw"));
    poll.answer("200 OK", scrape("1", "", "10", ""));
    let pull = target.next().await;
    assert!(
        pull.head.starts_with("GET /metrics HTTP/1.1\r\n"),
        "{}",
        pull.head
    );
    assert_eq!(pull.header("proxy-authorization"), None);
    pull.answer("200 OK", "");
    forward.push().await;
}
