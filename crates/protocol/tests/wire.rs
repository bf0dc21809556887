//! Every recorded message of the Go programs is understood, byte for byte.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its recording fails by that"
)]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, StatusCode};
use pushprox_protocol::message::body::{BodyDecoder, BodyError, Framing, Piece};
use pushprox_protocol::message::instruction::Instruction;
use pushprox_protocol::message::pushed::PushedHead;
use pushprox_protocol::{Fqdn, Target, timeout};

const MAX_HEAD: usize = 64 * 1024;

fn wire() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire")
}

/// The body of a recorded message, behind its outer head.
fn body(path: &str) -> Bytes {
    let bytes = std::fs::read(wire().join(path)).unwrap();
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    Bytes::from(bytes).slice(head_end..)
}

struct Pushed {
    status: StatusCode,
    lines: String,
    framing: Framing,
    body: Result<Vec<u8>, BodyError>,
}

fn push(path: &str) -> Pushed {
    let mut bytes = body(path);
    let (head, length) = PushedHead::parse(&bytes, MAX_HEAD).unwrap().unwrap();
    let mut rest = bytes.split_off(length);
    let framing = head.framing(&Method::GET).unwrap();
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Vec::new();
    let body = loop {
        match decoder.decode(&mut rest) {
            Ok(Piece::Data(data)) => body.extend_from_slice(&data),
            Ok(Piece::NeedMore) => break decoder.finish().map(|()| body),
            Ok(Piece::End) => break Ok(body),
            Err(error) => break Err(error),
        }
    };
    Pushed {
        status: head.status,
        lines: String::from_utf8(head.into_lines().to_vec()).unwrap(),
        framing,
        body,
    }
}

#[test]
fn instructions_of_both_lines_are_read() {
    for (path, uri, id) in [
        (
            "fork/03-proxy-to-client.poll-response.bin",
            "http://node.test:9100/metrics",
            "1795546384-2-16969",
        ),
        (
            "fork/03b-proxy-to-client.poll-response-params-basicauth.bin",
            "http://node.test:9100/metrics?collect%5B%5D=cpu&collect%5B%5D=meminfo",
            "1795546383-1-16969",
        ),
        (
            "upstream/03-proxy-to-client.poll-response.bin",
            "http://localhost:28413/metrics",
            "3caff62d-f468-48df-9611-0d2eddf18a98",
        ),
        (
            "upstream/03b-proxy-to-client.poll-response-params-basicauth.bin",
            "http://localhost:28413/metrics?collect%5B%5D=cpu&collect%5B%5D=meminfo",
            "72513346-d939-43d5-92b7-287479c3de8e",
        ),
    ] {
        let instruction = Instruction::decode(&body(path)).unwrap();
        assert_eq!(instruction.method, Method::GET);
        assert_eq!(instruction.target, uri);
        assert_eq!(instruction.id, id);
        let time = timeout::parse(&instruction.headers["x-prometheus-scrape-timeout-seconds"]);
        assert_eq!(time.unwrap().as_secs(), 2);
        Target::parse(&instruction.target).unwrap();
    }
    let connect = Instruction::decode(&body(
        "upstream/03c-proxy-to-client.poll-response-CONNECT.bin",
    ));
    assert_eq!(connect.unwrap().method, Method::CONNECT);
}

#[test]
fn polls_of_both_lines_name_their_client() {
    for (path, name) in [
        ("fork/02-client-to-proxy.poll-request.bin", "node.test:9100"),
        ("upstream/02-client-to-proxy.poll-request.bin", "localhost"),
    ] {
        let body = body(path);
        let parsed: Fqdn = std::str::from_utf8(&body).unwrap().parse().unwrap();
        assert_eq!(parsed.to_string(), name);
    }
}

#[test]
fn pushes_of_real_scrapes_give_the_exporters_bytes() {
    for line in ["fork", "upstream"] {
        for (pushed, answered) in [
            (
                "05-client-to-proxy.push.bin",
                "04r-target-to-client.response.bin",
            ),
            (
                "05b-client-to-proxy.push-params.bin",
                "04rb-target-to-client.response-params.bin",
            ),
        ] {
            let push = push(&format!("{line}/{pushed}"));
            assert_eq!(push.status, 200);
            assert_eq!(push.framing, Framing::Chunked);
            assert!(push.lines.contains("\r\nContent-Encoding: gzip\r\n"));
            let mut answer = body(&format!("{line}/{answered}"));
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let mut exporter = Vec::new();
            while let Piece::Data(data) = decoder.decode(&mut answer).unwrap() {
                exporter.extend_from_slice(&data);
            }
            assert!(decoder.is_complete());
            assert_eq!(push.body.unwrap(), exporter, "{line}/{pushed}");
        }
    }
}

#[test]
fn every_behaviour_of_a_target_is_understood_as_the_go_clients_push_it() {
    for line in ["client-fork", "client-upstream"] {
        for (name, status, reason, is_whole) in [
            ("ok", 200, "OK", true),
            ("gzip", 200, "OK", true),
            ("noae", 200, "OK", true),
            ("down", 500, "Internal Server Error", true),
            ("404", 404, "Not Found", true),
            ("500", 500, "Oh No", true),
            ("redir", 200, "OK", true),
            ("redirhost", 200, "OK", true),
            ("redirloop", 500, "Internal Server Error", true),
            ("eof10", 200, "OK", true),
            ("trunc", 200, "OK", false),
            ("204", 204, "No Content", true),
            ("garbage", 500, "Internal Server Error", true),
            ("close", 500, "Internal Server Error", true),
            ("chunktrailer", 200, "OK", true),
            ("conn", 200, "OK", true),
            ("idheader", 200, "OK", true),
        ] {
            let path = format!("{line}/push-{name}.bin");
            let push = push(&path);
            assert_eq!(push.status, status, "{path}");
            assert!(
                push.lines
                    .starts_with(&format!("HTTP/1.1 {status} {reason}\r\n")),
                "{path}: {}",
                push.lines
            );
            assert!(
                !push.lines.to_lowercase().contains(
                    "
id:"
                ),
                "{path}"
            );
            assert_eq!(push.body.is_ok(), is_whole, "{path}: {:?}", push.body);
        }
        // Upstream's client fails where there is no timeout, the fork's takes its default.
        let status = push(&format!("{line}/push-notimeout.bin")).status;
        assert!(status == 200 || status == 500, "{status}");
        let big = push(&format!("{line}/push-big.bin"));
        assert_eq!(big.body, Err(BodyError::Unfinished), "the recording is cut");
    }
}

#[test]
fn a_failure_of_upstreams_own_is_read() {
    let push = push("upstream/05c-client-to-proxy.push-error.bin");
    assert_eq!(push.status, 500);
    assert_eq!(push.framing, Framing::ToEnd);
    assert_eq!(
        push.body.unwrap(),
        b"strconv.ParseFloat: parsing \"\": invalid syntax"
    );
}
