//! Which heads are taken, and for what.

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
