//! HTTP/1.1 messages carried inside bodies: the instruction inside a poll's answer, and the
//! response inside a push.

pub mod body;
mod chunked;
pub mod instruction;
pub mod pushed;
pub mod response;
pub mod scrape;

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Why bytes are not a message. The text goes behind "sent a broken answer: " and the like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The head did not end within its limit.
    #[error("the head of the message is larger than {0} bytes")]
    HeadTooLarge(usize),
    /// More header fields than [`MAX_HEADERS`].
    #[error("the message has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    /// The message ended before its head did.
    #[error("the message ends within its head")]
    HeadUnfinished,
    /// The first line or a header line is not HTTP.
    #[error("the head is not HTTP: {0}")]
    Head(#[from] httparse::Error),
    /// A header that is HTTP on its face but holds what no header may.
    #[error("a header has a forbidden character")]
    Header,
    /// A status below 200, which cannot be an answer.
    #[error("the status {0} is not one that answers a scrape")]
    Status(u16),
    /// Two lengths, or one that is no number.
    #[error("the content-length is not one number")]
    ContentLength,
    /// A transfer coding besides chunked.
    #[error("the body has a transfer coding other than chunked")]
    Coding,
    /// The request's method is not a token.
    #[error("the method of the request is not HTTP")]
    Method,
    /// The message has no `Id`, or more than one.
    #[error("the message has not exactly one Id header")]
    Id,
}

/// The most header fields that a message may have. Whoever reads messages may set a lower limit of
/// its own; the fields that a proxy or a client adds to what it passes on fit in above that.
pub const MAX_HEADERS: usize = 1024;

/// More than these are read at a second attempt.
pub const FEW_HEADERS: usize = 32;

/// The longest reason phrase that is written. Longer status lines are refused by some programs, and
/// nobody reads them.
pub const LONGEST_REASON: usize = 250;

/// Room for the headers of a message.
type HeaderSlots<'b, const N: usize> = [MaybeUninit<httparse::Header<'b>>; N];

/// Room for as many headers as nearly all messages have. Room for all that one may have would be so
/// much of the stack that each page of it has to be touched in advance.
fn few_slots<'b>() -> HeaderSlots<'b, FEW_HEADERS> {
    [const { MaybeUninit::uninit() }; FEW_HEADERS]
}

/// Room for as many headers as a message may have.
fn header_slots<'b>() -> HeaderSlots<'b, MAX_HEADERS> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// Collects httparse's view of a head into a map. The values are slices of `message`, not copies.
fn header_map(parsed: &[httparse::Header<'_>], message: &Bytes) -> Result<HeaderMap, MessageError> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| MessageError::Header)?;
        let value = match header.value {
            [] => Bytes::new(),
            value => message.slice_ref(value),
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| MessageError::Header)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Writes header lines with names in the case that Go and people use: `Content-Type`.
fn put_headers(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        put_header(out, name, value.as_bytes());
    }
}

fn put_header(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.reserve(name.as_str().len() + value.len() + 4);
    let (before, mut start) = (out.len(), true);
    out.put_slice(name.as_str().as_bytes());
    for byte in out.iter_mut().skip(before) {
        if start {
            byte.make_ascii_uppercase();
        }
        start = *byte == b'-';
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes a header line as it stands: name and value are to be such as no line can be broken by.
pub fn put_line(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Too many headers is a limit of ours and not a fault of the syntax: it gets its own words.
fn head_error(error: httparse::Error) -> MessageError {
    match error {
        httparse::Error::TooManyHeaders => MessageError::TooManyHeaders,
        error => MessageError::Head(error),
    }
}
