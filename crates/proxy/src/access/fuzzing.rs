//! What must hold of `--auth.config.file` and its patterns, whatever they are.

use std::path::Path;

use pushprox_daemon::san::San;
use pushprox_protocol::Fqdn;

use super::file;
use super::pattern::{NamePattern, SanPattern, glob};

/// The file, which is read or refused by its name.
pub fn auth_config(bytes: &[u8]) {
    if let Err(error) = file::parse(Path::new("auth.yml"), bytes) {
        assert!(error.to_string().starts_with("auth.yml: "), "{error}");
    }
}

/// A pattern of names on the first line, and names to hold against it.
pub fn name_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let Ok(pattern) = NamePattern::try_from(first.to_owned()) else {
        return;
    };
    let printed = pattern.to_string();
    let again = NamePattern::try_from(printed.clone());
    assert_eq!(again.as_ref(), Ok(&pattern), "{first:?} as {printed:?}");
    for name in lines.take(8).filter_map(|line| line.parse::<Fqdn>().ok()) {
        let upper: Fqdn = match name.to_string().to_ascii_uppercase().parse() {
            Ok(upper) => upper,
            Err(error) => panic!("{name}: {error}"),
        };
        let sans = [
            None,
            Some(San::Dns(name.host().to_owned())),
            Some(San::Dns("*".to_owned())),
            Some(San::Dns(format!("*.{}", name.host()))),
        ];
        for san in sans.iter().map(Option::as_ref) {
            let allows = pattern.allows(name.as_ref(), san);
            let shows = pattern.shows(name.as_ref(), san);
            assert!(shows || !allows, "{pattern} allows and hides {name}");
            assert!(allows || !pattern.is_for_everything());
            assert_eq!(pattern.allows(upper.as_ref(), san), allows);
            if pattern.needs_san() {
                let is_name = san.is_some_and(|san| !san.to_string().contains('*'));
                assert!(
                    is_name || !(allows || shows),
                    "{pattern} takes {san:?} for a name"
                );
            } else {
                assert_eq!(
                    pattern.allows(name.as_ref(), None),
                    allows,
                    "{san:?} matters"
                );
            }
        }
    }
}

/// A pattern of names in certificates on the first line, and such names.
pub fn san_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let Ok(pattern) = SanPattern::try_from(first.to_owned()) else {
        assert!(first.is_empty());
        return;
    };
    for name in lines.take(8) {
        let meets =
            [San::Dns, San::Email, San::Uri].map(|kind| pattern.meets(&kind(name.to_owned())));
        let lower = first.to_ascii_lowercase();
        let globs = glob(&lower, name);
        assert_eq!(
            globs,
            obvious(lower.as_bytes(), name.to_ascii_lowercase().as_bytes())
        );
        assert_eq!(
            meets.iter().filter(|meets| **meets).count(),
            usize::from(globs)
        );
    }
}

/// The same as [`glob`], a table at a time: which beginnings of the text the pattern has met.
fn obvious(pattern: &[u8], text: &[u8]) -> bool {
    let mut met: Vec<bool> = (0..=text.len()).map(|length| length == 0).collect();
    for byte in pattern {
        met = match byte {
            b'*' => met
                .iter()
                .scan(false, |any, met| {
                    *any |= met;
                    Some(*any)
                })
                .collect(),
            _ => [false]
                .into_iter()
                .chain(
                    met.iter()
                        .zip(text)
                        .map(|(met, other)| *met && other == byte),
                )
                .collect(),
        };
    }
    met.last().copied().unwrap_or_default()
}
