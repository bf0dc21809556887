//! The messages inside bodies: instructions, pushed responses, and how their ends are told.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::cuts;
use crate::message::MessageError;
use crate::message::body::{
    BodyDecoder, BodyError, CHUNK_END, Framing, LAST_CHUNK, Piece, chunk_start,
};
use crate::message::instruction::Instruction;
use crate::message::pushed::{PushedHead, find_id};
use crate::message::scrape::{Scrape, ScrapeError};
use crate::{ScrapeId, Target};

/// The head of a scrape, and the instruction that it becomes.
pub fn scrape(bytes: &[u8]) {
    let whole = Scrape::parse(bytes);
    for cut in cuts(bytes.len()) {
        let part = Scrape::parse(bytes.get(..cut).unwrap_or_default());
        if let Err(error) = part
            && error != ScrapeError::Message(MessageError::HeadUnfinished)
        {
            // What is wrong with the beginning is not mended by what follows.
            assert_eq!(Some(&error), whole.as_ref().err(), "at {cut}");
        }
    }
    let Ok(scrape) = whole else {
        return;
    };
    let (id, left) = (ScrapeId::from(7), Duration::from_millis(9_500));
    let encoded = scrape.encode(id, left);
    assert!(encoded.len() <= 2 * bytes.len() + 256, "it has grown");
    assert_single_head(&encoded);
    let read = Instruction::decode(&encoded);
    let instruction = read.unwrap_or_else(|error| panic!("{error}: {encoded:?}"));
    assert_eq!(instruction.method, scrape.method);
    assert_eq!(ScrapeId::parse(&instruction.id), Some(id));
    let target = Target::parse(&instruction.target).map(|(target, ..)| target);
    assert_eq!(target.as_ref(), Ok(&scrape.target));
    for name in HOP_BY_HOP {
        assert!(!instruction.headers.contains_key(name), "{name}");
    }
    assert_eq!(instruction.headers.get_all("host").iter().count(), 1);
    let time = "x-prometheus-scrape-timeout-seconds";
    assert_eq!(instruction.headers.get_all(time).iter().count(), 1);
    // A proxy behind this one has nothing to add or to take away.
    let again = Scrape::parse(&encoded).map(|scrape| scrape.encode(id, left));
    assert_eq!(again.as_ref(), Ok(&encoded));
}

/// The body of a poll's answer.
pub fn instruction(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let whole = Instruction::decode(&body);
    match &whole {
        Ok(instruction) => {
            let ids = instruction.headers.get_all("id").iter();
            assert!(ids.eq([&instruction.id]));
            if let Some(query) = instruction.query() {
                assert!(instruction.target.contains(query) && !query.contains('#'));
            }
        }
        Err(unusable) => assert!(unusable.id.as_ref().is_none_or(|id| !id.is_empty())),
    }
    for cut in cuts(bytes.len()) {
        if let Err(part) = Instruction::decode(&body.slice(..cut))
            && !matches!(part.why, MessageError::HeadUnfinished)
        {
            assert_eq!(
                whole.as_ref().err().map(|whole| &whole.why),
                Some(&part.why),
                "at {cut}"
            );
        }
    }
}

/// The body of a push: the head of a response, and what it frames.
pub fn pushed(bytes: &[u8]) {
    let whole = PushedHead::parse(bytes, MAX_HEAD);
    if let Some(id) = find_id(bytes) {
        assert!(id.len() <= bytes.len());
    }
    let end = match &whole {
        Ok(Some((_, length))) => {
            assert!(*length <= bytes.len().min(MAX_HEAD));
            *length
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEAD, "it asks for more than it may");
            bytes.len()
        }
        Err(_) => bytes.len(),
    };
    // Past the limit it is refused for its length, whatever else is wrong with it.
    for cut in cuts(end.min(MAX_HEAD)) {
        match PushedHead::parse(bytes.get(..cut).unwrap_or_default(), MAX_HEAD) {
            Ok(None) => {}
            Ok(Some((_, length))) => panic!("{cut} bytes are a head of {length}, and {end} too"),
            Err(error) => assert_eq!(whole.as_ref().err(), Some(&error), "at {cut}"),
        }
    }
    let Ok(Some((head, length))) = whole else {
        return;
    };
    assert!(head.status.as_u16() >= 200);
    let no_body = head.framing(&Method::HEAD);
    assert_eq!(no_body, Ok(Framing::Length(0)));
    if let Ok(framing) = head.framing(&Method::GET) {
        body(framing, bytes.get(length..).unwrap_or_default());
    }
    let mut lines = head.into_lines();
    lines.extend_from_slice(b"\r\n");
    assert!(lines.len() <= length + 32, "it has grown");
    assert_single_head(&lines);
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut passed_on = httparse::Response::new(&mut slots);
    let parsed = passed_on.parse(&lines);
    assert_eq!(
        parsed,
        Ok(httparse::Status::Complete(lines.len())),
        "{lines:?}"
    );
    for header in passed_on.headers {
        let name = header.name.to_ascii_lowercase();
        assert!(
            !OURS.contains(&&*name) && !HOP_BY_HOP.contains(&&*name),
            "{name}"
        );
    }
}

