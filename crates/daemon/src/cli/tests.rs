//! What the operator reads after a mistake, and which spellings of flags are taken.

use super::*;
use crate::logging::LogArgs;
use clap::CommandFactory as _;

#[derive(Debug, Parser)]
#[command(name = "thing")]
struct Args {
    #[arg(long = "registration.timeout", default_value = "5m", value_parser = go_duration)]
    registration_timeout: Duration,
    #[arg(long, env = "PUSHPROX_CLI_TEST_URL", value_parser = |text: &str| {
        if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
    })]
    url: Option<String>,
    #[arg(long, required = true)]
    first: u16,
    #[arg(long = "second.flag", required = true)]
    second: String,
    #[command(flatten)]
    log: LogArgs,
}

fn parse(args: &[&str]) -> Result<Args, Stop> {
    parse_from("thing", args)
}

fn usage(args: &[&str]) -> String {
    match parse(args) {
        Err(Stop::Usage(UsageError(line))) => {
            assert!(!line.contains('\n'), "{line:?}");
            line
        }
        other => panic!("{other:?}"),
    }
}

const GOOD: [&str; 4] = ["--first", "1", "--second.flag", "x"];

fn usage_with(more: &[&str]) -> String {
    usage(&[&GOOD[..], more].concat())
}

#[test]
fn flags_are_read_with_one_dash_and_with_two() {
    for args in [
        [
            "--first",
            "7",
            "--second.flag",
            "--registration.timeout=90s",
        ],
        ["-first", "7", "-second.flag", "-registration.timeout=1m30s"],
    ] {
        let args = [&args[..3], &["x"], &args[3..]].concat();
        let parsed = parse(&args).unwrap();
        assert_eq!(parsed.first, 7);
        assert_eq!(parsed.second, "x");
        assert_eq!(parsed.registration_timeout, Duration::from_secs(90));
    }
}

#[test]
fn bad_values_name_flag_value_and_remedy() {
    assert_eq!(
        usage_with(&["--registration.timeout", "five minutes"]),
        "--registration.timeout: \"five minutes\" is not a duration; \
         write one like 5m, 1m30s or 500ms"
    );
    assert_eq!(
        usage_with(&["--registration.timeout="]),
        "--registration.timeout: \"\" is not a duration; write one like 5m, 1m30s or 500ms"
    );
    assert_eq!(
        usage_with(&["--log.level", "loud"]),
        "--log.level: \"loud\" is not one of debug, info, warn, error"
    );
    assert_eq!(
        usage(&["--first", "x\ny", "--second.flag", "x"]),
        "--first: \"x\\ny\" is not a number"
    );
    assert_eq!(
        usage(&["--first", "70000", "--second.flag", "x"]),
        "--first: 70000 is not in 0..=65535"
    );
}

#[test]
fn missing_flags_and_values_are_named() {
    assert_eq!(usage(&[]), "--first and --second.flag are required");
    assert_eq!(usage(&["--first", "1"]), "--second.flag is required");
    assert_eq!(
        usage_with(&["--log.format"]),
        "--log.format: a value is missing; it can be logfmt, json"
    );
}

#[test]
fn unknown_flags_keep_the_suggestion_on_the_line() {
    assert_eq!(
        usage_with(&["--registration.timout", "5m"]),
        "there is no flag --registration.timout; did you mean --registration.timeout?"
    );
    assert_eq!(
        usage_with(&["--qqq"]),
        "there is no flag --qqq; -h lists the flags"
    );
    for secret in [
        "secret",
        "http://u:secret@h/",
        "http://u:sec=secret@h/",
        "http://u:[secret]@h/",
        "--http://u:secret@h/",
    ] {
        assert_eq!(
            usage_with(&[secret]),
            "there is an argument that belongs to no flag, and is not shown since it may be a \
             secret (a value with a space in it needs quotes); -h lists the flags"
        );
    }
    assert_eq!(
        usage_with(&["--first", "2"]),
        "--first is given more than once"
    );
}

#[test]
fn a_bad_value_from_the_environment_names_the_variable() {
    // The variable cannot be set here without unsafe code; the line is built from parts that can.
    let mut command = Args::command();
    command.build();
    let given = [OsString::from("--urls")];
    assert_eq!(
        variable_behind(&command, &given, "--url"),
        " (from PUSHPROX_CLI_TEST_URL in the environment)"
    );
    let given = [OsString::from("--url=x")];
    assert_eq!(variable_behind(&command, &given, "--url"), "");
    assert_eq!(usage_with(&["--url", ""]), "--url: \"\" is empty");
}

#[test]
fn help_and_version_are_not_mistakes() {
    for args in [["-h"], ["--help"], ["-help"]] {
        let Err(Stop::Print(text)) = parse(&args) else {
            panic!()
        };
        assert!(text.contains("--registration.timeout"), "{text}");
    }
    let Err(Stop::Print(text)) = parse(&["--version"]) else {
        panic!()
    };
    assert_eq!(text, format!("thing {}\n", version()));
}
