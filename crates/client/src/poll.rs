//! One poll: asks the proxy for a scrape, and reads what it answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pushprox_daemon::reload::Reloaded;
use pushprox_peer::leg::LegError;
use pushprox_protocol::Fqdn;
use pushprox_protocol::headers::{PREFER, PREFERENCE_APPLIED, members, wait_seconds};
use pushprox_protocol::message::MessageError;
use pushprox_protocol::message::instruction::{Instruction, Unusable};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::error::{PollError, why};
use crate::http::discard;
use crate::leg::ProxyLeg;
use crate::proxy_url::ProxyUrl;
use crate::readiness::Readiness;
use crate::urls::HttpUrl;

/// Asks one proxy under one name.
#[derive(Debug)]
pub struct Polls {
    leg: Arc<Reloaded<ProxyLeg, LegError>>,
    url: ProxyUrl,
    name: Bytes,
    wait: Option<u32>,
    readiness: Arc<Readiness>,
    /// Whether the proxy's last answer said that it ends polls by their `Prefer: wait`.
    honours_wait: bool,
}

/// A scrape whose instruction cannot be carried out, but whose id is known.
#[derive(Debug)]
pub struct Refused {
    pub(crate) id: HeaderValue,
    pub(crate) why: MessageError,
}

impl Polls {
    /// Polls that ask the proxy to hold them for `wait` seconds. The readiness is told when one has
    /// gone out.
    #[must_use]
    pub fn new(
        leg: Arc<Reloaded<ProxyLeg, LegError>>,
        url: ProxyUrl,
        fqdn: &Fqdn,
        wait: Option<u32>,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            leg,
            url,
            name: fqdn.to_string().into(),
            wait,
            readiness,
            honours_wait: false,
        }
    }

    /// Polls once: a scrape, or nothing when the wait was over before there was one.
    ///
    /// # Errors
    ///
    /// Neither of them came.
    pub async fn poll(&mut self) -> Result<Option<Result<Instruction, Refused>>, PollError> {
        let started = Instant::now();
        let request = self.request();
        let leg = self.leg.current();
        let answer = leg.poll(request);
        let answer = match self.wait {
            // A poll is given up only where the proxy has said that it would have ended it. Go
            // proxies never end one, and the fork's serves nobody after an abandoned one: there a
            // dead connection is found by keep-alive.
            Some(wait) if self.honours_wait => {
                let limit = Duration::from_secs(wait.into()) + OVERDUE;
                // Another proxy may answer next: it has to say so again.
                self.honours_wait = false;
                timeout(limit, answer)
                    .await
                    .map_err(|_| PollError::Overdue)?
            }
            _ => answer.await,
        };
        let answer = answer.map_err(PollError::request)?;
        self.honours_wait = applies_wait(answer.headers());
        match answer.status() {
            StatusCode::OK => read_instruction(answer).await.map(Some),
            StatusCode::NO_CONTENT => {
                let took = started.elapsed();
                discard(answer).await;
                // Asked again at once, such a proxy would be asked in a loop.
                if took < SHORTEST_WAIT {
                    return Err(PollError::TooSoon);
                }
                Ok(None)
            }
            status if status.is_redirection() => {
                let elsewhere = elsewhere(self.url.poll(), answer.headers());
                let told = discard(answer).await;
                Err(elsewhere.map_or(PollError::Status(told.clone()), |to| {
                    PollError::Redirect(told, to)
                }))
            }
            _ => Err(PollError::Status(discard(answer).await)),
        }
    }

    fn request(&self) -> reqwest::Request {
        let mut request = reqwest::Request::new(Method::POST, self.url.poll().clone());
        *request.body_mut() = Some(reqwest::Body::wrap(Name {
            bytes: Some(self.name.clone()),
            readiness: Arc::clone(&self.readiness),
        }));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Some(preference) = self.wait.map(|wait| format!("wait={wait}"))
            && let Ok(value) = HeaderValue::try_from(preference)
        {
            headers.insert(PREFER, value);
        }
        request
    }
}

async fn read_instruction(
    mut answer: reqwest::Response,
) -> Result<Result<Instruction, Refused>, PollError> {
    let is_page = is_page(answer.headers());
    let mut body = BytesMut::new();
    let reading = async {
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_INSTRUCTION {
                return Ok(false);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(true)
    };
    match timeout(INSTRUCTION_TIMEOUT, reading).await {
        Ok(Ok(true)) => match Instruction::decode(&body.freeze()) {
            Ok(instruction) => Ok(Ok(instruction)),
            Err(Unusable { id: Some(id), why }) => Ok(Err(Refused { id, why })),
            Err(Unusable { id: None, .. }) if is_page => Err(PollError::Page),
            Err(Unusable { id: None, why }) => Err(PollError::NotAnInstruction(why)),
        },
        Ok(Ok(false)) => Err(PollError::TooLong(MAX_INSTRUCTION)),
        Ok(Err(error)) => {
            let error: reqwest::Error = error;
            Err(PollError::BrokenOff(why(&error.without_url())))
        }
        Err(_) => Err(PollError::BrokenOff("it did not come in time".to_owned())),
    }
}

fn applies_wait(headers: &HeaderMap) -> bool {
    headers
        .get_all(PREFERENCE_APPLIED)
        .iter()
        .flat_map(|value| members(value.as_bytes()))
        .any(|applied| wait_seconds(applied).is_some())
}

fn is_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"text/html")
    })
}

/// Where an answer redirects to, without what may be secret in it.
fn elsewhere(from: &Url, headers: &HeaderMap) -> Option<String> {
    let to = headers.get(LOCATION)?.to_str().ok()?;
    let to = HttpUrl::parse(from.join(to).ok()?.as_str()).ok()?;
    Some(to.shown())
}

/// The body of a poll. It is asked for once there is a connection to write it to.
struct Name {
    bytes: Option<Bytes>,
    readiness: Arc<Readiness>,
}

impl Body for Name {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let bytes = self.bytes.take();
        if bytes.is_some() {
            self.readiness.sent(Instant::now());
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

const MAX_INSTRUCTION: usize = 1_024 * 1_024;

/// For the body of an answer whose head has come.
const INSTRUCTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than agreed the end of a poll may come.
const OVERDUE: Duration = Duration::from_secs(5);

/// A poll that ends sooner than this without a scrape was not held.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_redirect_leads_is_told_without_secrets() {
        let from: Url = "http://proxy:8080/a/poll".parse().unwrap();
        for (location, told) in [
            ("/login", Some("http://proxy:8080/login")),
            (
                "https://portal.example.org/?session=s3cret",
                Some("https://portal.example.org/"),
            ),
            ("https://u:s3cret@portal/x", Some("https://portal/x")),
            ("ftp://portal/", None),
            ("http://", None),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            assert_eq!(elsewhere(&from, &headers).as_deref(), told, "{location}");
        }
        assert_eq!(elsewhere(&from, &HeaderMap::new()), None);
    }
}
