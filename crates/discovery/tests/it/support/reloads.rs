//! A stand-in for Prometheus that does nothing but answer reloads, and reads its configuration as
//! Prometheus would at that moment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pushprox_testkit::wait::{free_port, listener_at};
use pushprox_testkit::wire::Connection;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A running stand-in.
pub struct Reloads {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinSet<()>,
}

struct Shared {
    target: PathBuf,
    /// Configurations that hold it are refused.
    dislikes: Mutex<Option<&'static str>>,
    status: Mutex<Option<&'static str>>,
    /// Whether requests are answered; else they wait.
    answers: watch::Sender<bool>,
    asked: AtomicUsize,
    loaded: Mutex<Vec<(bool, String)>>,
}

impl Reloads {
    /// Starts one that reads `target`.
    pub async fn start(target: &Path) -> Self {
        let mut reloads = Self {
            // Nobody else gets the port while it is away.
            address: ([127, 0, 0, 1], free_port()).into(),
            shared: Arc::new(Shared {
                target: target.to_owned(),
                dislikes: Mutex::default(),
                status: Mutex::default(),
                answers: watch::Sender::new(true),
                asked: AtomicUsize::new(0),
                loaded: Mutex::default(),
            }),
            serving: JoinSet::new(),
        };
        reloads.come_back().await;
        reloads
    }

    /// Refuses configurations with this text, or none.
    pub fn dislikes(&self, text: Option<&'static str>) {
        *self.shared.dislikes.lock() = text;
    }

    /// Answers with this status and does nothing, or breaks off without any, or works.
    pub fn says(&self, status: Option<&'static str>) {
        *self.shared.status.lock() = status;
    }

    /// Lets whoever asks wait, or answers.
    pub fn answers(&self, answers: bool) {
        self.shared.answers.send_replace(answers);
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Goes away.
    pub async fn go_away(&mut self) {
        self.serving.shutdown().await;
    }

    /// Is back.
    pub async fn come_back(&mut self) {
        let listener = listener_at(self.address).await;
        let shared = Arc::clone(&self.shared);
        self.serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = Connection::over(stream);
                if let Ok(request) = connection.receive().await {
                    assert_eq!((request.method(), request.uri()), ("POST", "/-/reload"));
                    shared.asked.fetch_add(1, Ordering::Relaxed);
                    let mut answers = shared.answers.subscribe();
                    answers.wait_for(|answers| *answers).await.ok();
                    let answer = shared.answer();
                    connection.send(answer.as_bytes()).await.ok();
                }
            }
        });
    }

    /// The configurations that it was to load, and whether it took each.
    pub fn seen(&self) -> Vec<(bool, String)> {
        self.shared.loaded.lock().clone()
    }

    /// The configuration that it has.
    pub fn config(&self) -> String {
        let seen = self.shared.loaded.lock();
        let taken = seen.iter().rev().find(|(is_taken, _)| *is_taken);
        taken.map(|(_, config)| config.clone()).unwrap_or_default()
    }
}

impl Shared {
    fn answer(&self) -> String {
        if let Some(status) = *self.status.lock() {
            if status.is_empty() {
                return String::new();
            }
            return format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let config = std::fs::read_to_string(&self.target).unwrap_or_default();
        let is_taken = self
            .dislikes
            .lock()
            .is_none_or(|text| !config.contains(text));
        self.loaded.lock().push((is_taken, config));
        if is_taken {
            return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        }
        let body = "failed to reload config: it has what I dislike\n";
        format!(
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}
