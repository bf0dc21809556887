//! Real proxies that let in members only, and what proves a member while it is replaced.

use std::path::Path;

use pushprox_testkit::process::Daemon;
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::tls::Authority;
use pushprox_testkit::wait::until;

use crate::support::bench::{Bench, SOON};
use crate::support::roster::Roster;
use crate::support::server::Server;

const TOKENS: [(&str, &str); 2] = [
    (
        "first-s3cret",
        "8092480f526be43a807b22cc822495d17ecef71f720da86cbbe51d7dbd1bddec",
    ),
    (
        "second-s3cret",
        "17c6f187ce5e9ebb04488b32e06ce77ec3b3f206271f630f68e925e92342e3ea",
    ),
];

const PASSWORDS: [(&str, &str); 2] = [
    (
        "swordfish",
        "$2b$04$6.X5XOPU5clZLnzj0AUPSeb89xKl6Vye/QEA0x8aK1N0evnspF5hu",
    ),
    (
        "marlin",
        "$2b$04$abcdefghijklmnopqrstuuxH2eF/FqQYfd.LPlh1nOjZwTpwFYa.C",
    ),
];

const BASE: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n";

/// Has these members scrape, and anyone register and look.
fn admits(bench: &Bench, members: &[String]) -> String {
    let members: String = members
        .iter()
        .map(|member| format!("- {{{member}, names: ['*']}}\n"))
        .collect();
    let text = format!("scrapers:\n{members}clients: anyone\noperators: anyone\n");
    bench.write("auth.yml", &text);
    flag(bench, "auth.config.file", "auth.yml")
}

fn with_token(digest: &str) -> String {
    format!("token_sha256: {digest}")
}

fn with_password(hash: &str) -> String {
    format!("user: me, password_bcrypt: {hash}")
}

fn flag(bench: &Bench, name: &str, file: &str) -> String {
    format!("--{name}={}", bench.path().join(file).display())
}

