//! Durations in the grammar of Go's `time.ParseDuration`, which every flag of the Go programs
//! uses: `300ms`, `1.5h`, `2h45m`, `0`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not in the grammar at all.
    #[error("it is not a duration; write one like 5m, 1m30s or 500ms")]
    Syntax,
    /// A number stands without a unit.
    #[error("it lacks a unit (ns, us, ms, s, m, h); write one like 5m, 1m30s or 500ms")]
    MissingUnit,
    /// A number is followed by a unit that Go does not know.
    #[error("it has an unknown unit; the units are ns, us, ms, s, m and h")]
    UnknownUnit,
    /// The duration is below zero, which no flag here can use.
    #[error("it is negative; write one like 5m, 1m30s or 500ms")]
    Negative,
    /// More than Go's 2^63 - 1 nanoseconds, about 292 years.
    #[error("it is too long; the longest is 2562047h47m")]
    TooLong,
}

/// Parses `text` as Go's `time.ParseDuration` does, without the negative half.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(pushprox_protocol::duration::parse("1m30s"), Ok(Duration::from_secs(90)));
/// ```
///
/// # Errors
///
/// [`DurationError`] says what is wrong in words that fit behind the name of a flag.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut total: u128 = 0;
    if rest != "0" {
        while !rest.is_empty() {
            let (nanos, after) = component(rest)?;
            total += nanos;
            if total > MAX_NANOS {
                return Err(DurationError::TooLong);
            }
            rest = after;
        }
    }
    if negative && total > 0 {
        return Err(DurationError::Negative);
    }
    let nanos = u64::try_from(total).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::from_nanos(nanos))
}

/// Writes `duration` as Go prints it: `1m30s`, `500ms`, `5m0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < SECOND {
        let (unit, name) = match nanos {
            n if n < MICROSECOND => (1, "ns"),
            n if n < MILLISECOND => (MICROSECOND, "µs"),
            _ => (MILLISECOND, "ms"),
        };
        return format!("{}{name}", decimal(nanos, unit));
    }
    let (hours, minutes) = (nanos / HOUR, nanos % HOUR / MINUTE);
    let seconds = decimal(nanos % MINUTE, SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// One `number unit` pair off the front of `text`: its nanoseconds and what follows it.
fn component(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, after_whole) = split_digits(text);
    let (fraction, after_number) = match after_whole.strip_prefix('.') {
        Some(after_point) => split_digits(after_point),
        None => ("", after_whole),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax);
    }
    let unit_end = after_number
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(after_number.len());
    let (unit, rest) = after_number.split_at(unit_end);
    let scale = match unit {
        "" => return Err(DurationError::MissingUnit),
        "ns" => 1,
        // Go takes both the micro sign and the Greek letter.
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return Err(DurationError::UnknownUnit),
    };
    let mut nanos = digits(whole)?
        .checked_mul(scale)
        .ok_or(DurationError::TooLong)?;
    // Digits past the eighteenth are below a nanosecond even in hours, and Go drops them too.
    let mut step = scale;
    for digit in fraction.bytes().take(18) {
        // Multiplied before it is divided, so that 0.3 of an hour is exact.
        nanos += u128::from(digit - b'0') * step / 10;
        if step % 10 != 0 {
            break;
        }
        step /= 10;
    }
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn digits(text: &str) -> Result<u128, DurationError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<u64>()
        .map(u128::from)
        .map_err(|_| DurationError::TooLong)
}

/// `value / unit` with as many decimal places as it needs.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let places = unit.ilog10() as usize;
    let fraction = format!("{rest:0places$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

const MICROSECOND: u128 = 1_000;
const MILLISECOND: u128 = 1_000_000;
const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const MAX_NANOS: u128 = i64::MAX as u128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_go_takes_is_taken() {
        for (text, millis) in [
            ("0", 0),
            ("5s", 5_000),
            ("+5s", 5_000),
            ("-0", 0),
            ("5.s", 5_000),
            (".5s", 500),
            ("1.5h", 5_400_000),
            ("1m30s", 90_000),
            ("3h2m1s250ms", 10_921_250),
            ("0.3333333333333333333h", 1_200_000),
            ("1000000us", 1_000),
            ("1000000µs", 1_000),
            ("2000000000ns", 2_000),
        ] {
            let parsed = parse(text).unwrap();
            let wanted = Duration::from_millis(millis);
            assert!(
                parsed.abs_diff(wanted) < Duration::from_micros(1),
                "{text}: {parsed:?}"
            );
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for (text, error) in [
            ("", DurationError::Syntax),
            ("+", DurationError::Syntax),
            (".", DurationError::Syntax),
            (".s", DurationError::Syntax),
            ("five", DurationError::Syntax),
            ("5", DurationError::MissingUnit),
            ("5 s", DurationError::UnknownUnit),
            ("5minutes", DurationError::UnknownUnit),
            ("1d", DurationError::UnknownUnit),
            ("1M", DurationError::UnknownUnit),
            ("-5s", DurationError::Negative),
            ("9999999999999h", DurationError::TooLong),
            ("99999999999999999999999s", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (9_500_000_000, "9.5s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn printed_durations_parse_back(nanos in 0..=i64::MAX.unsigned_abs()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }
    }
}
