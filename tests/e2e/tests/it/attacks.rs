//! What somebody tries who means harm, and the refusal of each.

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::{Target, ok};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, Message, ask, scrape_request};

use crate::secured::{Folder, digest};

const ALICE: &str = "Authorization: Bearer token-of-alice\r\n";
const MALLORY: &str = "Authorization: Bearer token-of-mallory\r\n";

/// A proxy that knows the clients `alice.test` and `mallory.test`, and lets anyone scrape.
async fn proxy(folder: &Folder) -> Proxy {
    let auth = format!(
        "scrapers: anyone
clients:
- {{token_sha256: {}, names: [alice.test]}}
- {{token_sha256: {}, names: [mallory.test]}}
",
        digest("token-of-alice").await,
        digest("token-of-mallory").await
    );
    let auth = folder.write("auth.yml", &auth);
    Proxy::start(&[&format!("--auth.config.file={auth}")]).await
}

fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: proxy\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

async fn send(proxy: &Proxy, request: &[u8]) -> Message {
    let connection = Connection::open(proxy.address).await.unwrap();
    connection.send_and_receive(request).await.unwrap()
}

async fn open(proxy: &Proxy, request: &[u8]) -> Connection {
    let mut connection = Connection::open(proxy.address).await.unwrap();
    connection.send(request).await.unwrap();
    connection
}

fn answer(id: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nId: {id}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Parks a poll of Alice's and has it handed a scrape: the scrape's connection, and its id.
async fn handed_out(proxy: &Proxy) -> (Connection, String) {
    let mut poll = open(proxy, &post("/poll", ALICE, "alice.test")).await;
    proxy.registered("alice.test").await;
    let scrape = open(proxy, &scrape_request("http://alice.test/", 10.0, "")).await;
    let instruction = poll.receive().await.unwrap().text();
    let id = instruction
        .lines()
        .find_map(|line| line.strip_prefix("Id: "));
    (scrape, id.unwrap().to_owned())
}

#[tokio::test]
async fn a_stolen_name_is_not_registered() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    for (headers, name, status, text) in [
        (MALLORY, "alice.test", 403, "may not register alice.test\n"),
        (MALLORY, "ALICE.test.", 403, "may not register"),
        (
            MALLORY,
            "alice.test:80",
            403,
            "may not register alice.test:80\n",
        ),
        ("", "alice.test", 401, "credentials are required\n"),
        (
            "Authorization: Bearer wrong\r\n",
            "alice.test",
            401,
            "these credentials are wrong\n",
        ),
        // Another client's token beside one's own.
        (
            &format!("{MALLORY}{ALICE}"),
            "alice.test",
            401,
            "neither Basic nor Bearer",
        ),
        (
            "Authorization: Negotiate abc\r\n",
            "alice.test",
            401,
            "neither Basic nor Bearer",
        ),
        // Credentials for a proxied request are none for a poll.
        (
            "Proxy-Authorization: Bearer token-of-alice\r\n",
            "alice.test",
            401,
            "are required",
        ),
    ] {
        let refused = send(&proxy, &post("/poll", headers, name)).await;
        assert_eq!(refused.status(), status, "{name}: {refused:?}");
        assert!(refused.text().contains(text), "{name}: {refused:?}");
        let challenged = refused.header("WWW-Authenticate").is_some();
        assert_eq!(challenged, status == 401, "{refused:?}");
    }
    assert_eq!(proxy.names().await, [""; 0]);
    let scrape = proxy.scrape("http://alice.test/", 1.0).await;
    assert_eq!(
        scrape.status(),
        503,
        "nobody answers in her name: {scrape:?}"
    );
}

#[tokio::test]
async fn a_stolen_id_does_not_let_another_answer() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let (mut scrape, id) = handed_out(&proxy).await;
    for (headers, body, status) in [
        (MALLORY, answer(&id, "forged 1\n"), 403),
        ("", answer(&id, "forged 1\n"), 401),
        (
            "Authorization: Bearer wrong\r\n",
            answer(&id, "forged 1\n"),
            401,
        ),
        // A broken answer would end the scrape, if it were hers.
        (
            MALLORY,
            format!("HTTP/1.1 200 OK\r\nId: {id}\r\nbroken\r\n\r\n"),
            400,
        ),
        (
            "",
            format!("HTTP/1.1 200 OK\r\nId: {id}\r\nbroken\r\n\r\n"),
            401,
        ),
    ] {
        let refused = send(&proxy, &post("/push", headers, &body)).await;
        assert_eq!(refused.status(), status, "{body}: {refused:?}");
    }
    let taken = send(&proxy, &post("/push", ALICE, &answer(&id, "right 1\n"))).await;
    assert_eq!(taken.status(), 200, "{taken:?}");
    assert_eq!(scrape.receive().await.unwrap().text(), "right 1\n");
    let denied = proxy
        .metric("pushprox_auth_failures_total{reason=\"not_allowed\"}")
        .await;
    assert_eq!(denied, Some(1.0));
}

