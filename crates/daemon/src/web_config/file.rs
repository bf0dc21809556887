//! The format of the file, as exporter-toolkit documents it, key by key.

use std::time::Duration;

use http::header::{
    CONTENT_SECURITY_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    X_XSS_PROTECTION,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pushprox_protocol::duration;
use serde::{Deserialize, Deserializer};

use super::tls_names::{CipherSuite, ClientAuth, Curve, Version};
use crate::config_file::{Pairs, from_text};
use crate::passwords::PasswordHash;
use crate::rate::Rate;
use crate::secret::Secret;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebFile {
    pub(super) tls_server_config: Option<TlsServer>,
    pub(super) http_server_config: Option<HttpServer>,
    pub(super) basic_auth_users: Pairs<PasswordHash>,
    pub(super) rate_limit: Option<RateLimit>,
}

/// `tls_server_config`. An empty text counts as none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsServer {
    pub(super) cert: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key: Option<SecretText>,
    pub(super) key_file: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_auth_type: Option<ClientAuth>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<Version>,
    pub(super) max_version: Option<Version>,
    pub(super) cipher_suites: Option<Vec<CipherSuite>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<Curve>>,
}

impl TlsServer {
    /// Whether nothing at all is set, which means no TLS.
    pub(super) fn is_empty(&self) -> bool {
        let texts = [
            &self.cert,
            &self.cert_file,
            &self.key_file,
            &self.client_ca,
            &self.client_ca_file,
        ];
        texts.iter().all(|text| text.is_none())
            && self.key.is_none()
            && self.client_auth_type.is_none()
            && self.client_allowed_sans.is_none()
            && self.min_version.is_none()
            && self.max_version.is_none()
            && self.cipher_suites.is_none()
            && self.prefer_server_cipher_suites.is_none()
            && self.curve_preferences.is_none()
    }
}

/// A text that is secret, such as a key in PEM.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct SecretText(pub(super) Secret);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Secret::new(text.into_bytes()))
    }
}

/// `http_server_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpServer {
    /// Taken and without effect: Prometheus cannot scrape through a proxy that speaks HTTP/2.
    #[serde(rename = "http2")]
    pub(super) _http2: Option<bool>,
    pub(super) headers: Headers,
}

/// The headers to add to answers.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Pairs<String>")]
pub(super) struct Headers(pub(super) HeaderMap);

impl TryFrom<Pairs<String>> for Headers {
    type Error = String;

    fn try_from(pairs: Pairs<String>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.0 {
            let known = HEADERS
                .iter()
                .find(|(known, _)| name.eq_ignore_ascii_case(known.as_str()));
            let Some((header, values)) = known else {
                let known: Vec<_> = HEADERS.iter().map(|(known, _)| known.as_str()).collect();
                return Err(format!(
                    "the header {name:?} cannot be set here; these can: {}",
                    known.join(", ")
                ));
            };
            // Documented as "unset if blank".
            if value.is_empty() {
                continue;
            }
            if !values.is_empty() && !values.contains(&value.as_str()) {
                return Err(format!(
                    "{name} can be {}, not {value:?}",
                    values.join(" or ")
                ));
            }
            let value = HeaderValue::try_from(value)
                .map_err(|_| format!("{name} has a value that no header can hold"))?;
            headers.insert(header.clone(), value);
        }
        Ok(Self(headers))
    }
}

/// The headers that the format knows, and the values that they may have if not any.
const HEADERS: [(HeaderName, &[&str]); 5] = [
    (CONTENT_SECURITY_POLICY, &[]),
    (STRICT_TRANSPORT_SECURITY, &[]),
    (X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    (X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    (X_XSS_PROTECTION, &[]),
];

/// `rate_limit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    interval: Interval,
    #[serde(default)]
    burst: u32,
}

#[derive(Debug)]
struct Interval(Duration);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match duration::parse(&text) {
            Ok(interval) => Ok(Self(interval)),
            Err(error) => Err(format!(
                "{text:?} {}",
                error.to_string().trim_start_matches("it ")
            )),
        }
    }
}

impl RateLimit {
    /// The rate; none where the interval is 0.
    ///
    /// # Errors
    ///
    /// A limit that lets nothing through.
    pub(super) fn rate(&self) -> Result<Option<Rate>, &'static str> {
        let Self { interval, burst } = self;
        match (interval.0, *burst) {
            (Duration::ZERO, _) => Ok(None),
            (_, 0) => Err("rate_limit: with a burst of 0 no request passes; write 1 or more"),
            (interval, burst) => Ok(Some(Rate { interval, burst })),
        }
    }
}
