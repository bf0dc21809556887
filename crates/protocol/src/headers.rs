//! Header names of the protocol, and which headers stop where.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

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

/// Removes the headers that end at each hop (RFC 9110, section 7.6.1): `Connection` and those that
/// it names, `Keep-Alive`, `Proxy-*`, `TE`, `Trailer`, `Transfer-Encoding` and `Upgrade`.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !END_TO_END.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let of_the_proxy: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_of_the_proxy(name.as_str()))
        .cloned()
        .collect();
    for name in of_the_proxy {
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

/// Whether a header ends at this hop, given what `Connection` names. As [`strip_hop_by_hop`], for a
/// head that is passed on line by line.
pub(crate) fn is_hop_by_hop(name: &str, named: &[&str]) -> bool {
    let is = |other: &HeaderName| name.eq_ignore_ascii_case(other.as_str());
    let is_named = named.iter().any(|other| name.eq_ignore_ascii_case(other));
    HOP_BY_HOP.iter().any(is) || is_of_the_proxy(name) || (is_named && !END_TO_END.iter().any(is))
}

/// Whether a header is between a proxy and whoever asks it: `Proxy-*`.
fn is_of_the_proxy(name: &str) -> bool {
    name.as_bytes()
        .get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"proxy-"))
}

/// Whether a header of a scrape is the proxy's to write, or means nothing on a request without a
/// body.
pub(crate) fn ends_at_the_proxy(name: &str) -> bool {
    [
        &http::header::HOST,
        &ID,
        &http::header::CONTENT_LENGTH,
        &http::header::EXPECT,
    ]
    .iter()
    .any(|other| name.eq_ignore_ascii_case(other.as_str()))
}

/// The seconds of one preference such as `wait=45` or `wait = "45"; x=y`, if that is what it is.
#[must_use]
pub fn wait_seconds(preference: &str) -> Option<u32> {
    let (name, rest) = preference.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("wait") {
        return None;
    }
    let value = rest.split(';').next()?.trim().trim_matches('"');
    value.parse().ok()
}

const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that a `Connection` header has no business to name: a peer could otherwise take away
/// the framing or what joins a push to its scrape.
const END_TO_END: [HeaderName; 5] = [
    http::header::CONTENT_LENGTH,
    http::header::HOST,
    http::header::CONTENT_ENCODING,
    ID,
    SCRAPE_TIMEOUT_SECONDS,
];

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
    fn the_preferred_wait_is_read() {
        for (preference, wait) in [
            ("wait=45", Some(45)),
            (" Wait = \"10\" ; foo=bar", Some(10)),
            ("respond-async", None),
            ("wait", None),
            ("wait=", None),
            ("wait=-1", None),
            ("await=4", None),
            ("wait=99999999999", None),
        ] {
            assert_eq!(wait_seconds(preference), wait, "{preference}");
        }
    }
}
