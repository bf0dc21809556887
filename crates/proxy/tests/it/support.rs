//! A running proxy, and the parts that its peers play.

use std::net::SocketAddr;

use pushprox_daemon::Shutdown;
use pushprox_daemon::listen::ListenAddress;
use pushprox_proxy::{Config, run};
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, Message, get, scrape_request, told_early};
use tokio::task::JoinHandle;

/// A proxy on a port of its own, which ends with the test.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: JoinHandle<()>,
}

/// A poll's answer that is a scrape.
pub(crate) struct Instruction {
    pub(crate) text: String,
    pub(crate) id: String,
}

pub(crate) fn config() -> Config {
    Config::default()
}

pub(crate) async fn start() -> Proxy {
    start_with(config()).await
}

pub(crate) async fn start_with(config: Config) -> Proxy {
    let listen: ListenAddress = "127.0.0.1:0".parse().unwrap();
    let listener = listen.bind().await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let runner = Shutdown::new();
    let ended = runner.spawn(run(config, vec![listener], shutdown.clone()));
    Proxy {
        address,
        shutdown,
        ended,
    }
}

impl Proxy {
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await.unwrap()
    }

    /// Sends one request and receives its answer.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        told_early(self.address, request.as_ref()).await
    }

    /// Parks a poll as this project's client sends it.
    pub(crate) async fn park(&self, name: &str) -> Connection {
        self.park_with(name, "Prefer: wait=45\r\n").await
    }

    pub(crate) async fn park_with(&self, name: &str, headers: &str) -> Connection {
        let mut connection = self.connect().await;
        connection.send(&poll(name, headers)).await.unwrap();
        self.registered(name).await;
        connection
    }

    /// Waits until a name is on the list of clients.
    pub(crate) async fn registered(&self, name: &str) {
        until("the name is registered", SOON, async || {
            self.names().await.contains(&name.to_owned()).then_some(())
        })
        .await;
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        let list: serde_json::Value =
            serde_json::from_slice(&get(self.address, "/clients").await.body).unwrap();
        let groups = list.as_array().unwrap();
        groups
            .iter()
            .map(|group| group["targets"][0].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sends a scrape; its answer is still to be received.
    pub(crate) async fn scrape(&self, url: &str, seconds: f64) -> Connection {
        let mut connection = self.connect().await;
        connection
            .send(&scrape_request(url, seconds, ""))
            .await
            .unwrap();
        connection
    }

    /// Sends a push whose body is `message`, and receives its answer.
    pub(crate) async fn push(&self, message: impl AsRef<[u8]>) -> Message {
        self.ask(push(message.as_ref())).await
    }

    /// A metric's value.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        let text = get(self.address, "/metrics").await.text();
        pushprox_testkit::pushprox::metric(&text, line)
    }

    /// Waits until a metric has this value: an answer is counted when it has gone out.
    pub(crate) async fn metric_is(&self, line: &str, value: f64) {
        until(&format!("{line} at {value}"), SOON, async || {
            (self.metric(line).await == Some(value)).then_some(())
        })
        .await;
    }
}

/// A poll as it goes over the wire.
pub(crate) fn poll(name: &str, headers: &str) -> Vec<u8> {
    let length = name.len();
    format!("POST /poll HTTP/1.1\r\nHost: proxy\r\n{headers}Content-Length: {length}\r\n\r\n{name}")
        .into_bytes()
}

/// A push as it goes over the wire.
pub(crate) fn push(message: &[u8]) -> Vec<u8> {
    let length = message.len();
    let mut bytes =
        format!("POST /push HTTP/1.1\r\nHost: proxy\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    bytes.extend_from_slice(message);
    bytes
}

/// Receives a poll's answer, which must be a scrape.
pub(crate) async fn instruction(poll: &mut Connection) -> Instruction {
    let answer = poll.receive().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.head);
    let text = answer.text();
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("Id: "))
        .unwrap()
        .to_owned();
    Instruction { text, id }
}

/// The message that answers a scrape with `body`.
pub(crate) fn answer(id: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nId: {id}\r\n\r\n{body}")
}
