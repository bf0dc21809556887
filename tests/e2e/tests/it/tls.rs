//! TLS, with the programs that it is for.

use std::time::Duration;

use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::process::{command, run};
use pushprox_testkit::prometheus::Prometheus;
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::tls::{Authority, curl};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{self, Connection};
use tokio::time::Instant;

use crate::secured::{Folder, hash, https};

const AUTH: &str = "scrapers:
- {san: prometheus.test, names: ['*.edge.test:9100']}
clients:
- {san: '*.edge.test', names: ['{san}:9100']}
";

#[tokio::test]
async fn prometheus_scrapes_over_https_with_a_certificate_and_sees_why_not_without() {
    let folder = Folder::new();
    let exporter = NodeExporter::start().await;
    let proxy = folder.proxy(AUTH).await;
    let node = folder.issue("node.edge.test");
    let _client = folder.client(&proxy, &node, "node.edge.test:9100", &exporter.url());
    folder.issue("prometheus.test");
    folder.issue("other.test");
    let job = |name: &str, pair: &str, target: &str| {
        let pair = match pair {
            "" => String::new(),
            pair => format!(", cert_file: {0}.crt, key_file: {0}.key", folder.file(pair)),
        };
        format!(
            "- job_name: {name}
  proxy_url: {url}
  tls_config: {{ca_file: {ca}{pair}}}
  static_configs: [{{targets: ['{target}']}}]
",
            url = https(&proxy),
            ca = folder.file("ca.crt"),
        )
    };
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n{}{}{}{}",
        job("right", "prometheus.test", "node.edge.test:9100"),
        job("none", "", "node.edge.test:9100"),
        job("stranger", "other.test", "node.edge.test:9100"),
        job("elsewhere", "prometheus.test", "secret.test:9100"),
    ))
    .await;
    let up = "up{job='right'}";
    prometheus.sample(up, SOON, |up| up == 1.0).await;
    let cpus = "count(node_cpu_seconds_total{job='right'})";
    prometheus.sample(cpus, SOON, |count| count > 0.0).await;
    for (job, error) in [
        (
            "none",
            "407 the proxy wants credentials: give proxy_url a user and a password, or tls_config a client certificate",
        ),
        (
            "stranger",
            "403 the proxy says: no name in your certificate is a member here",
        ),
        (
            "elsewhere",
            "403 the proxy says: prometheus.test may not scrape secret.test:9100",
        ),
    ] {
        prometheus.last_error(job, error, SOON).await;
    }
    let denied = folder.page(&proxy, "/metrics", &[]).await.stdout;
    assert!(
        denied.contains("pushprox_auth_failures_total{reason=\"no_credentials\"}"),
        "{denied}"
    );
}

#[tokio::test]
async fn a_proxy_speaks_http_1_1_and_no_old_tls() {
    let folder = Folder::new();
    let proxy = folder.proxy(AUTH).await;
    let connect = format!("-connect {}", proxy.address);
    let client = async |flags: &str| {
        let mut openssl = command("openssl");
        openssl
            .arg("s_client")
            .args(connect.split(' '))
            .args(flags.split(' '));
        let outcome = run(openssl).await;
        outcome.stdout + &outcome.stderr
    };
    let both = client("-alpn h2,http/1.1").await;
    assert!(both.contains("ALPN protocol: http/1.1"), "{both}");
    let h2 = client("-alpn h2").await;
    assert!(h2.contains("alert no application protocol"), "{h2}");
    for old in ["-tls1", "-tls1_1"] {
        let refused = client(&format!("{old} -cipher ALL:@SECLEVEL=0")).await;
        let alerts = ["alert protocol version", "alert handshake failure"];
        assert!(
            alerts.iter().any(|alert| refused.contains(alert)),
            "{refused}"
        );
    }
    let weak = client("-tls1_2 -cipher AES128-SHA:@SECLEVEL=0").await;
    assert!(weak.contains("alert handshake failure"), "{weak}");
}

