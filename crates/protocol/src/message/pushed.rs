//! The head of a pushed response, as the proxy reads it: what joins it to its scrape, how its body
//! is framed, and the lines that Prometheus gets.

use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};
use http::{HeaderValue, Method, StatusCode};

use super::body::{Framing, content_length};
use super::response::VERSION;
use super::{LONGEST_REASON, MessageError, few_slots, head_error, header_slots, put_line};
use crate::ScrapeId;
use crate::headers::{self, Field};

/// The head of a response inside a push.
#[derive(Debug, Clone)]
pub struct PushedHead {
    /// The status, 200 or above.
    pub status: StatusCode,
    /// The one `Id` that it has, if it is one of ours.
    pub id: Option<ScrapeId>,
    length: Option<Result<u64, MessageError>>,
    is_chunked: bool,
    has_date: bool,
    passed_on: usize,
    /// The status line and the headers that go on, but for those that frame the body.
    lines: BytesMut,
}

impl PushedHead {
    /// Reads a head off the front of `bytes`. `None` when more bytes are needed; else the head
    /// and its length.
    ///
    /// # Errors
    ///
    /// The bytes cannot become an HTTP response with an `Id`, or its head would exceed `max_head`
    /// bytes.
    pub fn parse(bytes: &[u8], max_head: usize) -> Result<Option<(Self, usize)>, MessageError> {
        // Go writes the version that it got: upstream's client pushes its own failures as
        // HTTP/0.0, and what a target said over HTTP/2 as HTTP/2.0. The version says nothing
        // about the framing, which the headers tell.
        let patched;
        let bytes = match version(bytes) {
            Version::Unfinished if bytes.len() < max_head => return Ok(None),
            Version::Unfinished | Version::Known => bytes,
            Version::Foreign => {
                let head = bytes.get(..bytes.len().min(max_head)).unwrap_or(bytes);
                patched = [VERSION, head.get(VERSION.len()..).unwrap_or_default()].concat();
                &patched
            }
        };
        match Self::read(bytes, max_head, &mut few_slots()) {
            Err(MessageError::TooManyHeaders) => Self::parse_long(bytes, max_head),
            read => read,
        }
    }

    #[cold]
    #[inline(never)]
    fn parse_long(bytes: &[u8], max_head: usize) -> Result<Option<(Self, usize)>, MessageError> {
        Self::read(bytes, max_head, &mut header_slots())
    }

    fn read<'b>(
        bytes: &'b [u8],
        max_head: usize,
        slots: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Option<(Self, usize)>, MessageError> {
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            slots,
        );
        let length = match parsed.map_err(head_error)? {
            httparse::Status::Complete(length) if length <= max_head => length,
            httparse::Status::Partial if bytes.len() < max_head => return Ok(None),
            _ => return Err(MessageError::HeadTooLarge(max_head)),
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code)
            .ok()
            .filter(|status| !status.is_informational())
            .ok_or(MessageError::Status(code))?;
        let mut head = Self {
            status,
            id: None,
            length: None,
            is_chunked: false,
            has_date: false,
            passed_on: 0,
            lines: BytesMut::with_capacity(length + ROOM_FOR_FRAMING),
        };
        head.lines.put_slice(VERSION);
        head.lines.put_u8(b' ');
        head.lines.put_slice(status.as_str().as_bytes());
        head.lines.put_u8(b' ');
        put_reason(&mut head.lines, bytes);
        head.lines.put_slice(b"\r\n");
        head.take_headers(response.headers)?;
        Ok(Some((head, length)))
    }

    fn take_headers(&mut self, parsed: &[httparse::Header<'_>]) -> Result<(), MessageError> {
        let named = headers::named_by_connection(parsed);
        let mut ids = 0;
        for header in parsed {
            match Field::named(header.name) {
                Some(Field::Id) => {
                    ids += 1;
                    self.id = ScrapeId::parse_bytes(header.value);
                }
                Some(Field::ContentLength) => {
                    let this = content_length(header.value).ok_or(MessageError::ContentLength);
                    let same = self.length.as_ref().is_none_or(|other| *other == this);
                    self.length = Some(if same {
                        this
                    } else {
                        Err(MessageError::ContentLength)
                    });
                }
                Some(Field::TransferEncoding) => match header.value.trim_ascii() {
                    coding if coding.eq_ignore_ascii_case(b"chunked") && !self.is_chunked => {
                        self.is_chunked = true;
                    }
                    coding if coding.eq_ignore_ascii_case(b"identity") => {}
                    // What it was coded with, or coded with twice, would have to be undone, and never is.
                    _ => return Err(MessageError::Coding),
                },
                Some(Field::ScrapeTimeout) => {}
                field if headers::is_hop_by_hop(header.name, field, &named) => {}
                field => {
                    self.has_date |= field == Some(Field::Date);
                    self.passed_on += 1;
                    put_line(&mut self.lines, header.name, header.value);
                }
            }
        }
        (ids == 1).then_some(()).ok_or(MessageError::Id)
    }

    /// How the body is framed, in answer to a request with `method` (RFC 9112, section 6.3).
    ///
    /// # Errors
    ///
    /// The lengths contradict each other or are none.
    pub fn framing(&self, method: &Method) -> Result<Framing, MessageError> {
        if *method == Method::HEAD
            || self.status == StatusCode::NO_CONTENT
            || self.status == StatusCode::NOT_MODIFIED
        {
            return Ok(Framing::Length(0));
        }
        match (&self.length, self.is_chunked) {
            (_, true) => Ok(Framing::Chunked),
            (Some(length), false) => length.clone().map(Framing::Length),
            (None, false) => Ok(Framing::ToEnd),
        }
    }

    /// Whether the target has put a date on its answer.
    #[must_use]
    pub fn has_date(&self) -> bool {
        self.has_date
    }

    /// How many headers go on to Prometheus: without those that the client adds for the proxy.
    #[must_use]
    pub fn passed_on(&self) -> usize {
        self.passed_on
    }

    /// The length that the head names, whether or not a body follows.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length.clone()?.ok()
    }

    /// The status line and the headers for Prometheus. What frames the body is to be added, and the
    /// empty line.
    #[must_use]
    pub fn into_lines(self) -> BytesMut {
        self.lines
    }
}

