//! Header names of the protocol, and which headers stop where.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};

/// `Id`: the scrape id, on the instruction and on the pushed response.
pub const ID: HeaderName = HeaderName::from_static("id");

/// `X-Prometheus-Scrape-Timeout-Seconds`: how long Prometheus waits, on the scrape, the
/// instruction and the pull.
pub const SCRAPE_TIMEOUT_SECONDS: HeaderName =
    HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// `X-Prometheus-Scrape-Timeout`: the seconds left, on the pushed response.
pub const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout");

/// `X-Prometheus-Refresh-Interval-Seconds`: marks a request of Prometheus's http_sd.
pub const REFRESH_INTERVAL_SECONDS: HeaderName =
    HeaderName::from_static("x-prometheus-refresh-interval-seconds");

/// `X-Prom-Pull-Token`: the operator's token for the target, on the pull alone.
pub const PULL_TOKEN: HeaderName = HeaderName::from_static("x-prom-pull-token");

/// `Prefer` (RFC 7240): with `wait=N`, how long a poll of our client may be held.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// `Preference-Applied` (RFC 7240): by which the proxy says that it honours `Prefer`.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// A header that means something to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `Authorization`.
    Authorization,
    /// `Connection`.
    Connection,
    /// `Content-Encoding`.
    ContentEncoding,
    /// `Content-Length`.
    ContentLength,
    /// `Date`.
    Date,
    /// `Expect`.
    Expect,
    /// `Host`.
    Host,
    /// [`ID`].
    Id,
    /// [`PREFER`].
    Prefer,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// [`SCRAPE_TIMEOUT`].
    ScrapeTimeout,
    /// [`SCRAPE_TIMEOUT_SECONDS`].
    ScrapeTimeoutSeconds,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// Another that ends at each hop: `Keep-Alive`, `Proxy-*`, `TE`, `Trailer` and `Upgrade`.
    OfTheHop,
}

impl Field {
    /// The one of this name, which may be in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let first = name.as_bytes().first()?.to_ascii_lowercase();
        // Nearly all names are told apart by this, and compared with one other at the most.
        let (spelling, field) = match (first, name.len()) {
            (b'a', 13) => ("Authorization", Self::Authorization),
            (b'c', 10) => ("Connection", Self::Connection),
            (b'c', 14) => ("Content-Length", Self::ContentLength),
            (b'c', 16) => ("Content-Encoding", Self::ContentEncoding),
            (b'd', 4) => ("Date", Self::Date),
            (b'e', 6) => ("Expect", Self::Expect),
            (b'h', 4) => ("Host", Self::Host),
            (b'i', 2) => ("Id", Self::Id),
            (b'k', 10) => ("Keep-Alive", Self::OfTheHop),
            (b'p', _) => return Self::named_with_p(name),
            (b't', 2) => ("TE", Self::OfTheHop),
            (b't', 7) => ("Trailer", Self::OfTheHop),
            (b't', 17) => ("Transfer-Encoding", Self::TransferEncoding),
            (b'u', 7) => ("Upgrade", Self::OfTheHop),
            (b'x', 27) => ("X-Prometheus-Scrape-Timeout", Self::ScrapeTimeout),
            (b'x', 35) => (
                "X-Prometheus-Scrape-Timeout-Seconds",
                Self::ScrapeTimeoutSeconds,
            ),
            _ => return None,
        };
        // As nearly all programs write it, which is the quicker look.
        let is_it = name == spelling || name.eq_ignore_ascii_case(spelling);
        is_it.then_some(field)
    }

    fn named_with_p(name: &str) -> Option<Self> {
        let start = name.as_bytes().get(..6)?;
        match start.eq_ignore_ascii_case(b"proxy-") {
            true if name.eq_ignore_ascii_case("proxy-authorization") => {
                Some(Self::ProxyAuthorization)
            }
            true => Some(Self::OfTheHop),
            false => name.eq_ignore_ascii_case("prefer").then_some(Self::Prefer),
        }
    }

    /// Whether it ends at each hop (RFC 9110, section 7.6.1).
    fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection | Self::ProxyAuthorization | Self::TransferEncoding | Self::OfTheHop
        )
    }

    /// Whether a `Connection` header has no business to name it: a peer could otherwise take away the
    /// framing or what joins a push to its scrape.
    fn is_end_to_end(self) -> bool {
        matches!(
            self,
            Self::ContentEncoding
                | Self::ContentLength
                | Self::Host
                | Self::Id
                | Self::ScrapeTimeoutSeconds
        )
    }

    /// Whether, on a scrape, it is the proxy's to write, or means nothing as there is no body.
    pub(crate) fn ends_at_the_proxy(self) -> bool {
        matches!(
            self,
            Self::ContentLength | Self::Expect | Self::Host | Self::Id
        )
    }
}

/// Removes the headers that end at each hop (RFC 9110, section 7.6.1): `Connection` and those that
/// it names, `Keep-Alive`, `Proxy-*`, `TE`, `Trailer`, `Transfer-Encoding` and `Upgrade`.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let named: Vec<&str> = named.iter().map(HeaderName::as_str).collect();
    let is_ending = |name: &&HeaderName| {
        let name = name.as_str();
        is_hop_by_hop(name, Field::named(name), &named)
    };
    let ending: Vec<HeaderName> = headers.keys().filter(is_ending).cloned().collect();
    for name in ending {
        headers.remove(name);
    }
}

