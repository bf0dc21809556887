//! Settings that the operator adds to every generated scrape config, from the file of
//! `--job-template`.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_yaml::{Mapping, Value};

/// Checked settings of a scrape config.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template {
    settings: Mapping,
    relabel_configs: Vec<Value>,
}

/// Why a template cannot be used. The message continues "the job template cannot be used: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not YAML.
    #[error("it is not valid YAML: {0}")]
    Yaml(String),
    /// It is a list, a text or more than one document.
    #[error("it is not a mapping of settings as a scrape config has them")]
    Form,
    /// The setting is made by discovery.
    #[error("it sets {0}, which is generated")]
    Reserved(String),
    /// Prometheus would read a value otherwise than it is read here.
    #[error(
        "it has the value {0}, which YAML 1.1 and 1.2 read differently; put a text in quotes, write true or false, or a plain number"
    )]
    Ambiguous(String),
    /// `relabel_configs` is not a list.
    #[error("its relabel_configs is not a list")]
    Relabel,
}

impl Template {
    /// Reads a template: a mapping of settings, as below a `- job_name:`.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] tells the operator what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, TemplateError> {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Some(value) = ambiguous(text)
        {
            return Err(TemplateError::Ambiguous(value));
        }
        let parsed = serde_yaml::from_slice::<Value>(bytes).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        let mut settings = match parsed {
            Ok(Value::Mapping(settings)) => settings,
            Ok(Value::Null) => Mapping::new(),
            Ok(_) => return Err(TemplateError::Form),
            Err(error) => return Err(TemplateError::Yaml(error.to_string())),
        };
        if !settings.values().all(is_plain) || !settings.keys().all(Value::is_string) {
            return Err(TemplateError::Form);
        }
        for key in settings.keys().filter_map(Value::as_str) {
            if RESERVED.contains(&key) || key == "static_configs" || key.ends_with("_sd_configs") {
                return Err(TemplateError::Reserved(key.to_owned()));
            }
        }
        let relabel_configs = match settings.shift_remove(RELABEL) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(list)) => list,
            Some(_) => return Err(TemplateError::Relabel),
        };
        Ok(Self {
            settings,
            relabel_configs,
        })
    }

    /// Adds the settings to a scrape config: the operator's relabel rules come behind `relabel`.
    pub fn complete(&self, job: &mut Mapping, mut relabel: Vec<Value>) {
        for (key, value) in &self.settings {
            job.insert(key.clone(), value.clone());
        }
        relabel.extend_from_slice(&self.relabel_configs);
        if !relabel.is_empty() {
            job.insert(RELABEL.into(), Value::Sequence(relabel));
        }
    }
}

/// A value without quotes that Prometheus's YAML 1.1 takes for a boolean or another number. What is
/// no YAML at all is found elsewhere.
fn ambiguous(text: &str) -> Option<String> {
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, _))) = parser.next_event() {
        if let Event::Scalar(value, ScalarStyle::Plain, _, None) = event
            && (is_old_boolean(&value) || is_old_number(&value))
        {
            return Some(value.into_owned());
        }
    }
    None
}

fn is_old_boolean(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off"
    )
}

/// Octal with a leading zero, and digits in groups.
fn is_old_number(value: &str) -> bool {
    let digits = value.trim_start_matches(['-', '+']);
    let has_only = |allowed: fn(u8) -> bool| !digits.is_empty() && digits.bytes().all(allowed);
    digits.len() > 1
        && digits.starts_with('0')
        && has_only(|byte| byte.is_ascii_digit() || byte == b'_')
        || digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.contains('_')
            && has_only(|byte| byte.is_ascii_hexdigit() || b"_.xXoO".contains(&byte))
}

/// Whether a value can be written in every style: no tags, and texts as keys.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => false,
        Value::Sequence(list) => list.iter().all(is_plain),
        Value::Mapping(mapping) => mapping
            .iter()
            .all(|(key, value)| key.is_string() && is_plain(value)),
        Value::Number(number) => number.as_f64().is_none_or(f64::is_finite),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

const RELABEL: &str = "relabel_configs";
const RESERVED: [&str; 2] = ["job_name", "proxy_url"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_added_and_relabel_rules_come_last() {
        let template = Template::parse(
            b"x: &i 15s\nscrape_interval: *i\nrelabel_configs:\n- {target_label: b}\nmetric_relabel_configs: []\n",
        )
        .unwrap();
        let mut job = Mapping::new();
        job.insert("job_name".into(), "a".into());
        template.complete(&mut job, vec!["first".into()]);
        assert_eq!(
            serde_yaml::to_string(&job).unwrap(),
            "job_name: a\nx: 15s\nscrape_interval: 15s\nmetric_relabel_configs: []\n\
             relabel_configs:\n- first\n- target_label: b\n"
        );
    }

    #[test]
    fn an_empty_template_adds_nothing() {
        for text in [
            "a: 'yes'",
            "a: 0",
            "a: 1000",
            "a: a_b",
            "a: 0x1f",
            "a: 0.5",
            "a: node_y",
            "a: \"012\"",
        ] {
            Template::parse(text.as_bytes()).unwrap();
        }
        for text in ["", "# nothing\n", "{}", "relabel_configs:\n"] {
            assert_eq!(
                Template::parse(text.as_bytes()),
                Ok(Template::default()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        for (text, part) in [
            ("a: [", "not valid YAML"),
            ("- a", "not a mapping"),
            ("a: 1\n---\nb: 1\n", "not valid YAML"),
            ("job_name: x", "sets job_name"),
            ("proxy_url: x", "sets proxy_url"),
            ("static_configs: []", "sets static_configs"),
            ("dns_sd_configs: []", "sets dns_sd_configs"),
            ("relabel_configs: {}", "not a list"),
            ("a: !x b", "not a mapping"),
            ("a: {1: 2}", "not a mapping"),
            ("a: .nan", "not a mapping"),
            ("honor_labels: yes", "the value yes, which YAML 1.1"),
            ("params: {a: [Off]}", "the value Off"),
            ("sample_limit: 0123", "the value 0123"),
            ("sample_limit: 1_000", "the value 1_000"),
        ] {
            let error = Template::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
