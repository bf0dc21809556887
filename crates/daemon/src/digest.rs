//! SHA-256, of what is compared and not kept.

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    array(digest(&SHA256, bytes).as_ref())
}

/// The bytes of a digest or a tag of this length.
pub(crate) fn array(bytes: &[u8]) -> Digest {
    let mut array = [0; 32];
    for (to, from) in array.iter_mut().zip(bytes) {
        *to = *from;
    }
    array
}
