//! How a process ends: its exit code, and the one line on stderr that tells why.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::UsageError;
use crate::logging::escape_controls;

/// Exit code of a mistake on the command line.
pub(crate) const USAGE: u8 = 2;

/// Exit code of a run that failed.
pub(crate) const FAILURE: u8 = 1;

/// Maps the result of a run to the process's exit code, and says what went wrong, with its causes,
/// in one line: `proxy: cannot listen on :8080: address already in use`.
#[must_use]
pub fn code(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(program, &causes(error.as_ref()));
            let is_usage = error.chain().any(|cause| cause.is::<UsageError>());
            ExitCode::from(if is_usage { USAGE } else { FAILURE })
        }
    }
}

/// An error and its causes, joined by colons. A cause that is in the text already is not repeated.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = one(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let next = one(cause);
        if let Some(before) = text.strip_suffix(&cause.to_string()) {
            text = format!("{before}{next}");
        } else if !text.ends_with(&next) && write!(text, ": {next}").is_err() {
            break;
        }
        source = cause.source();
    }
    text
}

/// What the system said, as the end of a sentence: `connection refused`.
#[must_use]
pub fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(code) = error.raw_os_error() else {
        return text;
    };
    let text = text
        .strip_suffix(&format!(" (os error {code})"))
        .unwrap_or(&text);
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

/// Writes one line to stderr, outside the log, for what is to be read before it exists.
pub(crate) fn say(program: &str, text: &str) {
    let mut line = format!("{program}: ");
    escape_controls(&mut line, text);
    line.push('\n');
    // There is nobody left to tell when stderr is closed.
    io::stderr().write_all(line.as_bytes()).ok();
}

fn one(error: &(dyn Error + 'static)) -> String {
    error
        .downcast_ref::<io::Error>()
        .map_or_else(|| error.to_string(), io_reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_cause_that_was_told_in_the_systems_words_is_told_in_plain_ones_instead() {
        let refused = || io::Error::from_raw_os_error(111);
        let error = anyhow::Error::new(refused()).context(format!("cannot reach x: {}", refused()));
        assert_eq!(causes(error.as_ref()), "cannot reach x: connection refused");
    }

    #[test]
    fn causes_are_told_once_and_in_plain_words() {
        let refused = io::Error::from_raw_os_error(111);
        let error = Err::<(), _>(refused)
            .context("cannot reach x")
            .context("start failed: cannot reach x")
            .unwrap_err();
        assert_eq!(
            causes(error.as_ref()),
            "start failed: cannot reach x: connection refused"
        );
    }

    #[test]
    fn codes_tell_usage_from_failure() {
        let usage = anyhow::Error::new(UsageError("--a: no".to_owned()));
        let debug = |code: ExitCode| format!("{code:?}");
        assert_eq!(debug(code("t", Ok(()))), debug(ExitCode::SUCCESS));
        assert_eq!(debug(code("t", Err(usage))), debug(ExitCode::from(2)));
        assert_eq!(
            debug(code("t", Err(anyhow::anyhow!("no")))),
            debug(ExitCode::from(1))
        );
    }
}
