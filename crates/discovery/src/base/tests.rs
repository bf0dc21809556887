//! Bases of every shape: what is inserted, and what is refused.

use super::*;

fn job(name: &str) -> Mapping {
    serde_yaml::from_str(&format!(
        "job_name: {name}\nproxy_url: http://10.0.0.1:8080/\nfile_sd_configs:\n- files: [/prometheus/a.json]\n"
    ))
    .unwrap()
}

fn inserted(base: &str) -> Result<String, BaseError> {
    let jobs = [job("one"), job("two")];
    insert(base.as_bytes(), &jobs).map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Whether `base` is `result` without one piece of it.
fn kept(base: &str, result: &str) -> bool {
    let same = |(a, b): &(u8, u8)| a == b;
    let head = base.bytes().zip(result.bytes()).take_while(same).count();
    let tail = base
        .bytes()
        .rev()
        .zip(result.bytes().rev())
        .take_while(same)
        .count();
    head + tail >= base.len()
}

fn job_names(text: &str) -> Vec<String> {
    let value = parse(text).unwrap();
    let list = value.get("scrape_configs").unwrap().as_sequence().unwrap();
    list.iter()
        .map(|job| job["job_name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_shape_of_the_list_is_extended_and_the_text_is_kept() {
    for (base, names) in [
        ("", vec!["one", "two"]),
        ("# nothing\n", vec!["one", "two"]),
        ("---\n", vec!["one", "two"]),
        ("global: {}\n", vec!["one", "two"]),
        ("global: {}", vec!["one", "two"]),
        ("  global: {}\n  alerting: {}\n", vec!["one", "two"]),
        ("global: {}\n...\n# after\n", vec!["one", "two"]),
        ("%YAML 1.1\n---\nglobal: {}\n...\n", vec!["one", "two"]),
        (
            "global:\n  external_labels:\n    a: |\n      text\n",
            vec!["one", "two"],
        ),
        (
            "global:\n  external_labels:\n    a: |+\n      text\n\n",
            vec!["one", "two"],
        ),
        (
            "global:\n  external_labels:\n    a: |\n      text",
            vec!["one", "two"],
        ),
        ("scrape_configs: []\n", vec!["one", "two"]),
        ("scrape_configs: [ ]", vec!["one", "two"]),
        ("scrape_configs: [\n  # none\n]\n", vec!["one", "two"]),
        ("scrape_configs:\n", vec!["one", "two"]),
        ("scrape_configs:", vec!["one", "two"]),
        (
            "scrape_configs:   # none yet\n\nglobal: {}\n",
            vec!["one", "two"],
        ),
        ("scrape_configs: ~\n", vec!["one", "two"]),
        (
            "scrape_configs: null # none\nglobal: {}\n",
            vec!["one", "two"],
        ),
        ("\"scrape_configs\": null\n", vec!["one", "two"]),
        ("scrape_configs:\n- job_name: a\n", vec!["one", "two", "a"]),
        ("scrape_configs:\n  - job_name: a", vec!["one", "two", "a"]),
        (
            "scrape_configs:\n      -   job_name: a\n          scheme: http\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs:\n# of a\n\n  # more\n  - job_name: a # b\n# end\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs: # list\n-\n  job_name: a\n-\n  job_name: b\nglobal: {}\n",
            vec!["one", "two", "a", "b"],
        ),
        (
            "scrape_configs: &jobs\n- job_name: a\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs: !!seq\n- job_name: a\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs:\n  &jobs\n  - job_name: a\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs: !list\n- job_name: a\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs: !list [{job_name: a}]\n",
            vec!["one", "two", "a"],
        ),
        ("scrape_configs: &jobs\n", vec!["one", "two"]),
        ("scrape_configs: &jobs", vec!["one", "two"]),
        ("scrape_configs: &jobs ~ # none\n", vec!["one", "two"]),
        (
            "scrape_configs: # none\n\n  # yet\n  &jobs # ü\n\n# of global\nglobal: {}\n",
            vec!["one", "two"],
        ),
        (
            "global: {external_labels: {a: 98765432109876543210, b: -98765432109876543210}}\n",
            vec!["one", "two"],
        ),
        (
            "global: {external_labels: {a: 9876543210987654321098765432109876543210}}\n",
            vec!["one", "two"],
        ),
        (
            "x: &x {a: 1}\ny: &y {b: 1}\nz:\n  <<: *x\n  <<: [*y, *x]\n  <<: *x\n",
            vec!["one", "two"],
        ),
        (
            "x: &a {job_name: a}\nscrape_configs:\n- *a\n- <<: *a\n  job_name: b\n",
            vec!["one", "two", "a", "b"],
        ),
        (
            "scrape_configs: [{job_name: a}, {job_name: b}]\n",
            vec!["one", "two", "a", "b"],
        ),
        (
            "scrape_configs: [ # c\n  {job_name: a},\n]\n",
            vec!["one", "two", "a"],
        ),
        (
            "scrape_configs:\n  [{job_name: a}]\n",
            vec!["one", "two", "a"],
        ),
        ("{}", vec!["one", "two"]),
        ("{global: {}}\n", vec!["one", "two"]),
        (
            "{\"global\": {}, \"scrape_configs\": [{\"job_name\": \"a\"}]}",
            vec!["one", "two", "a"],
        ),
        ("scrape_configs: 'x'\nglobal: {}\n", vec![]),
        ("? scrape_configs\n: [ ]\n", vec!["one", "two"]),
        (
            "global:\n  external_labels: {scrape_configs: \"a\tb\"}\nrule_files:\n- 'scrape_configs:'\n",
            vec!["one", "two"],
        ),
        (
            "a: \"\n scrape_configs:\n - x\"\nscrape_configs:\n- job_name: a\n",
            vec!["one", "two", "a"],
        ),
        (
            "ü: ö # ä\nscrape_configs:\n  # ß\n  - job_name: ü\n",
            vec!["one", "two", "ü"],
        ),
        (
            "\u{feff}scrape_configs:\n- job_name: a\n",
            vec!["one", "two", "a"],
        ),
        ("\u{feff}# ü\nglobal: {}\n", vec!["one", "two"]),
    ] {
        if names.is_empty() {
            assert!(inserted(base).is_err(), "{base:?}");
            continue;
        }
        let result = inserted(base).unwrap_or_else(|error| panic!("{base:?}: {error}"));
        assert_eq!(
            job_names(result.trim_start_matches('\u{feff}')),
            names,
            "{base:?} became {result:?}"
        );
        assert!(kept(base, &result), "{base:?} became {result:?}");
        let windows = base.replace('\n', "\r\n");
        let result = inserted(&windows).unwrap_or_else(|error| panic!("{windows:?}: {error}"));
        assert_eq!(
            job_names(result.trim_start_matches('\u{feff}')),
            names,
            "{windows:?} became {result:?}"
        );
        assert!(kept(&windows, &result), "{windows:?} became {result:?}");
        let bare = result.replace("\r\n", "");
        assert!(
            !windows.contains('\n') || !bare.contains('\n'),
            "mixed line ends: {result:?}"
        );
    }
}

#[test]
fn what_cannot_be_extended_is_refused_with_the_reason() {
    for (base, part) in [
        ("a: [\n", "not valid YAML"),
        ("a: 1\na: 2\n", "not valid YAML: duplicate"),
        ("scrape_configs: []\nscrape_configs: []\n", "duplicate"),
        ("a: 1\n---\nb: 2\n", "more than one document"),
        ("- a\n", "not a mapping"),
        ("text\n", "not a mapping"),
        ("~\n", "explicit null"),
        ("scrape_configs: {a: b}\n", "not a list"),
        ("scrape_configs: 5\n", "not a list"),
        (
            "scrape_configs: &a\nrule_files: *a\n",
            "without changing the rest",
        ),
        (
            "x: &a {b: 1}\n<<: *a\ny: &c {scrape_configs: [{job_name: b}]}\n<<: *c\n",
            "without changing the rest",
        ),
        ("a: {<<: 1, <<: 2}\n", "not valid YAML"),
        (
            "a:\n  honor_labels: !!bool yes\n",
            "leave out the tag: a.honor_labels",
        ),
        ("a: !!int 010\n", "leave out the tag: a"),
        ("x: &a [{job_name: b}]\nscrape_configs: *a\n", "is an alias"),
        (
            "scrape_configs: &a [{job_name: b}]\nx: *a\n",
            "without changing the rest",
        ),
        (
            "scrape_configs: &a\n- job_name: b\nx: *a\n",
            "without changing the rest",
        ),
        (
            "x: &a {scrape_configs: [{job_name: b}]}\n<<: *a\n",
            "without changing the rest",
        ),
        ("scrape_configs:\n- job_name: one\n", "a job named \"one\""),
        ("scrape_configs:\n\t- job_name: a\n", "not valid YAML"),
        (
            "? scrape_configs\n: - job_name: a\n",
            "on a line of its own; begin a new line for it",
        ),
    ] {
        let error = inserted(base).unwrap_err().to_string();
        assert!(error.contains(part), "{base:?}: {error}");
    }
    assert_eq!(insert(b"a: \xff\n", &[]), Err(BaseError::Encoding));
}

#[test]
fn comments_stay_with_the_item_that_they_describe() {
    let base = "scrape_configs:\n  # About a.\n  - job_name: a\n";
    let result = inserted(base).unwrap();
    assert!(
        result.ends_with("\n  # About a.\n  - job_name: a\n"),
        "{result}"
    );
}

#[test]
fn without_jobs_the_base_stays_what_it_is() {
    for base in [
        "scrape_configs:\n- job_name: a\n",
        "scrape_configs: []\n",
        "scrape_configs:\n",
    ] {
        assert_eq!(insert(base.as_bytes(), &[]).unwrap(), base.as_bytes());
    }
    let result = insert(b"global: {}\n", &[]).unwrap();
    assert!(
        String::from_utf8(result)
            .unwrap()
            .ends_with("scrape_configs: []\n")
    );
}

#[test]
fn the_file_of_scrape_configs_alone_has_the_jobs() {
    let jobs = [job("one"), job("two")];
    let text = String::from_utf8(alone(&jobs).unwrap()).unwrap();
    assert_eq!(job_names(&text), ["one", "two"]);
    assert_eq!(
        job_names(&String::from_utf8(alone(&[]).unwrap()).unwrap()),
        Vec::<String>::new()
    );
}

#[test]
fn strings_of_every_kind_survive_in_both_styles() {
    let mut odd = job("odd");
    let text = "a: b # c\n- 'x'\n\"y\" \t \u{7f} \u{2028} {{ $labels }} %d & *\n\n";
    odd.insert("bearer_token".into(), text.into());
    odd.insert("yes".into(), "no".into());
    for base in [
        "scrape_configs:\n  - job_name: a\n",
        "scrape_configs: [{job_name: a}]\n",
        "",
        "{}",
    ] {
        let result = insert(base.as_bytes(), &[odd.clone()]).unwrap();
        let value = parse(std::str::from_utf8(&result).unwrap()).unwrap();
        assert_eq!(value["scrape_configs"][0]["bearer_token"], text, "{base:?}");
    }
}
