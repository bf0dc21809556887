//! What must not be seen: a text that no log, error or debug output shows.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// A password, token or key. It is compared in constant time, and printed by nothing.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Hides `bytes`.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for whoever needs them to prove something.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        is_same(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Compares in a time that does not tell where two texts of one length differ.
#[must_use]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new(*b"swordfish");
        assert_eq!(secret, Secret::new(*b"swordfish"));
        assert_ne!(secret, Secret::new(*b"swordfisH"));
        assert_ne!(secret, Secret::new(*b"swordfis"));
        assert_eq!(
            format!("{secret:?} {:#?}", Some(&secret))
                .matches("hidden")
                .count(),
            2
        );
        assert!(!format!("{secret:?}").contains("sword"));
    }
}
