//! A client to be tested, its log, and what it is told.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use pushprox_client::cli::Args;
use pushprox_client::config::Config;
use pushprox_daemon::logging::{self, LogArgs, LogFormat, LogLevel};
use pushprox_daemon::{Shutdown, cli};
use pushprox_testkit::wait::SOON;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

/// Waits for what must come, and fails where it does not.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("what was waited for did not come")
}

/// The log of the clients in this test, line by line, from the debug level on.
pub(crate) struct Log {
    lines: mpsc::UnboundedReceiver<String>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(crate) fn start() -> Self {
        // As long as tracing knows one subscriber only, what it does with an event for ever after is
        // decided by the thread that comes by first, and those of other tests have no subscriber.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
        LazyLock::force(&SECOND);
        let (sender, lines) = mpsc::unbounded_channel();
        let args = LogArgs {
            level: LogLevel::Debug,
            format: LogFormat::Logfmt,
        };
        let subscriber = logging::subscriber(&args, "proxyclient", move |line: &[u8]| {
            sender.send(String::from_utf8(line.to_vec()).unwrap()).ok();
        });
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Waits for a line with this message, which it gives.
    pub(crate) async fn line(&mut self, message: &str) -> String {
        let message = format!("msg=\"{message}\"");
        loop {
            let line = soon(self.lines.recv()).await.unwrap();
            if line.contains(&message) {
                return line;
            }
        }
    }

    /// What has been logged since the last line that was waited for.
    pub(crate) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.lines.try_recv().ok()).collect()
    }
}

/// Moves the clock. It goes on by itself again afterwards, because a clock that stands jumps ahead
/// of what is still on its way through a socket.
pub(crate) async fn time_passes(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Reads what has come on a connection, at least one byte.
pub(crate) async fn read_some(stream: &mut TcpStream) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(4_096);
    assert_ne!(soon(stream.read_buf(&mut buffer)).await.unwrap(), 0);
    buffer
}

/// A client that runs in the test.
pub(crate) struct Client {
    pub(crate) shutdown: Shutdown,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Client {
    /// Starts a client named `node` without pages of its own.
    pub(crate) fn start(proxy_url: &str, pull_url: &str, more: &[&str]) -> Self {
        Self::start_with_token(proxy_url, pull_url, more, None)
    }

    pub(crate) fn start_with_token(
        proxy_url: &str,
        pull_url: &str,
        more: &[&str],
        token: Option<&str>,
    ) -> Self {
        let flags = [
            "--proxy-url",
            proxy_url,
            "--pull-url",
            pull_url,
            "--fqdn=node",
            "--metrics-addr=",
        ];
        let flags: Vec<&str> = flags.iter().chain(more).copied().collect();
        let args = cli::parse_from::<Args>("client", flags).unwrap();
        let config = Config::new(args, token.map(Into::into)).unwrap();
        let shutdown = Shutdown::new();
        let running = pushprox_client::run(config, shutdown.clone());
        Self {
            shutdown,
            ended: TaskTracker::new().spawn(running),
        }
    }

    /// Ends the client as a signal does, and waits for its end.
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        soon(self.ended).await.unwrap().unwrap();
    }
}

/// A scrape as a proxy hands it out.
pub(crate) fn scrape(id: &str, query: &str, seconds: &str, headers: &str) -> String {
    format!(
        "GET http://node:9100/metrics{query} HTTP/1.1\r\nHost: node:9100\r\n{headers}Id: {id}\r\n\
         X-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n\r\n"
    )
}

/// A real message out of the recordings.
pub(crate) fn recording(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../protocol/tests/data/wire/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A recorded scrape that has seven seconds more than it had, for a machine that stands still.
pub(crate) fn with_more_time(recording: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(recording).unwrap();
    let time = "X-Prometheus-Scrape-Timeout-Seconds: ";
    assert!(text.contains(&format!("{time}2\r\n")), "{text}");
    text.replace(&format!("{time}2"), &format!("{time}9"))
        .into()
}

/// Takes the time that is left, which differs from run to run, out of a push, and puts the headers
/// in order, which have none.
pub(crate) fn without_time(push: &str) -> String {
    let (head, body) = push.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    let time = lines
        .iter()
        .position(|line| line.starts_with("X-Prometheus-Scrape-Timeout: "))
        .expect("the push tells the time that is left");
    let seconds: f64 = lines
        .remove(time)
        .split(": ")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds > 0.0 && seconds <= 15.0, "{seconds}");
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}
