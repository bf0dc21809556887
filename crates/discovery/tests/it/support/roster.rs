//! A stand-in for a proxy: answers `/clients` with whom the test says.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use pushprox_testkit::target::Target;
use pushprox_testkit::wire::Message;

/// A running stand-in.
pub struct Roster {
    target: Target,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone)]
enum Answer {
    Body(String),
    Status(&'static str),
    Silence,
}

impl Roster {
    /// Starts one that lists these clients.
    pub async fn of(names: &[&str]) -> Self {
        let answer = Arc::new(Mutex::new(Answer::Body(list(names))));
        let given = Arc::clone(&answer);
        let target = Target::start(move |_, mut connection| {
            let answer = given.lock().clone();
            async move {
                let (status, body) = match answer {
                    Answer::Body(body) => ("200 OK", body),
                    Answer::Status(status) => (status, "the reason\n".to_owned()),
                    Answer::Silence => std::future::pending().await,
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                connection.send(&[head.as_bytes(), body.as_bytes()].concat()).await.ok()?;
                Some(connection)
            }
        })
        .await;
        Self { target, answer }
    }

    /// Lists these clients from now on.
    pub fn lists(&self, names: &[&str]) {
        self.says(&list(names));
    }

    /// Answers with this body from now on.
    pub fn says(&self, body: &str) {
        *self.answer.lock() = Answer::Body(body.to_owned());
    }

    /// Answers with this status from now on.
    pub fn fails(&self, status: &'static str) {
        *self.answer.lock() = Answer::Status(status);
    }

    /// Answers nothing any more.
    pub fn falls_silent(&self) {
        *self.answer.lock() = Answer::Silence;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.target.address()
    }

    /// What it was asked.
    pub fn requests(&self) -> Vec<Message> {
        self.target.requests()
    }
}

fn list(names: &[&str]) -> String {
    let groups = names
        .iter()
        .map(|name| serde_json::json!({"targets": [name], "labels": {}}));
    serde_json::Value::Array(groups.collect()).to_string()
}
