//! The scrape as Prometheus asks for it, and how the proxy makes an instruction of it: one whole HTTP
//! request in absolute form, as the body of a poll's answer.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Method;

use super::{MessageError, few_slots, head_error, header_slots, put_line};
use crate::fqdn::NameError;
use crate::headers::{self, Field};
use crate::{ScrapeId, Target, timeout};

/// A scrape as it goes to a client, before it has an id and a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrape {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// Whom it is for.
    pub target: Target,
    /// The time that Prometheus gives it, where it says so.
    pub timeout: Option<Duration>,
    /// The request line and the headers that go on.
    lines: BytesMut,
}

/// Why a request is not a scrape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// It is not HTTP.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its method is neither `GET` nor `HEAD`.
    #[error("a scrape is a GET or a HEAD")]
    Method,
    /// No client could have registered its target.
    #[error(transparent)]
    Target(#[from] NameError),
}

impl Scrape {
    /// Reads a scrape from the head of a request, and drops the headers that end here.
    ///
    /// # Errors
    ///
    /// The head is incomplete or not HTTP, or not that of a scrape.
    pub fn parse(head: &[u8]) -> Result<Self, ScrapeError> {
        match Self::read(head, &mut few_slots()) {
            Err(ScrapeError::Message(MessageError::TooManyHeaders)) => Self::parse_long(head),
            read => read,
        }
    }

    #[cold]
    #[inline(never)]
    fn parse_long(head: &[u8]) -> Result<Self, ScrapeError> {
        Self::read(head, &mut header_slots())
    }

    fn read<'b>(
        head: &'b [u8],
        slots: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Self, ScrapeError> {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, slots);
        if parsed.map_err(head_error)?.is_partial() {
            return Err(MessageError::HeadUnfinished.into());
        }
        Self::of(&request)
    }

    /// As [`Scrape::parse`], of a head that has been parsed for other reasons.
    ///
    /// # Errors
    ///
    /// It is not that of a scrape.
    pub fn of(request: &httparse::Request<'_, '_>) -> Result<Self, ScrapeError> {
        let method = match request.method {
            Some("GET") => Method::GET,
            Some("HEAD") => Method::HEAD,
            _ => return Err(ScrapeError::Method),
        };
        let (target, authority, path) = Target::parse(request.path.unwrap_or_default())?;
        let headers = request.headers.iter();
        let length: usize = headers.map(|h| h.name.len() + h.value.len() + 4).sum();
        let room = length + 2 * authority.len() + path.len() + ROOM_FOR_FIRST_LINES;
        let mut lines = BytesMut::with_capacity(room);
        lines.put_slice(method.as_str().as_bytes());
        lines.put_slice(b" http://");
        // The instruction's scheme is http whatever the scrape's was, and a port that was left out
        // must stay the one that the scrape was let through for: upstream's client goes by it.
        let with_port;
        let authority = match target.port_left_out(authority) {
            Some(port) => {
                with_port = format!("{}:{port}", authority.trim_end_matches(':'));
                &with_port
            }
            None => authority,
        };
        lines.put_slice(authority.as_bytes());
        if !path.starts_with('/') {
            lines.put_u8(b'/');
        }
        lines.put_slice(path.as_bytes());
        lines.put_slice(b" HTTP/1.1\r\n");
        // The absolute URI wins over a Host that contradicts it (RFC 9112, section 3.2.2).
        put_line(&mut lines, "Host", authority.as_bytes());
        let mut timeout = None;
        let named = headers::named_by_connection(request.headers);
        for header in request.headers.iter() {
            match Field::named(header.name) {
                Some(Field::ScrapeTimeoutSeconds) => {
                    timeout = timeout.or_else(|| timeout::parse_bytes(header.value));
                }
                Some(field) if field.ends_at_the_proxy() => {}
                field if headers::is_hop_by_hop(header.name, field, &named) => {}
                _ => put_line(&mut lines, header.name, header.value),
            }
        }
        Ok(Self {
            method,
            target,
            timeout,
            lines,
        })
    }

    /// Writes the instruction: this scrape under its id, with the time that is left.
    #[must_use]
    pub fn encode(&self, id: ScrapeId, left: Duration) -> Bytes {
        let mut out = BytesMut::with_capacity(self.lines.len() + ROOM_FOR_ID_AND_TIME);
        out.put_slice(&self.lines);
        let mut buffer = [0; ScrapeId::LENGTH];
        put_line(&mut out, "Id", id.encode(&mut buffer).as_bytes());
        out.put_slice(b"X-Prometheus-Scrape-Timeout-Seconds: ");
        timeout::put(left, &mut out);
        out.put_slice(b"\r\n\r\n");
        out.freeze()
    }
}