/// What `Connection` names, in a head that has been parsed but not collected.
pub(crate) fn named_by_connection<'h>(parsed: &[httparse::Header<'h>]) -> Vec<&'h str> {
    parsed
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect()
}

/// Whether a header ends at this hop, given what `Connection` names.
pub(crate) fn is_hop_by_hop(name: &str, field: Option<Field>, named: &[&str]) -> bool {
    let is_named = || named.iter().any(|other| name.eq_ignore_ascii_case(other));
    match field {
        Some(field) if field.is_hop_by_hop() => true,
        Some(field) if field.is_end_to_end() => false,
        _ => is_named(),
    }
}

/// The seconds of one preference such as `wait=45` or `wait = "45"; x=y`, if that is what it is.
#[must_use]
pub fn wait_seconds(preference: &[u8]) -> Option<u32> {
    let place = preference.iter().position(|byte| *byte == b'=')?;
    let (name, rest) = preference.split_at_checked(place)?;
    if !name.trim_ascii().eq_ignore_ascii_case(b"wait") {
        return None;
    }
    let value = rest.get(1..)?.split(|byte| *byte == b';').next()?;
    let value = value.trim_ascii();
    let unquoted = value
        .strip_prefix(b"\"")
        .and_then(|it| it.strip_suffix(b"\""));
    u32::try_from(digits(unquoted.unwrap_or(value))?).ok()
}

/// The members of a comma-separated list.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Reads a number of digits alone. A sign, a list and white space are none.
pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    let (first, rest) = value.split_first()?;
    std::iter::once(first)
        .chain(rest)
        .try_fold(0u64, |number, byte| {
            let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
            number.checked_mul(10)?.checked_add(digit.into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_stop_and_the_rest_passes() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic dTpw"),
            ("proxy-features", "x"),
            ("te", "trailers"),
            ("trailer", "X-Sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("authorization", "Basic dTpw"),
            ("accept-encoding", "gzip"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers,
            map(&[("authorization", "Basic dTpw"), ("accept-encoding", "gzip")])
        );
    }

    #[test]
    fn connection_cannot_take_the_framing_or_the_id_away() {
        let mut headers = map(&[
            ("connection", "content-length, id, @, "),
            ("content-length", "3"),
            ("id", "x"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("id", "x")]));
    }

    #[test]
    fn fields_are_told_by_their_names_in_any_case() {
        let fields = [
            ("authorization", Field::Authorization),
            ("connection", Field::Connection),
            ("content-encoding", Field::ContentEncoding),
            ("content-length", Field::ContentLength),
            ("date", Field::Date),
            ("expect", Field::Expect),
            ("host", Field::Host),
            ("id", Field::Id),
            ("prefer", Field::Prefer),
            ("proxy-authorization", Field::ProxyAuthorization),
            ("x-prometheus-scrape-timeout", Field::ScrapeTimeout),
            (
                "x-prometheus-scrape-timeout-seconds",
                Field::ScrapeTimeoutSeconds,
            ),
            ("transfer-encoding", Field::TransferEncoding),
            ("keep-alive", Field::OfTheHop),
            ("proxy-", Field::OfTheHop),
            ("proxy-authenticate", Field::OfTheHop),
            ("te", Field::OfTheHop),
            ("trailer", Field::OfTheHop),
            ("upgrade", Field::OfTheHop),
        ];
        for (name, field) in fields {
            assert_eq!(Field::named(name), Some(field), "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(Field::named(&upper), Some(field), "{upper}");
            let longer = format!("{name}s");
            let of_longer = fields.iter().find(|(name, _)| *name == longer);
            let is_of_the_proxy = name.starts_with("proxy-");
            let expected = match of_longer {
                None if is_of_the_proxy => Some(Field::OfTheHop),
                found => found.map(|(_, field)| *field),
            };
            assert_eq!(Field::named(&longer), expected, "{longer}");
            // Another of the same length and beginning.
            let mut other = name.to_owned();
            let last = other.pop().unwrap();
            other.push(if last == '!' { '~' } else { '!' });
            assert_eq!(
                Field::named(&other),
                is_of_the_proxy
                    .then_some(Field::OfTheHop)
                    .filter(|_| name != "proxy-"),
                "{other}"
            );
        }
        assert_eq!(Field::named(""), None);
        assert_eq!(Field::named("p"), None);
    }

    #[test]
    fn numbers_are_digits_alone() {
        for (text, number) in [
            ("0", Some(0)),
            ("0042", Some(42)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("1 ", None),
            ("1,1", None),
        ] {
            assert_eq!(digits(text.as_bytes()), number, "{text:?}");
        }
    }

    #[test]
    fn the_preferred_wait_is_read() {
        for (preference, wait) in [
            ("wait=45", Some(45)),
            (" Wait = \"10\" ; foo=bar", Some(10)),
            ("respond-async", None),
            ("wait", None),
            ("wait=", None),
            ("wait=-1", None),
            ("await=4", None),
            ("wait=\"4", None),
            ("wait=+4", None),
            ("wait=4294967295", Some(u32::MAX)),
            ("wait=4294967296", None),
            ("wait=99999999999", None),
        ] {
            assert_eq!(wait_seconds(preference.as_bytes()), wait, "{preference}");
        }
    }
}
