//! Certificates that are trusted themselves, without anybody who vouches for them.
//!
//! `openssl req -x509` makes a certificate that is an authority (`CA:TRUE`), and programs in Go take
//! it as a server's or client's where it is among the authorities. WebPKI takes no authority for
//! that, so that such ones are looked at here. Nor does it ask whether what it is told to trust is
//! an authority, so that only those that are get there.

use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::{Certificate, Version};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To be a server.
    Server,
    /// To be a client.
    Client,
}

/// Whether a certificate is one of `trusted` to the byte, and so needs nobody to vouch for it.
pub fn is_among(certificate: &CertificateDer<'_>, trusted: &[CertificateDer<'_>]) -> bool {
    trusted
        .iter()
        .any(|one| one.as_ref() == certificate.as_ref())
}

/// What a certificate may vouch for others by: nothing where it is no authority's. Whoever has the
/// key of such a one could else make certificates for all names.
///
/// # Errors
///
/// It cannot be used, authority or not.
pub(crate) fn anchors(
    certificate: &CertificateDer<'_>,
) -> Result<Vec<TrustAnchor<'static>>, Error> {
    let mut one = RootCertStore::empty();
    one.add(certificate.clone().into_owned())?;
    Ok(match may_vouch(certificate)? {
        true => one.roots,
        false => Vec::new(),
    })
}

/// As in Go: where a certificate can say whether it is an authority, it has to say so, and where it
/// says what its key is for, it has to name this.
fn may_vouch(certificate: &CertificateDer<'_>) -> Result<bool, CertificateError> {
    let unreadable = |_| CertificateError::BadEncoding;
    let certificate = Certificate::from_der(certificate).map_err(unreadable)?;
    let certificate = certificate.tbs_certificate();
    let constraints = certificate.get_extension::<BasicConstraints>();
    let is_authority = match constraints.map_err(unreadable)? {
        Some((_, constraints)) => constraints.ca,
        None => certificate.version() != Version::V3,
    };
    let usage = certificate.get_extension::<KeyUsage>();
    let signs = usage.map_err(unreadable)?;
    Ok(is_authority && signs.is_none_or(|(_, usage)| usage.key_cert_sign()))
}

/// An authority without a key, which no signature fits: to WebPKI nobody at all is an error.
pub(crate) const NOBODY: TrustAnchor<'_> = TrustAnchor {
    subject: Der::from_slice(b"nobody"),
    subject_public_key_info: Der::from_slice(b""),
    name_constraints: None,
};

/// Whether such a certificate is good for `usage` at this time: what WebPKI would look at besides
/// signatures and names.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(
    certificate: &CertificateDer<'_>,
    usage: Usage,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let certificate =
        Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let certificate = certificate.tbs_certificate();
    let (validity, now) = (certificate.validity(), now.as_secs());
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired);
    }
    let usages = certificate
        .get_extension::<ExtendedKeyUsage>()
        .map_err(|_| CertificateError::BadEncoding)?;
    let wanted = match usage {
        Usage::Server => SERVER_AUTH,
        Usage::Client => CLIENT_AUTH,
    };
    match usages {
        Some((_, usages)) if !usages.0.iter().any(|one| [wanted, ANY].contains(one)) => {
            Err(CertificateError::InvalidPurpose)
        }
        _ => Ok(()),
    }
}

/// RFC 5280, section 4.2.1.12.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
    use std::time::Duration;

    #[test]
    fn only_an_authority_that_may_sign_certificates_vouches_for_others() {
        use rcgen::KeyUsagePurpose::{DigitalSignature, KeyCertSign};
        let with = |is_ca: IsCa, usages: &[rcgen::KeyUsagePurpose]| {
            let mut params = CertificateParams::default();
            params.is_ca = is_ca;
            params.key_usages = usages.to_vec();
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let authority = || IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        for (certificate, expected) in [
            (with(authority(), &[]), true),
            (with(authority(), &[KeyCertSign]), true),
            (with(authority(), &[DigitalSignature]), false),
            (with(IsCa::NoCa, &[]), false),
            (with(IsCa::ExplicitNoCa, &[KeyCertSign]), false),
        ] {
            assert_eq!(may_vouch(&certificate), Ok(expected));
        }
        assert!(anchors(&CertificateDer::from(vec![0x30])).is_err());
    }

    #[test]
    fn a_certificate_is_good_for_its_time_and_its_use() {
        let at = |year: u64| {
            let days = (year - 1970) * 365 + (year - 1969) / 4;
            UnixTime::since_unix_epoch(Duration::from_secs((days + 150) * 86_400))
        };
        let with = |usages: &[ExtendedKeyUsagePurpose]| {
            let mut params = CertificateParams::default();
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2030, 1, 1);
            params.extended_key_usages = usages.to_vec();
            let key = KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        let server = with(&[ExtendedKeyUsagePurpose::ServerAuth]);
        for (certificate, usage, year, expected) in [
            (&server, Usage::Server, 2025, Ok(())),
            (
                &server,
                Usage::Server,
                2019,
                Err(CertificateError::NotValidYet),
            ),
            (&server, Usage::Server, 2031, Err(CertificateError::Expired)),
            (
                &server,
                Usage::Client,
                2025,
                Err(CertificateError::InvalidPurpose),
            ),
            (&with(&[]), Usage::Client, 2025, Ok(())),
            (
                &with(&[ExtendedKeyUsagePurpose::Any]),
                Usage::Client,
                2025,
                Ok(()),
            ),
        ] {
            assert_eq!(
                check(certificate, usage, at(year)),
                expected,
                "{usage:?} {year}"
            );
        }
        let rubbish = CertificateDer::from(vec![0x30]);
        assert_eq!(
            check(&rubbish, Usage::Server, at(2025)),
            Err(CertificateError::BadEncoding)
        );
        assert!(is_among(&server, &[with(&[]), server.clone()]));
        assert!(!is_among(&server, &[with(&[]), rubbish]));
    }
}
