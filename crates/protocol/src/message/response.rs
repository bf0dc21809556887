//! The head of a response, as a client pushes it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::body::Framing;
use super::{put_header, put_headers};
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

impl ResponseHead {
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
        // In front of what the target says, however much that is: a proxy to which the head is too
        // large still reads whose it is, and the scrape learns what was wrong.
        put_header(&mut out, &ID, id.as_bytes());
        put_headers(&mut out, &self.headers);
        let left = format!("{:.6}", left.as_secs_f64());
        put_header(&mut out, &SCRAPE_TIMEOUT, left.as_bytes());
        out.put_slice(b"\r\n");
        out.freeze()
    }
}

pub(super) const VERSION: &[u8] = b"HTTP/1.1";
const TYPICAL_HEAD: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_first_whose_it_is() {
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
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nId: 1795546384-2-16969\r\n\
             Content-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout: 1.989795\r\n\r\n"
        );
    }
}
