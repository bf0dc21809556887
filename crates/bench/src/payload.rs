//! What the fake clients push: text like an exporter's, which tells whose it is and can be checked
//! at any offset.

/// The answer of a client, of an exact size. Its first line names the client; the rest is shared.
#[derive(Debug)]
pub(crate) struct Payload {
    rest: Vec<u8>,
}

impl Payload {
    pub(crate) fn new(size: usize) -> Self {
        let length = size.saturating_sub(FIRST_LINE);
        let mut rest = Vec::with_capacity(length + 128);
        let mut number: u64 = 1;
        while rest.len() < length {
            let line = format!(
                "bench_requests_total{{code=\"200\",handler=\"/api/v1/query\",instance=\"{number:06}\"}} {}\n",
                number.wrapping_mul(2_654_435_761) % 1_000_003,
            );
            rest.extend_from_slice(line.as_bytes());
            number += 1;
        }
        rest.truncate(length);
        if let Some(last) = rest.last_mut() {
            *last = b'\n';
        }
        Self { rest }
    }

    pub(crate) fn size(&self) -> usize {
        FIRST_LINE + self.rest.len()
    }

    /// Everything behind the first line.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    pub(crate) fn first_line(client: u32) -> [u8; FIRST_LINE] {
        let mut line = *b"# answer of 00000\n";
        let mut left = client;
        for digit in line.iter_mut().skip(12).take(5).rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
        }
        line
    }

    /// Whether `bytes` is what stands at `offset` in the answer of `client`.
    pub(crate) fn matches(&self, client: u32, offset: usize, bytes: &[u8]) -> bool {
        let (mut offset, mut bytes) = (offset, bytes);
        if offset < FIRST_LINE {
            let here = bytes.len().min(FIRST_LINE - offset);
            let (head, rest) = bytes.split_at(here);
            if Self::first_line(client).get(offset..offset + here) != Some(head) {
                return false;
            }
            (offset, bytes) = (FIRST_LINE, rest);
        }
        let from = offset - FIRST_LINE;
        bytes.is_empty() || self.rest.get(from..from + bytes.len()) == Some(bytes)
    }
}

const FIRST_LINE: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_matches_in_any_pieces_and_no_other_does() {
        let payload = Payload::new(1000);
        assert_eq!(payload.size(), 1000);
        let mut whole = Payload::first_line(17).to_vec();
        whole.extend_from_slice(payload.rest());
        assert_eq!(whole.len(), 1000);
        for step in [1, 7, 18, 19, 500, 1000] {
            let mut offset = 0;
            for piece in whole.chunks(step) {
                assert!(payload.matches(17, offset, piece), "{offset}");
                offset += piece.len();
            }
        }
        assert!(!payload.matches(18, 0, &whole));
        whole[700] ^= 1;
        assert!(!payload.matches(17, 0, &whole));
        assert!(!payload.matches(17, 990, b"0123456789too long"));
    }
}
