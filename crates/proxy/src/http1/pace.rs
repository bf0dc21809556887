//! When to look at a head that arrives in pieces.

/// Says when it is worth while to parse a head that arrives in pieces: when it may be complete, or
/// there is so much more of it that what is wrong with it should be found. A peer that sends byte
/// by byte would else have the same bytes parsed over and over.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    seen: usize,
    next: usize,
}

impl Pace {
    /// Whether to parse `bytes`, which have grown since the last time.
    pub(crate) fn is_due(&mut self, bytes: &[u8]) -> bool {
        let seen = std::mem::replace(&mut self.seen, bytes.len());
        if bytes.len() < self.next {
            let new = bytes.get(seen.saturating_sub(3)..).unwrap_or_default();
            let may_be_complete = new.windows(2).any(|two| two == b"\n\n")
                || new.windows(3).any(|three| three == b"\n\r\n");
            if !may_be_complete {
                return false;
            }
        }
        self.next = bytes.len() * 2;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_may_be_complete_or_has_doubled() {
        let mut pace = Pace::default();
        let head = b"GET /aaaaaaaaaaaaaa HTTP/1.1\r\nHost: a\r\n\r\n";
        let parsed: Vec<usize> = (1..=head.len())
            .filter(|end| pace.is_due(&head[..*end]))
            .collect();
        assert_eq!(parsed, [1, 2, 4, 8, 16, 32, head.len()]);
    }
}
