//! Names, durations and times.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use http::{HeaderValue, Uri};

use super::cuts;
use crate::timeout::ScrapeTimeouts;
use crate::{Fqdn, Target, duration as durations, timeout as timeouts};

/// A name that a client registers, and a target of the same text.
pub fn name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = text.parse::<Fqdn>() {
        let printed = name.to_string();
        assert!(printed.len() <= "[]".len() + 253 + ":65535".len());
        assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!printed.contains(['/', '@', '?', '#', ',', '"']), "{name}");
        assert_same_name(&name, &printed);
        assert_same_name(&name, &printed.to_ascii_uppercase());
        // Whoever registers it can be asked for.
        let uri = format!("http://{printed}/metrics");
        let parsed = Target::parse(&uri);
        let (target, host, path) = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((host, path), (&*printed, "/metrics"));
        assert!(target.matches(name.as_ref()), "{name}");
    }
    if let Ok((target, host, path)) = Target::parse(text) {
        assert!(text.contains(host) && text.contains(path));
        assert!(path.is_empty() || path.starts_with(['/', '?']), "{path:?}");
        assert!(target.exact().port.is_some());
        assert!(target.matches(target.exact()) && target.matches(target.bare()));
        // Another reader of URIs sees the same target, where it takes the URI at all.
        if let Ok(uri) = text.parse::<Uri>()
            && let Ok(other) = Target::from_uri(&uri)
        {
            assert_eq!(other, target, "{text:?}");
        }
    }
}

fn assert_same_name(name: &Fqdn, text: &str) {
    let other = text.parse::<Fqdn>();
    assert_eq!(other.as_ref(), Ok(name), "{text:?}");
    let hasher = RandomState::new();
    assert_eq!(
        other.map(|other| hasher.hash_one(other)),
        Ok(hasher.hash_one(name))
    );
}

/// A duration of a flag or a file, in Go's grammar.
pub fn duration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let whole = durations::parse(text);
    if let Ok(duration) = whole {
        assert!(duration <= Duration::from_nanos(i64::MAX.unsigned_abs()));
        let printed = durations::format(duration);
        assert_eq!(durations::parse(&printed), whole, "{text:?} as {printed:?}");
    }
    // One duration behind the other is their sum.
    for at in cuts(text.len()) {
        if let Some((before, after)) = text.split_at_checked(at)
            && after.starts_with(|c: char| c == '.' || c.is_ascii_digit())
            && ![before, after].contains(&"0")
            && !before.starts_with('-')
            && let (Ok(before), Ok(after)) = (durations::parse(before), durations::parse(after))
        {
            let sum = before + after;
            match whole {
                Ok(whole) => assert_eq!(whole, sum, "{text:?}"),
                Err(error) => {
                    assert_eq!(error, durations::DurationError::TooLong, "{text:?}");
                    assert!(sum > Duration::from_nanos(i64::MAX.unsigned_abs()));
                }
            }
        }
    }
}

/// The time of a scrape, in seconds.
pub fn timeout(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let bounds = ScrapeTimeouts::default();
    let read = timeouts::parse(&value);
    let clamped = bounds.clamp(read);
    assert!(clamped > Duration::ZERO && clamped <= bounds.max);
    assert!(timeouts::answer_margin(clamped) < clamped);
    if let Some(time) = read {
        // Passed on, it is what came: rounded up to a millisecond, and as a float; never to none.
        let passed_on = timeouts::parse(&timeouts::format(time));
        let passed_on = passed_on.unwrap_or_else(|| panic!("{time:?} is lost"));
        assert!(
            passed_on.abs_diff(time) <= Duration::from_millis(2),
            "{time:?} as {passed_on:?}"
        );
    }
}