#[tokio::test]
async fn no_version_below_the_minimum_is_spoken() {
    let folder = Folder::new();
    let web = folder.web("  min_version: TLS13\n");
    let proxy = Proxy::start(&[&format!("--web.config.file={web}")]).await;
    let ready = folder.page(&proxy, "/-/ready", &[]).await;
    assert!(ready.stdout.starts_with("HTTP/1.1 200 OK\r\n"), "{ready:?}");
    let flags = ["--tls-max".to_owned(), "1.2".to_owned()];
    let refused = folder.page(&proxy, "/-/ready", &flags).await;
    assert_eq!(refused.code, Some(35), "{refused:?}");
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let folder = Folder::new();
    let proxy = folder.proxy(AUTH).await;
    let answer = proxy.scrape("http://node.edge.test/", 5.0).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.reason(), "this port speaks TLS, use https");
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused() {
    let folder = Folder::new();
    let proxy = folder.proxy(AUTH).await;
    let target = Target::saying("x 1\n").await;
    let right = folder.issue("a.edge.test");
    let _client = folder.client(&proxy, &right, "a.edge.test:9100", &target.url("/"));
    let url = "http://a.edge.test:9100/";
    let scraper = folder.issue("prometheus.test").flags("--proxy-");
    folder.scraped(&proxy, url, &scraper).await;

    let other = Authority::new("test authority");
    let foreign = other.issue(folder.path(), "foreign", &["prometheus.test"]);
    let expired = folder
        .authority
        .issue_expired(folder.path(), "expired", &["prometheus.test"]);
    for pair in [foreign, expired] {
        let refused = folder.scrape(&proxy, url, &pair.flags("--proxy-")).await;
        assert_eq!(refused.stdout, "", "{refused:?}");
        assert_ne!(refused.code, Some(0), "{refused:?}");
    }
    counted(&folder, &proxy, "client_certificate", 2).await;
    // The other way round: a proxy whose certificate is somebody else's is not polled.
    let impostor = Folder::new();
    let imposed = impostor.proxy("scrapers: anyone\nclients: anyone\n").await;
    let mut deceived = folder.client(&imposed, &right, "a.edge.test:9100", &target.url("/"));
    deceived
        .daemon
        .line(&[
            "poll failed",
            "no secure connection",
            "invalid peer certificate",
        ])
        .await;
    let names = impostor.page(&imposed, "/clients", &[]).await;
    assert!(names.stdout.ends_with("[]\n"), "{names:?}");
}

#[tokio::test]
async fn handshakes_left_hanging_keep_nobody_waiting() {
    let folder = Folder::new();
    let proxy = folder.proxy(AUTH).await;
    let start = Instant::now();
    let mut hanging = Vec::new();
    for number in 0..200 {
        let mut connection = Connection::open(proxy.address).await.unwrap();
        if number % 2 == 0 {
            // The begin of a handshake whose rest does not come.
            connection
                .send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
                .await
                .unwrap();
        }
        hanging.push(connection);
    }
    let ready = folder.page(&proxy, "/-/ready", &[]).await;
    assert!(ready.stdout.starts_with("HTTP/1.1 200 OK\r\n"), "{ready:?}");
    // Each has ten seconds.
    let all_hang = hanging.iter().all(|connection| !connection.is_closed());
    assert!(all_hang || start.elapsed() > Duration::from_secs(10));
    for mut connection in hanging {
        assert_eq!(connection.rest().await, b"");
    }
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "they had their time"
    );
    counted(&folder, &proxy, "timeout", 200).await;
}

#[tokio::test]
async fn big_answers_come_whole_over_tls_and_broken_ones_never_seem_so() {
    let folder = Folder::new();
    let proxy = folder.proxy("scrapers: anyone\nclients: anyone\n").await;
    let big = "x".repeat(8 * 1024 * 1024);
    let whole = ok(&big);
    let target = Target::start(move |request, mut connection| {
        let whole = whole.clone();
        async move {
            match request.uri() {
                "/?broken" => {
                    connection.send(&whole[..whole.len() / 2]).await.ok()?;
                    None
                }
                _ => {
                    connection.send(&whole).await.ok()?;
                    Some(connection)
                }
            }
        }
    })
    .await;
    let node = folder.issue("node.test");
    let _client = folder.client(&proxy, &node, "node.test", &target.url("/"));
    let scrape = async |url: &str| folder.scrape(&proxy, url, &[]).await;
    until("the client is there", SOON, async || {
        scrape("http://node.test/?first")
            .await
            .stdout
            .contains(" 200 OK")
            .then_some(())
    })
    .await;
    let answer = scrape("http://node.test/").await;
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    let (_, body) = answer.stdout.split_once("\r\n\r\n").unwrap();
    assert!(body == big, "{} bytes", body.len());
    let broken = scrape("http://node.test/?broken").await;
    assert_ne!(broken.code, Some(0), "{}", broken.stderr);
    assert!(broken.stdout.len() < big.len());
}

