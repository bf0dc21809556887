//! What must hold of the proxy's parsers for any bytes whatsoever. The fuzz targets in `fuzz/` and the
//! property tests call the same functions; each panics where a promise is broken.
//!
//! Not part of the crate's interface: the feature `fuzzing` opens it for `fuzz/` alone.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pushprox_protocol::Target;
use pushprox_protocol::message::body::Framing;
use tokio::io::AsyncWrite;

pub use crate::access::fuzzing::{auth_config, name_pattern, san_pattern};
use crate::http1::body::RequestBody;
use crate::http1::buffers::Buffers;
use crate::http1::pace::Pace;
use crate::http1::request::{Kind, Request};
use crate::http1::socket::Socket;
use crate::limits::Limits;
use crate::poll::name_in;

/// The head of a request, whole, in pieces and followed by more.
pub fn request(bytes: &[u8]) {
    let whole = Request::parse(bytes, &limits());
    let end = match &whole {
        Ok(Some(request)) => {
            assert!(request.head <= bytes.len().min(MAX_HEAD));
            assert!(request.body != Framing::ToEnd, "a request ends");
            assert!(request.is_http_1_1 || !request.keep_alive);
            assert_eq!(request.scrape.is_some(), request.kind == Kind::Scrape);
            if let Some(Ok(scrape)) = request.scrape.as_deref() {
                let target = scrape.target.to_string();
                assert!(
                    Target::parse(&format!("http://{target}/")).is_ok(),
                    "{target}"
                );
            }
            request.head
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEAD, "it asks for more than it may");
            bytes.len()
        }
        Err(_) => bytes.len(),
    };
    // Past the limit it is refused for its length, whatever else is wrong with it.
    for cut in (0..end.min(MAX_HEAD)).step_by(end / 64 + 1) {
        match Request::parse(bytes.get(..cut).unwrap_or_default(), &limits()) {
            Ok(None) => {}
            Ok(Some(request)) => panic!("{cut} bytes are {request:?}, and {end} {whole:?}"),
            Err(error) => assert_eq!(whole.as_ref().err(), Some(&error), "at {cut}"),
        }
    }
    // Byte by byte it is parsed a few times only, and not later than it is there.
    let mut pace = Pace::default();
    let mut tries = 0;
    for length in 1..=end {
        let arrived = bytes.get(..length).unwrap_or_default();
        if pace.is_due(arrived) {
            tries += 1;
            match Request::parse(arrived, &limits()) {
                Ok(Some(request)) => {
                    assert_eq!((whole.as_ref(), length), (Ok(&Some(request)), end));
                    break;
                }
                Ok(None) => {}
                Err(_) => break,
            }
        } else {
            assert!(
                length < end || !matches!(whole, Ok(Some(_))),
                "it is not seen"
            );
        }
    }
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(tries <= 2 * lines + 16, "{tries} tries for {lines} lines");
}

/// A request with its body, such as a poll with a name in it: however it comes in, the same is
/// read, and what follows it is left for the next.
pub fn poll(bytes: &[u8]) {
    let Ok(Some(request)) = Request::parse(bytes, &limits()) else {
        return;
    };
    let buffers = Arc::new(Buffers::default());
    let whole = read_body(bytes, &request, bytes.len(), &buffers);
    let body = bytes.len() - request.head;
    for cut in (0..body).step_by(body / 16 + 1) {
        let part = read_body(bytes, &request, request.head + cut, &buffers);
        assert_eq!(part.0, whole.0, "read ahead as far as {cut}");
    }
    let at_once = request.if_arrived(bytes);
    if let (Ok(body), rest) = whole {
        assert!(bytes.ends_with(&rest), "what follows is not what came");
        if request.body != Framing::Chunked {
            let length = bytes.len() - rest.len();
            assert_eq!(at_once, Some((body.as_slice(), length)));
        }
        if let Ok(name) = name_in(&body, MAX_NAME) {
            assert!(body.len() <= MAX_NAME && !name.host().is_empty());
        }
    } else {
        assert_eq!(at_once, None);
    }
}

/// What is read of a body of which some has been read ahead and the rest is in the socket, and what
/// is left in front of the socket.
fn read_body(
    bytes: &[u8],
    request: &Request,
    ahead: usize,
    buffers: &Arc<Buffers>,
) -> (Result<Vec<u8>, String>, Vec<u8>) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut peer, end) = tokio::io::duplex(bytes.len() + 1);
    let (ahead, later) = bytes.split_at(ahead);
    let written = std::pin::Pin::new(&mut peer).poll_write(&mut cx, later);
    assert!(matches!(written, Poll::Ready(Ok(n)) if n == later.len()));
    drop(peer);
    let mut socket = Socket::new(end);
    socket.put_back(ahead);
    let mut body = RequestBody::new(socket, request, Arc::clone(buffers));
    let has_arrived = body.rest_if_arrived().map(|pieces| pieces.concat());
    let mut data = Vec::new();
    let read = loop {
        match body.poll_piece(&mut cx) {
            Poll::Ready(Ok(Some(piece))) => {
                assert!(!piece.is_empty(), "it makes no progress");
                data.extend_from_slice(&piece);
            }
            Poll::Ready(Ok(None)) => break Ok(data),
            Poll::Ready(Err(error)) => break Err(error.to_string()),
            Poll::Pending => panic!("it waits for a peer that has gone"),
        }
    };
    match has_arrived {
        Some(arrived) => assert_eq!(read.as_ref(), Ok(&arrived)),
        None => assert!(!later.is_empty() || read.is_err(), "all of it has arrived"),
    }
    assert_eq!(body.is_complete(), read.is_ok());
    (read, body.into_socket().ahead().to_vec())
}

fn limits() -> Limits {
    Limits {
        head_size: MAX_HEAD,
        ..Limits::default()
    }
}

/// Small enough to be reached.
const MAX_HEAD: usize = 1_024;
const MAX_NAME: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushprox_testkit::seeds;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [
            ("auth_config", auth_config as fn(&[u8])),
            ("name_pattern", name_pattern),
            ("poll", poll),
            ("request", request),
            ("san_pattern", san_pattern),
        ];
        for (target, check) in targets {
            for bytes in [seeds::of(target), seeds::regressions(target)].concat() {
                check(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_auth_config_is_read_right_or_refused(bytes in seeds::near("auth_config")) {
            auth_config(&bytes);
        }

        #[test]
        fn any_name_pattern_is_read_right_or_refused(bytes in seeds::near("name_pattern")) {
            name_pattern(&bytes);
        }

        #[test]
        fn any_poll_is_read_right_or_refused(bytes in seeds::near("poll")) {
            poll(&bytes);
        }

        #[test]
        fn any_request_is_read_right_or_refused(bytes in seeds::near("request")) {
            request(&bytes);
        }

        #[test]
        fn any_san_pattern_is_read_right_or_refused(bytes in seeds::near("san_pattern")) {
            san_pattern(&bytes);
        }
    }
}
