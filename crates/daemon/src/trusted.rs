//! Certificates to trust, out of a file. One that cannot be read does not cost those beside it, as
//! in Go, on which the operators of its programs rely.

use std::path::Path;

use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tracing::warn;

use crate::pinned;

/// What of a file is trusted: one certificate at least.
#[derive(Debug)]
pub struct Trusted {
    /// All that can be used.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Those of them that may vouch for others. Where there are none, one stands here that can vouch
    /// for nothing.
    pub authorities: RootCertStore,
}

/// Why nothing of a file can be trusted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// It is no PEM.
    #[error("is not a PEM file")]
    NotPem,
    /// There is no certificate in it.
    #[error("has no certificate in PEM format in it")]
    NoCertificate,
    /// None of its certificates can be used; why not the first of them.
    #[error("{0}")]
    Unusable(Error),
}

impl Trusted {
    /// Takes what can be used of `pem`, which stands in `file`, and says in the log what cannot.
    ///
    /// # Errors
    ///
    /// [`TrustError`] when there is nothing.
    pub fn read(pem: &[u8], file: &Path) -> Result<Self, TrustError> {
        let mut certificates = Vec::new();
        let mut authorities = RootCertStore::empty();
        let mut left_out = Vec::new();
        for (index, section) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let read = section.map_err(|_| TrustError::NotPem);
            let read = read.and_then(|certificate| {
                let anchors = pinned::anchors(&certificate).map_err(TrustError::Unusable)?;
                Ok((certificate, anchors))
            });
            match read {
                Ok((certificate, anchors)) => {
                    certificates.push(certificate);
                    authorities.extend(anchors);
                }
                Err(error) => left_out.push((index + 1, error)),
            }
        }
        if certificates.is_empty() {
            let first = left_out.into_iter().next();
            return Err(first.map_or(TrustError::NoCertificate, |(_, error)| error));
        }
        for (position, error) in left_out {
            let error = match error {
                TrustError::Unusable(Error::InvalidCertificate(CertificateError::BadEncoding)) => {
                    "its encoding is wrong".to_owned()
                }
                TrustError::Unusable(error) => error.to_string(),
                TrustError::NotPem | TrustError::NoCertificate => "it is not whole".to_owned(),
            };
            warn!(
                file = %file.display(),
                position,
                error,
                "a certificate cannot be read and is left out, the others of the file are trusted"
            );
        }
        if authorities.is_empty() {
            authorities.extend([pinned::NOBODY]);
        }
        Ok(Self {
            certificates,
            authorities,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use rcgen::{CertificateParams, IsCa, KeyPair};

    fn certificate(is_ca: IsCa) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn authority() -> rcgen::Certificate {
        certificate(IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
    }

    fn section(text: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// PEM that is no certificate, and a section that is no PEM.
    fn broken() -> [String; 2] {
        let text = BASE64_STANDARD.encode("no certificate");
        [section(&text), section("no base64: *")]
    }

    fn read(pem: &str) -> Result<Trusted, TrustError> {
        Trusted::read(pem.as_bytes(), Path::new("ca.pem"))
    }

    #[test]
    fn what_cannot_be_read_does_not_cost_the_others() {
        let (first, last) = (authority(), certificate(IsCa::ExplicitNoCa));
        for broken in broken() {
            let pem = first.pem() + &broken + &last.pem();
            let trusted = read(&pem).unwrap();
            assert_eq!(
                trusted.certificates,
                [first.der().clone(), last.der().clone()]
            );
            assert_eq!(trusted.authorities.len(), 1);
        }
        // What is left of a file whose end is missing.
        let pem = first.pem() + last.pem().split("-----END").next().unwrap();
        assert_eq!(read(&pem).unwrap().certificates, [first.der().clone()]);
    }

    #[test]
    fn a_file_of_which_nothing_can_be_used_is_an_error() {
        let [no_certificate, no_pem] = broken();
        assert_eq!(read("").unwrap_err(), TrustError::NoCertificate);
        assert_eq!(read("a text\n").unwrap_err(), TrustError::NoCertificate);
        assert_eq!(read(&no_pem).unwrap_err(), TrustError::NotPem);
        let error = read(&no_certificate).unwrap_err();
        assert!(matches!(error, TrustError::Unusable(_)), "{error:?}");
        let both = no_certificate + &no_pem;
        assert!(matches!(read(&both), Err(TrustError::Unusable(_))));
    }

    #[test]
    fn where_none_is_an_authority_nobody_vouches() {
        let trusted = read(&certificate(IsCa::NoCa).pem()).unwrap();
        assert_eq!(trusted.authorities.roots, [pinned::NOBODY]);
    }
}
