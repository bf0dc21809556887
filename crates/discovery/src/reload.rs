//! Tells Prometheus to read its configuration again, and understands what it says to that.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use pushprox_daemon::exit::causes;
use pushprox_peer::urls::shown;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Why Prometheus has not loaded its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It has read the configuration and does not take it.
    #[error("Prometheus refuses the configuration: {0}")]
    Refused(String),
    /// Nothing listens there.
    #[error("cannot connect to Prometheus: {0}")]
    Down(String),
    /// It answers, and has not tried: it is starting, or does not let itself be reloaded.
    #[error("Prometheus does not reload: {0}")]
    Unavailable(String),
    /// Something listens there, and what it does is not known.
    #[error("Prometheus has not answered: {0}")]
    Unanswered(String),
}

impl ReloadError {
    /// Whether Prometheus has said nothing, be it that it is away, that it is starting, or that it is
    /// not understood.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Unanswered(_))
    }

    /// The kind of failure, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Down(_) => "down",
            Self::Unavailable(_) => "unavailable",
            Self::Unanswered(_) => "unanswered",
        }
    }
}

/// Where Prometheus is told to reload.
pub struct Reloader {
    client: Client,
    url: Url,
    /// The request that is under way, or none. Prometheus takes each to its end, one after the other,
    /// whether anybody waits for it or not: more of them would only be more to do.
    asked: JoinSet<Result<(), ReloadError>>,
    /// Whether that one may have been for a configuration that has been replaced since.
    is_outdated: bool,
    patience: Duration,
}

impl Reloader {
    /// A reloader for this URL, whose credentials, if it has any, are sent.
    ///
    /// # Errors
    ///
    /// When the system's certificates cannot be used.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // A connection that Prometheus has closed meanwhile would look like a failure.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            client,
            url,
            asked: JoinSet::new(),
            is_outdated: false,
            patience: PATIENCE,
        })
    }

    /// Prometheus has another configuration to load than before.
    pub fn file_changed(&mut self) {
        self.is_outdated = !self.asked.is_empty();
    }

    /// Asks for a reload of what is there, and waits for a while for the answer; the next call goes
    /// on waiting. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] tells whether the configuration is to blame.
    pub async fn reload(&mut self) -> Result<(), ReloadError> {
        let patience = self.patience;
        timeout(patience, self.answer()).await.unwrap_or_else(|_| {
            Err(ReloadError::Unanswered(format!(
                "the reload takes more than {patience:?} and is waited for; it may be starting or have \
                 much to load, which its own log tells"
            )))
        })
    }

    async fn answer(&mut self) -> Result<(), ReloadError> {
        loop {
            if self.asked.is_empty() {
                self.is_outdated = false;
                self.asked.spawn(ask(self.client.post(self.url.clone())));
            }
            if let Some(answer) = self.asked.join_next().await
                && !self.is_outdated
            {
                let died = |_| ReloadError::Unanswered("the request was given up".to_owned());
                return answer.map_err(died)?;
            }
        }
    }
}

async fn ask(request: RequestBuilder) -> Result<(), ReloadError> {
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let text = first_words(response).await;
    Err(match status {
        StatusCode::INTERNAL_SERVER_ERROR => ReloadError::Refused(text),
        StatusCode::FORBIDDEN => ReloadError::Unavailable(format!(
            "{status}: {text}: start it with --web.enable-lifecycle"
        )),
        _ => ReloadError::Unavailable(format!("{status}: {text}")),
    })
}

fn failed(error: reqwest::Error) -> ReloadError {
    let error = error.without_url();
    let reason = causes(&error);
    // Whoever has said something wrong about TLS is there.
    match error.is_connect() && !is_about_tls(&error) {
        true => ReloadError::Down(reason),
        false => ReloadError::Unanswered(reason),
    }
}

fn is_about_tls(error: &reqwest::Error) -> bool {
    std::iter::successors(Some(error as &dyn Error), |&error| cause(error))
        .any(|cause| cause.is::<rustls::Error>())
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        // What it wraps is not among its sources, only that one's source is.
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => error.source(),
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.url))
    }
}

/// The beginning of an answer's body, for the log.
async fn first_words(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MESSAGE_LIMIT {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(MESSAGE_LIMIT);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Prometheus answers when it is done, which takes it a while with many rules and targets, and when it
/// starts with much that it has not yet written to its database.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1_800);
/// How long nothing else is done meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
const MESSAGE_LIMIT: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use pushprox_testkit::wait::{SOON, until};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_util::task::AbortOnDropHandle;

    /// A server that answers each request with the next of the texts that it is given, and then
    /// closes the connection.
    async fn server() -> (
        SocketAddr,
        mpsc::Sender<&'static str>,
        AbortOnDropHandle<()>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (say, mut said) = mpsc::channel::<&str>(8);
        let serving = tokio_util::task::TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(1..) = stream.read(&mut [0; 1_000]).await else {
                    continue;
                };
                let Some(text) = said.recv().await else {
                    return;
                };
                stream.write_all(text.as_bytes()).await.ok();
            }
        });
        (address, say, AbortOnDropHandle::new(serving))
    }

    fn reloader(scheme: &str, address: SocketAddr) -> Reloader {
        let url = format!("{scheme}://{address}/-/reload").parse().unwrap();
        Reloader::new(url).unwrap()
    }

    async fn label(reloader: &mut Reloader) -> &'static str {
        let outcome = reloader.reload().await;
        eprintln!("{outcome:?}");
        outcome.map_or_else(|error| error.label(), |()| "ok")
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const REFUSED: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno";

    #[tokio::test]
    async fn only_a_prometheus_that_cannot_be_connected_to_is_down() {
        let (address, say, serving) = server().await;
        for (scheme, text, wanted) in [
            ("http", OK, "ok"),
            ("http", REFUSED, "refused"),
            ("http", "HTTP/1.1 403 Forbidden\r\n\r\n", "unavailable"),
            ("http", "", "unanswered"),
            ("http", "no HTTP\r\n\r\n", "unanswered"),
            ("https", OK, "unanswered"),
        ] {
            say.send(text).await.unwrap();
            let mut reloader = reloader(scheme, address);
            assert_eq!(label(&mut reloader).await, wanted, "{scheme} {text}");
        }
        drop(serving);
        let mut reloader = reloader("http", address);
        until("nobody listens", SOON, async || {
            (label(&mut reloader).await == "down").then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_reload_that_takes_long_is_waited_for_and_not_asked_for_again() {
        let (address, say, _serving) = server().await;
        let mut reloader = reloader("http", address);
        reloader.patience = Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(label(&mut reloader).await, "unanswered");
        }
        say.send(OK).await.unwrap();
        reloader.patience = SOON;
        assert_eq!(label(&mut reloader).await, "ok");
        // Had it been asked again, the answer to that would be the next one.
        say.send(REFUSED).await.unwrap();
        assert_eq!(label(&mut reloader).await, "refused");
    }

    #[tokio::test]
    async fn an_answer_about_what_has_been_replaced_is_not_taken() {
        let (address, say, _serving) = server().await;
        let mut reloader = reloader("http", address);
        reloader.patience = Duration::from_millis(1);
        assert_eq!(label(&mut reloader).await, "unanswered");
        reloader.file_changed();
        reloader.patience = SOON;
        say.send(OK).await.unwrap();
        say.send(REFUSED).await.unwrap();
        assert_eq!(label(&mut reloader).await, "refused");
        reloader.file_changed();
        say.send(OK).await.unwrap();
        assert_eq!(label(&mut reloader).await, "ok");
    }
}
