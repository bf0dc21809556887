//! What must hold of the parsers that daemons share for any bytes whatsoever. The fuzz targets in `fuzz/` and the
//! property tests call the same functions; each panics where a promise is broken.
//!
//! Not part of the crate's interface: the feature `fuzzing` opens it for `fuzz/` alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use rustls_pki_types::CertificateDer;

use crate::credentials::{self, Credentials};
use crate::san;
pub use crate::web_config::fuzzing::web_config;

/// A certificate that a client shows.
pub fn certificate(bytes: &[u8]) {
    let certificate = CertificateDer::from(bytes);
    if let Ok(names) = san::of(&certificate) {
        assert!(
            names.len() <= bytes.len() / 2,
            "more names than there is room for"
        );
        for name in names {
            assert!(name.to_string().len() <= 2 * bytes.len());
        }
    }
}

/// The value of an `Authorization` header.
pub fn credentials(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value);
    let Ok(read) = credentials::read(&headers, &AUTHORIZATION) else {
        return;
    };
    let again = match &read {
        None => panic!("the header is there"),
        Some(Credentials::Basic { user, password }) => {
            assert!(!user.contains(':'), "{user:?}");
            let pair = [user.as_bytes(), b":", password.expose()].concat();
            format!("Basic {}", STANDARD.encode(pair))
        }
        Some(Credentials::Bearer(token)) => {
            format!("Bearer {}", String::from_utf8_lossy(token.expose()))
        }
    };
    let again = HeaderValue::try_from(again).map(|value| {
        headers.insert(AUTHORIZATION, value);
        credentials::read(&headers, &AUTHORIZATION)
    });
    assert!(
        matches!(again, Ok(Ok(again)) if again == read),
        "they are lost on the way"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushprox_testkit::seeds;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [
            ("certificate", certificate as fn(&[u8])),
            ("credentials", credentials),
            ("web_config", web_config),
        ];
        for (target, check) in targets {
            for bytes in [seeds::of(target), seeds::regressions(target)].concat() {
                check(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_certificate_is_read_right_or_refused(bytes in seeds::near("certificate")) {
            certificate(&bytes);
        }

        #[test]
        fn any_credentials_is_read_right_or_refused(bytes in seeds::near("credentials")) {
            credentials(&bytes);
        }

        #[test]
        fn any_web_config_is_read_right_or_refused(bytes in seeds::near("web_config")) {
            web_config(&bytes);
        }
    }
}
