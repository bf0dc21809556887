//! One scrape, byte by byte: what the target answers is what the scraper gets.

use bytes::BytesMut;
use pushprox_testkit::node_exporter::NodeExporter;
use pushprox_testkit::process::{command, run};
use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wire::{Message, ask, scrape_request};

#[tokio::test]
async fn gzip_passes_untouched() {
    let exporter = NodeExporter::start().await;
    let proxy = Proxy::start(&[]).await;
    let _client = Client::start(&proxy.url(), &exporter.url(), "node.test", &[]);
    proxy.registered("node.test").await;

    let url = "http://node.test:9100/metrics";
    let request = scrape_request(url, 10.0, "Accept-Encoding: gzip\r\n");
    let answer = ask(proxy.address, &request).await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.header("Content-Encoding"), Some("gzip"));
    assert!(gunzipped(&answer).await.contains("node_cpu_seconds_total"));

    let plain = proxy.scrape(url, 10.0).await;
    assert_eq!(plain.header("Content-Encoding"), None);
    assert!(plain.text().contains("node_cpu_seconds_total"));
}

#[tokio::test]
async fn the_answer_of_the_target_is_the_answer_to_the_scrape() {
    // What only looks like gzip shows that nobody on the way has unpacked it.
    let body: &[u8] = b"\x1f\x8b no gzip at all \x00\xff\r\n\r\n0\r\n\r\n";
    let head = "HTTP/1.1 418 I Am A Teapot, Really\r\n\
        Content-Type: application/openmetrics-text; version=1.0.0\r\n\
        Content-Encoding: gzip\r\n\
        X-Twice: one\r\nX-Twice: two\r\n\
        Id: the target's own\r\n\
        X-Hop: stops here\r\nKeep-Alive: timeout=5\r\nConnection: X-Hop\r\n";
    let mut chunked = BytesMut::from(head);
    chunked.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n5;extension=1\r\n");
    chunked.extend_from_slice(&body[..5]);
    chunked.extend_from_slice(format!("\r\n{:X}\r\n", body.len() - 5).as_bytes());
    chunked.extend_from_slice(&body[5..]);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let mut measured = BytesMut::from(head);
    measured.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    measured.extend_from_slice(body);
    // Without either, the body ends with the connection.
    let mut to_end = BytesMut::from(head);
    to_end.extend_from_slice(b"\r\n");
    to_end.extend_from_slice(body);

    let proxy = Proxy::start(&[]).await;
    let answers = [
        ("chunked", chunked),
        ("measured", measured),
        ("to-end", to_end),
    ];
    for (name, bytes) in answers {
        let bytes = bytes.freeze();
        let target = Target::start(move |_, mut connection| {
            let bytes = bytes.clone();
            async move {
                connection.send(&bytes).await.unwrap();
                None
            }
        })
        .await;
        let _client = Client::start(&proxy.url(), &target.url("/"), name, &[]);
        proxy.registered(name).await;
        let answer = proxy.scrape(&format!("http://{name}/metrics"), 10.0).await;
        assert!(
            answer
                .head
                .starts_with("HTTP/1.1 418 I Am A Teapot, Really"),
            "{name}: {}",
            answer.head
        );
        assert_eq!(answer.body, body, "{name}");
        assert!(answer.whole, "{name}");
        assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{name}");
        let twice: Vec<&str> = answer
            .head
            .lines()
            .filter_map(|line| {
                let (header, value) = line.split_once(": ")?;
                header.eq_ignore_ascii_case("x-twice").then_some(value)
            })
            .collect();
        assert_eq!(twice, ["one", "two"], "{name}");
        for header in ["Id", "X-Hop", "Keep-Alive", "X-Prometheus-Scrape-Timeout"] {
            assert_eq!(answer.header(header), None, "{name}: {header}");
        }
    }
}

#[tokio::test]
async fn a_name_matches_whatever_the_case_and_a_bare_one_whatever_the_port() {
    let target = Target::echoing().await;
    let proxy = Proxy::start(&[]).await;
    let _bare = Client::start(&proxy.url(), &target.url("/?bare"), "Bare.Test", &[]);
    let _port = Client::start(&proxy.url(), &target.url("/?port"), "bare.test:9100", &[]);
    proxy.registered("bare.test").await;
    proxy.registered("bare.test:9100").await;
    for (url, expected) in [
        ("http://BARE.test/metrics", "bare"),
        ("http://bare.test:80/metrics", "bare"),
        ("http://bare.test:9200/metrics", "bare"),
        ("http://bare.TEST:9100/metrics", "port"),
    ] {
        let answer = proxy.scrape(url, 5.0).await;
        assert_eq!(answer.text(), expected, "{url}: {}", answer.head);
    }
}

#[tokio::test]
async fn a_pull_that_fails_is_explained_in_the_reason() {
    let closed = pushprox_testkit::wait::free_port();
    let silent = Target::start(|_, connection| async move {
        // It never answers, and hangs up when the client does.
        let mut connection = connection;
        connection.rest().await;
        None
    })
    .await;
    let proxy = Proxy::start(&[]).await;
    let refused = format!("http://127.0.0.1:{closed}/metrics");
    let _refused = Client::start(&proxy.url(), &refused, "refused.test", &[]);
    let _silent = Client::start(&proxy.url(), &silent.url("/"), "silent.test", &[]);
    let unknown = "http://nowhere.invalid/metrics";
    let _unknown = Client::start(&proxy.url(), unknown, "unknown.test", &[]);
    for (name, statuses, reason) in [
        ("refused.test", &[502u16] as &[u16], "refused"),
        ("silent.test", &[504], ""),
        // Where there is no resolver to ask, it is the time that ends the pull.
        ("unknown.test", &[502, 504], ""),
    ] {
        proxy.registered(name).await;
        let answer = proxy.scrape(&format!("http://{name}/metrics"), 3.0).await;
        assert!(statuses.contains(&answer.status()), "{name}: {answer:?}");
        let said = answer.reason();
        assert!(said.contains(reason), "{name}: {said:?}");
        let bare = ["", "Bad Gateway", "Gateway Timeout"];
        assert!(!bare.contains(&said), "{name}: {said:?} tells nothing");
    }
}

#[tokio::test]
async fn the_token_goes_to_the_target_and_nowhere_else() {
    let target = Target::saying("").await;
    let proxy = Proxy::start(&[]).await;
    let mut command = pushprox_testkit::pushprox::binary("client");
    command
        .env("PROXY_URL", proxy.url())
        .env("PULL_URL", target.url("/metrics"))
        .env("PROM_TOKEN", "sesame")
        .args(["--fqdn=token.test", "--metrics-addr=", "--log.level=debug"]);
    let client = Client::run(command);
    proxy.registered("token.test").await;
    let answer = proxy.scrape("http://token.test/metrics", 5.0).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(!format!("{answer:?}").contains("sesame"));
    let request = target.requests().pop().unwrap();
    assert_eq!(request.header("X-Prom-Pull-Token"), Some("sesame"));
    assert_eq!(client.daemon.lines_with(&["sesame"]), [""; 0]);
}

/// What Debian's gzip makes of the body.
async fn gunzipped(answer: &Message) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &answer.body).unwrap();
    let mut gzip = command("gzip");
    gzip.arg("-dc").stdin(file.reopen().unwrap());
    let outcome = run(gzip).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout
}
