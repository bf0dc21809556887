//! The README's commands and flags, and the flags and defaults of docs/configuration.md, are those that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pushprox_testkit::process::run;
use pushprox_testkit::pushprox::binary;

#[test]
fn every_make_target_in_the_readme_is_in_the_makefile() {
    let makefile = file("Makefile");
    let readme = file("README.md");
    let targets: BTreeSet<&str> = readme
        .split(['\n', '`'])
        .filter_map(|text| text.strip_prefix("make "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    for target in ["run", "test", "build"] {
        assert!(
            targets.contains(target),
            "the README does not say `make {target}`"
        );
    }
    for target in targets {
        assert!(
            makefile
                .lines()
                .any(|line| line.starts_with(&format!("{target}:"))),
            "the README says `make {target}`, the Makefile has no such target"
        );
    }
}

#[tokio::test]
async fn the_readme_has_every_flag_and_no_other() {
    let mut known = BTreeSet::new();
    for name in PROGRAMS {
        known.extend(flags(&help(name).await));
    }
    // Is there as -h.
    known.remove("--help");
    assert_eq!(flags(&file("README.md")), known);
}

#[tokio::test]
async fn the_configuration_has_every_flag_with_its_default_and_no_other() {
    let configuration = file("docs/configuration.md");
    for name in PROGRAMS {
        let (_, section) = configuration
            .split_once(&format!("\n## {name}\n"))
            .unwrap_or_else(|| panic!("docs/configuration.md has no section on the {name}"));
        let section = section.split("\n## ").next().unwrap();
        assert_eq!(
            documented(section),
            told(&help(name).await),
            "what docs/configuration.md says of the {name}, and what its --help says"
        );
    }
}

const PROGRAMS: [&str; 3] = ["proxy", "client", "discovery"];

async fn help(name: &str) -> String {
    let mut command = binary(name);
    command.arg("--help");
    run(command).await.stdout
}

/// The flags of a section's tables, with the defaults that stand in them as literals.
fn documented(section: &str) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `--")) {
        let cells: Vec<&str> = row.split(" |").collect();
        let mut defaults = literals(cells[1]);
        // What stands in the environment is none.
        defaults.retain(|text| !text.starts_with('$'));
        let flags = literals(cells[0]);
        let flags = flags.iter().filter(|name| name.starts_with("--"));
        for (index, flag) in flags.enumerate() {
            let default = defaults.get(index).map(|&text| text.to_owned());
            all.insert((*flag).to_owned(), default);
        }
    }
    // Stands for those of a table of its own.
    all.remove("--limit.…");
    all
}

/// The flags of a help text, with the defaults that are values and no descriptions of any.
fn told(help: &str) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    let mut flag = None;
    for line in help.lines().map(str::trim_start) {
        if let Some(name) = flags(line)
            .into_iter()
            .next()
            .filter(|_| line.starts_with('-'))
        {
            all.insert(name.clone(), None);
            flag = Some(name);
        }
        if let (Some(flag), Some(rest)) = (&flag, line.strip_prefix("[default: ")) {
            let value = rest.trim_end().trim_end_matches(']');
            let value = (value != "\"\"").then(|| value.to_owned());
            all.insert(flag.clone(), value);
        }
    }
    all
}

/// What stands between backticks.
fn literals(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Everything in a text that looks like a flag.
fn flags(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        .filter(|word| word.starts_with("--") && word.len() > 2 && !word.starts_with("---"))
        .map(|word| word.trim_end_matches(['.', '-']).to_owned())
        .collect()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