#[tokio::test]
async fn a_replayed_push_and_a_guessed_id_are_gone() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let (mut scrape, id) = handed_out(&proxy).await;
    let push = post("/push", ALICE, &answer(&id, "right 1\n"));
    assert_eq!(send(&proxy, &push).await.status(), 200);
    assert_eq!(scrape.receive().await.unwrap().text(), "right 1\n");
    assert_eq!(send(&proxy, &push).await.status(), 410, "replayed");
    let guess = "00000000-0000-4000-8000-000000000000";
    let guessed = send(&proxy, &post("/push", ALICE, &answer(guess, "x 1\n"))).await;
    assert_eq!(guessed.status(), 410);
}

#[tokio::test]
async fn who_is_struck_off_is_handed_nothing_more() {
    let folder = Folder::new();
    let mut proxy = proxy(&folder).await;
    let mut poll = open(&proxy, &post("/poll", ALICE, "alice.test")).await;
    proxy.registered("alice.test").await;
    folder.write("auth.yml", "scrapers: anyone\nclients: []\n");
    proxy.daemon.line(&["read again after a change"]).await;
    let scrape = proxy.scrape("http://alice.test/", 1.0).await;
    assert_eq!(scrape.status(), 504, "{scrape:?}");
    assert_eq!(
        poll.rest().await,
        b"",
        "her poll is closed without a scrape"
    );
}

#[tokio::test]
async fn requests_that_end_in_two_places_are_refused() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let smuggled = "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nalice.test";
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 40\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length : 4\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tContent-Length: 4\r\n",
        "X\0: a\r\n",
    ] {
        for line in [
            "POST /push",
            "POST /poll",
            "GET /metrics",
            "GET http://alice.test/",
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{head}\r\n0\r\n\r\n{smuggled}");
            let mut connection = open(&proxy, request.as_bytes()).await;
            let first = connection.receive().await.unwrap();
            assert_eq!(first.status(), 400, "{line} {head:?}: {first:?}");
            assert_eq!(connection.rest().await, b"", "{line} {head:?}");
        }
    }
    assert_eq!(proxy.names().await, [""; 0], "nothing was smuggled in");
}

#[tokio::test]
async fn a_bare_line_feed_is_a_line_end_for_its_sender_and_goes_no_further() {
    let target = Target::saying("x 1\n").await;
    let proxy = Proxy::start(&[]).await;
    let _client = Client::start(&proxy.url(), &target.url("/"), "node.test", &[]);
    proxy.registered("node.test").await;
    let request = "GET http://node.test/ HTTP/1.1\nHost: node.test\nX-A: 1\nConnection: close\n\n";
    let answer = ask(proxy.address, request.as_bytes()).await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    let seen = target.requests().pop().unwrap();
    assert_eq!(seen.header("X-A"), Some("1"));
    assert!(
        !seen.head.replace("\r\n", "").contains(['\r', '\n']),
        "{seen:?}"
    );
}

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
async fn nothing_breaks_out_of_a_header() {
    let target = Target::echoing().await;
    let proxy = Proxy::start(&[]).await;
    let _client = Client::start(&proxy.url(), &target.url("/fixed"), "node.test", &[]);
    proxy.registered("node.test").await;
    // Through a name.
    for name in [
        "a\r\nSet-Cookie: x",
        "a\nb",
        "a\"b",
        "a{b=\"c\"}",
        "a\u{85}b",
        "a%0d%0ab",
    ] {
        let refused = send(&proxy, &post("/poll", "", name)).await;
        assert_eq!(refused.status(), 400, "{name:?}");
        assert_eq!(refused.header("Set-Cookie"), None);
    }
    // Through a query: it reaches the target as it is, in its place.
    let query = "a=%0d%0aX-Evil:%201&b=%00%2f..%2f&c=http://evil.test/";
    let scraped = proxy
        .scrape(&format!("http://node.test/?{query}"), 10.0)
        .await;
    assert_eq!(scraped.text(), query);
    let seen = target.requests().pop().unwrap();
    assert_eq!(seen.uri(), format!("/fixed?{query}"));
    assert_eq!(seen.header("X-Evil"), None);
    // Through the reason phrase and the headers of a pushed answer.
    for (line, status) in [
        ("HTTP/1.1 500 bad\rX-Evil: 1", 502),
        ("HTTP/1.1 500 bad\0", 502),
        ("HTTP/1.1 500 b\u{e4}d \u{1b}[31m", 502),
        ("HTTP/1.1 500 bad\r\nX: a\rX-Evil: 1", 502),
        ("HTTP/1.1 500 bad\r\nX-Evil\0: 1", 502),
    ] {
        let mut poll = open(&proxy, &post("/poll", "", "raw.test")).await;
        proxy.registered("raw.test").await;
        let mut scrape = open(&proxy, &scrape_request("http://raw.test/", 10.0, "")).await;
        let instruction = poll.receive().await.unwrap().text();
        let id = instruction
            .lines()
            .find_map(|line| line.strip_prefix("Id: "))
            .unwrap();
        let push = format!("{line}\r\nId: {id}\r\nContent-Length: 0\r\n\r\n");
        send(&proxy, &post("/push", "", &push)).await;
        let seen = scrape.receive().await.unwrap();
        assert!([status, 500].contains(&seen.status()), "{line:?}: {seen:?}");
        assert_eq!(seen.header("X-Evil"), None, "{line:?}");
        assert!(
            !seen
                .head
                .replace("\r\n", "")
                .contains(|c: char| c.is_control()),
            "{seen:?}"
        );
    }
    let lines = proxy.daemon.log();
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "{lines:?}"
    );
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
