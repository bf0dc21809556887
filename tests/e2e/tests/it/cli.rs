//! The command lines: what is typed wrong is said in one line, and the exit codes tell usage from
//! failure.

use std::net::TcpListener;

use pushprox_testkit::process::{Outcome, run};
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::Target;
use tempfile::NamedTempFile;

#[tokio::test]
async fn version_and_help_are_printed_and_are_no_failure() {
    for name in ["proxy", "client"] {
        let version = with(name, &["--version"]).await;
        assert_eq!(version.code, Some(0), "{version:?}");
        assert!(
            version
                .stdout
                .starts_with(&format!("{name} {}", env!("CARGO_PKG_VERSION"))),
            "{version:?}"
        );
        assert_eq!(version.stdout.lines().count(), 1);
        for flag in ["-h", "--help"] {
            let help = with(name, &[flag]).await;
            assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{help:?}");
            for flag in flags_of(name) {
                let line = help.stdout.lines().find(|line| line.contains(flag));
                assert!(line.is_some(), "{name} -h has no {flag}:\n{}", help.stdout);
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_on_the_proxys_command_line_is_said_in_one_line() {
    for (arguments, parts) in [
        (&["--nonsense"] as &[&str], &["--nonsense"] as &[&str]),
        (
            &["--web.listen-adress=:1"],
            &["--web.listen-adress", "--web.listen-address"],
        ),
        (&["words"], &["belongs to no flag", "needs quotes"]),
        (&["--registration.timeout"], &["--registration.timeout"]),
        (
            &["--registration.timeout=5"],
            &["--registration.timeout", "5m"],
        ),
        (&["--registration.timeout=0"], &["--registration.timeout"]),
        (&["--registration.timeout=-5m"], &["--registration.timeout"]),
        (
            &["--registration.timeout=five"],
            &["--registration.timeout", "five"],
        ),
        (&["--scrape.max-timeout=1 m"], &["--scrape.max-timeout"]),
        (
            &["--scrape.default-timeout="],
            &["--scrape.default-timeout"],
        ),
        (&["--poll.max-wait=1x"], &["--poll.max-wait"]),
        (
            &["--shutdown.grace-period=soon"],
            &["--shutdown.grace-period"],
        ),
        (
            &["--web.listen-address=8080"],
            &["--web.listen-address", "8080"],
        ),
        (&["--web.listen-address=:http"], &["--web.listen-address"]),
        (
            &["--web.listen-address=:99999"],
            &["--web.listen-address", "99999"],
        ),
        (
            &["--web.config.file="],
            &["--web.config.file", "give the name of a file"],
        ),
        (
            &["--auth.config.file="],
            &["--auth.config.file", "give the name of a file"],
        ),
        (
            &["--log.level=loud"],
            &["--log.level", "loud", "debug", "warn"],
        ),
        (
            &["--log.format=xml"],
            &["--log.format", "xml", "logfmt", "json"],
        ),
    ] {
        assert_usage("proxy", arguments, parts, &with("proxy", arguments).await);
    }
}

#[tokio::test]
async fn what_is_wrong_on_the_clients_command_line_is_said_in_one_line() {
    const PROXY: &str = "--proxy-url=http://127.0.0.1:1/";
    const PULL: &str = "--pull-url=http://127.0.0.1:1/metrics";
    for (arguments, parts) in [
        (&[PULL] as &[&str], &["--proxy-url", "PROXY_URL"] as &[&str]),
        (&[PROXY], &["--pull-url", "PULL_URL"]),
        (&[PROXY, PULL, "--nonsense"], &["--nonsense"]),
        (
            &[PULL, "--proxy-url=proxy.test:8080"],
            &["--proxy-url", "http://"],
        ),
        (
            &[PULL, "--proxy-url=ftp://proxy.test/"],
            &["--proxy-url", "http://"],
        ),
        (&[PULL, "--proxy-url="], &["--proxy-url"]),
        (&[PULL, "--proxy-url=http://"], &["--proxy-url"]),
        (&[PROXY, "--pull-url=/metrics"], &["--pull-url", "http://"]),
        (
            &[PROXY, "--pull-url=file:///etc/passwd"],
            &["--pull-url", "http://"],
        ),
        (&[PROXY, "--pull-url=http://host:99999/"], &["--pull-url"]),
        (&[PROXY, PULL, "--fqdn=two words"], &["--fqdn", "' '"]),
        (&[PROXY, PULL, "--fqdn=http://node.test/"], &["--fqdn"]),
        (&[PROXY, PULL, "--poll.wait=x"], &["--poll.wait"]),
        (
            &[PROXY, PULL, "--proxy.retry.initial-wait=1"],
            &["--proxy.retry.initial-wait"],
        ),
        (
            &[PROXY, PULL, "--proxy.retry.max-wait=never"],
            &["--proxy.retry.max-wait"],
        ),
        (
            &[PROXY, PULL, "--scrape.max-timeout=0"],
            &["--scrape.max-timeout"],
        ),
        (
            &[PROXY, PULL, "--metrics-addr=9369"],
            &["--metrics-addr", "9369"],
        ),
        (
            &[PROXY, PULL, "--tls.cert=/nowhere.pem"],
            &["--tls.key", "required"],
        ),
        (
            &[PROXY, PULL, "--tls.key=/nowhere.pem"],
            &["--tls.cert", "required"],
        ),
        (&[PROXY, PULL, "--log.level=loud"], &["--log.level", "loud"]),
    ] {
        assert_usage("client", arguments, parts, &with("client", arguments).await);
    }
}

#[tokio::test]
async fn a_secret_in_a_bad_url_is_not_repeated() {
    let outcome = with(
        "client",
        &[
            "--pull-url=http://127.0.0.1:1/",
            "--proxy-url=ftp://user:hush@proxy.test/",
        ],
    )
    .await;
    assert_eq!(outcome.code, Some(2));
    assert!(!outcome.stderr.contains("hush"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_bad_url_from_the_environment_names_the_variable() {
    let mut command = binary("client");
    command
        .env("PROXY_URL", "proxy")
        .env("PULL_URL", "http://127.0.0.1:1/");
    let outcome = run(command).await;
    assert_usage(
        "client",
        &[],
        &["--proxy-url", "PROXY_URL", "proxy"],
        &outcome,
    );
}

#[tokio::test]
async fn urls_come_from_the_environment_too_and_the_flag_wins() {
    let target = Target::saying("flag").await;
    let proxy = Proxy::start(&[]).await;
    let mut command = binary("client");
    command
        .env("PROXY_URL", proxy.url())
        .env("PULL_URL", "http://127.0.0.1:1/")
        .args(["--fqdn=env.test", "--metrics-addr="])
        .arg(format!("--pull-url={}", target.url("/")));
    let _client = Client::run(command);
    proxy.registered("env.test").await;
    let answer = proxy.scrape("http://env.test/", 5.0).await;
    assert_eq!(answer.text(), "flag", "{answer:?}");
}

#[tokio::test]
async fn flags_may_be_written_with_one_dash_as_for_the_go_programs() {
    let target = Target::saying("one dash").await;
    let mut command = binary("proxy");
    command.args(["-web.listen-address", "127.0.0.1:0", "-loggername", "gate"]);
    let mut proxy = Proxy::run(command).await;
    proxy.daemon.line(&["logger=gate"]).await;
    let mut command = binary("client");
    command
        .arg(format!("-proxy-url={}", proxy.url()))
        .args(["-pull-url", &target.url("/"), "-fqdn", "dash.test"])
        .arg("-metrics-addr=");
    let _client = Client::run(command);
    proxy.registered("dash.test").await;
    assert_eq!(
        proxy.scrape("http://dash.test/", 5.0).await.text(),
        "one dash"
    );
}

#[tokio::test]
async fn a_start_that_fails_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flag = format!("--web.listen-address={address}");
    assert_failure(&[&address, "in use"], &with("proxy", &[&flag]).await);

    let urls = [
        "--proxy-url=https://127.0.0.1:1/",
        "--pull-url=http://127.0.0.1:1/",
    ];
    let missing = "/nowhere/ca.pem";
    for flag in ["--tls.cacert", "--tls.cert"] {
        let file = format!("{flag}={missing}");
        let mut arguments = vec![urls[0], urls[1], &file];
        if flag == "--tls.cert" {
            arguments.push("--tls.key=/nowhere/key.pem");
        }
        assert_failure(&[flag, missing], &with("client", &arguments).await);
    }
    let garbage = NamedTempFile::new().unwrap();
    std::fs::write(garbage.path(), "no certificate").unwrap();
    let path = garbage.path().display().to_string();
    let flag = format!("--tls.cacert={path}");
    let outcome = with("client", &[urls[0], urls[1], &flag]).await;
    assert_failure(&["--tls.cacert", &path], &outcome);
}

#[tokio::test]
async fn a_metrics_port_that_is_taken_is_only_a_warning() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let target = Target::saying("still works").await;
    let proxy = Proxy::start(&[]).await;
    let mut command = binary("client");
    command
        .arg(format!("--proxy-url={}", proxy.url()))
        .arg(format!("--pull-url={}", target.url("/")))
        .arg("--fqdn=taken.test")
        .arg(format!("--metrics-addr={address}"));
    let mut client = Client::run(command);
    client.daemon.line(&["level=warn", &address]).await;
    proxy.registered("taken.test").await;
    assert_eq!(
        proxy.scrape("http://taken.test/", 5.0).await.text(),
        "still works"
    );
}

async fn with(name: &str, arguments: &[&str]) -> Outcome {
    let mut command = binary(name);
    command.args(arguments);
    run(command).await
}

fn assert_usage(name: &str, arguments: &[&str], parts: &[&str], outcome: &Outcome) {
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
    assert_one_line(parts, outcome);
    assert!(
        outcome.stderr.starts_with(&format!("{name}: ")),
        "{outcome:?}"
    );
}

fn assert_failure(parts: &[&str], outcome: &Outcome) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_one_line(parts, outcome);
}

fn assert_one_line(parts: &[&str], outcome: &Outcome) {
    assert_eq!(outcome.stdout, "");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in parts {
        assert!(
            lines[0].contains(part),
            "{:?} says nothing of {part}",
            lines[0]
        );
    }
}

pub(crate) fn flags_of(name: &str) -> &'static [&'static str] {
    match name {
        "proxy" => &[
            "--web.listen-address",
            "--registration.timeout",
            "--scrape.max-timeout",
            "--scrape.default-timeout",
            "--poll.max-wait",
            "--shutdown.grace-period",
            "--loggername",
            "--log.level",
            "--log.format",
            "--version",
        ],
        _ => &[
            "--proxy-url",
            "--pull-url",
            "--fqdn",
            "--loggername",
            "--scrape.max-timeout",
            "--scrape.default-timeout",
            "--proxy.retry.initial-wait",
            "--proxy.retry.max-wait",
            "--poll.wait",
            "--metrics-addr",
            "--tls.cacert",
            "--tls.cert",
            "--tls.key",
            "--log.level",
            "--log.format",
            "--version",
        ],
    }
}
