//! A scrape: Prometheus asks for a target in absolute form, and gets its client's answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pushprox_daemon::guard::{Denied, Place};
use pushprox_daemon::respond;
use pushprox_protocol::headers::{self, ID, SCRAPE_TIMEOUT};
use pushprox_protocol::message::request::Scrape;
use pushprox_protocol::message::response::Framing;
use pushprox_protocol::{ScrapeId, Target};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::Proxy;
use crate::access::{Peer, Role};
use crate::answer::{BrokenPush, PushedBody, ScrapeAnswer};
use crate::error::Failure;
use crate::exchange::Line;

/// Has the target scraped by its client.
pub(crate) async fn handle(
    proxy: &Arc<Proxy>,
    peer: &Peer,
    line: &Arc<Line>,
    request: Request<Incoming>,
) -> Response<Either<Full<Bytes>, ScrapeBody>> {
    let (head, _) = request.into_parts();
    let access = &proxy.access;
    let deny = |denied: &Denied| {
        proxy.metrics.proxied(denied.status(Place::Proxied));
        denied.respond(Place::Proxied).map(Either::Left)
    };
    let admitted = access.admit(peer, Role::Scraper, &head.headers, Place::Proxied);
    let grant = match admitted.await {
        Ok(grant) => grant,
        Err(denied) => return deny(&denied),
    };
    let target = match head.method {
        Method::CONNECT => Err(Failure::Tunnel),
        Method::GET | Method::HEAD => Target::from_uri(&head.uri).map_err(Failure::from),
        _ => Err(Failure::Method),
    };
    let target = match target {
        Ok(target) => target,
        Err(failure) => return refuse(proxy, &failure, &head.uri),
    };
    if !grant.may_reach(&target) {
        let denied = Denied::NotAllowed(format!("{} may not scrape {target}", grant.identity));
        access.turn_away(peer, &denied);
        return deny(&denied);
    }
    drop(grant);
    let timeout = proxy.timeouts.resolve(&head.headers);
    let id = ScrapeId::random();
    let mut report = Report::new(id, target.clone());
    // Whatever its client or Prometheus do, nothing of a scrape outlasts its time.
    line.end_at(report.started + timeout);
    let scrape = Scrape::new(head.method, head.uri, head.headers);
    match proxy.rendezvous.scrape(id, target, scrape, timeout).await {
        Ok(answer) => {
            proxy.metrics.proxied(answer.head.status);
            report.status = answer.head.status.as_u16();
            respond_with(answer, report, line.clone())
        }
        Err(failure) => {
            proxy.metrics.proxied(failure.status());
            report.end(&failure);
            respond::refusal(failure.status(), &failure.to_string()).map(Either::Left)
        }
    }
}

/// Answers what is no scrape at all.
fn refuse(
    proxy: &Proxy,
    failure: &Failure,
    uri: &http::Uri,
) -> Response<Either<Full<Bytes>, ScrapeBody>> {
    // The host alone: the rest of a URI may have credentials in it.
    warn!(host = uri.host().unwrap_or_default(), outcome = %failure, "a scrape is refused");
    proxy.metrics.proxied(failure.status());
    let mut response = respond::refusal(failure.status(), &failure.to_string());
    if *failure == Failure::Method {
        let allow = http::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    response.map(Either::Left)
}

/// The client's answer as Prometheus gets it.
fn respond_with(
    answer: ScrapeAnswer,
    report: Report,
    line: Arc<Line>,
) -> Response<Either<Full<Bytes>, ScrapeBody>> {
    let ScrapeAnswer {
        head,
        framing,
        body,
    } = answer;
    let mut headers = head.headers;
    headers::strip_hop_by_hop(&mut headers);
    headers.remove(ID);
    headers.remove(SCRAPE_TIMEOUT);
    if !matches!(framing, Framing::Length(_)) {
        headers.remove(CONTENT_LENGTH);
    }
    line.partial(true);
    let body = ScrapeBody {
        body,
        report: Some(report),
        line,
    };
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    if head.status.canonical_reason() != Some(&head.reason) {
        let reason = respond::reason_phrase(&head.reason);
        response.extensions_mut().insert(reason);
    }
    response
}

/// A pushed body on its way to Prometheus. It tells its connection and the log how it ends.
#[derive(Debug)]
pub(crate) struct ScrapeBody {
    body: PushedBody,
    report: Option<Report>,
    line: Arc<Line>,
}

impl http_body::Body for ScrapeBody {
    type Data = Bytes;
    type Error = BrokenPush;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenPush>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(report), Some(data)) = (&mut self.report, frame.data_ref()) {
                    report.bytes += data.len() as u64;
                }
            }
            Some(Err(error)) => {
                if let Some(report) = self.report.take() {
                    report.end(error);
                }
            }
            None => self.line.partial(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ScrapeBody {
    fn drop(&mut self) {
        if self.body.is_whole() {
            self.line.partial(false);
            if let Some(report) = self.report.take() {
                report.answered();
            }
        }
    }
}

/// One scrape's line in the log, written when it ends, whichever way.
#[derive(Debug)]
struct Report {
    id: ScrapeId,
    target: Target,
    started: Instant,
    status: u16,
    bytes: u64,
    is_told: bool,
}

impl Report {
    fn new(id: ScrapeId, target: Target) -> Self {
        Self {
            id,
            target,
            started: Instant::now(),
            status: 0,
            bytes: 0,
            is_told: false,
        }
    }

    /// The answer has been passed on whole.
    fn answered(mut self) {
        self.is_told = true;
        let (status, bytes, duration) = (self.status, self.bytes, self.started.elapsed());
        if (200..300).contains(&status) {
            debug!(scrape_id = %self.id, fqdn = %self.target, outcome = "answered", status, bytes, ?duration, "scrape");
        } else {
            warn!(scrape_id = %self.id, fqdn = %self.target, outcome = "the target is unhealthy", status, bytes, ?duration, "scrape");
        }
    }

    /// It has ended in a failure.
    fn end(mut self, outcome: &dyn std::fmt::Display) {
        self.warn(outcome);
    }

    fn warn(&mut self, outcome: &dyn std::fmt::Display) {
        self.is_told = true;
        let duration = self.started.elapsed();
        warn!(scrape_id = %self.id, fqdn = %self.target, %outcome, bytes = self.bytes, ?duration, "scrape");
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_told {
            self.warn(&"Prometheus hung up before it had the answer");
        }
    }
}
