//! The head of a request, as far as a connection must know it to decide who serves it.

use std::mem::MaybeUninit;
use std::sync::LazyLock;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use memchr::memchr_iter;
use pushprox_protocol::duration;
use pushprox_protocol::headers;
use pushprox_protocol::message::request::{Scrape, ScrapeError};
use pushprox_protocol::message::response::Framing;
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
            expects_continue: false,
            credentials: None,
            scrape: None,
        };
        let (mut length, mut is_chunked) = (None, false);
        for header in parsed.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let this = content_length(header.value).ok_or(BadRequest::Framing)?;
                if length.replace(this).is_some_and(|other| other != this) {
                    return Err(BadRequest::Framing);
                }
            } else if is("transfer-encoding") {
                // Of codings there is one here, once, and not before HTTP/1.1.
                let is_known = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if !is_known || is_chunked || !is_http_1_1 {
                    return Err(BadRequest::Framing);
                }
                is_chunked = true;
            } else if is("connection") {
                request.keep_alive &=
                    !options(header.value).any(|o| o.eq_ignore_ascii_case("close"));
            } else if is("expect") {
                request.expects_continue =
                    is_http_1_1 && header.value.eq_ignore_ascii_case(b"100-continue");
            } else if let Some(name) = credentials(request.kind).filter(|name| is(name.as_str())) {
                let value = HeaderValue::from_bytes(header.value)
                    .map_err(|_| BadRequest::Syntax(httparse::Error::HeaderValue))?;
                let credentials = request.credentials.get_or_insert_default();
                credentials.append(name, value);
            } else if is("prefer")
                && let Kind::Poll { wait: wait @ None } = &mut request.kind
            {
                *wait = options(header.value).find_map(headers::wait_seconds);
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

    /// What it shows of its sender.
    pub(crate) fn shown(&self) -> &HeaderMap {
        static NOTHING: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        self.credentials.as_deref().unwrap_or(&NOTHING)
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
        _ if !path.starts_with('/') && path.contains("://") => Kind::Scrape,
        Some("POST") => match path.as_bytes().split(|byte| *byte == b'?').next() {
            Some(b"/poll") => Kind::Poll { wait: None },
            Some(b"/push") => Kind::Push,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

/// Whether a line ends in a line feed alone, which httparse takes. A carriage return alone it does
/// not.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r'))
}

/// The header with the credentials for the proxy. hyper keeps that of the rest.
fn credentials(kind: Kind) -> Option<HeaderName> {
    match kind {
        Kind::Poll { .. } | Kind::Push => Some(AUTHORIZATION),
        Kind::Scrape => Some(PROXY_AUTHORIZATION),
        Kind::Other => None,
    }
}

fn content_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// The members of a comma-separated list.
fn options(value: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(value)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1_000;

    fn head(bytes: &[u8]) -> Result<Option<Request>, BadRequest> {
        let limits = Limits {
            head_size: LIMIT,
            headers: 16,
            ..Limits::default()
        };
        Request::parse(bytes, &limits)
    }

    fn parse(text: &str) -> Result<Request, BadRequest> {
        let request = head(text.as_bytes())?;
        Ok(request.unwrap_or_else(|| panic!("{text:?} is not whole")))
    }

    fn body(headers: &str) -> Result<Framing, BadRequest> {
        parse(&format!("POST /push HTTP/1.1\r\n{headers}\r\n")).map(|request| request.body)
    }

    #[test]
    fn polls_and_pushes_are_told_from_the_rest() {
        for (line, kind) in [
            ("POST /poll HTTP/1.1", Kind::Poll { wait: None }),
            ("POST /poll?x=1 HTTP/1.1", Kind::Poll { wait: None }),
            ("POST /push HTTP/1.0", Kind::Push),
            ("GET /poll HTTP/1.1", Kind::Other),
            ("POST /polls HTTP/1.1", Kind::Other),
            ("POST http://proxy/poll HTTP/1.1", Kind::Scrape),
            ("GET http://node/poll HTTP/1.1", Kind::Scrape),
            ("HEAD HTTP://node HTTP/1.1", Kind::Scrape),
            ("GET ftp://node/ HTTP/1.1", Kind::Scrape),
            ("GET /x?u=http://node/ HTTP/1.1", Kind::Other),
            ("CONNECT node:443 HTTP/1.1", Kind::Other),
        ] {
            assert_eq!(
                parse(&format!("{line}\r\n\r\n")).unwrap().kind,
                kind,
                "{line}"
            );
        }
    }

    #[test]
    fn the_wait_is_read_from_a_poll() {
        let request = parse("POST /poll HTTP/1.1\r\nPrefer: respond-async, wait=45\r\n\r\n");
        assert_eq!(request.unwrap().kind, Kind::Poll { wait: Some(45) });
    }

    #[test]
    fn only_http_1_1_goes_on_and_only_when_nobody_closes() {
        for (rest, goes_on) in [
            ("1.1\r\n\r\n", true),
            ("1.1\r\nConnection: keep-alive\r\n\r\n", true),
            ("1.1\r\nConnection: TE, Close\r\n\r\n", false),
            ("1.0\r\n\r\n", false),
            ("1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            let request = parse(&format!("POST /poll HTTP/{rest}")).unwrap();
            assert_eq!(request.keep_alive, goes_on, "{rest}");
        }
    }

    #[test]
    fn a_body_has_one_end_or_the_request_is_refused() {
        for (headers, framing) in [
            ("", Ok(Framing::Length(0))),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            (
                "content-length: 5\r\nContent-Length: 5\r\n",
                Ok(Framing::Length(5)),
            ),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            (
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                Err(BadRequest::Framing),
            ),
            ("Content-Length: 5, 5\r\n", Err(BadRequest::Framing)),
            ("Content-Length: +5\r\n", Err(BadRequest::Framing)),
            ("Content-Length: \r\n", Err(BadRequest::Framing)),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(BadRequest::Framing),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(BadRequest::Framing),
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                Err(BadRequest::Framing),
            ),
            ("Transfer-Encoding: xchunked\r\n", Err(BadRequest::Framing)),
        ] {
            assert_eq!(body(headers), framing, "{headers}");
        }
        let old = parse("POST /push HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old, Err(BadRequest::Framing));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "\0\0\0\0",
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\nno header\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        ] {
            let parsed = head(text.as_bytes());
            assert!(
                matches!(parsed, Err(BadRequest::Syntax(_))),
                "{text:?}: {parsed:?}"
            );
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2_000));
        assert_eq!(head(long.as_bytes()), Err(BadRequest::TooLarge(LIMIT)));
        let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(17));
        assert_eq!(head(many.as_bytes()), Err(BadRequest::TooManyHeaders(16)));
    }

    #[test]
    fn as_many_headers_are_taken_as_the_limit_says() {
        for (limit, headers, is_taken) in [
            (16, 16, true),
            (16, 17, false),
            (256, FEW_HEADERS + 1, true),
            (256, 256, true),
            (256, 257, false),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(headers));
            let limits = Limits {
                headers: limit,
                ..Limits::default()
            };
            let parsed = Request::parse(text.as_bytes(), &limits);
            assert_eq!(parsed.is_ok(), is_taken, "{headers} of {limit}: {parsed:?}");
        }
    }

    #[test]
    fn a_line_ends_in_both_its_characters() {
        for text in [
            "\r\n\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
        for text in [
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse(text), Err(BadRequest::LineEnd), "{text:?}");
        }
    }
}
