//! The command: once, its exit codes, its three modes, its end.

use std::os::unix::fs::symlink;

use pushprox_testkit::process;
use pushprox_testkit::wait::until;
use pushprox_testkit::wire;

use crate::support::api::{ENDPOINTS, SLICES};
use crate::support::bench::{Bench, Discovery, SOON};
use crate::support::mounts::with_mounts;
use crate::support::roster::Roster;

#[tokio::test]
async fn once_writes_everything_and_the_exit_code_tells() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let outcome = bench.once(&[]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    bench.clients_are(&[(one.address(), &["a"])]).await;
    // Again: nothing to do, and no reload.
    assert_eq!(bench.once(&[]).await.code, Some(0));
    assert_eq!(bench.reloads.seen().len(), 1);

    let fails = async |flags: &[&str], part: &str| {
        let outcome = bench.once(flags).await;
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let last = outcome.stderr.lines().last().unwrap();
        assert!(
            last.starts_with("discovery: ") && last.contains(part),
            "{last}"
        );
    };
    bench.write("base", "typo: 1\n");
    bench.reloads.dislikes(Some("typo"));
    fails(
        &[],
        "Prometheus refuses the configuration: failed to reload config",
    )
    .await;
    assert!(
        !std::fs::read_to_string(bench.target())
            .unwrap()
            .contains("typo"),
        "put back"
    );
    bench.reloads.dislikes(None);
    bench.write("base", "a: [");
    fails(&[], "the base cannot be used").await;
    bench.write("base", "global: {}\n");
    fails(
        &["--kubeconfig", "/does/not/exist"],
        "--kubeconfig: cannot use /does/not/exist",
    )
    .await;
    bench
        .api
        .faults(|faults| faults.forbidden.extend([SLICES, ENDPOINTS]));
    fails(
        &["--sync-timeout=1s"],
        "Kubernetes has not said in time which proxies there are",
    )
    .await;
}

#[tokio::test]
async fn once_before_prometheus_is_up_needs_no_reload() {
    let mut bench = Bench::new().await;
    bench.reloads.go_away().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let outcome = bench.once(&["-reloadurl="]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(bench.clients().len(), 1);
    assert_eq!(
        bench.once(&[]).await.code,
        Some(1),
        "nobody has told Prometheus yet"
    );
}

#[tokio::test]
async fn outside_a_cluster_a_kubeconfig_is_needed() {
    let mut command = process::command(env!("CARGO_BIN_EXE_discovery"));
    command.args(["-labelname=a", "-labelvalue=b", "--metrics-addr=", "--once"]);
    let outcome = process::run(command).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("outside a cluster, give --kubeconfig"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn in_a_pod_its_service_account_is_enough() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let command = bench.command(&["--kubeconfig="]);
    let mut program = process::command(command.as_std().get_program());
    let flags = command.as_std().get_args();
    program.args(flags.filter(|flag| *flag != "--kubeconfig="));
    let script = format!(
        "mount -t tmpfs none /run; account=/run/secrets/kubernetes.io/serviceaccount; mkdir -p $account; \
         cp {folder}/ca.crt {folder}/token $account; printf demo > $account/namespace; \
         export KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT={port}",
        folder = bench.path().display(),
        port = bench.api.address.port()
    );
    let Some(command) = with_mounts(&script, &program) else {
        return;
    };
    let _discovery = process::Daemon::start("discovery", command);
    bench.clients_are(&[(one.address(), &["a"])]).await;
}

#[tokio::test]
async fn wrong_flags_end_with_code_2_and_one_line() {
    let mut command = process::command(env!("CARGO_BIN_EXE_discovery"));
    command.args(["-labelname", "a"]);
    let outcome = process::run(command).await;
    assert_eq!(outcome.code, Some(2));
    assert_eq!(
        outcome.stderr,
        "discovery: --labelname and --labelvalue are required, or --label-selector instead of both\n"
    );
}

#[tokio::test]
async fn the_base_is_not_changed_whatever_leads_to_it() {
    let bench = Bench::new().await;
    let base = bench.path().join("base");
    let is_kept = || std::fs::read_to_string(&base).unwrap() == "global: {}\n";
    let way = bench.path().join("way");
    symlink(bench.path(), &way).unwrap();
    let target = format!("-target={}", way.join("base").display());
    let outcome = bench.once(&[&target]).await;
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert_eq!(
        outcome.stderr,
        "discovery: --source: discovery writes this file itself; name another\n"
    );
    assert!(is_kept());

    // While it runs, too.
    std::fs::remove_file(&way).unwrap();
    symlink("sd", &way).unwrap();
    let mut discovery = bench.start(&[&target, "-reloadurl="]).await;
    discovery.is_ready().await;
    symlink(".", bench.path().join("new")).unwrap();
    std::fs::rename(bench.path().join("new"), &way).unwrap();
    discovery
        .daemon
        .line(&["level=error", "base: discovery writes this file itself"])
        .await;
    assert!(is_kept());
}

#[tokio::test]
async fn the_mode_scrape_configs_writes_a_file_of_its_own() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    std::fs::remove_file(bench.path().join("base")).unwrap();
    assert_eq!(bench.once(&["--mode=scrape-configs"]).await.code, Some(0));
    bench.clients_are(&[(one.address(), &["a"])]).await;
    let config = std::fs::read_to_string(bench.target()).unwrap();
    let value: serde_yaml::Value = serde_yaml::from_str(&config).unwrap();
    assert_eq!(value.as_mapping().unwrap().len(), 1, "{config}");
}

#[tokio::test]
async fn the_mode_http_sd_lets_prometheus_ask() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    // SD files of another mode are of no use any more.
    assert_eq!(bench.once(&[]).await.code, Some(0));
    assert_eq!(bench.sd_files().len(), 1);
    let asked = one.requests().len();
    assert_eq!(bench.once(&["--mode=http-sd"]).await.code, Some(0));
    assert_eq!(one.requests().len(), asked);
    assert!(bench.sd_files().is_empty());
    let config: serde_yaml::Value = serde_yaml::from_str(&bench.reloads.config()).unwrap();
    let sd = &config["scrape_configs"][0]["http_sd_configs"][0];
    assert_eq!(sd["url"], format!("http://{}/clients", one.address()));
    assert_eq!(sd["refresh_interval"], "1s");
}

