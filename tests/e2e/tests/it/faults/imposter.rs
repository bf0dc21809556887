//! A client that answers for another: it would have to guess an id of 122 random bits. Where clients
//! have to show who they are, not even a stolen id helps (`attacks`).

use pushprox_testkit::pushprox::Proxy;
use pushprox_testkit::rest::withstands;
use pushprox_testkit::wire::{Connection, Message, ask, scrape_request};

#[tokio::test]
async fn who_answers_for_anothers_id_reaches_nobody() {
    let proxy = Proxy::start(&[]).await;
    withstands(&proxy, async || {
        for _ in 0..100 {
            let (mut alices, alice) = handed_out(&proxy, "alice.test").await;
            let (mut mallorys, mallory) = handed_out(&proxy, "mallory.test").await;
            // The neighbours of Alice's id, and Mallory's own a second time.
            for digit in ['0', '1', 'f'] {
                let mut guess = alice.clone();
                guess.pop();
                guess.push(digit);
                if guess != alice {
                    assert_eq!(push(&proxy, &guess, "forged").await.status(), 410);
                }
            }
            assert_eq!(push(&proxy, &mallory, "mallory").await.status(), 200);
            assert_eq!(push(&proxy, &mallory, "forged").await.status(), 410);
            assert_eq!(push(&proxy, &alice, "alice").await.status(), 200);
            assert_eq!(alices.receive().await.unwrap().text(), "alice");
            assert_eq!(mallorys.receive().await.unwrap().text(), "mallory");
        }
    })
    .await;
}

/// Has a client be handed a scrape: the scrape's connection, and its id.
async fn handed_out(proxy: &Proxy, name: &str) -> (Connection, String) {
    let mut poll = Connection::open(proxy.address).await.unwrap();
    poll.send(&post("/poll", name)).await.unwrap();
    let mut scrape = Connection::open(proxy.address).await.unwrap();
    let request = scrape_request(&format!("http://{name}/"), 10.0, "");
    scrape.send(&request).await.unwrap();
    let instruction = poll.receive().await.unwrap().text();
    let id = instruction
        .lines()
        .find_map(|line| line.strip_prefix("Id: "));
    (scrape, id.unwrap().to_owned())
}

async fn push(proxy: &Proxy, id: &str, body: &str) -> Message {
    let length = body.len();
    let message = format!("HTTP/1.1 200 OK\r\nId: {id}\r\nContent-Length: {length}\r\n\r\n{body}");
    ask(proxy.address, &post("/push", &message)).await.unwrap()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
