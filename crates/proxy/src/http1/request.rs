//! The head of a request, as far as a connection must know it to decide who serves it.

use std::mem::MaybeUninit;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use pushprox_protocol::duration;
use pushprox_protocol::headers::{self, Field};
use pushprox_protocol::message::body::{Framing, content_length};
use pushprox_protocol::message::scrape::{Scrape, ScrapeError};
use pushprox_protocol::message::{FEW_HEADERS, MAX_HEADERS};

use super::head_room::NoRoom;
use crate::limits::{Limit, Limits};

/// A request whose head has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The length of the head in bytes.
    pub(crate) head: usize,
    pub(crate) kind: Kind,
    /// How its body is framed.
    pub(crate) body: Framing,
    /// Whether the connection may go on behind it.
    pub(crate) keep_alive: bool,
    pub(crate) is_http_1_1: bool,
    /// Whether its answer has no body.
    pub(crate) is_head: bool,
    /// Whether its sender waits for leave to send the body.
    pub(crate) expects_continue: bool,
    /// The credentials for the proxy, if there are any: the `Authorization` of a poll or a push, the
    /// `Proxy-Authorization` of a scrape.
    pub(crate) credentials: Option<Box<HeaderMap>>,
    /// The scrape that it is, if it is one, or why it cannot be served.
    pub(crate) scrape: Option<Box<Result<Scrape, ScrapeError>>>,
}

/// Who serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `POST /poll`, with the seconds that its client prefers to wait.
    Poll { wait: Option<u32> },
    /// `POST /push`.
    Push,
    /// Absolute form.
    Scrape,
    /// Anything else, which hyper serves.
    Other,
}

/// Why a head cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("this is not an HTTP/1.1 request: {0}")]
    Syntax(httparse::Error),
    #[error("the head of the request is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request has more than {0} headers")]
    TooManyHeaders(usize),
    #[error("the head of the request did not come within {}", duration::format(*.0))]
    TooSlow(Duration),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// What one program takes for the end of a line, another takes for a part of it.
    #[error("a line of the head does not end in CR LF")]
    LineEnd,
    /// What proxies disagree about is how requests are smuggled past them.
    #[error("the request does not say clearly where it ends")]
    Framing,
}

impl BadRequest {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooManyHeaders(_) | Self::TooLarge(_) => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Syntax(httparse::Error::Version) => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Syntax(_) | Self::LineEnd | Self::Framing => StatusCode::BAD_REQUEST,
        }
    }

    /// The limit that was reached, if it is for that.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::TooLarge(_) => Some(Limit::HeadSize),
            Self::TooManyHeaders(_) => Some(Limit::Headers),
            Self::TooSlow(_) => Some(Limit::HeadTimeout),
            Self::NoRoom(_) => Some(Limit::UnfinishedHeads),
            Self::Syntax(_) | Self::LineEnd | Self::Framing => None,
        }
    }
}

impl Request {
    /// Reads a head off the front of `bytes`. `None` when more bytes are needed.
    pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Self>, BadRequest> {
        let mut slots = [const { MaybeUninit::uninit() }; FEW_HEADERS];
        let few = limits.headers.min(FEW_HEADERS);
        match Self::read(bytes, slots.get_mut(..few).unwrap_or_default(), limits) {
            Err(BadRequest::TooManyHeaders(_)) if few < limits.headers => {
                Self::parse_long(bytes, limits)
            }
            read => read,
        }
    }

    /// Room for all headers that there may be is so much of the stack that each page of it has to be
    /// touched in advance.
    #[cold]
    #[inline(never)]
    fn parse_long(bytes: &[u8], limits: &Limits) -> Result<Option<Self>, BadRequest> {
        let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let slots = slots.get_mut(..limits.headers.min(MAX_HEADERS));
        Self::read(bytes, slots.unwrap_or_default(), limits)
    }

