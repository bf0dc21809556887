//! The names in a certificate: its subject alternative names.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// One subject alternative name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum San {
    /// A host name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate or its subject alternative names cannot be read")]
pub struct Unreadable;

/// The names of a certificate, of the four kinds there are a use for.
///
/// # Errors
///
/// [`Unreadable`] where it is malformed.
pub fn of(certificate: &CertificateDer<'_>) -> Result<Vec<San>, Unreadable> {
    let certificate = Certificate::from_der(certificate).map_err(|_| Unreadable)?;
    let names = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .map_err(|_| Unreadable)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    Ok(names.iter().filter_map(san).collect())
}

/// Until when a certificate is good.
///
/// # Errors
///
/// [`Unreadable`] where it is malformed.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, Unreadable> {
    let certificate = Certificate::from_der(certificate).map_err(|_| Unreadable)?;
    let not_after = certificate.tbs_certificate().validity().not_after;
    Ok(SystemTime::UNIX_EPOCH + not_after.to_unix_duration())
}

fn san(name: &GeneralName) -> Option<San> {
    match name {
        GeneralName::DnsName(name) => Some(San::Dns(name.as_str().to_owned())),
        GeneralName::Rfc822Name(name) => Some(San::Email(name.as_str().to_owned())),
        GeneralName::UniformResourceIdentifier(name) => Some(San::Uri(name.as_str().to_owned())),
        GeneralName::IpAddress(address) => {
            let bytes = address.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(San::Ip)
        }
        _ => None,
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Email(name) | Self::Uri(name) => f.write_str(name),
            Self::Ip(address) => fmt::Display::fmt(address, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(sans: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn names_of_all_four_kinds_are_read() {
        let certificate = certificate(vec![
            SanType::DnsName("a.example.org".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::Rfc822Name("who@example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/x".try_into().unwrap()),
        ]);
        let names = of(&certificate).unwrap();
        let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "a.example.org",
                "192.0.2.1",
                "2001:db8::1",
                "who@example.org",
                "spiffe://example.org/x"
            ]
        );
        assert!(matches!(names[3], San::Email(_)) && matches!(names[4], San::Uri(_)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the certificate is good today")]
    fn a_certificate_without_names_has_none_and_rubbish_is_refused() {
        let good = certificate(vec![]);
        assert_eq!(of(&good), Ok(vec![]));
        assert!(not_after(&good).unwrap() > SystemTime::now());
        assert_eq!(of(&CertificateDer::from(vec![])), Err(Unreadable));
        assert_eq!(not_after(&CertificateDer::from(vec![])), Err(Unreadable));
        assert_eq!(
            of(&CertificateDer::from(vec![0x30, 0x84, 0xff])),
            Err(Unreadable)
        );
    }
}