/// Writes the reason phrase of a status line. httparse gives up one that is not ASCII; operators
/// read the rest of it all the same.
fn put_reason(out: &mut BytesMut, message: &[u8]) {
    let line = message
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let reason = line
        .splitn(3, |byte| *byte == b' ')
        .nth(2)
        .unwrap_or_default();
    for &byte in reason.trim_ascii().iter().take(LONGEST_REASON) {
        out.put_u8(if matches!(byte, b' '..=b'~') {
            byte
        } else {
            b'?'
        });
    }
}

/// The id in what could not be read as a head, if one stands there.
#[must_use]
pub fn find_id(bytes: &[u8]) -> Option<HeaderValue> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(3)?;
        if !name.eq_ignore_ascii_case(b"id:") {
            return None;
        }
        HeaderValue::from_bytes(value.trim_ascii()).ok()
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// Less than a version has come, and nothing that is none.
    Unfinished,
    /// Whether it is one is httparse's to say.
    Known,
    /// A version that httparse does not know.
    Foreign,
}

/// The HTTP version that `bytes` begin with.
fn version(bytes: &[u8]) -> Version {
    let fits = |(at, byte): (usize, &u8)| match VERSION.get(at) {
        Some(digit) if digit.is_ascii_digit() => byte.is_ascii_digit(),
        Some(other) => byte == other,
        None => *byte == b' ',
    };
    let start = bytes.get(..=VERSION.len()).unwrap_or(bytes);
    if start.starts_with(VERSION) || !start.iter().enumerate().all(fits) {
        Version::Known
    } else if start.len() <= VERSION.len() {
        Version::Unfinished
    } else {
        Version::Foreign
    }
}

/// What a date and the framing add to the lines.
const ROOM_FOR_FRAMING: usize = 96;

#[cfg(test)]
mod tests {
    use super::super::{FEW_HEADERS, MAX_HEADERS};
    use super::*;

    fn parse(text: &str) -> Result<PushedHead, MessageError> {
        let parsed = PushedHead::parse(text.as_bytes(), 1_000)?;
        let (head, length) = parsed.ok_or(MessageError::HeadUnfinished)?;
        assert_eq!(length, text.len());
        Ok(head)
    }

    #[test]
    fn upstreams_own_failures_and_http2_are_taken() {
        for version in ["HTTP/0.0", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0"] {
            let head = parse(&format!("{version} 500 Oh No\r\nId: 1\r\n\r\n")).unwrap();
            assert_eq!(head.status, 500);
            assert_eq!(head.framing(&Method::GET), Ok(Framing::ToEnd));
            assert_eq!(head.into_lines(), "HTTP/1.1 500 Oh No\r\n");
        }
    }

