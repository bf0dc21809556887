//! A scrape target whose answers a test writes itself, down to the byte at which it breaks off.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::wire::{Connection, Message};

/// A listening target. It ends, with all its connections, on drop.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Message>>>,
    _serving: JoinSet<()>,
}

impl Target {
    /// Starts a target on loopback that lets `answer` deal with each request. `answer` gets the
    /// request and its connection; it returns the connection if another request may follow on it.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Message, Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Option<Connection>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, answer, Arc::clone(&requests)));
        Self {
            address,
            requests,
            _serving: serving,
        }
    }

    /// Starts a target that gives every request the same answer, a 200 with this body.
    pub async fn saying(body: &str) -> Self {
        let answer = ok(body);
        Self::start(move |_, mut connection| {
            let answer = answer.clone();
            async move {
                connection.send(&answer).await.ok()?;
                Some(connection)
            }
        })
        .await
    }

    /// Starts a target that answers each request with the query of its URL.
    pub async fn echoing() -> Self {
        Self::start(|request, mut connection| async move {
            let (_, query) = request.uri().split_once('?').unwrap_or_default();
            connection.send(&ok(query)).await.ok()?;
            Some(connection)
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests that it has had so far.
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().clone()
    }
}

/// A 200 with this body, framed by its length.
pub fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn serve<F, Fut>(listener: TcpListener, answer: F, requests: Arc<Mutex<Vec<Message>>>)
where
    F: Fn(Message, Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Option<Connection>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        let requests = Arc::clone(&requests);
        connections.spawn(async move {
            let mut connection = Some(Connection::over(stream));
            while let Some(mut open) = connection.take() {
                // The scraper's side hangs up, or leaves the connection idle for a minute.
                let Ok(request) = open.receive().await else {
                    return;
                };
                requests.lock().push(request.clone());
                connection = answer(request, open).await;
            }
        });
        // Those that have ended must not pile up.
        while connections.try_join_next().is_some() {}
    }
}
