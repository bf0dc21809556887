//! The instruction in a poll's answer, as a client reads it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::{MessageError, head_error, header_map, header_slots};
use crate::headers::ID;

/// An instruction as a client reads it.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// What to do; only `GET` and `HEAD` are scrapes.
    pub method: Method,
    /// What Prometheus asked for, as it came: Go writes targets that no strict parser takes, and a
    /// client needs no more than [`Instruction::query`] of it.
    pub target: String,
    /// The headers of the scrape, `Id` among them.
    pub headers: HeaderMap,
    /// The id, to be sent back as it came: Go proxies make other ids than ours.
    pub id: HeaderValue,
}

/// Why a poll's answer is no instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// The id under which the proxy can be told so, where the answer is a scrape nonetheless.
    pub id: Option<HeaderValue>,
    /// What is wrong with it.
    pub why: MessageError,
}

impl Instruction {
    /// Reads an instruction from the whole body of a poll's answer.
    ///
    /// # Errors
    ///
    /// The body is not one HTTP request with an `Id`.
    pub fn decode(body: &Bytes) -> Result<Self, Unusable> {
        Self::read(body).map_err(|why| Unusable {
            id: id_among_lines(body),
            why,
        })
    }

    /// The query of the target, as it came; without what may follow a `#`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        let target = self.target.split('#').next().unwrap_or_default();
        target.split_once('?').map(|(_, query)| query)
    }

    fn read(body: &Bytes) -> Result<Self, MessageError> {
        let mut slots = header_slots();
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(body, &mut slots);
        if parsed.map_err(head_error)?.is_partial() {
            return Err(MessageError::HeadUnfinished);
        }
        let method = request.method.unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| MessageError::Method)?;
        let target = request.path.unwrap_or_default().to_owned();
        let headers = header_map(request.headers, body)?;
        let mut ids = headers.get_all(ID).iter();
        let (Some(id), None) = (ids.next().cloned(), ids.next()) else {
            return Err(MessageError::Id);
        };
        Ok(Self {
            method,
            target,
            headers,
            id,
        })
    }
}

/// The one `Id` of a message that could not be read as a whole. What does not begin with a request
/// line, such as a login page, has none.
fn id_among_lines(message: &[u8]) -> Option<HeaderValue> {
    let mut lines = message
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let version = lines.next()?.rsplit(|&byte| byte == b' ').next()?;
    if !version.starts_with(b"HTTP/") {
        return None;
    }
    let mut ids = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            let value = value.strip_prefix(b":")?.trim_ascii();
            name.eq_ignore_ascii_case(ID.as_str().as_bytes())
                .then_some(value)
        });
    match (ids.next(), ids.next()) {
        (Some(id), None) if !id.is_empty() => HeaderValue::from_bytes(id).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_HEADERS;
    use super::*;

    #[test]
    fn an_instruction_needs_exactly_one_id() {
        let with = |ids: &str| {
            let text = format!("GET http://a/ HTTP/1.1\r\n{ids}\r\n");
            Instruction::decode(&Bytes::from(text))
        };
        for ids in ["", "Id: 1\r\nId: 2\r\n"] {
            let error = with(ids).unwrap_err();
            assert_eq!((error.id, error.why), (None, MessageError::Id));
        }
        assert_eq!(with("Id: 1\r\n").unwrap().id, "1");
    }

    #[test]
    fn the_query_is_what_came_whatever_a_strict_parser_says() {
        for (target, query) in [
            ("http://n/<x>", None),
            ("http://n/m", None),
            ("http://n/m?", Some("")),
            ("http://n/?a=\"b\"&c=%zz", Some("a=\"b\"&c=%zz")),
            (
                "http://n/m?match[]={job=\"x\"}",
                Some("match[]={job=\"x\"}"),
            ),
            ("http://n/m?a=1?b#c?d", Some("a=1?b")),
            ("http://n/m#c?d", None),
            ("n:443", None),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nId: 1\r\n\r\n");
            let read = Instruction::decode(&Bytes::from(text)).unwrap();
            assert_eq!(read.query(), query, "{target}");
            assert_eq!(read.target, target);
        }
    }

    #[test]
    fn the_id_of_what_is_unusable_is_found_where_it_is_a_request() {
        let many = "X: y\r\n".repeat(MAX_HEADERS);
        for (text, id) in [
            ("GET http://a/ HTTP/1.1\r\nId: 1\r\n", Some("1")),
            ("GET http://a/b c HTTP/1.1\r\nid:1\r\n\r\n", Some("1")),
            ("G(T http://a/ HTTP/1.1\nX: y\nID: 1 \n\n", Some("1")),
            (&format!("GET / HTTP/1.1\r\n{many}Id: 1\r\n\r\n"), Some("1")),
            ("GET http://a/ HTTP/1.1\r\nId: 1\r\nId: 2\r\n", None),
            ("GET http://a/b c HTTP/1.1\r\nId: \r\n\r\n", None),
            ("GET / HTTP/1.1\r\nA B: c\r\n\r\nId: 1\r\n", None),
            ("<html>\nId: 1\n", None),
            ("Id: 1", None),
            ("", None),
        ] {
            let error = Instruction::decode(&Bytes::from(text.to_owned())).unwrap_err();
            let found = error.id.as_ref().map(|id| id.to_str().unwrap());
            assert_eq!(found, id, "{text}");
        }
    }

    #[test]
    fn half_a_head_is_no_instruction() {
        let half = Bytes::from_static(b"GET http://a/ HTTP/1.1\r\nId: 1\r\n");
        let error = Instruction::decode(&half).unwrap_err();
        assert_eq!(error.why, MessageError::HeadUnfinished);
    }
}
