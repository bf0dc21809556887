//! The operator's configuration, into which the generated scrape configs are inserted: its text
//! stays as it is, byte for byte, and the result is parsed and compared before it is used.

use serde_yaml::{Mapping, Value};

use place::Place;
use reading::Read;

mod place;
mod reading;

/// Why there can be no configuration from this base. The message continues "the base cannot be
/// used: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// The bytes are not text.
    #[error("it is not UTF-8")]
    Encoding,
    /// The text is not YAML.
    #[error("it is not valid YAML: {0}")]
    Yaml(String),
    /// A value does not fit its tag, as YAML 1.2 has it.
    #[error("it has a value that does not fit its tag in YAML 1.2; leave out the tag: {0}")]
    Tag(String),
    /// The YAML has a form that cannot be extended.
    #[error("{0}")]
    Unsuitable(&'static str),
    /// A job of the base has the name of a generated one.
    #[error("it has a job named {0:?}, the name of a generated one; Prometheus wants each once")]
    SameName(String),
    /// The insertion would change what the base says.
    #[error("the scrape configs cannot be inserted into it without changing the rest")]
    Changes,
}

/// The base with `jobs` inserted into its list of scrape configs.
///
/// # Errors
///
/// [`BaseError`] tells the operator why not.
pub fn insert(base: &[u8], jobs: &[Mapping]) -> Result<Vec<u8>, BaseError> {
    let whole = std::str::from_utf8(base).map_err(|_| BaseError::Encoding)?;
    let (mark, text) = match whole.strip_prefix(BYTE_ORDER_MARK) {
        Some(text) => (BYTE_ORDER_MARK, text),
        None => ("", whole),
    };
    let before = parse(text)?;
    let mut failure = BaseError::Changes;
    for place in place::find(text)? {
        let result = splice(text, &place, jobs)?;
        match check(&before, &result, jobs) {
            Ok(()) => return Ok(format!("{mark}{result}").into_bytes()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A file for Prometheus's `scrape_config_files` that has `jobs` and nothing else.
///
/// # Errors
///
/// When a job cannot be written as YAML.
pub fn alone(jobs: &[Mapping]) -> Result<Vec<u8>, BaseError> {
    let mut text = String::from(COMMENT);
    text.push('\n');
    if jobs.is_empty() {
        text.push_str("scrape_configs: []\n");
    } else {
        text.push_str("scrape_configs:\n");
        text.push_str(&block(jobs, 2, "\n")?);
    }
    Ok(text.into_bytes())
}

fn splice(text: &str, place: &Place, jobs: &[Mapping]) -> Result<String, BaseError> {
    if jobs.is_empty() && !matches!(place, Place::Key { .. } | Place::FlowKey { .. }) {
        return Ok(text.to_owned());
    }
    let newline = if text
        .find('\n')
        .is_some_and(|end| text.get(..end).is_some_and(|line| line.ends_with('\r')))
    {
        "\r\n"
    } else {
        "\n"
    };
    // Lines can be put only where one begins.
    let lines = |at: usize, indent: usize, key: &str| {
        let at_line_start = text
            .get(..at)
            .is_none_or(|before| before.is_empty() || before.ends_with(['\n', '\r']));
        let start = if at_line_start { "" } else { newline };
        let margin = " ".repeat(indent);
        let comment = format!("{start}{margin}{COMMENT}{newline}");
        Ok::<_, BaseError>(match key {
            "" => comment + &block(jobs, indent, newline)?,
            key if jobs.is_empty() => format!("{comment}{margin}{key}: []{newline}"),
            key => format!("{comment}{margin}{key}:{newline}") + &block(jobs, indent + 2, newline)?,
        })
    };
    let (at, insertion) = match *place {
        Place::Items { at, indent } => (at, lines(at, indent, "")?),
        Place::Key { at, indent } => (at, lines(at, indent, KEY)?),
        Place::BeforeNull { at, indent } => (at, lines(at, indent, "")? + "# "),
        Place::FlowItems { at, empty } => (at, flow(jobs)? + if empty { "" } else { ", " }),
        Place::FlowKey { at, empty } => {
            let list = flow(jobs)?;
            (
                at,
                format!("{KEY:?}: [{list}]{}", if empty { "" } else { ", " }),
            )
        }
    };
    let (head, tail) = text.split_at_checked(at).ok_or(BaseError::Changes)?;
    Ok(format!("{head}{insertion}{tail}"))
}

/// The items of a list in block style, each line indented.
fn block(jobs: &[Mapping], indent: usize, newline: &str) -> Result<String, BaseError> {
    let text = serde_yaml::to_string(jobs).map_err(|error| BaseError::Yaml(error.to_string()))?;
    let margin = " ".repeat(indent);
    Ok(text
        .lines()
        .map(|line| format!("{margin}{line}{newline}"))
        .collect())
}

/// The items of a list in flow style, as JSON, on one line.
fn flow(jobs: &[Mapping]) -> Result<String, BaseError> {
    let items: Result<Vec<_>, _> = jobs.iter().map(serde_json::to_string).collect();
    let json = items
        .map_err(|error| BaseError::Yaml(error.to_string()))?
        .join(", ");
    let mut yaml = String::with_capacity(json.len());
    for character in json.chars() {
        // JSON leaves them as they are, inside of strings; YAML takes them for line breaks, or not
        // at all.
        if matches!(
            character,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        ) {
            yaml.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            yaml.push(character);
        }
    }
    Ok(yaml)
}

/// Whether the result says what the base says, and the generated jobs beside it.
fn check(before: &Value, result: &str, jobs: &[Mapping]) -> Result<(), BaseError> {
    let mut after = parse(result)?;
    let mut before = before.clone();
    let mut kept = take_list(&mut before).unwrap_or_default();
    for job in jobs {
        let name = job.get("job_name");
        if kept.iter().any(|other| other.get("job_name") == name) {
            let name = name.and_then(Value::as_str).unwrap_or_default();
            return Err(BaseError::SameName(name.to_owned()));
        }
    }
    let found = take_list(&mut after).unwrap_or_default();
    kept.splice(0..0, jobs.iter().cloned().map(Value::Mapping));
    if after == before && found == kept {
        Ok(())
    } else {
        Err(BaseError::Changes)
    }
}

/// Takes the list of scrape configs out of a configuration. None where it has none.
fn take_list(configuration: &mut Value) -> Option<Vec<Value>> {
    if configuration.is_null() {
        *configuration = Value::Mapping(Mapping::new());
    }
    let mut list = configuration.as_mapping_mut()?.shift_remove(KEY)?;
    while let Value::Tagged(tagged) = list {
        list = tagged.value;
    }
    match list {
        Value::Sequence(list) => Some(list),
        _ => None,
    }
}

pub(crate) fn parse(text: &str) -> Result<Value, BaseError> {
    let parsed = serde_yaml::from_str(text).and_then(|Read(mut value)| {
        value.apply_merge()?;
        Ok(value)
    });
    parsed.map_err(|error| {
        let text = error.to_string();
        // A value is invalid only where a tag of YAML's own says what it must be.
        if text.contains("invalid value: ") {
            BaseError::Tag(text)
        } else {
            BaseError::Yaml(text)
        }
    })
}

const KEY: &str = "scrape_configs";
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// Stands above what is generated.
const COMMENT: &str = "# The following scrape configs are generated; edit their source instead.";

#[cfg(test)]
mod tests;
