//! HTTP/1.1 answers as they arrive on a connection: heads, and bodies by length or in chunks.

use anyhow::{Context as _, bail, ensure};

/// Reads the answers on one connection, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The beginning of a head that has not come whole yet.
    partial: Vec<u8>,
    body: Option<Body>,
}

/// What has been read of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Head { status: u16, reason: &'a str },
    Data(&'a [u8]),
    End,
}

#[derive(Debug)]
enum Body {
    Length(u64),
    /// Within a chunk that has this many bytes left.
    Chunk(u64),
    /// At the line that tells a chunk's length; what has come of it.
    ChunkSize(Vec<u8>),
    /// Behind a chunk's bytes, with this many left of its line's end.
    ChunkEnd(u8),
    /// Behind the last chunk; what has come of the line.
    Trailer(Vec<u8>),
}

impl Answers {
    /// Takes bytes off the connection and passes on, in order, what they mean.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Part<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.partial.is_empty() {
            return self.read_on(bytes, &mut each);
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        self.read_on(&joined, &mut each)
    }

    fn read_on(
        &mut self,
        mut bytes: &[u8],
        each: &mut impl FnMut(Part<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            if let Some(body) = &mut self.body {
                let is_whole = body.read(&mut bytes, each)?;
                if !is_whole {
                    return Ok(());
                }
                self.body = None;
                each(Part::End)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(length) = head.parse(bytes).context("no HTTP answer")?
            else {
                ensure!(bytes.len() < MAX_HEAD, "the head of an answer has no end");
                self.partial = bytes.to_vec();
                return Ok(());
            };
            let status = head.code.context("an answer has no status")?;
            each(Part::Head {
                status,
                reason: head.reason.unwrap_or_default(),
            })?;
            self.body = Some(Body::of(status, head.headers)?);
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }
}

impl Body {
    fn of(status: u16, headers: &[httparse::Header<'_>]) -> anyhow::Result<Self> {
        if status == 204 {
            return Ok(Self::Length(0));
        }
        for header in headers {
            let value = std::str::from_utf8(header.value)?.trim();
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                ensure!(
                    value.eq_ignore_ascii_case("chunked"),
                    "an answer's body is {value}"
                );
                return Ok(Self::ChunkSize(Vec::new()));
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                return Ok(Self::Length(
                    value.parse().context("a content length is no number")?,
                ));
            }
        }
        bail!("an answer tells no length")
    }

    /// Whether the body has come to its end.
    fn read(
        &mut self,
        bytes: &mut &[u8],
        each: &mut impl FnMut(Part<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        loop {
            match self {
                Self::Length(left) => {
                    pass(left, bytes, each)?;
                    return Ok(*left == 0);
                }
                Self::Chunk(left) => {
                    pass(left, bytes, each)?;
                    if *left > 0 {
                        return Ok(false);
                    }
                    *self = Self::ChunkEnd(2);
                }
                Self::ChunkEnd(left) => {
                    let here = bytes.len().min((*left).into());
                    *bytes = bytes.get(here..).unwrap_or_default();
                    *left -= u8::try_from(here)?;
                    if *left > 0 {
                        return Ok(false);
                    }
                    *self = Self::ChunkSize(Vec::new());
                }
                Self::ChunkSize(line) => {
                    if !take_line(line, bytes) {
                        return Ok(false);
                    }
                    let text = std::str::from_utf8(line)?.trim();
                    let length =
                        u64::from_str_radix(text, 16).context("a chunk tells no length")?;
                    *self = match length {
                        0 => Self::Trailer(Vec::new()),
                        _ => Self::Chunk(length),
                    };
                }
                Self::Trailer(line) => {
                    if !take_line(line, bytes) {
                        return Ok(false);
                    }
                    if line == b"\r\n" {
                        return Ok(true);
                    }
                    line.clear();
                }
            }
        }
    }
}

/// Passes on what belongs to the `left` bytes of a body.
fn pass(
    left: &mut u64,
    bytes: &mut &[u8],
    each: &mut impl FnMut(Part<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let here = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let (data, rest) = bytes.split_at(here);
    *bytes = rest;
    *left -= here as u64;
    if data.is_empty() {
        return Ok(());
    }
    each(Part::Data(data))
}

/// Moves bytes into `line` up to the line's end, and tells whether it has come.
fn take_line(line: &mut Vec<u8>, bytes: &mut &[u8]) -> bool {
    let end = memchr::memchr(b'\n', bytes);
    let (taken, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
    line.extend_from_slice(taken);
    *bytes = rest;
    end.is_some()
}

const MAX_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], step: usize) -> (Vec<u16>, Vec<u8>, usize) {
        let (mut statuses, mut data, mut ends) = (Vec::new(), Vec::new(), 0);
        let mut answers = Answers::default();
        for piece in wire.chunks(step) {
            answers
                .read(piece, |part| {
                    match part {
                        Part::Head { status, .. } => statuses.push(status),
                        Part::Data(bytes) => data.extend_from_slice(bytes),
                        Part::End => ends += 1,
                    }
                    Ok(())
                })
                .unwrap();
        }
        (statuses, data, ends)
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n\
            HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
        for step in 1..wire.len() {
            let (statuses, data, ends) = read(wire, step);
            assert_eq!(statuses, [200, 204, 200, 410], "in steps of {step}");
            assert_eq!(data, b"helloabc0123456789", "in steps of {step}");
            assert_eq!(ends, 4, "in steps of {step}");
        }
    }
}
