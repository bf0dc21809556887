//! The id that joins a push to its scrape.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::HeaderValue;
use uuid::Uuid;

/// Names one scrape between its hand-out and its push.
///
/// Ids are random (UUID v4), so that nobody who was not handed a scrape can answer it. The Go
/// programs treat an id as opaque text, and so does our client: only the proxy, which made the
/// id, reads it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrapeId(Uuid);

impl ScrapeId {
    /// A new id from the operating system's randomness, by way of a cryptographic generator.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads an id as this proxy writes it. Anything else cannot be one of ours.
    #[must_use]
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        Self::parse_bytes(value.as_bytes())
    }

    /// As [`ScrapeId::parse`], for a value that is not in a map.
    pub(crate) fn parse_bytes(bytes: &[u8]) -> Option<Self> {
        // Only the hyphenated form is ever written: other spellings of the same UUID are refused.
        if bytes.len() != uuid::fmt::Hyphenated::LENGTH {
            return None;
        }
        Uuid::try_parse_ascii(bytes).ok().map(Self)
    }

    /// The id as the value of an `Id` header, in place.
    #[must_use]
    pub fn encode<'a>(&self, buffer: &'a mut [u8; Self::LENGTH]) -> &'a str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// The length of an encoded id.
    pub const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;
}

impl Hash for ScrapeId {
    /// One number, which is random already where this proxy made the id.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (high, low) = self.0.as_u64_pair();
        state.write_u64(high ^ low);
    }
}

impl fmt::Display for ScrapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for ScrapeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<u128> for ScrapeId {
    /// A chosen id, for tests of what an id joins.
    fn from(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_header() {
        let id = ScrapeId::random();
        let mut buffer = [0; ScrapeId::LENGTH];
        let value = HeaderValue::from_str(id.encode(&mut buffer)).unwrap();
        assert_eq!(ScrapeId::parse(&value), Some(id));
    }

    #[test]
    fn foreign_ids_are_not_ours() {
        for text in [
            "",
            "1795546384-2-16969",
            "{3caff62d-f468-48df-9611-0d2eddf18a98}",
            "3caff62df46848df96110d2eddf18a98",
            "3caff62d-f468-48df-9611-0d2eddf18a9g",
        ] {
            let value = HeaderValue::from_str(text).unwrap();
            assert_eq!(ScrapeId::parse(&value), None, "{text}");
        }
    }
}
