//! The README's commands and flags are those that there are.

use std::collections::BTreeSet;
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
    let readme = file("README.md");
    let mentioned = flags(&readme);
    let mut known = BTreeSet::new();
    for name in ["proxy", "client", "discovery"] {
        let mut command = binary(name);
        command.arg("-h");
        known.extend(flags(&run(command).await.stdout));
    }
    for flag in &known {
        assert!(mentioned.contains(flag), "the README has no {flag}");
    }
    // `--tls…` stands for all that begin so.
    for flag in &mentioned {
        assert!(
            known.iter().any(|known| known.starts_with(flag)),
            "the README has {flag}, which no program knows"
        );
    }
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