#[tokio::test]
async fn a_server_name_stands_in_for_the_host_of_the_url() {
    let folder = Folder::new();
    folder
        .authority
        .issue(folder.path(), "server", &["proxy.example.org"]);
    let web = folder.web("");
    let proxy = Proxy::start(&[&format!("--web.config.file={web}")]).await;
    let target = Target::saying("x 1\n").await;
    let ca = format!("--tls.cacert={}", folder.file("ca.crt"));
    let mut unnamed = Client::start(&https(&proxy), &target.url("/"), "a.test", &[&ca]);
    unnamed
        .daemon
        .line(&[
            "poll failed",
            "no secure connection",
            "certificate not valid for name",
        ])
        .await;
    let name = "--tls.server-name=proxy.example.org";
    let _named = Client::start(&https(&proxy), &target.url("/"), "b.test", &[&ca, name]);
    let _blind = {
        let skip = "--tls.insecure-skip-verify";
        let mut blind = Client::start(&https(&proxy), &target.url("/"), "c.test", &[skip]);
        blind
            .daemon
            .line(&[
                "certificates are not verified",
                "--tls.insecure-skip-verify",
            ])
            .await;
        blind
    };
    until("both on the list", SOON, async || {
        let list = curl(["--insecure", &format!("{}/clients", https(&proxy))])
            .await
            .stdout;
        let both = list.contains("b.test") && list.contains("c.test");
        assert!(!list.contains("a.test"), "{list}");
        both.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_target_gets_what_the_pull_flags_say_and_the_proxy_nothing_of_it() {
    let folder = Folder::new();
    let inside = Authority::new("the target's authority");
    folder.write("inside.crt", &inside.pem());
    inside.issue(folder.path(), "target", &["target.inside"]);
    let shown = inside.issue(folder.path(), "puller", &["puller.inside"]);
    // A proxy stands in for a target with TLS: its own page is pulled, by a user.
    let web = format!(
        "tls_server_config: {{cert_file: target.crt, key_file: target.key, \
         client_auth_type: RequireAndVerifyClientCert, client_ca_file: inside.crt}}\n\
         basic_auth_users: {{puller: {}}}\n",
        hash("swordfish").await
    );
    let web = folder.write("target.yml", &web);
    let target = Proxy::start(&[&format!("--web.config.file={web}")]).await;
    let proxy = Proxy::start(&[]).await;
    let flags = [
        format!("--pull.tls.cacert={}", folder.file("inside.crt")),
        format!("--pull.tls.cert={}", shown.cert.display()),
        format!("--pull.tls.key={}", shown.key.display()),
        "--pull.tls.server-name=target.inside".to_owned(),
        format!(
            "--pull.basic-auth-file={}",
            folder.write("basic", "puller:swordfish\n")
        ),
    ];
    let flags = flags.each_ref().map(String::as_str);
    let pull_url = format!("{}/metrics", https(&target));
    let mut client = Client::start(&proxy.url(), &pull_url, "target.test", &flags);
    proxy.registered("target.test").await;
    let answer = proxy.scrape("http://target.test/", 10.0).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.text().contains("pushprox_build_info"));
    let own = wire::scrape_request("http://target.test/", 10.0, "Authorization: Basic eDp5\r\n");
    let answer = wire::ask(proxy.address, &own).await.unwrap();
    assert_eq!(answer.status(), 401, "the scrape's own credentials count");
    client.daemon.terminate();
    client.daemon.ended(SOON).await;
    let log = client.daemon.log().join("\n");
    assert!(
        !log.contains("swordfish") && !log.contains("PRIVATE"),
        "{log}"
    );
}

#[tokio::test]
async fn the_clients_own_pages_are_for_users_over_tls() {
    let folder = Folder::new();
    let hash = hash("swordfish").await;
    let web = folder.web(&format!(
        "http_server_config: {{headers: {{X-Frame-Options: deny}}}}\nbasic_auth_users: {{ops: {hash}}}\n"
    ));
    let mut command = binary("client");
    command
        .args([
            "--proxy-url=http://127.0.0.1:1/",
            "--pull-url=http://127.0.0.1:1/",
        ])
        .args(["--fqdn=x.test", "--metrics-addr=127.0.0.1:0"])
        .arg(format!("--web.config.file={web}"));
    let mut client = Client::run(command);
    let address = client.daemon.address("listening").await;
    let page = async |path: &str, user: &str| {
        let url = format!("https://{address}{path}");
        let ca = folder.file("ca.crt");
        let mut flags = vec!["--cacert", &ca, &url];
        if !user.is_empty() {
            flags.extend(["--user", user]);
        }
        curl(flags).await.stdout
    };
    let metrics = page("/metrics", "ops:swordfish").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("x-frame-options: deny\r\n"), "{metrics}");
    for user in ["", "ops:Swordfish", "nobody:swordfish"] {
        let refused = page("/metrics", user).await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "{user}: {refused}");
        assert!(
            refused.to_lowercase().contains("www-authenticate: basic"),
            "{refused}"
        );
    }
    let probed = page("/-/healthy", "").await;
    assert!(probed.starts_with("HTTP/1.1 200 OK\r\n"), "{probed}");
}

/// Waits until as many handshakes have failed for this reason.
async fn counted(folder: &Folder, proxy: &Proxy, reason: &str, times: u32) {
    let line = format!("pushprox_tls_handshake_failures_total{{reason=\"{reason}\"}} {times}\n");
    until(&line, SOON, async || {
        let metrics = folder.page(proxy, "/metrics", &[]).await.stdout;
        metrics.contains(&line).then_some(())
    })
    .await;
}