#[tokio::test]
async fn the_forks_names_of_jobs() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    assert_eq!(bench.once(&["--job-name=ip"]).await.code, Some(0));
    let config: serde_yaml::Value = serde_yaml::from_str(&bench.reloads.config()).unwrap();
    assert_eq!(config["scrape_configs"][0]["job_name"], "127.0.0.1");
    assert!(config["scrape_configs"][0].get("relabel_configs").is_none());
}

#[tokio::test]
async fn it_stops_at_once_whatever_it_waits_for() {
    let mut bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    one.falls_silent();
    bench.service("web", &[(one.address(), true)]);
    bench.reloads.go_away().await;
    bench.api.faults(|faults| faults.hangs = true);
    let discovery = bench.start(&[]).await;
    discovery.daemon.terminate();
    ended_at_once(discovery).await;

    bench.api.faults(|faults| faults.hangs = false);
    let discovery = bench.start(&[]).await;
    until("asked", SOON, async || {
        (!one.requests().is_empty()).then_some(())
    })
    .await;
    discovery.daemon.interrupt();
    ended_at_once(discovery).await;
}

/// Waits for the end of a discovery that was told to end. It must not be the grace period's doing.
async fn ended_at_once(mut discovery: Discovery) {
    assert!(discovery.daemon.ended(SOON).await.success());
    let given_up = discovery.daemon.lines_with(&["the grace period is over"]);
    assert_eq!(given_up, [""; 0]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_warning() {
    let bench = Bench::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--metrics-addr={}", taken.local_addr().unwrap());
    let command = bench.command(&[&address]);
    let mut daemon = process::Daemon::start("discovery", command);
    daemon
        .line(&["level=warn", "without its own /metrics"])
        .await;
    until("written", SOON, async || {
        bench.target().is_file().then_some(())
    })
    .await;
}

#[tokio::test]
async fn credentials_are_used_and_never_logged() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let discovery = bench
        .start(&["--proxy-url=http://me:secret@any/pre/", "--log.level=debug"])
        .await;
    until("asked", SOON, async || {
        (!one.requests().is_empty()).then_some(())
    })
    .await;
    let request = &one.requests()[0];
    assert_eq!(request.uri(), "/pre/clients");
    assert_eq!(request.header("Authorization"), Some("Basic bWU6c2VjcmV0"));
    until("in the configuration", SOON, async || {
        let proxy_url = format!("proxy_url: http://me:secret@{}/", one.address());
        bench.reloads.config().contains(&proxy_url).then_some(())
    })
    .await;
    assert!(
        !discovery
            .daemon
            .log()
            .iter()
            .any(|line| line.contains("secret"))
    );
}

#[tokio::test]
async fn its_own_pages_are_for_the_users_of_the_web_configuration() {
    let bench = Bench::new().await;
    let file = bench.path().join("web.yml");
    // The hash of "swordfish".
    let user = "a: $2b$04$6.X5XOPU5clZLnzj0AUPSeb89xKl6Vye/QEA0x8aK1N0evnspF5hu";
    std::fs::write(&file, format!("basic_auth_users: {{{user}}}\n")).unwrap();
    let flag = format!("--web.config.file={}", file.display());
    let discovery = bench.start(&[&flag]).await;
    assert_eq!(discovery.page("/metrics").await, 401);
    assert_eq!(discovery.page("/-/healthy").await, 200);
    let with_password = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Authorization: Basic YTpzd29yZGZpc2g=\r\n\r\n",
        discovery.address
    );
    let answer = wire::ask(discovery.address, with_password.as_bytes()).await;
    assert_eq!(answer.unwrap().status(), 200);

    std::fs::write(&file, "basic_auth_user: {}\n").unwrap();
    let outcome = bench.once(&[&flag]).await;
    assert_eq!(outcome.code, Some(1));
    let why = "web.yml: unknown field `basic_auth_user`";
    assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
}