    #[test]
    fn a_reason_stays_readable() {
        let head = parse("HTTP/1.1 200 caf\u{e9} au lait\r\nId: 1\r\n\r\n").unwrap();
        assert_eq!(head.into_lines(), "HTTP/1.1 200 caf?? au lait\r\n");
        let long = format!("HTTP/1.1 200 {}\r\nId: 1\r\n\r\n", "x".repeat(300));
        assert_eq!(parse(&long).unwrap().into_lines().len(), 13 + 250 + 2);
        let none = parse("HTTP/1.1 200\r\nId: 1\r\n\r\n").unwrap();
        assert_eq!(none.into_lines(), "HTTP/1.1 200 \r\n");
    }

    #[test]
    fn prometheus_gets_what_is_meant_for_it() {
        let head = parse(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\
             Connection: X-Hop\r\nX-Hop: 1\r\nconnection: close, x-too\r\nX-Too: 1\r\nKeep-Alive: 1\r\nContent-Length: 7\r\n\
             X-Prometheus-Scrape-Timeout: 1\r\nid: 1\r\nDate: today\r\nx-Mine: \u{e9}\r\n\r\n",
        );
        let head = head.unwrap();
        assert!(head.has_date());
        assert_eq!(head.passed_on(), 3);
        assert_eq!(
            head.into_lines(),
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nDate: today\r\nx-Mine: \u{e9}\r\n"
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\nId: 1\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nId: 1\r\n\r\n",
            "HTTP/1.1 099 x\r\nId: 1\r\n\r\n",
            "HTTP/x.1 200 OK\r\nId: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header\r\nId: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: \0\r\nId: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nId: 1\r\nId: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nId: 1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nId: 1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\u{1}\u{2}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn heads_have_a_limit() {
        let text = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(1_000));
        assert_eq!(
            PushedHead::parse(text.as_bytes(), 1_000).unwrap_err(),
            MessageError::HeadTooLarge(1_000)
        );
        for more in [FEW_HEADERS - 1, FEW_HEADERS, MAX_HEADERS - 1] {
            let text = format!("HTTP/1.1 200 OK\r\n{}Id: 1\r\n\r\n", "a:\r\n".repeat(more));
            let (head, _) = PushedHead::parse(text.as_bytes(), 64 * 1024)
                .unwrap()
                .unwrap();
            assert_eq!(head.passed_on(), more);
        }
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(
            PushedHead::parse(many.as_bytes(), 64 * 1024).unwrap_err(),
            MessageError::TooManyHeaders
        );
    }

    #[test]
    fn framing_follows_rfc_9112() {
        for (headers, framing) in [
            ("", Ok(Framing::ToEnd)),
            ("Content-Length: 3\r\n", Ok(Framing::Length(3))),
            (
                "Content-Length: 3\r\nContent-Length: 3\r\n",
                Ok(Framing::Length(3)),
            ),
            (
                "Content-Length: 3\r\nContent-Length: 4\r\n",
                Err(MessageError::ContentLength),
            ),
            ("Content-Length: +3\r\n", Err(MessageError::ContentLength)),
            (
                "Content-Length: 99999999999999999999\r\n",
                Err(MessageError::ContentLength),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
                Ok(Framing::Chunked),
            ),
        ] {
            let head = parse(&format!("HTTP/1.1 200 OK\r\nId: 1\r\n{headers}\r\n")).unwrap();
            assert_eq!(head.framing(&Method::GET), framing, "{headers}");
            assert_eq!(head.framing(&Method::HEAD), Ok(Framing::Length(0)));
        }
        let head =
            parse("HTTP/1.1 304 Not Modified\r\nId: 1\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!(head.framing(&Method::GET), Ok(Framing::Length(0)));
        assert_eq!(head.length(), Some(9));
    }

    #[test]
    fn an_id_is_found_in_a_broken_head() {
        assert_eq!(find_id(b"garbage\r\niD:  abc \r\n").unwrap(), "abc");
        assert_eq!(find_id(b"garbage\r\nXid: abc\r\nid"), None);
    }

    #[test]
    fn a_head_cut_short_asks_for_more_whatever_its_version() {
        for version in ["HTTP/0.0", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0"] {
            let text = format!("{version} 200 OK\r\nContent-Length: 3\r\nId: 1\r\n\r\n");
            for cut in 0..text.len() {
                let part = text.as_bytes().get(..cut).unwrap();
                assert!(
                    PushedHead::parse(part, 1_000).unwrap().is_none(),
                    "{part:?}"
                );
            }
        }
    }
}