/// What the first line and the `Host` have besides the target, and more than a port that was left out.
const ROOM_FOR_FIRST_LINES: usize = 64;

/// What the id and the time add to a scrape.
const ROOM_FOR_ID_AND_TIME: usize = 128;

#[cfg(test)]
mod tests {
    use super::super::instruction::Instruction;
    use super::super::{FEW_HEADERS, MAX_HEADERS};
    use super::*;
    use proptest::prelude::*;

    fn scrape(uri: &str, headers: &str) -> Result<Scrape, ScrapeError> {
        Scrape::parse(format!("GET {uri} HTTP/1.1\r\n{headers}\r\n").as_bytes())
    }

    fn instruction(uri: &str, headers: &str) -> String {
        let left = Duration::from_millis(9_500);
        let bytes = scrape(uri, headers)
            .unwrap()
            .encode(ScrapeId::from(7), left);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn an_instruction_is_a_request_in_absolute_form() {
        assert_eq!(
            instruction(
                "http://u:p@Node:9100/metrics?a=%5B%5D",
                "Host: other\r\nAccept-Encoding: gzip\r\nProxy-Authorization: Basic dTpw\r\n\
                 Connection: X-Hop, close\r\nx-hop: 1\r\nId: forged\r\nTE: trailers\r\n\
                 Content-Length: 0\r\nx-prometheus-scrape-timeout-seconds: 10\r\n"
            ),
            "GET http://Node:9100/metrics?a=%5B%5D HTTP/1.1\r\n\
             Host: Node:9100\r\n\
             Accept-Encoding: gzip\r\n\
             Id: 00000000-0000-0000-0000-000000000007\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 9.5\r\n\
             \r\n"
        );
    }

    #[test]
    fn headers_of_any_number_go_on() {
        for number in [FEW_HEADERS, FEW_HEADERS + 1, MAX_HEADERS] {
            let text = instruction("http://node/", &"A: b\r\n".repeat(number));
            assert_eq!(text.matches("A: b\r\n").count(), number);
        }
    }

    #[test]
    fn an_uri_without_a_path_gets_one() {
        for (uri, line) in [
            ("http://node", "GET http://node/ HTTP/1.1\r\n"),
            ("http://node?a=b", "GET http://node/?a=b HTTP/1.1\r\n"),
            ("HTTP://node/x#y", "GET http://node/x HTTP/1.1\r\n"),
            (
                "https://node/x",
                "GET http://node:443/x HTTP/1.1\r\nHost: node:443\r\n",
            ),
            ("https://node:/x", "GET http://node:443/x HTTP/1.1\r\n"),
            ("https://[::1]/x", "GET http://[::1]:443/x HTTP/1.1\r\n"),
            ("https://node:9100/x", "GET http://node:9100/x HTTP/1.1\r\n"),
            ("http://node:443/x", "GET http://node:443/x HTTP/1.1\r\n"),
        ] {
            assert!(instruction(uri, "").starts_with(line), "{uri}");
        }
    }

    #[test]
    fn the_time_is_read_where_it_is_usable() {
        let time = |headers| scrape("http://node/", headers).unwrap().timeout;
        assert_eq!(
            time("X-Prometheus-Scrape-Timeout-Seconds: 9.5\r\n"),
            Some(Duration::from_millis(9_500))
        );
        assert_eq!(time("X-Prometheus-Scrape-Timeout-Seconds: NaN\r\n"), None);
        assert_eq!(time(""), None);
    }

    #[test]
    fn what_is_no_scrape_is_refused() {
        let post = Scrape::parse(b"POST http://node/ HTTP/1.1\r\n\r\n");
        assert_eq!(post.unwrap_err(), ScrapeError::Method);
        let half = Scrape::parse(b"GET http://node/ HTTP/1.1\r\n");
        assert_eq!(half.unwrap_err(), MessageError::HeadUnfinished.into());
        assert_eq!(
            scrape("http://a..b/", "").unwrap_err(),
            NameError::EmptyLabel.into()
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(path in "/[a-z0-9/?=&%]{0,20}", left in 1u64..300_000, id: u128) {
            let uri = format!("http://node:9100{path}");
            let id = ScrapeId::from(id);
            let scrape = scrape(&uri, "Accept: text/plain\r\n").unwrap();
            let bytes = scrape.encode(id, Duration::from_millis(left));
            let back = Instruction::decode(&bytes).unwrap();
            prop_assert_eq!(&back.target, &uri);
            prop_assert_eq!(ScrapeId::parse(&back.id), Some(id));
            prop_assert_eq!(&back.headers["accept"], "text/plain");
        }
    }
}
