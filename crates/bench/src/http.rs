//! HTTP/1.1 messages as they arrive on a connection: heads, and bodies by length or in chunks.

use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context as _, ensure};

/// Reads the answers on one connection, one after the other.
pub(crate) type Answers = Messages<Answer>;

/// Reads the requests on one connection, one after the other.
pub(crate) type Requests = Messages<Request>;

/// What kind of messages a connection carries.
pub(crate) trait Kind {
    /// What is told about a head.
    type Head<'a>;

    /// The length of the head, what it tells and the body that follows; `None` when the head has
    /// not come whole yet.
    fn parse(bytes: &[u8]) -> anyhow::Result<Option<(usize, Self::Head<'_>, Body)>>;
}

#[derive(Debug)]
pub(crate) enum Answer {}

#[derive(Debug)]
pub(crate) enum Request {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status<'a> {
    pub(crate) code: u16,
    pub(crate) reason: &'a str,
    /// The scrape's id, where the answer is one inside a push.
    pub(crate) id: Option<&'a [u8]>,
}

/// What has been read of a message. The head of a request is its path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a, H> {
    Head(H),
    Data(&'a [u8]),
    End,
}

pub(crate) struct Messages<K> {
    /// The beginning of a head that has not come whole yet.
    partial: Vec<u8>,
    body: Option<Body>,
    kind: PhantomData<K>,
}

#[derive(Debug)]
pub(crate) enum Body {
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

impl<K: Kind> Messages<K> {
    /// Takes bytes off the connection and passes on, in order, what they mean.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Part<'_, K::Head<'_>>) -> anyhow::Result<()>,
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
        each: &mut impl FnMut(Part<'_, K::Head<'_>>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            if let Some(body) = &mut self.body {
                let is_whole = body.read(&mut bytes, |data| each(Part::Data(data)))?;
                if !is_whole {
                    return Ok(());
                }
                self.body = None;
                each(Part::End)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let Some((length, head, body)) = K::parse(bytes)? else {
                ensure!(bytes.len() < MAX_HEAD, "the head of a message has no end");
                self.partial = bytes.to_vec();
                return Ok(());
            };
            each(Part::Head(head))?;
            self.body = Some(body);
            bytes = bytes.get(length..).unwrap_or_default();
        }
    }
}

impl<K> Default for Messages<K> {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            body: None,
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Messages<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("partial", &self.partial.len())
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl Kind for Answer {
    type Head<'a> = Status<'a>;

    fn parse(bytes: &[u8]) -> anyhow::Result<Option<(usize, Status<'_>, Body)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = head.parse(bytes).context("no HTTP answer")?
        else {
            return Ok(None);
        };
        let code = head.code.context("an answer has no status")?;
        let reason = head.reason.unwrap_or_default();
        let body = match code {
            204 => Body::Length(0),
            _ => Body::of(head.headers)?.context("an answer tells no length")?,
        };
        let mut headers = head.headers.iter();
        let id = headers.find(|header| header.name.eq_ignore_ascii_case("id"));
        let id = id.map(|header| header.value);
        Ok(Some((length, Status { code, reason, id }, body)))
    }
}

impl Kind for Request {
    type Head<'a> = &'a str;

    fn parse(bytes: &[u8]) -> anyhow::Result<Option<(usize, &str, Body)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = head.parse(bytes).context("no HTTP request")?
        else {
            return Ok(None);
        };
        let path = head.path.context("a request has no path")?;
        let body = Body::of(head.headers)?.unwrap_or(Body::Length(0));
        Ok(Some((length, path, body)))
    }
}

impl Body {
    fn of(headers: &[httparse::Header<'_>]) -> anyhow::Result<Option<Self>> {
        for header in headers {
            let value = std::str::from_utf8(header.value)?.trim();
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                ensure!(
                    value.eq_ignore_ascii_case("chunked"),
                    "a message's body is {value}"
                );
                return Ok(Some(Self::ChunkSize(Vec::new())));
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = value.parse().context("a content length is no number")?;
                return Ok(Some(Self::Length(length)));
            }
        }
        Ok(None)
    }

    /// Whether the body has come to its end.
    fn read(
        &mut self,
        bytes: &mut &[u8],
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        loop {
            match self {
                Self::Length(left) => {
                    pass(left, bytes, &mut each)?;
                    return Ok(*left == 0);
                }
                Self::Chunk(left) => {
                    pass(left, bytes, &mut each)?;
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
    each: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
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
    each(data)
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
                        Part::Head(head) => statuses.push(head.code),
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
    #[test]
    fn requests_are_read_however_they_are_cut() {
        let wire = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /poll HTTP/1.1\r\nContent-Length: 4\r\n\r\nname\
            POST /push HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for step in 1..wire.len() {
            let mut requests = Requests::default();
            let (mut paths, mut data, mut ends) = (Vec::new(), Vec::new(), 0);
            for piece in wire.chunks(step) {
                requests
                    .read(piece, |part| {
                        match part {
                            Part::Head(path) => paths.push(path.to_owned()),
                            Part::Data(bytes) => data.extend_from_slice(bytes),
                            Part::End => ends += 1,
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(paths, ["/metrics", "/poll", "/push"], "in steps of {step}");
            assert_eq!(data, b"nameab", "in steps of {step}");
            assert_eq!(ends, 3, "in steps of {step}");
        }
    }
}
