//! Plain answers whose reason phrase tells what happened: Prometheus shows that and not the body.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use pushprox_protocol::message::LONGEST_REASON;

/// An answer of one line of text.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

/// A JSON answer whose body is ready.
#[must_use]
pub fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with `why` both as its reason phrase and as its body.
#[must_use]
pub fn refusal(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = text(status, format!("{why}\n"));
    response.extensions_mut().insert(reason_phrase(why));
    response
}

/// A 405 that names the methods there are.
#[must_use]
pub fn method_not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!(
            "method not allowed here, use {}",
            allow.replace(", ", " or ")
        ),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// `why` as far as a status line can hold it: control characters become spaces, other characters
/// that are not ASCII become question marks, and what is too long is cut.
#[must_use]
pub fn reason_phrase(why: &str) -> ReasonPhrase {
    let mut text = String::with_capacity(why.len().min(LONGEST_REASON));
    for character in why.chars() {
        if text.len() >= LONGEST_REASON {
            text.truncate(LONGEST_REASON - 3);
            text.push_str("...");
            break;
        }
        match character {
            ' '..='~' => text.push(character),
            _ if character.is_ascii() => text.push(' '),
            _ => text.push('?'),
        }
    }
    ReasonPhrase::try_from(text.trim().to_owned())
        .unwrap_or_else(|_| ReasonPhrase::from_static(b"error"))
}

/// The content type of plain answers.
pub const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(why: &str) -> String {
        String::from_utf8(reason_phrase(why).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn reasons_fit_a_status_line() {
        assert_eq!(
            phrase("no client registered for x"),
            "no client registered for x"
        );
        assert_eq!(phrase("a\r\nSet-Cookie: b\0\u{7f}"), "a  Set-Cookie: b");
        assert_eq!(phrase("größe"), "gr??e");
        let long = phrase(&"x".repeat(1_000));
        assert_eq!(long.len(), 250);
        assert!(long.ends_with("x..."));
        assert_eq!(phrase(&"y".repeat(250)), "y".repeat(250));
    }

    #[test]
    fn a_refusal_says_why_twice() {
        let response = refusal(StatusCode::NOT_FOUND, "no such page");
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            response
                .extensions()
                .get::<ReasonPhrase>()
                .unwrap()
                .as_bytes(),
            b"no such page"
        );
        assert_eq!(response.headers()[CONTENT_TYPE], TEXT);
    }
}
