//! How bodies are framed: the framing undone piece by piece, and put on.

use bytes::{BufMut, Bytes, BytesMut};

use super::chunked;
use crate::headers;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length in bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the push that carries it.
    ToEnd,
}

/// Undoes the framing of a body that comes in pieces of any size. Data is passed on as slices of
/// what came in, never copied.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
}

/// What a decoder made of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Data of the body; there may be more in the input.
    Data(Bytes),
    /// The input is used up.
    NeedMore,
    /// The body is complete. What is left of the input does not belong to it.
    End,
}

/// Why a body is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk's size is not a number, or no line end stands behind its data.
    #[error("the chunked body is malformed")]
    ChunkSize,
    /// The trailers exceed their limit, or a line of them does not end as it should.
    #[error("the trailers of the chunked body are too long or malformed")]
    Trailers,
    /// The push ended before the body did.
    #[error("the body breaks off before its end")]
    Unfinished,
}

#[derive(Debug, Clone)]
enum State {
    Length(u64),
    Chunked(chunked::Decoder),
    ToEnd,
}

impl BodyDecoder {
    /// A decoder for a body with this framing.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(chunked::Decoder::new()),
            Framing::ToEnd => State::ToEnd,
        };
        Self { state }
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    ///
    /// The chunked coding is malformed. Nothing can be decoded after that.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Piece, BodyError> {
        match &mut self.state {
            State::Length(0) => Ok(Piece::End),
            State::Chunked(decoder) => decoder.decode(input),
            _ if input.is_empty() => Ok(Piece::NeedMore),
            State::Length(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= here as u64;
                Ok(Piece::Data(input.split_to(here)))
            }
            State::ToEnd => Ok(Piece::Data(std::mem::take(input))),
        }
    }

    /// How many bytes are still to come, where the framing tells the length.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Chunked(_) | State::ToEnd => None,
        }
    }

    /// Whether the body is complete without any more input.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(
            self.state,
            State::Length(0) | State::Chunked(chunked::Decoder::Done)
        )
    }

    /// Says whether the body may end where the push that carried it has ended.
    ///
    /// # Errors
    ///
    /// [`BodyError::Unfinished`]: the body promised more.
    pub fn finish(&self) -> Result<(), BodyError> {
        match self.state {
            State::ToEnd => Ok(()),
            _ if self.is_complete() => Ok(()),
            _ => Err(BodyError::Unfinished),
        }
    }
}

/// Reads a `Content-Length`. What is not digits alone (a sign, a list, white space) is none.
#[must_use]
pub fn content_length(value: &[u8]) -> Option<u64> {
    headers::digits(value)
}

/// The line that stands before a chunk of `length` bytes.
#[must_use]
pub fn chunk_start(length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_slice(format!("{length:x}\r\n").as_bytes());
    out.freeze()
}

