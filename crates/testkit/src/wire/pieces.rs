//! Bodies, piece by piece, as their framing has them.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::{Connection, Message};

/// A body on its way in.
#[derive(Debug)]
pub struct Pieces<'a> {
    framing: Framing,
    connection: &'a mut Connection,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(head: &Message, connection: &'a mut Connection) -> Self {
        Self {
            framing: Framing::of(head),
            connection,
        }
    }

    /// The next piece, or none when the body or the connection has come to its end.
    ///
    /// # Errors
    /// When nothing comes for a minute, or a chunk has no readable size.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let buffer = &mut self.connection.buffer;
            match &mut self.framing {
                Framing::Done | Framing::Length(0) => {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Framing::Length(left) | Framing::Chunk(left) if *left > 0 && !buffer.is_empty() => {
                    let count = buffer.len().min(usize::try_from(*left).unwrap());
                    *left -= count as u64;
                    return Ok(Some(buffer.split_to(count).freeze()));
                }
                Framing::ToEnd if !buffer.is_empty() => {
                    return Ok(Some(buffer.split().freeze()));
                }
                Framing::Chunk(0) => {
                    if let Some(size) = chunk_size(buffer)? {
                        self.framing = if size == 0 {
                            Framing::Done
                        } else {
                            Framing::Chunk(size)
                        };
                        continue;
                    }
                }
                Framing::Length(_) | Framing::Chunk(_) | Framing::ToEnd => {}
            }
            let read = self.connection.stream.read_buf(&mut self.connection.buffer);
            match timeout(self.connection.limit, read).await? {
                Ok(0) => {
                    if matches!(self.framing, Framing::ToEnd) {
                        self.framing = Framing::Done;
                    }
                    return Ok(None);
                }
                Ok(_) => {}
                // What had come stays, and is not whole.
                Err(_) => return Ok(None),
            }
        }
    }

    /// Whether the body came to its end as its framing has it.
    pub fn is_whole(&self) -> bool {
        matches!(self.framing, Framing::Done)
    }
}

/// Where one stands in a body.
#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunk(u64),
    ToEnd,
    Done,
}

impl Framing {
    fn of(head: &Message) -> Self {
        let answer = head.head.starts_with("HTTP/");
        if head
            .header("Transfer-Encoding")
            .is_some_and(|coding| coding.contains("chunked"))
        {
            Self::Chunk(0)
        } else if let Some(length) = head.header("Content-Length") {
            Self::Length(length.parse().expect("a number in Content-Length"))
        } else if answer && !matches!(head.status(), 204 | 304) {
            Self::ToEnd
        } else {
            Self::Done
        }
    }
}

/// Takes the size line of the next chunk, with the line end of the one before, or the last chunk
/// with its trailer. None if it is not all there yet.
fn chunk_size(buffer: &mut BytesMut) -> io::Result<Option<u64>> {
    let start = if buffer.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(length) = buffer[start..]
        .windows(2)
        .position(|window| window == b"\r\n")
    else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&buffer[start..start + length]).into_owned();
    let digits = line.split(';').next().unwrap_or("").trim();
    let size = u64::from_str_radix(digits, 16).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{line:?} is no chunk size"),
        )
    })?;
    let mut end = start + length + 2;
    if size == 0 {
        // The trailer ends with an empty line, which may follow at once.
        let Some(trailer) = buffer[end - 2..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        else {
            return Ok(None);
        };
        end += trailer + 2;
    }
    buffer.advance(end);
    Ok(Some(size))
}
