//! What somebody tries who means harm, and the refusal of each. Here is what the attempts have in
//! common.

mod framing;
mod headers;
mod identity;
mod reach;

use pushprox_testkit::pushprox::Proxy;
use pushprox_testkit::wire::{Connection, Message, scrape_request};

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
