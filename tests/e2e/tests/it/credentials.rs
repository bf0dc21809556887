//! Users, tokens and doors, over plain HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use pushprox_testkit::prometheus::Prometheus;
use pushprox_testkit::pushprox::{Client, Proxy, binary};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire;

use crate::secured::{Folder, digest, hash};

#[tokio::test]
async fn prometheus_scrapes_with_a_user_in_proxy_url_and_sees_why_not_with_another() {
    let folder = Folder::new();
    let auth = format!(
        "scrapers:
- {{user: prometheus, password_bcrypt: {}, names: ['node.test']}}
clients:
- {{token_sha256: {}, names: ['*.test']}}
",
        hash("sword fish").await,
        digest("token-of-node").await
    );
    let auth = folder.write("auth.yml", &auth);
    let proxy = Proxy::start(&[&format!("--auth.config.file={auth}")]).await;
    let target = Target::saying("secured 1\n").await;
    let token = folder.write("token", "token-of-node\n");
    let token = format!("--proxy.bearer-token-file={token}");
    let pull_url = target.url("/metrics");
    let _client = Client::start(&proxy.url(), &pull_url, "node.test", &[&token]);
    let _other = Client::start(&proxy.url(), &pull_url, "other.test", &[&token]);
    let job = |name: &str, user: &str, target: &str| {
        format!(
            "- job_name: {name}
  proxy_url: http://{user}{}/
  basic_auth: {{username: target, password: own}}
  static_configs: [{{targets: ['{target}']}}]
",
            proxy.address
        )
    };
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n{}{}{}{}
- job_name: found
  proxy_url: http://prometheus:sword%20fish@{address}/
  http_sd_configs:
  - url: http://{address}/clients
    refresh_interval: 1s
    basic_auth: {{username: prometheus, password: 'sword fish'}}
",
        job("right", "prometheus:sword%20fish@", "node.test:9100"),
        job("none", "", "node.test:9100"),
        job("wrong", "prometheus:swordfish@", "node.test:9100"),
        job("elsewhere", "prometheus:sword%20fish@", "other.test:9100"),
        address = proxy.address,
    ))
    .await;
    let secured = "secured{job='right'}";
    prometheus.sample(secured, SOON, |value| value == 1.0).await;
    for (job, error) in [
        ("none", "407 the proxy wants credentials"),
        ("wrong", "407 the proxy says: these credentials are wrong"),
        (
            "elsewhere",
            "403 the proxy says: prometheus may not scrape other.test:9100",
        ),
    ] {
        prometheus.last_error(job, error, SOON).await;
    }
    // The target has its own credentials, and not the proxy's.
    let requests = target.requests();
    let shown: BTreeSet<_> = requests
        .iter()
        .filter_map(|request| request.header("Authorization"))
        .collect();
    assert_eq!(shown, ["Basic dGFyZ2V0Om93bg=="].into());
    for request in &requests {
        assert_eq!(request.header("Proxy-Authorization"), None);
    }
    // What a scraper may not reach is not on its list either.
    let limit = Duration::from_secs(15) + SOON;
    let up = prometheus
        .sample("up{job='found'}", limit, |up| up == 1.0)
        .await;
    assert_eq!(up.labels["instance"], "node.test:80");
    let log = proxy.daemon.log().join("\n");
    assert!(!log.contains("sword") && !log.contains("token-of"), "{log}");
}

