//! Many rounds: polls are parked and answered, and scrapes come at any moment.

use pushprox_testkit::wire::Connection;
use tokio::task::JoinSet;

use crate::support::{Proxy, answer, instruction, poll, push, start};

#[tokio::test]
async fn of_a_hundred_thousand_polls_and_scrapes_none_is_lost() {
    let proxy = start().await;
    let mut rounds = JoinSet::new();
    for number in 0..CLIENTS {
        let name = format!("node-{number}");
        let connection = proxy.connect().await;
        match number % 2 {
            0 => rounds.spawn(answer_behind(connection, name.clone())),
            _ => rounds.spawn(answer_beside(
                connection,
                proxy.connect().await,
                name.clone(),
            )),
        };
        rounds.spawn(scrape(proxy.connect().await, name));
    }
    while let Some(ended) = rounds.join_next().await {
        ended.unwrap();
    }
    let answered = r#"pushprox_http_requests_total{code="200",path="/poll"}"#;
    let polls = f64::from(CLIENTS * ROUNDS);
    proxy.metric_is(answered, polls).await;
}

/// A client with one connection: the next poll goes out behind the push.
async fn answer_behind(mut connection: Connection, name: String) {
    connection.send(&poll(&name, "")).await.unwrap();
    for _ in 0..ROUNDS {
        let (id, path) = given(&mut connection).await;
        let mut both = push(answer(&id, &path).as_bytes());
        both.extend(poll(&name, ""));
        connection.send(&both).await.unwrap();
        assert_eq!(connection.receive().await.unwrap().status(), 200);
    }
}

/// A client with two: it polls again before it pushes.
async fn answer_beside(mut polls: Connection, mut pushes: Connection, name: String) {
    polls
        .send(&poll(&name, "Prefer: wait=45\r\n"))
        .await
        .unwrap();
    for _ in 0..ROUNDS {
        let (id, path) = given(&mut polls).await;
        polls
            .send(&poll(&name, "Prefer: wait=45\r\n"))
            .await
            .unwrap();
        pushes
            .send(&push(answer(&id, &path).as_bytes()))
            .await
            .unwrap();
        assert_eq!(pushes.receive().await.unwrap().status(), 200);
    }
}

/// The id and the path of the scrape that a poll is answered with.
async fn given(polls: &mut Connection) -> (String, String) {
    let given = instruction(polls).await;
    let path = given.text.split(' ').nth(1).unwrap();
    (given.id, path.to_owned())
}

/// Scrapes a client again and again. Each answer must be that to its own scrape.
async fn scrape(mut connection: Connection, name: String) {
    for round in 0..ROUNDS {
        let url = format!("http://{name}/{round}");
        let request = format!(
            "GET {url} HTTP/1.1\r\nHost: {name}\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 120\r\n\r\n"
        );
        connection.send(request.as_bytes()).await.unwrap();
        let answer = connection.receive().await.unwrap();
        assert_eq!((answer.status(), answer.text()), (200, url));
    }
}

#[tokio::test]
async fn a_scrape_in_the_very_moment_of_parking_is_handed_out() {
    let proxy = start().await;
    for round in 0..200 {
        let name = format!("node-{round}");
        let mut client = proxy.connect().await;
        let mut scraper = proxy.connect().await;
        let (poll, scrape) = (poll(&name, ""), request(&name));
        match round % 2 {
            0 => tokio::try_join!(client.send(&poll), scraper.send(&scrape)).unwrap(),
            _ => tokio::try_join!(scraper.send(&scrape), client.send(&poll)).unwrap(),
        };
        complete(&proxy, &mut client, &mut scraper).await;
    }
}

async fn complete(proxy: &Proxy, client: &mut Connection, scraper: &mut Connection) {
    let (id, path) = given(client).await;
    assert_eq!(proxy.push(answer(&id, &path)).await.status(), 200);
    let answer = scraper.receive().await.unwrap();
    assert_eq!((answer.status(), answer.text()), (200, path));
}

fn request(name: &str) -> Vec<u8> {
    pushprox_testkit::wire::scrape_request(&format!("http://{name}/metrics"), 60.0, "")
}

const CLIENTS: u32 = 16;
const ROUNDS: u32 = 6_250;