/// A body in chunks.
pub fn chunked(bytes: &[u8]) {
    body(Framing::Chunked, bytes);
    if decode(Framing::Chunked, bytes, &[]).is_ok() {
        // What is a size here is one to others too.
        assert!(httparse::parse_chunk_size(bytes).is_ok());
    }
}

/// However a body is cut into pieces, it is the same, and so is what stands behind it.
fn body(framing: Framing, bytes: &[u8]) {
    let whole = decode(framing, bytes, &[]);
    if let Ok(decoded) = &whole {
        assert!(decoded.data.len() + decoded.rest <= bytes.len());
        if decoded.is_at_end && framing == Framing::Chunked {
            let mut again = Vec::new();
            for chunk in decoded.data.chunks(1_000) {
                again.extend_from_slice(&chunk_start(chunk.len()));
                again.extend_from_slice(chunk);
                again.extend_from_slice(CHUNK_END);
            }
            again.extend_from_slice(LAST_CHUNK);
            let again = decode(framing, &again, &[]);
            assert_eq!(again.as_ref().map(|again| &again.data), Ok(&decoded.data));
        }
    }
    for size in [1, 2, 7, 64] {
        let every: Vec<usize> = (1..bytes.len()).step_by(size).collect();
        assert_eq!(decode(framing, bytes, &every), whole, "in pieces of {size}");
    }
    for cut in cuts(bytes.len()) {
        assert_eq!(decode(framing, bytes, &[cut]), whole, "cut at {cut}");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    /// What was left over behind the end.
    rest: usize,
    is_at_end: bool,
    may_end_here: Result<(), BodyError>,
}

fn decode(framing: Framing, bytes: &[u8], cuts: &[usize]) -> Result<Decoded, BodyError> {
    let mut decoder = BodyDecoder::new(framing);
    let mut data = Vec::new();
    let mut starts = vec![0];
    starts.extend_from_slice(cuts);
    let ends = cuts.iter().copied().chain([bytes.len()]);
    for (start, end) in starts.iter().zip(ends) {
        let mut piece = Bytes::copy_from_slice(bytes.get(*start..end).unwrap_or_default());
        loop {
            let before = piece.len();
            match decoder.decode(&mut piece)? {
                Piece::Data(slice) => {
                    assert!(
                        !slice.is_empty() && piece.len() < before,
                        "it makes no progress"
                    );
                    data.extend_from_slice(&slice);
                }
                Piece::NeedMore => {
                    assert!(piece.is_empty(), "it leaves what it should take");
                    break;
                }
                Piece::End => {
                    assert!(decoder.is_complete());
                    return Ok(Decoded {
                        data,
                        rest: piece.len() + bytes.len() - end,
                        is_at_end: true,
                        may_end_here: decoder.finish(),
                    });
                }
            }
        }
    }
    Ok(Decoded {
        data,
        rest: 0,
        is_at_end: decoder.is_complete(),
        may_end_here: decoder.finish(),
    })
}

/// Nothing that came in a header ends the head early, or a line of it.
fn assert_single_head(head: &[u8]) {
    let end = head.windows(2).position(|two| two == b"\n\n");
    assert_eq!(end, None, "{head:?}");
    let end = head.windows(3).position(|three| three == b"\n\r\n");
    assert_eq!(end, Some(head.len() - 3), "{head:?}");
}

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the proxy takes out of an answer besides, or writes anew.
const OURS: [&str; 3] = ["id", "content-length", "x-prometheus-scrape-timeout"];

/// Small enough to be reached.
const MAX_HEAD: usize = 1_024;