    fn read<'b>(
        bytes: &'b [u8],
        slots: &mut [MaybeUninit<httparse::Header<'b>>],
        limits: &Limits,
    ) -> Result<Option<Self>, BadRequest> {
        let mut parsed = httparse::Request::new(&mut []);
        let status = parsed.parse_with_uninit_headers(bytes, slots);
        let head = match status.map_err(|error| syntax(error, limits))? {
            httparse::Status::Complete(head) if head <= limits.head_size => head,
            httparse::Status::Partial if bytes.len() < limits.head_size => return Ok(None),
            _ => return Err(BadRequest::TooLarge(limits.head_size)),
        };
        if has_bare_line_feed(bytes.get(..head).unwrap_or_default()) {
            return Err(BadRequest::LineEnd);
        }
        let is_http_1_1 = parsed.version == Some(1);
        let mut request = Self {
            head,
            kind: kind(&parsed),
            body: Framing::Length(0),
            // Of HTTP/1.0 no connection goes on: nothing that speaks it here reuses one.
            keep_alive: is_http_1_1,
            is_http_1_1,
            is_head: parsed.method == Some("HEAD"),
            expects_continue: false,
            credentials: None,
            scrape: None,
        };
        let (mut length, mut is_chunked) = (None, false);
        for header in parsed.headers.iter() {
            match Field::named(header.name) {
                Some(Field::ContentLength) => {
                    let this = content_length(header.value).ok_or(BadRequest::Framing)?;
                    if length.replace(this).is_some_and(|other| other != this) {
                        return Err(BadRequest::Framing);
                    }
                }
                Some(Field::TransferEncoding) => {
                    // Of codings there is one here, once, and not before HTTP/1.1.
                    let is_known = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                    if !is_known || is_chunked || !is_http_1_1 {
                        return Err(BadRequest::Framing);
                    }
                    is_chunked = true;
                }
                Some(Field::Connection) => {
                    let closes = |option: &[u8]| option.eq_ignore_ascii_case(b"close");
                    request.keep_alive &= !headers::members(header.value).any(closes);
                }
                Some(Field::Expect) => {
                    request.expects_continue =
                        is_http_1_1 && header.value.eq_ignore_ascii_case(b"100-continue");
                }
                Some(Field::Prefer) => {
                    if let Kind::Poll { wait: wait @ None } = &mut request.kind {
                        *wait = headers::members(header.value).find_map(headers::wait_seconds);
                    }
                }
                Some(field) => {
                    if let Some(name) = credentials(request.kind, field) {
                        request.show(name, header.value)?;
                    }
                }
                None => {}
            }
        }
        request.body = match (is_chunked, length) {
            (true, Some(_)) => return Err(BadRequest::Framing),
            (true, None) => Framing::Chunked,
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        if request.kind == Kind::Scrape {
            request.scrape = Some(Box::new(Scrape::of(&parsed)));
        }
        Ok(Some(request))
    }

    #[cold]
    fn show(&mut self, name: HeaderName, value: &[u8]) -> Result<(), BadRequest> {
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| BadRequest::Syntax(httparse::Error::HeaderValue))?;
        let credentials = self.credentials.get_or_insert_default();
        credentials.append(name, value);
        Ok(())
    }

    /// What it shows of its sender.
    pub(crate) fn shown(&self) -> &HeaderMap {
        static NOTHING: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        self.credentials.as_deref().unwrap_or(&NOTHING)
    }

    /// Its body, where that tells its length and is in `bytes` behind the head, and the length of both.
    pub(crate) fn if_arrived<'b>(&self, bytes: &'b [u8]) -> Option<(&'b [u8], usize)> {
        let Framing::Length(length) = self.body else {
            return None;
        };
        let end = self.head.checked_add(usize::try_from(length).ok()?)?;
        Some((bytes.get(self.head..end)?, end))
    }

    /// Whether the connection may go on behind an answer that does not wait for the body.
    pub(crate) fn goes_on(&self) -> bool {
        self.keep_alive && !self.has_body()
    }

    /// Whether anything of the request comes behind its head.
    pub(crate) fn has_body(&self) -> bool {
        self.body != Framing::Length(0)
    }
}

/// Too many headers is a limit of ours and not a fault of the syntax.
fn syntax(error: httparse::Error, limits: &Limits) -> BadRequest {
    match error {
        httparse::Error::TooManyHeaders => BadRequest::TooManyHeaders(limits.headers),
        error => BadRequest::Syntax(error),
    }
}

fn kind(parsed: &httparse::Request<'_, '_>) -> Kind {
    let path = parsed.path.unwrap_or_default();
    match parsed.method {
        // A tunnel is refused by whoever refuses the rest.
        Some("CONNECT") => Kind::Other,
        _ if !path.starts_with('/') && is_absolute(path) => Kind::Scrape,
        Some("POST") => match path.as_bytes().split(|byte| *byte == b'?').next() {
            Some(b"/poll") => Kind::Poll { wait: None },
            Some(b"/push") => Kind::Push,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn is_absolute(uri: &str) -> bool {
    uri.as_bytes().windows(3).any(|three| three == b"://")
}

/// Whether a line ends in a line feed alone, which httparse takes. A carriage return alone it does
/// not.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let behind = head.get(1..).unwrap_or_default();
    // All of it: the compiler makes a few wide instructions of that.
    let is_bare = |(before, byte): (&u8, &u8)| *byte == b'\n' && *before != b'\r';
    let is_any = head
        .iter()
        .zip(behind)
        .fold(false, |any, two| any | is_bare(two));
    is_any || head.first() == Some(&b'\n')
}

/// The name of a header that has the credentials for the proxy. hyper keeps that of the rest.
fn credentials(kind: Kind, field: Field) -> Option<HeaderName> {
    match (kind, field) {
        (Kind::Poll { .. } | Kind::Push, Field::Authorization) => Some(AUTHORIZATION),
        (Kind::Scrape, Field::ProxyAuthorization) => Some(PROXY_AUTHORIZATION),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
