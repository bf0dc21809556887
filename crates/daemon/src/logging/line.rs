//! One line of the log, put together in a buffer that each thread keeps.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::LogFormat;

/// A value as it goes into a line.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A number or a truth value, which needs no quotes in either format.
    Bare(&'a dyn fmt::Display),
    /// Anything else, which may hold any byte.
    Text(&'a dyn fmt::Display),
}

pub(super) struct Line {
    format: LogFormat,
    text: String,
    /// Keys that are in the line: a second one would be ambiguous, and in JSON wrong.
    keys: Vec<&'static str>,
}

impl Line {
    #[expect(clippy::disallowed_methods, reason = "it is shown")]
    pub(super) fn start(format: LogFormat, level: &str, logger: &str) -> Self {
        let mut text = BUFFER.take();
        text.clear();
        match format {
            LogFormat::Logfmt => text.push_str("ts="),
            LogFormat::Json => text.push_str("{\"ts\":\""),
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        write_time(&mut text, now);
        match format {
            LogFormat::Logfmt => {
                text.push_str(" level=");
                text.push_str(level);
                text.push_str(" logger=");
            }
            LogFormat::Json => {
                text.push_str("\",\"level\":\"");
                text.push_str(level);
                text.push_str("\",\"logger\":");
            }
        }
        write_value(format, &mut text, Value::Text(&logger));
        Self {
            format,
            text,
            keys: Vec::with_capacity(8),
        }
    }

    pub(super) fn field(&mut self, name: &'static str, value: Value<'_>) {
        if self.key(name) {
            write_value(self.format, &mut self.text, value);
        }
    }

    /// A field whose value has been through [`write_value`].
    pub(super) fn written(&mut self, name: &'static str, value: &str) {
        if self.key(name) {
            self.text.push_str(value);
        }
    }

    pub(super) fn finish(mut self, sink: impl Fn(&[u8])) {
        if self.format == LogFormat::Json {
            self.text.push('}');
        }
        self.text.push('\n');
        sink(self.text.as_bytes());
        if self.text.capacity() <= KEPT_BUFFER {
            BUFFER.set(self.text);
        }
    }

    fn key(&mut self, name: &'static str) -> bool {
        let is_new = !self.keys.contains(&name);
        if is_new {
            self.keys.push(name);
            self.push_key(name);
        }
        is_new
    }

    fn push_key(&mut self, name: &str) {
        // Names are the program's own. Those of the line's own keys get a mark.
        let (name, mark) = match name {
            "message" => ("msg", ""),
            "ts" | "level" | "logger" | "msg" => (name, "_"),
            _ => (name.strip_prefix("r#").unwrap_or(name), ""),
        };
        match self.format {
            LogFormat::Logfmt => {
                self.text.push(' ');
                self.text.push_str(name);
                self.text.push_str(mark);
                self.text.push('=');
            }
            LogFormat::Json => {
                self.text.push_str(",\"");
                self.text.push_str(name);
                self.text.push_str(mark);
                self.text.push_str("\":");
            }
        }
    }
}

/// Writes a value so that it can neither end the line nor pass for another field, cut at
/// [`LONGEST_VALUE`].
pub(super) fn write_value(format: LogFormat, out: &mut String, value: Value<'_>) {
    let value = match value {
        Value::Bare(value) => {
            write!(out, "{value}").ok();
            return;
        }
        Value::Text(value) => value,
    };
    // The value is written between quotes first, because most need them, and most that do not are
    // short: the quotes are then taken off again.
    out.push('"');
    let start = out.len();
    let mut escaping = Escaping {
        out,
        left: LONGEST_VALUE,
        is_plain: true,
    };
    let is_cut = write!(escaping, "{value}").is_err();
    let is_plain = escaping.is_plain && !is_cut;
    if is_cut {
        out.push('…');
    }
    if format == LogFormat::Logfmt && is_plain && out.len() > start {
        out.remove(start - 1);
    } else {
        out.push('"');
    }
}

/// Writes `text` with its control characters escaped, for lines outside the log.
pub(crate) fn escape_controls(out: &mut String, text: &str) {
    for character in text.chars() {
        if is_unsafe(character) {
            escape(out, character);
        } else {
            out.push(character);
        }
    }
}

struct Escaping<'a> {
    out: &'a mut String,
    left: usize,
    is_plain: bool,
}

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self
                .left
                .checked_sub(character.len_utf8())
                .ok_or(fmt::Error)?;
            match character {
                '"' | '\\' => {
                    self.is_plain = false;
                    self.out.push('\\');
                    self.out.push(character);
                }
                ' ' | '=' => {
                    self.is_plain = false;
                    self.out.push(character);
                }
                _ if is_unsafe(character) => {
                    self.is_plain = false;
                    escape(self.out, character);
                }
                _ => self.out.push(character),
            }
        }
        Ok(())
    }
}

/// Control characters, and what some programs take for the end of a line or for the order to show
/// the rest of it backwards.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(out: &mut String, character: char) {
    match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // All unsafe characters have four digits, which is all that JSON has in one escape.
        _ => {
            write!(out, "\\u{:04x}", u32::from(character)).ok();
        }
    }
}

/// Writes a time since 1970 as `2026-11-24T20:09:39.123Z`.
fn write_time(out: &mut String, since_epoch: Duration) {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years: the leap day is then a year's last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since_epoch.subsec_millis()
    )
    .ok();
}

thread_local! {
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Bytes of a value that are shown. Longer ones come from a peer and not from this program.
const LONGEST_VALUE: usize = 2_048;

/// The largest buffer that a thread keeps for its next line.
const KEPT_BUFFER: usize = 16 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_550_979_123, "2026-11-24T20:09:39.123Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = String::new();
            write_time(&mut out, Duration::from_millis(millis));
            assert_eq!(out, text);
        }
    }
}