#[tokio::test]
async fn clients_show_a_password_or_a_header_and_what_changes_is_read_again() {
    let folder = Folder::new();
    let auth = |token: &str, hash: &str| {
        format!(
            "scrapers: anyone
clients:
- {{user: a, password_bcrypt: {hash}, names: [a.test]}}
- {{user: b, password_bcrypt: {hash}, names: [b.test]}}
- {{token_sha256: {token}, names: [c.test]}}
"
        )
    };
    let (old, hash) = (digest("old").await, hash("swordfish").await);
    let file = folder.write("auth.yml", &auth(&old, &hash));
    let mut proxy = Proxy::start(&[&format!("--auth.config.file={file}")]).await;
    let target = Target::saying("x 1\n").await;
    let basic = format!(
        "--proxy.basic-auth-file={}",
        folder.write("basic", "a:swordfish\n")
    );
    let _a = Client::start(&proxy.url(), &target.url("/"), "a.test", &[&basic]);
    let in_url = format!("http://b:swordfish@{}/", proxy.address);
    let _b = Client::start(
        &in_url,
        &target.url("/"),
        "b.test",
        &["--proxy.header=X-Scope: s"],
    );
    let token = format!(
        "--proxy.bearer-token-file={}",
        folder.write("token", "new\n")
    );
    let mut c = Client::start(&proxy.url(), &target.url("/"), "c.test", &[&token]);
    proxy.registered("a.test").await;
    proxy.registered("b.test").await;
    c.daemon
        .line(&[
            "poll failed",
            "401 Unauthorized: these credentials are wrong",
        ])
        .await;
    // The proxy comes to know the client's token.
    folder.write("auth.yml", &auth(&digest("new").await, &hash));
    proxy
        .daemon
        .line(&["read again after a change", "auth.config.file"])
        .await;
    proxy.registered("c.test").await;
    // And the client reads its own.
    let newer = digest("newer").await;
    folder.write("auth.yml", &auth(&newer, &hash));
    folder.write("token", "newer\n");
    c.daemon.line(&["read again after a change"]).await;
    until("a scrape with the newer token", SOON, async || {
        (proxy.scrape("http://c.test/", 5.0).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_door_is_for_its_roles() {
    let mut command = binary("proxy");
    command.args([
        "--web.listen-address=clients@127.0.0.1:0",
        "--web.listen-address=scrapers,operators@127.0.0.1:0",
    ]);
    let mut outer = Proxy::run(command).await;
    let line = outer
        .daemon
        .line(&["listening", "roles=scrapers,operators"])
        .await;
    let inner = line
        .split("address=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let inner: std::net::SocketAddr = inner.trim_matches('"').parse().unwrap();
    let target = Target::saying("x 1\n").await;
    let _client = Client::start(&outer.url(), &target.url("/"), "node.test", &[]);
    let scrape = wire::scrape_request("http://node.test/", 10.0, "");
    until("a scrape by the inner door", SOON, async || {
        let answer = wire::ask(inner, &scrape).await.unwrap();
        (answer.text() == "x 1\n").then_some(())
    })
    .await;
    let refused = wire::ask(outer.address, &scrape).await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(
        refused.reason(),
        "the proxy says: this listener is not for scrapers"
    );
    for path in ["/clients", "/metrics", "/anything"] {
        assert_eq!(wire::get(outer.address, path).await.status(), 403, "{path}");
    }
    assert_eq!(wire::get(outer.address, "/-/healthy").await.status(), 200);
    let poll = "POST /poll HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    let refused = wire::ask(inner, poll.as_bytes()).await.unwrap();
    assert_eq!(
        (refused.status(), refused.text().as_str()),
        (403, "this listener is not for clients\n")
    );
}

#[tokio::test]
async fn one_warning_tells_that_anyone_may_come_in() {
    let mut open = Proxy::start_at("0.0.0.0:0", &[]).await;
    open.daemon
        .line(&["level=warn", "can scrape, and answer for any target:"])
        .await;
    assert_eq!(open.daemon.lines_with(&["level=warn"]).len(), 1);
    let mut door = Proxy::start_at("clients@0.0.0.0:0", &[]).await;
    door.daemon
        .line(&["level=warn", "can answer for any target:"])
        .await;
    let folder = Folder::new();
    let auth = folder.write("auth.yml", "scrapers: []\nclients: []\n");
    let closed = Proxy::start_at("0.0.0.0:0", &[&format!("--auth.config.file={auth}")]).await;
    let here = Proxy::start(&[]).await;
    for quiet in [closed, here] {
        assert_eq!(quiet.daemon.lines_with(&["level=warn"]), [""; 0]);
    }
}

#[tokio::test]
async fn users_of_the_web_configuration_may_do_everything() {
    let folder = Folder::new();
    let web = format!("basic_auth_users: {{all: {}}}\n", hash("swordfish").await);
    let web = folder.write("users.yml", &web);
    let proxy = Proxy::start(&[&format!("--web.config.file={web}")]).await;
    let target = Target::saying("x 1\n").await;
    let basic = format!(
        "--proxy.basic-auth-file={}",
        folder.write("basic", "all:swordfish")
    );
    let _client = Client::start(&proxy.url(), &target.url("/"), "node.test", &[&basic]);
    let scrape = async |headers: &str| {
        let request = wire::scrape_request("http://node.test/", 10.0, headers);
        wire::ask(proxy.address, &request).await.unwrap()
    };
    until("a scrape by the user", SOON, async || {
        let answer = scrape("Proxy-Authorization: Basic YWxsOnN3b3JkZmlzaA==\r\n").await;
        (answer.text() == "x 1\n").then_some(())
    })
    .await;
    let refused = scrape("Authorization: Basic YWxsOnN3b3JkZmlzaA==\r\n").await;
    assert_eq!(refused.status(), 407);
    assert_eq!(
        refused.header("Proxy-Authenticate"),
        Some("Basic realm=\"PushProx\"")
    );
    for path in ["/clients", "/metrics"] {
        assert_eq!(wire::get(proxy.address, path).await.status(), 401, "{path}");
    }
    assert_eq!(wire::get(proxy.address, "/-/ready").await.status(), 200);
}

#[tokio::test]
async fn guesses_are_slowed_down_and_requests_are_rationed() {
    let folder = Folder::new();
    let auth = format!(
        "scrapers:\n- {{user: prometheus, password_bcrypt: {}, names: ['*']}}\nclients: anyone\n",
        hash("swordfish").await
    );
    let auth = folder.write("auth.yml", &auth);
    let proxy = Proxy::start(&[&format!("--auth.config.file={auth}")]).await;
    let list = async |user: &str| {
        let request = format!(
            "GET /clients HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {}\r\n\r\n",
            base64(user)
        );
        let answer = wire::ask(proxy.address, request.as_bytes()).await;
        answer.unwrap().status()
    };
    assert_eq!(list("prometheus:swordfish").await, 200);
    let mut limited = 0;
    for guess in 0.. {
        match list(&format!("prometheus:guess{guess}")).await {
            // Each second lets one more be looked at.
            401 => assert!(guess < 500, "all of them"),
            429 => limited += 1,
            other => panic!("{other}"),
        }
        if limited > 2 {
            break;
        }
    }
    assert_eq!(
        list("prometheus:swordfish").await,
        200,
        "who is known goes on"
    );
    until("the guesses counted", SOON, async || {
        let count = "pushprox_auth_failures_total{reason=\"too_many_attempts\"}";
        (proxy.metric(count).await >= Some(1.0)).then_some(())
    })
    .await;

    let web = folder.write("rate.yml", "rate_limit: {interval: 1h, burst: 3}\n");
    let proxy = Proxy::start(&[&format!("--web.config.file={web}")]).await;
    for status in [200, 200, 200, 429] {
        assert_eq!(wire::get(proxy.address, "/clients").await.status(), status);
    }
}

/// As user and password go over the wire.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | usize::from(three.get(at).copied().unwrap_or_default())
        });
        for at in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * at) & 63];
            encoded.push(if at <= three.len() {
                letter.into()
            } else {
                '='
            });
        }
    }
    encoded
}
