//! To where one may not go: targets that another scraper may reach, and away from the pull URL.

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, until};

use super::send;
use crate::secured::{Folder, digest};

#[tokio::test]
async fn the_host_header_moves_nothing() {
    let folder = Folder::new();
    let auth = folder.write(
        "auth.yml",
        &format!(
            "scrapers:\n- {{token_sha256: {}, names: [public.test]}}\nclients: anyone\n",
            digest("scraper").await
        ),
    );
    let proxy = Proxy::start(&[&format!("--auth.config.file={auth}")]).await;
    let (public, secret) = (
        Target::saying("public 1\n").await,
        Target::saying("secret 1\n").await,
    );
    let _public = Client::start(&proxy.url(), &public.url("/"), "public.test", &[]);
    let _secret = Client::start(&proxy.url(), &secret.url("/"), "secret.test", &[]);
    let scrape = async |url: &str, host: &str| {
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Proxy-Authorization: Bearer scraper\r\n\r\n"
        );
        send(&proxy, request.as_bytes()).await
    };
    until("the public one is there", SOON, async || {
        (scrape("http://public.test/", "secret.test").await.text() == "public 1\n").then_some(())
    })
    .await;
    for (url, status) in [
        ("http://secret.test/", 403),
        ("http://public.test@secret.test/", 403),
        ("http://secret.test:80/", 403),
        ("http://SECRET.test./", 403),
        ("https://secret.test/", 403),
        ("http://public.test%2f@secret.test/", 403),
        ("http://public.test\\@secret.test/", 403),
        ("http://secret.test#@public.test/", 403),
        ("http://secret.test?@public.test/", 403),
        ("http://public.test:80:/", 400),
        ("http://public.test../", 400),
        ("http://public.test%2e/", 400),
        ("http://public.test,secret.test/", 400),
        ("ftp://public.test/", 400),
    ] {
        let refused = scrape(url, "public.test").await;
        assert_eq!(refused.status(), status, "{url}: {refused:?}");
    }
    assert!(secret.requests().is_empty());
    let seen = public.requests().pop().unwrap();
    assert_eq!(seen.header("Host").unwrap(), public.address().to_string());
}

#[tokio::test]
async fn no_scrape_leads_the_client_away_from_its_pull_url() {
    let elsewhere = Target::saying("stolen 1\n").await;
    let away = elsewhere.url("/");
    let target = Target::start(move |request, mut connection| {
        let away = away.clone();
        async move {
            let redirect =
                format!("HTTP/1.1 302 Found\r\nLocation: {away}\r\nContent-Length: 0\r\n\r\n");
            let answer = match request.uri().contains("redirect") {
                true => redirect.into_bytes(),
                false => ok(request.uri()),
            };
            connection.send(&answer).await.ok()?;
            Some(connection)
        }
    })
    .await;
    let proxy = Proxy::start(&[]).await;
    let pull_url = target.url("/metrics?fixed=1");
    let _client = Client::start(&proxy.url(), &pull_url, "node.test", &[]);
    proxy.registered("node.test").await;
    for (url, pulled) in [
        ("http://node.test/etc/passwd", "/metrics?fixed=1"),
        ("http://node.test/../../secret", "/metrics?fixed=1"),
        ("http://node.test/%2e%2e/secret?x=1", "/metrics?fixed=1&x=1"),
        ("http://node.test//evil.test/", "/metrics?fixed=1"),
        ("http://node.test/?fixed=2", "/metrics?fixed=1"),
        (
            "http://node.test/?%66ixed=2&FIXED=3",
            "/metrics?fixed=1&FIXED=3",
        ),
        (
            "http://node.test/?_scheme=http",
            "/metrics?fixed=1&_scheme=http",
        ),
        ("http://node.test/?a=1?b#c", "/metrics?fixed=1&a=1?b"),
        ("http://user:pass@node.test/", "/metrics?fixed=1"),
        ("http://node.test:1/", "/metrics?fixed=1"),
    ] {
        let answer = proxy.scrape(url, 10.0).await;
        let text = answer.text();
        assert!(
            text == pulled || answer.status() == 400,
            "{url}: {answer:?}"
        );
    }
    let redirected = proxy.scrape("http://node.test/?redirect", 10.0).await;
    assert_eq!(redirected.status(), 302, "it is passed on, not followed");
    assert!(elsewhere.requests().is_empty());
}
