//! The instruction: one whole HTTP request in absolute form, as the body of a poll's answer.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::{MAX_HEADERS, MessageError, head_error, header_map, put_header, put_headers};
use crate::headers::{self, ID, SCRAPE_TIMEOUT_SECONDS};
use crate::{ScrapeId, timeout};

/// A scrape as it goes to a client, before it has an id and a time.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// `GET` or `HEAD`.
    pub method: Method,
    /// The absolute URI that Prometheus asked for.
    pub uri: Uri,
    /// The headers that go on: [`Scrape::new`] has taken out those that end at the proxy.
    headers: HeaderMap,
}

/// An instruction as a client reads it.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// What to do; only `GET` and `HEAD` are scrapes.
    pub method: Method,
    /// What Prometheus asked for. A client takes no more than the query from it.
    pub uri: Uri,
    /// The headers of the scrape, `Id` among them.
    pub headers: HeaderMap,
    /// The id, to be sent back as it came: Go proxies make other ids than ours.
    pub id: HeaderValue,
}

impl Scrape {
    /// Takes the headers of a scrape as Prometheus sent them, and drops those that end here.
    #[must_use]
    pub fn new(method: Method, uri: Uri, mut headers: HeaderMap) -> Self {
        headers::strip_hop_by_hop(&mut headers);
        // The absolute URI wins over a Host that contradicts it (RFC 9112, section 3.2.2).
        for name in [HOST, ID, SCRAPE_TIMEOUT_SECONDS] {
            headers.remove(name);
        }
        // A scrape has no body: what promised one would make the client wait for it.
        headers.remove(http::header::CONTENT_LENGTH);
        headers.remove(http::header::EXPECT);
        Self {
            method,
            uri,
            headers,
        }
    }

    /// Writes the instruction: this scrape under its id, with the time that is left.
    #[must_use]
    pub fn encode(&self, id: ScrapeId, left: Duration) -> Bytes {
        let mut out = BytesMut::with_capacity(TYPICAL_INSTRUCTION);
        out.put_slice(self.method.as_str().as_bytes());
        out.put_u8(b' ');
        let authority = self.uri.authority().map_or("", |a| a.as_str());
        let host = authority.rsplit_once('@').map_or(authority, |(_, h)| h);
        out.put_slice(self.uri.scheme_str().unwrap_or("http").as_bytes());
        out.put_slice(b"://");
        out.put_slice(host.as_bytes());
        out.put_slice(
            self.uri
                .path_and_query()
                .map_or("/", |p| p.as_str())
                .as_bytes(),
        );
        out.put_slice(b" HTTP/1.1\r\n");
        put_header(&mut out, &HOST, host.as_bytes());
        put_headers(&mut out, &self.headers);
        let mut buffer = [0; ScrapeId::LENGTH];
        put_header(&mut out, &ID, id.encode(&mut buffer).as_bytes());
        put_header(
            &mut out,
            &SCRAPE_TIMEOUT_SECONDS,
            timeout::format(left).as_bytes(),
        );
        out.put_slice(b"\r\n");
        out.freeze()
    }
}

impl Instruction {
    /// Reads an instruction from the whole body of a poll's answer.
    ///
    /// # Errors
    ///
    /// The body is not one HTTP request with an `Id`.
    pub fn decode(body: &Bytes) -> Result<Self, MessageError> {
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut slots);
        if request.parse(body).map_err(head_error)?.is_partial() {
            return Err(MessageError::HeadUnfinished);
        }
        let method = request.method.unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| MessageError::Method)?;
        let uri = request.path.unwrap_or_default().parse();
        let uri: Uri = uri.map_err(|_| MessageError::Uri)?;
        let headers = header_map(request.headers, body)?;
        let mut ids = headers.get_all(ID).iter();
        let (Some(id), None) = (ids.next().cloned(), ids.next()) else {
            return Err(MessageError::Id);
        };
        Ok(Self {
            method,
            uri,
            headers,
            id,
        })
    }
}

/// What Prometheus 2.42 and 3 send fits in here without a second allocation.
const TYPICAL_INSTRUCTION: usize = 640;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scrape(uri: &str, pairs: &[(&'static str, &'static str)]) -> Scrape {
        let headers = pairs
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        Scrape::new(Method::GET, uri.parse().unwrap(), headers)
    }

    #[test]
    fn an_instruction_is_a_request_in_absolute_form() {
        let bytes = scrape(
            "http://u:p@Node:9100/metrics?a=%5B%5D",
            &[
                ("host", "other"),
                ("accept-encoding", "gzip"),
                ("proxy-authorization", "Basic dTpw"),
                ("connection", "close"),
                ("id", "forged"),
                ("x-prometheus-scrape-timeout-seconds", "10"),
            ],
        )
        .encode(ScrapeId::from(7), Duration::from_millis(9_500));
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "GET http://Node:9100/metrics?a=%5B%5D HTTP/1.1\r\n\
             Host: Node:9100\r\n\
             Accept-Encoding: gzip\r\n\
             Id: 00000000-0000-0000-0000-000000000007\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 9.5\r\n\
             \r\n"
        );
    }

    #[test]
    fn an_instruction_needs_exactly_one_id() {
        let with = |ids: &str| {
            Instruction::decode(&Bytes::from(format!("GET http://a/ HTTP/1.1\r\n{ids}\r\n")))
        };
        assert_eq!(with("").unwrap_err(), MessageError::Id);
        assert_eq!(with("Id: 1\r\nId: 2\r\n").unwrap_err(), MessageError::Id);
        assert_eq!(with("Id: 1\r\n").unwrap().id, "1");
    }

    #[test]
    fn half_a_head_is_no_instruction() {
        let error =
            Instruction::decode(&Bytes::from_static(b"GET http://a/ HTTP/1.1\r\nId: 1\r\n"))
                .unwrap_err();
        assert_eq!(error, MessageError::HeadUnfinished);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(path in "/[a-z0-9/?=&%]{0,20}", left in 1u64..300_000, id: u128) {
            let uri = format!("http://node:9100{path}");
            prop_assume!(uri.parse::<Uri>().is_ok());
            let id = ScrapeId::from(id);
            let bytes = scrape(&uri, &[("accept", "text/plain")]).encode(id, Duration::from_millis(left));
            let back = Instruction::decode(&bytes).unwrap();
            prop_assert_eq!(back.uri.to_string(), uri);
            prop_assert_eq!(ScrapeId::parse(&back.id), Some(id));
            prop_assert_eq!(&back.headers["accept"], "text/plain");
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Instruction::decode(&Bytes::from(bytes)).ok();
        }
    }
}
