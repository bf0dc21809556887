//! The head of a pushed response, and how its body is framed.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{MAX_HEADERS, MessageError, head_error, header_map, put_header, put_headers};
use crate::headers::{ID, SCRAPE_TIMEOUT};

/// The head of a response inside a push.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status, 200 or above.
    pub status: StatusCode,
    /// The reason phrase, as sent; empty where there was none.
    pub reason: String,
    /// All headers, as sent.
    pub headers: HeaderMap,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length in bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the push that carries it.
    ToEnd,
}

impl ResponseHead {
    /// Reads a head off the front of `bytes`. `None` when more bytes are needed; else the head
    /// and its length.
    ///
    /// # Errors
    ///
    /// The bytes cannot become an HTTP response, or its head would exceed `max_head` bytes.
    pub fn parse(bytes: &Bytes, max_head: usize) -> Result<Option<(Self, usize)>, MessageError> {
        // Go writes the version that it got: upstream's client pushes its own failures as
        // HTTP/0.0, and what a target said over HTTP/2 as HTTP/2.0. The version says nothing
        // about the framing, which the headers tell.
        let patched;
        let bytes = match version_is_foreign(bytes) {
            false => bytes,
            true => {
                let head = bytes.slice(..bytes.len().min(max_head));
                patched =
                    Bytes::from([VERSION, head.get(VERSION.len()..).unwrap_or_default()].concat());
                &patched
            }
        };
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut slots);
        let length = match response.parse(bytes).map_err(head_error)? {
            httparse::Status::Complete(length) if length <= max_head => length,
            httparse::Status::Partial if bytes.len() < max_head => return Ok(None),
            _ => return Err(MessageError::HeadTooLarge(max_head)),
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code)
            .ok()
            .filter(|status| !status.is_informational())
            .ok_or(MessageError::Status(code))?;
        let head = Self {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            headers: header_map(response.headers, bytes)?,
        };
        Ok(Some((head, length)))
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
        let chunked = self.headers.get_all(TRANSFER_ENCODING).iter().any(|value| {
            value
                .as_bytes()
                .rsplit(|&b| b == b',')
                .next()
                .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        });
        if chunked {
            return Ok(Framing::Chunked);
        }
        match self.content_length()? {
            Some(length) => Ok(Framing::Length(length)),
            None => Ok(Framing::ToEnd),
        }
    }

    /// The length that the headers name, if they name one.
    ///
    /// # Errors
    ///
    /// They name two that differ, or something that is no number.
    pub fn content_length(&self) -> Result<Option<u64>, MessageError> {
        let mut length = None;
        for value in self.headers.get_all(CONTENT_LENGTH) {
            let text = value.as_bytes();
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let this = std::str::from_utf8(text)
                .ok()
                .filter(|_| digits)
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or(MessageError::ContentLength)?;
            if length.is_some_and(|other| other != this) {
                return Err(MessageError::ContentLength);
            }
            length = Some(this);
        }
        Ok(length)
    }

    /// Writes the head for a push: this status, reason and headers, the scrape's id, the time
    /// that is left of it, and the framing.
    ///
    /// The headers must hold no framing of their own but a `Content-Length` where `framing` is
    /// [`Framing::ToEnd`], which stands for a message without a body of its own (an answer to
    /// `HEAD`).
    #[must_use]
    pub fn encode(&self, id: &HeaderValue, left: Duration, framing: Framing) -> Bytes {
        let mut out = BytesMut::with_capacity(TYPICAL_HEAD);
        out.put_slice(VERSION);
        out.put_u8(b' ');
        out.put_slice(self.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(self.reason.as_bytes());
        out.put_slice(b"\r\n");
        match framing {
            Framing::Length(length) => {
                put_header(&mut out, &CONTENT_LENGTH, length.to_string().as_bytes());
            }
            Framing::Chunked => put_header(&mut out, &TRANSFER_ENCODING, b"chunked"),
            Framing::ToEnd => {}
        }
        put_headers(&mut out, &self.headers);
        put_header(&mut out, &ID, id.as_bytes());
        let left = format!("{:.6}", left.as_secs_f64());
        put_header(&mut out, &SCRAPE_TIMEOUT, left.as_bytes());
        out.put_slice(b"\r\n");
        out.freeze()
    }
}

/// Whether `bytes` begin with an HTTP version that httparse does not know.
fn version_is_foreign(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' ', ..]
            if major.is_ascii_digit() && minor.is_ascii_digit() && (*major, *minor) != (b'1', b'1')
    )
}

const VERSION: &[u8] = b"HTTP/1.1";
const TYPICAL_HEAD: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ResponseHead, MessageError> {
        let parsed = ResponseHead::parse(&Bytes::copy_from_slice(text.as_bytes()), 1_000)?;
        let (head, length) = parsed.ok_or(MessageError::HeadUnfinished)?;
        assert_eq!(length, text.len());
        Ok(head)
    }

    #[test]
    fn upstreams_own_failures_and_http2_are_taken() {
        for version in ["HTTP/0.0", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0"] {
            let head = parse(&format!("{version} 500 Oh No\r\nId: 1\r\n\r\n")).unwrap();
            assert_eq!(head.status, 500);
            assert_eq!(head.reason, "Oh No");
            assert_eq!(head.framing(&Method::GET), Ok(Framing::ToEnd));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/x.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
            "\u{1}\u{2}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn heads_have_a_limit() {
        let text = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(1_000));
        assert_eq!(
            ResponseHead::parse(&Bytes::copy_from_slice(text.as_bytes()), 1_000).unwrap_err(),
            MessageError::HeadTooLarge(1_000)
        );
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(
            ResponseHead::parse(&Bytes::from(many), 64 * 1024).unwrap_err(),
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
            ("Transfer-Encoding: gzip, Chunked\r\n", Ok(Framing::Chunked)),
        ] {
            let head = parse(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).unwrap();
            assert_eq!(head.framing(&Method::GET), framing, "{headers}");
            assert_eq!(head.framing(&Method::HEAD), Ok(Framing::Length(0)));
        }
        let head = parse("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!(head.framing(&Method::GET), Ok(Framing::Length(0)));
    }

    #[test]
    fn a_head_is_written_as_go_writes_it() {
        let head = ResponseHead {
            status: StatusCode::OK,
            reason: "OK".to_owned(),
            headers: HeaderMap::from_iter([(
                http::header::CONTENT_ENCODING,
                HeaderValue::from_static("gzip"),
            )]),
        };
        let id = HeaderValue::from_static("1795546384-2-16969");
        let bytes = head.encode(&id, Duration::from_micros(1_989_795), Framing::Chunked);
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\
             Id: 1795546384-2-16969\r\nX-Prometheus-Scrape-Timeout: 1.989795\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            ResponseHead::parse(&Bytes::from(bytes), 100).ok();
        }

        #[test]
        fn a_head_cut_short_asks_for_more(cut in 0usize..58) {
            let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text\r\n\r\n";
            let part = &Bytes::copy_from_slice(text.get(..cut).unwrap());
            prop_assert!(ResponseHead::parse(part, 1_000).unwrap().is_none());
        }
    }
}
