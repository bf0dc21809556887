//! The command line: clap's parser with Go's manners, and usage errors of one line.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process;
use std::sync::LazyLock;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};
use pushprox_protocol::duration;

use crate::exit;

/// A mistake of the operator's on the command line, in one line without the program's name.
///
/// Found by [`exit::code`] in a run's error, it makes the process end with code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Parses the process's arguments. Help and version are printed and end the process with code 0;
/// a mistake is one line on stderr and code 2.
#[expect(
    clippy::exit,
    reason = "this is the process's own end, before anything was started"
)]
#[must_use]
pub fn parse<A: Parser>() -> A {
    let mut command = A::command();
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    match parse_from::<A>(program, args) {
        Ok(parsed) => parsed,
        Err(Stop::Print(text)) => {
            // A reader that has gone away, as in `proxy -h | head -1`, is no failure.
            std::io::stdout().write_all(text.as_bytes()).ok();
            process::exit(0)
        }
        Err(Stop::Usage(error)) => {
            command.build();
            exit::say(command.get_name(), &error.to_string());
            process::exit(exit::USAGE.into())
        }
    }
}

/// Why parsing did not give arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Help or version was asked for, and this is it.
    Print(String),
    /// The operator's mistake.
    Usage(UsageError),
}

/// Parses `args`, which do not have the program's name among them.
///
/// A long flag may have one dash, as in Go's flag package: `-reloadurl x` is `--reloadurl x`.
///
/// # Errors
///
/// [`Stop`] when there is nothing to run.
pub fn parse_from<A: Parser>(
    program: impl Into<OsString>,
    args: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<A, Stop> {
    let mut command = A::command().version(version());
    command.build();
    let given = with_two_dashes(&command, args.into_iter().map(Into::into));
    let argv = std::iter::once(program.into()).chain(given.iter().cloned());
    command
        .try_get_matches_from_mut(argv)
        .and_then(|mut matches| A::from_arg_matches_mut(&mut matches))
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Stop::Print(error.render().to_string())
            }
            _ => Stop::Usage(UsageError(one_line(&command, &given, &error))),
        })
}

/// Value parser for durations in Go's grammar.
///
/// # Errors
///
/// A text of the form that [`parse`] completes with the value.
pub fn go_duration(text: &str) -> Result<Duration, duration::DurationError> {
    duration::parse(text)
}

/// Value parser for durations in Go's grammar that must not be zero.
///
/// # Errors
///
/// A text of the form that [`parse`] completes with the value.
pub fn positive_go_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("it is zero; write one like 5m, 1m30s or 500ms".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// Value parser for names of files.
///
/// # Errors
///
/// A text of the form that [`parse`] completes with the value.
pub fn file_name(text: &str) -> Result<PathBuf, &'static str> {
    match text {
        "" => Err("the value is empty; give the name of a file"),
        _ => Ok(text.into()),
    }
}

/// What `--version` prints behind the name; clap keeps static text only.
fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| match crate::REVISION {
        Some(revision) => format!("{} (revision {revision})", crate::VERSION),
        None => crate::VERSION.to_owned(),
    });
    &TEXT
}

/// Gives known long flags that were written with one dash their second one.
fn with_two_dashes(command: &Command, args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags_ended = false;
    args.map(|arg| {
        flags_ended |= arg == "--";
        if !flags_ended && is_long_flag_with_one_dash(command, &arg) {
            let mut dashed = OsString::from("-");
            dashed.push(arg);
            dashed
        } else {
            arg
        }
    })
    .collect()
}

fn is_long_flag_with_one_dash(command: &Command, arg: &OsStr) -> bool {
    let Some(name) = arg
        .to_str()
        .and_then(|text| text.strip_prefix('-'))
        .and_then(|text| text.split('=').next())
    else {
        return false;
    };
    // `-h` and `-V` are short flags, and stay what they are.
    name.len() > 1
        && command
            .get_arguments()
            .any(|known| known.get_long() == Some(name))
}

