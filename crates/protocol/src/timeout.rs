//! How long a scrape may take: read from Prometheus's header, clamped, and shared out so that
//! whoever knows most about a failure is heard before the next one gives up.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderValue};

use crate::headers::SCRAPE_TIMEOUT_SECONDS;

/// The operator's bounds on a scrape's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrapeTimeouts {
    /// What a scrape gets that names no usable time.
    pub default: Duration,
    /// What no scrape exceeds.
    pub max: Duration,
}

impl ScrapeTimeouts {
    /// The time of a scrape with these headers.
    #[must_use]
    pub fn resolve(&self, headers: &HeaderMap) -> Duration {
        self.clamp(headers.get(SCRAPE_TIMEOUT_SECONDS).and_then(parse))
    }

    /// The time of a scrape that asks for this one, or for none that is usable.
    #[must_use]
    pub fn clamp(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.default).min(self.max)
    }
}

impl Default for ScrapeTimeouts {
    /// The defaults of the Go programs.
    fn default() -> Self {
        Self {
            default: Duration::from_secs(15),
            max: Duration::from_secs(300),
        }
    }
}

/// Reads a time in seconds, a float as Prometheus writes it. What is not a time above zero (text,
/// NaN, infinite, negative, zero) is none.
#[must_use]
pub fn parse(value: &HeaderValue) -> Option<Duration> {
    parse_bytes(value.as_bytes())
}

/// As [`parse`], for a value that is not in a map.
pub(crate) fn parse_bytes(value: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    if !seconds.is_finite() {
        return None;
    }
    // A time past what a Duration holds is a long one, not an unusable one: it will be clamped.
    let duration = Duration::try_from_secs_f64(seconds.min(LONGEST_SECONDS)).ok()?;
    (duration > Duration::ZERO).then_some(duration)
}

/// Writes a time as seconds with as many decimals as milliseconds need, rounded up so that a
/// time that has just begun to run is passed on as it came. It is never zero, which would be read
/// as no time at all and bring the default.
#[must_use]
pub fn format(duration: Duration) -> HeaderValue {
    let mut text = BytesMut::with_capacity(LONGEST_TIME);
    put(duration, &mut text);
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// As [`format()`], behind what is there.
pub(crate) fn put(duration: Duration, out: &mut BytesMut) {
    let millis = duration.as_nanos().div_ceil(1_000_000).max(1);
    let (seconds, fraction) = (millis / 1_000, millis % 1_000);
    let mut digits = itoa::Buffer::new();
    out.put_slice(digits.format(seconds).as_bytes());
    if fraction > 0 {
        // One in front, for the zeros behind it.
        let text = digits.format(1_000 + fraction);
        out.put_u8(b'.');
        let text = text.strip_prefix('1').unwrap_or_default();
        out.put_slice(text.trim_end_matches('0').as_bytes());
    }
}

/// How long before a scrape's time is up its answer must be on its way.
///
/// The proxy answers this much before Prometheus gives up, so that Prometheus shows the proxy's
/// reason and not "context deadline exceeded". The client gives up on its target twice as early,
/// so that its own reason arrives before the proxy's more general one.
#[must_use]
pub fn answer_margin(timeout: Duration) -> Duration {
    (timeout / 10).min(Duration::from_millis(500))
}

/// Of a time that is written.
const LONGEST_TIME: usize = 32;

/// About 31 years: longer than any bound, and safe to add to a clock.
const LONGEST_SECONDS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolve(text: &'static str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert(SCRAPE_TIMEOUT_SECONDS, HeaderValue::from_static(text));
        ScrapeTimeouts::default().resolve(&headers)
    }

    #[test]
    fn prometheus_times_are_read() {
        assert_eq!(resolve("9.5"), Duration::from_millis(9_500));
        assert_eq!(resolve("2"), Duration::from_secs(2));
        assert_eq!(resolve("10.000000"), Duration::from_secs(10));
        assert_eq!(resolve("1e1"), Duration::from_secs(10));
    }

    #[test]
    fn unusable_times_fall_to_the_default() {
        for text in [
            "", "NaN", "-1", "0", "-0", "inf", "-inf", "ten", "1s", "0x1",
        ] {
            assert_eq!(resolve(text), Duration::from_secs(15), "{text}");
        }
        assert_eq!(
            ScrapeTimeouts::default().resolve(&HeaderMap::new()),
            Duration::from_secs(15)
        );
    }

    #[test]
    fn long_times_are_clamped() {
        for text in ["301", "1e300", "99999999999999999999"] {
            assert_eq!(resolve(text), Duration::from_secs(300), "{text}");
        }
    }

    #[test]
    fn a_time_that_has_just_begun_is_passed_on_as_it_came() {
        for (micros, text) in [
            (9_500_000, "9.5"),
            (9_499_900, "9.5"),
            (9_400_000, "9.4"),
            (2_000_000, "2"),
            (1, "0.001"),
            (0, "0.001"),
        ] {
            assert_eq!(format(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn the_margin_is_a_tenth_and_half_a_second_at_the_most() {
        assert_eq!(
            answer_margin(Duration::from_secs(10)),
            Duration::from_millis(500)
        );
        assert_eq!(
            answer_margin(Duration::from_secs(1)),
            Duration::from_millis(100)
        );
    }

    proptest! {
        #[test]
        fn formatted_times_parse_back(millis in 1u64..10_000_000) {
            let time = Duration::from_millis(millis);
            let back = parse(&format(time)).unwrap();
            prop_assert!(back.abs_diff(time) < Duration::from_micros(1));
        }
    }
}
