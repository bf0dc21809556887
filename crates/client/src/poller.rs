//! The poll loop: one poll open at any time, each scrape in a task of its own, and patience with a
//! proxy that does not answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pushprox_daemon::Shutdown;
use pushprox_daemon::reload::Reloaded;
use pushprox_protocol::Fqdn;
use pushprox_protocol::headers::{PREFER, PREFERENCE_APPLIED, wait_seconds};
use pushprox_protocol::message::MessageError;
use pushprox_protocol::message::request::{Instruction, Unusable};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::backoff::{Backoff, random};
use crate::error::{PollError, PullError, why};
use crate::executor::Executor;
use crate::http::discard;
use crate::leg::{LegError, ProxyLeg};
use crate::metrics::Metrics;
use crate::proxy_url::ProxyUrl;
use crate::readiness::Readiness;

/// Polls one proxy under one name.
#[derive(Debug)]
pub struct Poller {
    leg: Arc<Reloaded<ProxyLeg, LegError>>,
    url: ProxyUrl,
    name: Bytes,
    wait: Option<u32>,
    backoff: Backoff,
    readiness: Arc<Readiness>,
    metrics: Metrics,
    /// Whether the proxy's last answer said that it ends polls by their `Prefer: wait`.
    honours_wait: bool,
    /// When the log last told of failures at the level of a warning.
    warned: Option<Instant>,
}

impl Poller {
    /// A poller that asks the proxy to hold polls for `wait` seconds.
    #[must_use]
    pub fn new(
        leg: Arc<Reloaded<ProxyLeg, LegError>>,
        url: ProxyUrl,
        fqdn: &Fqdn,
        wait: Option<u32>,
        backoff: Backoff,
        readiness: Arc<Readiness>,
        metrics: Metrics,
    ) -> Self {
        Self {
            leg,
            url,
            name: fqdn.to_string().into(),
            wait,
            backoff,
            readiness,
            metrics,
            honours_wait: false,
            warned: None,
        }
    }

    /// Polls until the shutdown begins, whatever the proxy does. The poll that is then open is
    /// dropped; scrapes in hand are left to the shutdown.
    pub async fn run(mut self, executor: Arc<Executor>, shutdown: &Shutdown) {
        let slots = Arc::new(Semaphore::new(MAX_SCRAPES));
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                polled = self.poll() => polled,
            };
            match polled {
                Ok(Some(received)) => {
                    self.succeeded();
                    if let Some(turned_down) = take_on(received, &executor, &slots, shutdown) {
                        // Until it is turned down, no other scrape comes in.
                        tokio::select! {
                            () = shutdown.cancelled() => return,
                            _ = turned_down => {}
                        }
                    }
                }
                Ok(None) => self.succeeded(),
                Err(error) => {
                    let pause = self.failed(&error);
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// One poll: a scrape, or nothing when the wait was over before there was one.
    async fn poll(&mut self) -> Result<Option<Result<Instruction, Refused>>, PollError> {
        let started = Instant::now();
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
        let leg = self.leg.current();
        let answer = leg.execute(request);
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
        let answer = answer.map_err(|error| PollError::Request(why(&error.without_url())))?;
        self.honours_wait = applies_wait(answer.headers());
        match answer.status() {
            StatusCode::OK => read_instruction(answer).await.map(Some),
            StatusCode::NO_CONTENT => {
                let took = started.elapsed();
                discard(answer).await;
                // Asked again at once, such a proxy would be asked in a loop.
                if took < SHORTEST_WAIT {
                    return Err(PollError::TooSoon(took));
                }
                Ok(None)
            }
            _ => Err(PollError::Status(discard(answer).await)),
        }
    }

    fn succeeded(&mut self) {
        self.readiness.answered();
        if self.backoff.failures() > 0 {
            let failures = self.backoff.failures();
            info!(failures, "the proxy takes polls again");
            self.backoff.reset();
            self.warned = None;
        }
    }

    /// Counts and tells a failure, and says how long to wait after it.
    fn failed(&mut self, error: &PollError) -> Duration {
        self.metrics.poll_errors.inc();
        self.readiness.failed();
        let pause = self.backoff.fail(random());
        let failures = self.backoff.failures();
        let now = Instant::now();
        let is_news = self
            .warned
            .is_none_or(|last| now.duration_since(last) >= REMIND_AFTER);
        if is_news {
            self.warned = Some(now);
            warn!(%error, failures, retry_in = ?pause, "poll failed");
        } else {
            debug!(%error, failures, retry_in = ?pause, "poll failed");
        }
        pause
    }
}

/// Gives a scrape to a task of its own, and that task back where it is to be waited for.
fn take_on(
    instruction: Result<Instruction, Refused>,
    executor: &Arc<Executor>,
    slots: &Arc<Semaphore>,
    shutdown: &Shutdown,
) -> Option<JoinHandle<()>> {
    let received = Instant::now();
    let executor = Arc::clone(executor);
    let (method, id, why) = match (instruction, Arc::clone(slots).try_acquire_owned()) {
        (Ok(instruction), Ok(slot)) => {
            shutdown.spawn(async move {
                executor.carry_out(instruction, received).await;
                drop(slot);
            });
            return None;
        }
        (Ok(instruction), Err(_)) => (
            instruction.method,
            instruction.id,
            PullError::Busy(MAX_SCRAPES),
        ),
        (Err(Refused { id, why }), _) => (Method::GET, id, PullError::Instruction(why)),
    };
    Some(shutdown.spawn(async move { executor.turn_down(&method, &id, why, received).await }))
}

/// A scrape whose instruction cannot be carried out, but whose id is known.
struct Refused {
    id: HeaderValue,
    why: MessageError,
}

async fn read_instruction(
    mut answer: reqwest::Response,
) -> Result<Result<Instruction, Refused>, PollError> {
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
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|applied| wait_seconds(applied).is_some())
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

/// Scrapes in hand at once. Far more than one target has Prometheus servers, and few enough for
/// the memory of a small machine.
const MAX_SCRAPES: usize = 64;

const MAX_INSTRUCTION: usize = 1_024 * 1_024;

/// For the body of an answer whose head has come.
const INSTRUCTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than agreed the end of a poll may come.
const OVERDUE: Duration = Duration::from_secs(5);

/// A poll that ends sooner than this without a scrape was not held.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// How often the log repeats, above the debug level, that polls fail.
const REMIND_AFTER: Duration = Duration::from_secs(60);
