//! Go's names for what TLS can be told, and which of it rustls has. What it does not have is
//! refused with the reason: passed over, it would be a setting without effect.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};
use serde::{Deserialize, Deserializer};

use crate::config_file::from_text;

/// `client_auth_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether a certificate that got through was found to be good.
    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for ClientAuth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "" | "NoClientCert" => Self::None,
            "RequestClientCert" => Self::Request,
            "RequireAnyClientCert" | "RequireClientCert" => Self::RequireAny,
            "VerifyClientCertIfGiven" => Self::VerifyIfGiven,
            "RequireAndVerifyClientCert" => Self::RequireAndVerify,
            _ => {
                return Err(format!(
                    "{text:?} is not one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven and RequireAndVerifyClientCert"
                ));
            }
        })
    }
}

/// `min_version` and `max_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// All versions from one to another, both included.
    pub(super) fn range(min: Self, max: Self) -> Vec<&'static SupportedProtocolVersion> {
        [
            (Self::Tls13, &version::TLS13),
            (Self::Tls12, &version::TLS12),
        ]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, supported)| supported)
        .collect()
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => Err(format!(
                "{text} is not to be had: rustls has neither TLS 1.0 nor TLS 1.1, which are broken; \
                 write TLS12 or TLS13"
            )),
            _ => Err(format!(
                "{text:?} is not a TLS version; write TLS12 or TLS13"
            )),
        }
    }
}

/// An entry of `cipher_suites`.
#[derive(Debug, Clone, Copy)]
pub(super) enum CipherSuite {
    /// A suite of TLS 1.2.
    Tls12(SupportedCipherSuite),
    /// A suite of TLS 1.3: as in Go, these are all on and a list does not change it.
    Tls13,
}

impl<'de> Deserialize<'de> for CipherSuite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for CipherSuite {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = TLS12_SUITES.iter().find(|(name, _)| *name == text);
        if let Some((_, suite)) = known {
            return Ok(Self::Tls12(*suite));
        }
        if TLS13_SUITES.contains(&text.as_str()) {
            return Ok(Self::Tls13);
        }
        let why = if OTHER_SUITES_OF_GO.contains(&text.as_str()) {
            if text.starts_with("TLS_RSA_") {
                "is not to be had: rustls has no suites without forward secrecy (RSA key exchange)"
            } else {
                "is not to be had: rustls has no suites with CBC, RC4 or 3DES"
            }
        } else {
            "is not a cipher suite of Go's"
        };
        let names: Vec<_> = TLS12_SUITES.iter().map(|(name, _)| *name).collect();
        Err(format!("{text:?} {why}; there are {}", names.join(", ")))
    }
}

/// An entry of `curve_preferences`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve(pub(super) &'static dyn SupportedKxGroup);

impl<'de> Deserialize<'de> for Curve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for Curve {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(Self(match text.as_str() {
            "CurveP256" => kx_group::SECP256R1,
            "CurveP384" => kx_group::SECP384R1,
            "X25519" => kx_group::X25519,
            "X25519MLKEM768" => kx_group::X25519MLKEM768,
            _ => {
                let why = match text.as_str() {
                    "CurveP521" => "is not to be had: rustls does no key exchange over it",
                    _ => "is not a curve of Go's",
                };
                return Err(format!(
                    "{text:?} {why}; there are CurveP256, CurveP384, X25519 and X25519MLKEM768"
                ));
            }
        }))
    }
}

const TLS12_SUITES: [(&str, SupportedCipherSuite); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

const TLS13_SUITES: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The rest of what Go has, so that its names are told from slips of the pen.
const OTHER_SUITES_OF_GO: [&str; 14] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];
