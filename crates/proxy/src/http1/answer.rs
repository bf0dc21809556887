//! Answers of the proxy itself, written as they go over the wire.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use http::StatusCode;
use pushprox_daemon::guard::CHALLENGE;
use pushprox_protocol::message::put_line;

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Answer {
    bytes: BytesMut,
}

impl Answer {
    /// Begins an answer. `keep_alive` says whether the connection goes on behind it.
    pub(crate) fn new(status: StatusCode, keep_alive: bool) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        Self::with_reason(status, reason.as_bytes(), keep_alive)
    }

    /// Begins an answer with a reason phrase of its own.
    pub(crate) fn with_reason(status: StatusCode, reason: &[u8], keep_alive: bool) -> Self {
        let mut bytes = BytesMut::with_capacity(TYPICAL_HEAD);
        bytes.put_slice(b"HTTP/1.1 ");
        bytes.put_slice(status.as_str().as_bytes());
        bytes.put_u8(b' ');
        bytes.put_slice(reason);
        bytes.put_slice(b"\r\nDate: ");
        bytes.put_slice(&date());
        bytes.put_slice(b"\r\n");
        if !keep_alive {
            bytes.put_slice(b"Connection: close\r\n");
        }
        Self { bytes }
    }

    /// Says how to prove who one is, where the status asks for it.
    pub(crate) fn challenge(self, status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => self.header("WWW-Authenticate", CHALLENGE),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                self.header("Proxy-Authenticate", CHALLENGE)
            }
            _ => self,
        }
    }

    /// Adds a header; name and value are ours and need no check.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        put_line(&mut self.bytes, name, value.as_bytes());
        self
    }

    /// Says how many seconds a poll waits, as its client wished.
    pub(crate) fn preference_applied(mut self, seconds: u32) -> Self {
        self.bytes.put_slice(b"Preference-Applied: wait=");
        self.bytes
            .put_slice(itoa::Buffer::new().format(seconds).as_bytes());
        self.bytes.put_slice(b"\r\n");
        self
    }

    /// Ends an answer that has no body by its status, or by the method of its request.
    pub(crate) fn without_body(mut self) -> BytesMut {
        self.bytes.put_slice(b"\r\n");
        self.bytes
    }

    /// Ends an answer with a body of text.
    pub(crate) fn text(self, body: &[u8]) -> BytesMut {
        let mut this = self;
        if !body.is_empty() {
            this = this.header("Content-Type", pushprox_daemon::respond::TEXT);
        }
        let mut length = itoa::Buffer::new();
        let mut bytes = this
            .header("Content-Length", length.format(body.len()))
            .bytes;
        bytes.put_slice(b"\r\n");
        bytes.put_slice(body);
        bytes
    }
}

/// The date for a head. It is written anew only when a second has passed.
#[expect(clippy::disallowed_methods, reason = "it is shown")]
pub(crate) fn date() -> Date {
    thread_local! {
        static LAST: Cell<(u64, Date)> = const { Cell::new((0, *b"Thu, 01 Jan 1970 00:00:00 GMT")) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let (at, date) = LAST.get();
    if at == second {
        return date;
    }
    let text = httpdate::fmt_http_date(now);
    let date = text.as_bytes().try_into().unwrap_or(date);
    LAST.set((second, date));
    date
}

/// As long as every date in HTTP is.
type Date = [u8; 29];

/// Head and instruction of a poll's answer fit in here.
const TYPICAL_HEAD: usize = 768;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_http() {
        let bytes = Answer::new(StatusCode::OK, false)
            .preference_applied(45)
            .text(b"abc");
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
        assert!(
            text.ends_with(
                " GMT\r\nConnection: close\r\nPreference-Applied: wait=45\r\n\
                 Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nabc"
            ),
            "{text}"
        );
        let bytes = Answer::new(StatusCode::NO_CONTENT, true).without_body();
        assert!(bytes.ends_with(b" GMT\r\n\r\n"));
        let bytes = Answer::new(StatusCode::OK, true).text(b"");
        assert!(bytes.ends_with(b" GMT\r\nContent-Length: 0\r\n\r\n"));
    }
}