/// Says what clap found wrong, in one line: which flag, what is wrong, what would be right.
fn one_line(command: &Command, given: &[OsString], error: &clap::Error) -> String {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(shown)) => flag_name(shown),
        Some(ContextValue::Strings(shown)) => shown
            .iter()
            .map(|one| flag_name(one))
            .collect::<Vec<_>>()
            .join(" and "),
        _ => return first_paragraph(error),
    };
    let value = text_of(error, ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::ValueValidation => {
            let source = variable_behind(command, given, &flag);
            format!("{flag}{source}: {}", complaint(value, error))
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            let source = variable_behind(command, given, &flag);
            match valid_values(error) {
                Some(valid) => format!("{flag}{source}: a value is missing; it can be {valid}"),
                None => format!("{flag}{source}: a value is missing"),
            }
        }
        ErrorKind::InvalidValue => {
            let source = variable_behind(command, given, &flag);
            let valid = valid_values(error).unwrap_or_default();
            format!("{flag}{source}: {value:?} is not one of {valid}")
        }
        ErrorKind::MissingRequiredArgument => {
            let verb = if flag.contains(" and ") { "are" } else { "is" };
            format!(
                "{flag} {verb} required{}",
                variables_instead(command, &flag)
            )
        }
        // A URL with a password in it that has lost its flag or is taken for one, or the second word
        // of a header that nobody has put quotes around.
        ErrorKind::UnknownArgument
            if text_of(error, ContextKind::InvalidArg)
                .is_none_or(|shown| shown.contains('@') || !shown.starts_with('-')) =>
        {
            "there is an argument that belongs to no flag, and is not shown since it may be a secret \
             (a value with a space in it needs quotes); -h lists the flags"
                .to_owned()
        }
        ErrorKind::UnknownArgument => {
            let mut line = format!("there is no flag {flag}");
            match text_of(error, ContextKind::SuggestedArg) {
                Some(near) => write!(line, "; did you mean {}?", flag_name(near)).ok(),
                None => write!(line, "; -h lists the flags").ok(),
            };
            line
        }
        ErrorKind::ArgumentConflict => match text_of(error, ContextKind::PriorArg) {
            Some(prior) if flag_name(prior) != flag => {
                format!("{flag} cannot be given together with {}", flag_name(prior))
            }
            _ => format!("{flag} is given more than once"),
        },
        _ => first_paragraph(error),
    }
}

/// What a value parser said, with the value before it where the parser left that to us.
fn complaint(value: &str, error: &clap::Error) -> String {
    let Some(source) = error.source() else {
        return format!("{value:?} is not valid");
    };
    let text = source.to_string();
    // Texts that begin with "it" leave the value out; others quote it, or keep a secret.
    if let Some(rest) = text.strip_prefix("it ") {
        return format!("{value:?} {rest}");
    }
    if source.is::<std::num::ParseIntError>() || source.is::<std::num::ParseFloatError>() {
        return format!("{value:?} is not a number");
    }
    text
}

/// `--name` out of `--name <VALUE>`.
fn flag_name(shown: &str) -> String {
    shown
        .split([' ', '[', '='])
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Names the environment variable, when the value came from there.
fn variable_behind(command: &Command, given: &[OsString], flag: &str) -> String {
    let is_given = given.iter().any(|arg| {
        arg.to_str()
            .is_some_and(|text| text.split('=').next() == Some(flag))
    });
    match variable_of(command, flag) {
        Some(name) if !is_given => format!(" (from {name} in the environment)"),
        _ => String::new(),
    }
}

fn variables_instead(command: &Command, flags: &str) -> String {
    let names: Vec<_> = flags
        .split(" and ")
        .filter_map(|flag| variable_of(command, flag))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" (or {} in the environment)", names.join(" and "))
}

fn variable_of<'a>(command: &'a Command, flag: &str) -> Option<&'a str> {
    let name = flag.strip_prefix("--")?;
    command
        .get_arguments()
        .find(|known| known.get_long() == Some(name))?
        .get_env()?
        .to_str()
}

fn valid_values(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::ValidValue)? {
        ContextValue::Strings(values) if !values.is_empty() => Some(values.join(", ")),
        _ => None,
    }
}

fn text_of(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}

/// clap's own words up to its usage block, for the kinds of error that need no better ones.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