/// Waits until a program has read its files again, as often as this in all.
async fn has_reread(daemon: &Daemon, times: usize) {
    until("files are read again", SOON, async || {
        let lines = daemon.lines_with(&["read again after a change"]);
        (lines.len() >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_is_replaced_and_one_that_is_no_good_changes_nothing() {
    let bench = Bench::new().await;
    let [first, second] = TOKENS;
    let auth = admits(&bench, &[with_token(first.1)]);
    let proxy = Proxy::start(&[&auth]).await;
    bench.service("web", &[(proxy.address, true)]);
    bench.write("shown.token", &format!("{}\n", first.0));
    let token = flag(&bench, "proxy.bearer-token-file", "shown.token");
    let mut discovery = bench.start(&[&token, "--log.level=debug"]).await;
    let start = |name| Client::start(&proxy.url(), "http://127.0.0.1:1/", name, &[]);
    let _a = start("a");
    bench.clients_are(&[(proxy.address, &["a"])]).await;

    bench.write("shown.token", "two words\n");
    discovery
        .daemon
        .line(&[
            "a change is not taken over",
            "--proxy.bearer-token-file",
            "has more than a token in it",
        ])
        .await;
    let _b = start("b");
    bench.clients_are(&[(proxy.address, &["a", "b"])]).await;

    bench.write("shown.token", second.0);
    has_reread(&discovery.daemon, 1).await;
    admits(&bench, &[with_token(second.1)]);
    has_reread(&proxy.daemon, 1).await;
    let _c = start("c");
    bench
        .clients_are(&[(proxy.address, &["a", "b", "c"])])
        .await;
    let config = bench.reloads.config();
    for secret in ["s3cret", "words"] {
        let shown = discovery.daemon.lines_with(&[secret]);
        assert_eq!(shown, [""; 0]);
        assert!(!config.contains(secret), "{config}");
    }
}

#[tokio::test]
async fn a_password_is_replaced_and_prometheus_has_the_new_one_in_both_modes() {
    // Asked once an hour, nothing but the change of the file has the configuration written again.
    for (mode, resync) in [
        ("--mode=config", "--resync-interval=1h"),
        ("--mode=http-sd", "--resync-interval=1s"),
    ] {
        let bench = Bench::new().await;
        let exporter = Target::saying("metric 1\n").await;
        let [first, second] = PASSWORDS;
        let auth = admits(&bench, &[with_password(first.1)]);
        let proxy = Proxy::start(&[&auth]).await;
        let _a = Client::start(&proxy.url(), &exporter.url("/metrics"), "a", &[]);
        until("a is registered", SOON, async || {
            let clients = proxy.metric("pushprox_proxy_clients").await?;
            (clients == 1.0).then_some(())
        })
        .await;
        bench.service("web", &[(proxy.address, true)]);
        bench.write("base", BASE);
        bench.write("basic", &format!("me:{}\n", first.0));
        let basic = flag(&bench, "proxy.basic-auth-file", "basic");
        let flags = [mode, resync, &basic];
        let once = [&flags[..], &["-reloadurl="]].concat();
        let outcome = bench.once(&once).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let prometheus = Server::start_at(&bench, "127.0.0.1:0").await;
        let url = prometheus.flag();
        let discovery = bench.start(&[&flags[..], &[&url]].concat()).await;
        prometheus.targets_are(&[("web", "a:80", "up")]).await;

        bench.write("basic", &format!("me:{}", second.0));
        admits(&bench, &[with_password(second.1)]);
        has_reread(&proxy.daemon, 1).await;
        has_reread(&discovery.daemon, 1).await;
        until("the new password is in the target", SOON, async || {
            let config = std::fs::read_to_string(bench.target()).unwrap();
            let has_it = config.contains(&format!("http://me:{}@{}/", second.0, proxy.address));
            (has_it && !config.contains(first.0)).then_some(())
        })
        .await;
        let before = prometheus.targets().await;
        let before = before.first().map(|target| target["lastScrape"].clone());
        until("a scrape with the new password", SOON, async || {
            let target = prometheus.targets().await.first()?.clone();
            let is_new = Some(&target["lastScrape"]) != before.as_ref();
            (is_new && target["health"] == "up").then_some(())
        })
        .await;
        let shown = discovery.daemon.lines_with(&[first.0, second.0]);
        assert_eq!(shown, [""; 0]);
    }
}

#[tokio::test]
async fn prometheus_asks_with_the_token_and_scrapes_without_it() {
    let bench = Bench::new().await;
    let [(token, digest), _] = TOKENS;
    let auth = admits(&bench, &[with_token(digest)]);
    let proxy = Proxy::start(&[&auth]).await;
    let _a = Client::start(&proxy.url(), "http://127.0.0.1:1/", "a", &[]);
    bench.service("web", &[(proxy.address, true)]);
    bench.write("base", BASE);
    bench.write("shown.token", token);
    let token = flag(&bench, "proxy.bearer-token-file", "shown.token");
    let outcome = bench.once(&["--mode=http-sd", &token, "-reloadurl="]).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let prometheus = Server::start_at(&bench, "127.0.0.1:0").await;
    prometheus.targets_are(&[("web", "a:80", "down")]).await;
    let target = &prometheus.targets().await[0];
    let error = target["lastError"].as_str().unwrap();
    assert!(error.contains("407 the proxy wants credentials"), "{error}");
}

/// A proxy for the name `proxy.test`, which verifies certificates of `proxies.crt`.
async fn secure_proxy(bench: &Bench, server: &Authority, auth: &str) -> Proxy {
    server.issue(bench.path(), "server", &["proxy.test"]);
    bench.write(
        "web.yml",
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
         client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: proxies.crt\n",
    );
    Proxy::start(&[&flag(bench, "web.config.file", "web.yml"), auth]).await
}

/// Registers `name` at a proxy with TLS.
fn register(bench: &Bench, proxy: &Proxy, exporter: &Target, name: &str) -> Client {
    let flags = [
        &flag(bench, "tls.cacert", "proxies.crt"),
        "--tls.server-name=proxy.test",
    ];
    let url = format!("https://{}/", proxy.address);
    Client::start(&url, &exporter.url("/metrics"), name, &flags)
}

/// Puts a certificate for `name` in the place of the one before, each file in one piece.
fn replace_certificate(authority: &Authority, folder: &Path, name: &str) {
    let staged = authority.issue(folder, "staged", &[name]);
    std::fs::rename(staged.key, folder.join("own.key")).unwrap();
    std::fs::rename(staged.cert, folder.join("own.crt")).unwrap();
}

#[tokio::test]
async fn certificates_are_replaced_and_the_url_may_have_any_host() {
    let bench = Bench::new().await;
    let exporter = Target::saying("metric 1\n").await;
    let (authority, next) = (Authority::new("first"), Authority::new("next"));
    bench.write("proxies.crt", &authority.pem());
    replace_certificate(&authority, bench.path(), "one.test");
    let auth = admits(&bench, &["san: one.test".to_owned()]);
    let proxy = secure_proxy(&bench, &authority, &auth).await;
    let _a = register(&bench, &proxy, &exporter, "a");
    bench.service("web", &[(proxy.address, true)]);
    bench.write("base", BASE);
    let flags = [
        "--proxy-url=https://192.0.2.1/",
        "--tls.server-name=proxy.test",
        &flag(&bench, "tls.cacert", "proxies.crt"),
        &flag(&bench, "tls.cert", "own.crt"),
        &flag(&bench, "tls.key", "own.key"),
    ];
    let once = [&flags[..], &["-reloadurl="]].concat();
    let outcome = bench.once(&once).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let prometheus = Server::start_at(&bench, "127.0.0.1:0").await;
    let url = prometheus.flag();
    let discovery = bench.start(&[&flags[..], &[&url]].concat()).await;
    prometheus.targets_are(&[("web", "a:80", "up")]).await;

    // Both authorities are trusted, then everything is of the new one.
    bench.write("proxies.crt", &(authority.pem() + &next.pem()));
    has_reread(&discovery.daemon, 1).await;
    has_reread(&proxy.daemon, 1).await;
    replace_certificate(&next, bench.path(), "two.test");
    has_reread(&discovery.daemon, 2).await;
    admits(&bench, &["san: two.test".to_owned()]);
    has_reread(&proxy.daemon, 2).await;
    bench.write("proxies.crt", &next.pem());
    let staged = next.issue(bench.path(), "staged", &["proxy.test"]);
    for (from, ending) in [(&staged.key, "key"), (&staged.cert, "crt")] {
        std::fs::rename(from, bench.path().join(format!("server.{ending}"))).unwrap();
    }
    has_reread(&discovery.daemon, 3).await;
    has_reread(&proxy.daemon, 3).await;
    let _b = register(&bench, &proxy, &exporter, "b");
    prometheus
        .targets_are(&[("web", "a:80", "up"), ("web", "b:80", "up")])
        .await;
}

#[tokio::test]
async fn any_certificate_will_do_where_none_is_verified_and_the_log_says_so() {
    let bench = Bench::new().await;
    let exporter = Target::saying("metric 1\n").await;
    let authority = Authority::new("unknown");
    bench.write("proxies.crt", &authority.pem());
    let [(password, hash), _] = PASSWORDS;
    let auth = admits(&bench, &[with_password(hash)]);
    let proxy = secure_proxy(&bench, &authority, &auth).await;
    let _a = register(&bench, &proxy, &exporter, "a");
    bench.service("web", &[(proxy.address, true)]);
    bench.write("base", BASE);
    bench.write("basic", &format!("me:{password}\n"));
    for url in ["https://192.0.2.1/", "https://other.test/"] {
        let flags = [
            &format!("--proxy-url={url}"),
            "--tls.insecure-skip-verify",
            &flag(&bench, "proxy.basic-auth-file", "basic"),
        ];
        let mut discovery = bench.start(&flags).await;
        discovery
            .daemon
            .line(&["level=warn", "whoever answers is believed"])
            .await;
        bench.clients_are(&[(proxy.address, &["a"])]).await;
        let prometheus = Server::start_at(&bench, "127.0.0.1:0").await;
        prometheus.targets_are(&[("web", "a:80", "up")]).await;
    }
}

#[tokio::test]
async fn headers_of_the_operators_are_sent_and_never_shown() {
    let bench = Bench::new().await;
    let one = Roster::of(&["a"]).await;
    bench.service("web", &[(one.address(), true)]);
    let flags = [
        "--proxy.header=X-Scope: s3cret",
        "--proxy.header=X-Scope: two",
        "--log.level=debug",
    ];
    let outcome = bench.once(&flags).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let request = one.requests()[0].clone();
    assert_eq!(request.header("X-Scope"), Some("s3cret"));
    assert_eq!(request.header("Accept"), Some("application/json"));
    assert!(!outcome.stderr.contains("s3cret"), "{}", outcome.stderr);
    assert!(!bench.reloads.config().contains("s3cret"));
}