/// What stands behind a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What ends a chunked body, behind the end of its last chunk of data.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in pieces of `size`; gives the body and what was left over.
    fn decode(framing: Framing, input: &[u8], size: usize) -> Result<(Vec<u8>, usize), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut body = Vec::new();
        let mut pieces = input.chunks(size);
        let mut spent = 0;
        loop {
            let mut piece = match pieces.next() {
                Some(piece) => Bytes::copy_from_slice(piece),
                None => return decoder.finish().map(|()| (body, input.len() - spent)),
            };
            spent += piece.len();
            loop {
                match decoder.decode(&mut piece)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::NeedMore => break,
                    Piece::End => return Ok((body, input.len() - spent + piece.len())),
                }
            }
        }
    }

    #[test]
    fn chunked_bodies_are_decoded_whatever_the_pieces() {
        let input = b"4\r\nWiki\r\n5 \t;name=\"v\"\r\npedia\r\nE \t\r\n in\r\n\r\nchunks.\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nrest";
        for size in 1..=input.len() {
            let (body, rest) = decode(Framing::Chunked, input, size).unwrap();
            assert_eq!(body, b"Wikipedia in\r\n\r\nchunks.", "{size}");
            assert_eq!(rest, 4);
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "11111111111111111\r\n",
            "1\r\nab\r\n",
            "1\r\na\rb",
            "1\na\r\n0\r\n\r\n",
            "1\rx\na\r\n0\r\n\r\n",
            "1;x\na\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "0x1\r\na\r\n",
            "1 x\r\na\r\n0\r\n\r\n",
            "1 1\r\na\r\n0\r\n\r\n",
            "1\t x\r\na\r\n0\r\n\r\n",
            "1 \na\r\n0\r\n\r\n",
            "1,1\r\na\r\n0\r\n\r\n",
        ] {
            let result = decode(Framing::Chunked, input.as_bytes(), 3);
            assert_eq!(result, Err(BodyError::ChunkSize), "{input:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(9_000);
        for (input, error) in [
            (format!("1;{long}\r\na\r\n"), BodyError::ChunkSize),
            (
                format!("1{};\r\na\r\n", " ".repeat(9_000)),
                BodyError::ChunkSize,
            ),
            (format!("0\r\n{long}\r\n\r\n"), BodyError::Trailers),
            (
                format!("0\r\n{}\r\n", "a\r\n".repeat(4_000)),
                BodyError::Trailers,
            ),
            (
                format!("0\r\n{}\r\n", "\r".repeat(9_000)),
                BodyError::Trailers,
            ),
        ] {
            assert_eq!(decode(Framing::Chunked, input.as_bytes(), 100), Err(error));
        }
    }

    #[test]
    fn trailers_have_whole_line_ends() {
        for input in [
            "0\r\n\n",
            "0\r\nA: b\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
            "0\r\nA: b\r\r\n\r\n",
            "0\r\n\r\r\n",
        ] {
            let result = decode(Framing::Chunked, input.as_bytes(), 100);
            assert_eq!(result, Err(BodyError::Trailers), "{input:?}");
        }
    }

    #[test]
    fn what_is_malformed_has_no_end() {
        for start in ["+", "0x", " ", "\n", "x", "1\r\nab", "1\n"] {
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let mut input = Bytes::from(format!("{start}4\r\nabcd\r\n0\r\n\r\n"));
            while !input.is_empty() {
                let before = input.len();
                let decoded = decoder.decode(&mut input);
                assert_ne!(decoded, Ok(Piece::End), "{start:?}");
                if decoded.is_err() && input.len() == before {
                    break;
                }
            }
            assert!(decoder.decode(&mut input).is_err(), "{start:?}");
            assert!(!decoder.is_complete(), "{start:?}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_never_whole() {
        let input = b"4\r\nWiki\r\n0\r\n\r\n";
        for cut in 0..input.len() {
            let part = input.get(..cut).unwrap();
            assert_eq!(
                decode(Framing::Chunked, part, 5),
                Err(BodyError::Unfinished),
                "{cut}"
            );
        }
        assert_eq!(
            decode(Framing::Length(3), b"ab", 1),
            Err(BodyError::Unfinished)
        );
    }

    #[test]
    fn a_body_to_the_end_takes_all() {
        assert_eq!(decode(Framing::ToEnd, b"abc", 2), Ok((b"abc".to_vec(), 0)));
        assert_eq!(
            decode(Framing::Length(2), b"abc", 2),
            Ok((b"ab".to_vec(), 1))
        );
    }

    proptest! {
        #[test]
        fn chunks_that_are_written_are_read(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..10),
            size in 1usize..40,
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(&chunk_start(chunk.len()));
                input.extend_from_slice(chunk);
                input.extend_from_slice(CHUNK_END);
            }
            input.extend_from_slice(LAST_CHUNK);
            prop_assert_eq!(decode(Framing::Chunked, &input, size), Ok((chunks.concat(), 0)));
        }
    }
}
