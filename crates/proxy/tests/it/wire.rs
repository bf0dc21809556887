//! Whole exchanges with the bytes that were recorded from the Go programs.

use std::path::Path;

use pushprox_testkit::wire::Connection;

use crate::support::{Proxy, instruction, start};

fn recording(path: &str) -> Vec<u8> {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/data/wire");
    std::fs::read(wire.join(path)).unwrap()
}

/// Puts the id of this run in the place of the recorded one, in head and length.
fn with_id(push: &[u8], id: &str) -> Vec<u8> {
    let outer_end = find(push, b"\r\n\r\n") + 4;
    let message = &push[outer_end..];
    let start = find(message, b"\r\nId: ") + 6;
    let end = start + find(&message[start..], b"\r\n");
    let message = [&message[..start], id.as_bytes(), &message[end..]].concat();
    crate::support::push(&message)
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

/// A recorded scrape through a recorded poll: the scrape's connection and the id it got.
async fn scraped(proxy: &Proxy, line: &str, scrape: &str) -> (Connection, String, String) {
    let mut poll = proxy.connect().await;
    let request = recording(&format!("{line}/02-client-to-proxy.poll-request.bin"));
    poll.send(&request).await.unwrap();
    let name = String::from_utf8(request[find(&request, b"\r\n\r\n") + 4..].to_vec()).unwrap();
    proxy.registered(&name).await;
    let mut connection = proxy.connect().await;
    connection
        .send(&recording(&format!("{line}/{scrape}")))
        .await
        .unwrap();
    let given = instruction(&mut poll).await;
    (connection, given.id, given.text)
}

#[tokio::test]
async fn recorded_scrapes_come_back_as_the_go_proxies_gave_them() {
    let proxy = start().await;
    for line in ["fork", "upstream"] {
        for (scrape, instructed, pushed, received) in [
            (
                "01-prometheus-to-proxy.scrape-request.bin",
                "03-proxy-to-client.poll-response.bin",
                "05-client-to-proxy.push.bin",
                "07-proxy-to-prometheus.scrape-response.bin",
            ),
            (
                "01b-prometheus-to-proxy.scrape-request-params-basicauth.bin",
                "03b-proxy-to-client.poll-response-params-basicauth.bin",
                "05b-client-to-proxy.push-params.bin",
                "07b-proxy-to-prometheus.scrape-response-params.bin",
            ),
        ] {
            let (mut prometheus, id, text) = scraped(&proxy, line, scrape).await;
            let recorded = recording(&format!("{line}/{instructed}"));
            let recorded = String::from_utf8(recorded[find(&recorded, b"\r\n\r\n") + 4..].to_vec());
            assert_eq!(
                without_id(&text),
                without_id(&recorded.unwrap()),
                "{line}/{instructed}"
            );

            let push = with_id(&recording(&format!("{line}/{pushed}")), &id);
            assert_eq!(proxy.ask(push).await.status(), 200);
            let answer = prometheus.receive().await.unwrap();
            assert!(answer.whole);
            let recorded = received_by_prometheus(&recording(&format!("{line}/{received}"))).await;
            assert_eq!(answer.body, recorded.body, "{line}/{received}");
            for header in ["Content-Encoding", "Content-Type", "Date"] {
                assert_eq!(
                    answer.header(header),
                    recorded.header(header),
                    "{line}/{received}"
                );
            }
        }
    }
}

#[tokio::test]
async fn recorded_answers_of_every_kind_reach_prometheus() {
    let proxy = start().await;
    for client in ["client-fork", "client-upstream"] {
        for (name, status, reason) in [
            ("ok", 200, "OK"),
            ("noae", 200, "OK"),
            ("gzip", 200, "OK"),
            ("down", 500, "Internal Server Error"),
            ("404", 404, "Not Found"),
            ("500", 500, "Oh No"),
            ("redir", 200, "OK"),
            ("eof10", 200, "OK"),
            (
                "trunc",
                502,
                "client localhost sent a broken answer: the body breaks off before its end",
            ),
            ("204", 204, "No Content"),
            ("garbage", 500, "Internal Server Error"),
            ("close", 500, "Internal Server Error"),
            ("chunktrailer", 200, "OK"),
            ("conn", 200, "OK"),
            ("idheader", 200, "OK"),
        ] {
            let scrape = "01-prometheus-to-proxy.scrape-request.bin";
            let (mut prometheus, id, _) = scraped(&proxy, "upstream", scrape).await;
            let push = with_id(&recording(&format!("{client}/push-{name}.bin")), &id);
            proxy.ask(push).await;
            let answer = prometheus.receive().await.unwrap();
            assert_eq!(
                (answer.status(), answer.reason()),
                (status, reason),
                "{client} {name}"
            );
            assert!(answer.whole, "{client} {name}");
            assert_eq!(answer.header("Id"), None, "{client} {name}");
            assert_eq!(
                answer.header("X-Prometheus-Scrape-Timeout"),
                None,
                "{client} {name}"
            );
        }
    }
}

#[tokio::test]
async fn a_recorded_failure_of_upstreams_own_reaches_prometheus() {
    let proxy = start().await;
    let scrape = "01-prometheus-to-proxy.scrape-request.bin";
    let (mut prometheus, id, _) = scraped(&proxy, "upstream", scrape).await;
    let push = with_id(
        &recording("upstream/05c-client-to-proxy.push-error.bin"),
        &id,
    );
    assert_eq!(proxy.ask(push).await.status(), 200);
    let answer = prometheus.receive().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(
        answer.text(),
        "strconv.ParseFloat: parsing \"\": invalid syntax"
    );
}

#[tokio::test]
async fn a_recorded_connect_is_refused_with_what_to_do() {
    let proxy = start().await;
    for line in ["fork", "upstream"] {
        let answer = proxy
            .ask(recording(&format!(
                "{line}/01c-prometheus-to-proxy.https-CONNECT.bin"
            )))
            .await;
        assert_eq!(answer.status(), 501);
        assert!(answer.reason().starts_with("use scheme http"));
    }
}

fn without_id(instruction: &str) -> String {
    let mut lines: Vec<&str> = instruction
        .lines()
        .filter(|line| !line.starts_with("Id: "))
        .collect();
    // The order of headers means nothing, and Go's is random.
    lines.sort_unstable();
    lines.join("\n")
}

/// Reads a recorded answer as a peer would.
async fn received_by_prometheus(bytes: &[u8]) -> pushprox_testkit::wire::Message {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connection = Connection::open(address).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    Connection::over(server).send(bytes).await.unwrap();
    connection.receive().await.unwrap()
}
