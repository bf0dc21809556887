//! The chunked transfer coding (RFC 9112, section 7.1), decoded piece by piece without copying.

use bytes::{Buf, Bytes};

use super::body::{BodyError, Piece};

/// Where the decoder stands between two pieces of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoder {
    /// Within a chunk's size; `digits` of it have been read.
    Size { size: u64, digits: u8 },
    /// Within white space behind the size: an extension or the line end follows, and nothing else.
    Padding { size: u64, spent: u16 },
    /// Within an extension, until the line ends. `spent` bounds it and what stands before it.
    Extension { size: u64, spent: u16 },
    /// Behind the first half of the line end that follows a size.
    SizeEnd { size: u64 },
    /// Within a chunk's data.
    Data { left: u64 },
    /// Behind a chunk's data, where a line end must stand; `cr` when its first half has been read.
    DataEnd { cr: bool },
    /// Within the trailers, which are dropped. `line` is how far the line has come, `cr` whether the
    /// first half of its end has been read, `spent` all of them.
    Trailers { line: u16, cr: bool, spent: u16 },
    /// The last chunk and the trailers have ended.
    Done,
    /// What came was malformed. Nobody can tell where such a body ends, so that it never does.
    Broken(BodyError),
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// Takes what it can from the front of `input`.
    pub(super) fn decode(&mut self, input: &mut Bytes) -> Result<Piece, BodyError> {
        loop {
            if let Self::Data { left } = *self {
                if input.is_empty() {
                    return Ok(Piece::NeedMore);
                }
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let data = input.split_to(here);
                let left = left - here as u64;
                *self = match left {
                    0 => Self::DataEnd { cr: false },
                    _ => Self::Data { left },
                };
                return Ok(Piece::Data(data));
            }
            match *self {
                Self::Done => return Ok(Piece::End),
                Self::Broken(error) => return Err(error),
                _ => {}
            }
            if input.is_empty() {
                return Ok(Piece::NeedMore);
            }
            *self = self.step(input.get_u8()).unwrap_or_else(Self::Broken);
        }
    }

    /// One byte of what stands around the data.
    fn step(self, byte: u8) -> Result<Self, BodyError> {
        match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits >= MAX_DIGITS {
                    return Err(BodyError::ChunkSize);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                })
            }
            (Self::Size { digits: 0, .. }, _) => Err(BodyError::ChunkSize),
            (
                Self::Size { size, .. } | Self::Padding { size, .. } | Self::Extension { size, .. },
                b'\r',
            ) => Ok(Self::SizeEnd { size }),
            (Self::SizeEnd { size: 0 }, b'\n') => Ok(Self::Trailers {
                line: 0,
                cr: false,
                spent: 0,
            }),
            (Self::SizeEnd { size: left }, b'\n') => Ok(Self::Data { left }),
            (Self::Size { size, .. }, b';') => Ok(Self::Extension { size, spent: 0 }),
            (Self::Size { size, .. }, b' ' | b'\t') => Ok(Self::Padding { size, spent: 0 }),
            (Self::Padding { size, spent }, b';') => Ok(Self::Extension { size, spent }),
            (Self::Padding { size, spent }, b' ' | b'\t') if spent < MAX_EXTRA => {
                Ok(Self::Padding {
                    size,
                    spent: spent + 1,
                })
            }
            (Self::Extension { .. }, b'\n') => Err(BodyError::ChunkSize),
            (Self::Extension { size, spent }, _) if spent < MAX_EXTRA => Ok(Self::Extension {
                size,
                spent: spent + 1,
            }),
            (Self::DataEnd { cr: false }, b'\r') => Ok(Self::DataEnd { cr: true }),
            (Self::DataEnd { cr: true }, b'\n') => Ok(Self::new()),
            (
                Self::Trailers {
                    line: 0, cr: true, ..
                },
                b'\n',
            ) => Ok(Self::Done),
            (Self::Trailers { spent, .. }, _) if spent >= MAX_EXTRA => Err(BodyError::Trailers),
            (
                Self::Trailers {
                    cr: true, spent, ..
                },
                b'\n',
            ) => Ok(Self::Trailers {
                line: 0,
                cr: false,
                spent: spent + 1,
            }),
            // Half a line end is none.
            (Self::Trailers { cr: true, .. }, _) | (Self::Trailers { .. }, b'\n') => {
                Err(BodyError::Trailers)
            }
            (Self::Trailers { line, spent, .. }, b'\r') => Ok(Self::Trailers {
                line,
                cr: true,
                spent: spent + 1,
            }),
            (Self::Trailers { line, spent, .. }, _) => Ok(Self::Trailers {
                line: line + 1,
                cr: false,
                spent: spent + 1,
            }),
            _ => Err(BodyError::ChunkSize),
        }
    }
}

/// Sixteen hexadecimal digits fill 64 bits.
const MAX_DIGITS: u8 = 16;

/// What extensions of one chunk, or all trailers, may take: nothing here needs them.
const MAX_EXTRA: u16 = 8 * 1024;
