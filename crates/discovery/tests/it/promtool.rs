//! Whatever is generated from a base that Prometheus takes, Prometheus takes: its own `promtool`
//! judges.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use pushprox_daemon::secret::Secret;
use pushprox_discovery::base;
use pushprox_discovery::files::Files;
use pushprox_discovery::index::Proxy;
use pushprox_discovery::render::{JobName, Style, Targets, jobs};
use pushprox_discovery::template::Template;
use pushprox_discovery::urls::ProxyUrl;
use serde_yaml::Mapping;

/// Which of the files `promtool check config` takes.
fn taken(files: &[PathBuf]) -> Vec<bool> {
    let promtool = Path::new("/usr/bin/promtool");
    assert!(
        promtool.is_file(),
        "/usr/bin/promtool is missing: `make test` installs it with Debian's prometheus"
    );
    let output = Command::new(promtool)
        .args(["check", "config", "--syntax-only"])
        .args(files)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let verdict = |file: &PathBuf| {
        let is_taken = text.contains(&format!("SUCCESS: {} is valid", file.display()));
        let is_failed = text.contains(&format!("FAILED: {}", file.display()))
            || text.contains(&format!("FAILED: parsing YAML file {}:", file.display()));
        assert!(
            is_taken != is_failed,
            "promtool says nothing of {}: {text}",
            file.display()
        );
        is_taken
    };
    files.iter().map(verdict).collect()
}

fn proxy(address: &str, namespace: &str, service: &str) -> Proxy {
    Proxy {
        address: address.parse().unwrap(),
        namespace: namespace.to_owned(),
        service: service.to_owned(),
    }
}

/// Proxies of names that YAML could take for something else.
fn proxies() -> Vec<Proxy> {
    vec![
        proxy("10.1.0.1:8080", "monitoring", "proxy"),
        proxy("10.1.0.1:80", "123", "on"),
        proxy("[fd00::1]:8080", "1e3", "null"),
        proxy("[::ffff:1.2.3.4]:1", "0x1f", "y"),
    ]
}

fn template() -> Template {
    let text = "scrape_interval: 15s\nhonor_labels: true\nparams: {\"x y\": [\"a\\tb\\n\", \"0123\", \"\\u2028\"]}\n\
                relabel_configs:\n- source_labels: [__meta_pushprox_proxy, job]\n  regex: '(.*);(.*)'\n  target_label: via\n  replacement: '$1 ${2}'\n\
                metric_relabel_configs:\n- {source_labels: [__name__], regex: 'a|b', action: drop}\n";
    Template::parse(text.as_bytes()).unwrap()
}

/// The jobs of every style.
fn every_style() -> Vec<Vec<Mapping>> {
    let files = Files::new(
        "/etc/prometheus/prometheus.yaml".into(),
        "/prometheus".into(),
    );
    let tls: Mapping =
        serde_yaml::from_str("{server_name: proxy.svc, ca_file: /tls/ca.crt}").unwrap();
    let mut all = vec![Vec::new()];
    let unverified: Mapping = serde_yaml::from_str("{insecure_skip_verify: true}").unwrap();
    let url = |text: &str| text.parse::<ProxyUrl>().unwrap();
    // Of a file, which has no need for escapes.
    let password = Secret::new("p%41: \t#\"'@/\\ö".as_bytes());
    let by_file = url("https://proxy.svc/").with_user("us er", &password);
    let asked_by_prometheus = |token_file: Option<&str>| Targets::Http {
        refresh_interval: 60,
        token_file: token_file.map(str::to_owned),
    };
    for (targets, urls) in [
        (Targets::Files(files.sd), 4),
        (asked_by_prometheus(None), 4),
        (asked_by_prometheus(Some("/tls/the token: x")), 2),
    ] {
        // Those with a user come last.
        for (proxy_url, tls_config) in [
            (url("http://proxy/"), Mapping::new()),
            (url("https://10.0.0.1/"), unverified.clone()),
            (url("https://u%20s:p%3Aw@proxy.svc/x/"), tls.clone()),
            (by_file.clone(), tls.clone()),
        ]
        .into_iter()
        .take(urls)
        {
            for (job_name, template) in [
                (JobName::Service, template()),
                (JobName::Ip, Template::default()),
            ] {
                let style = Style {
                    targets: targets.clone(),
                    job_name,
                    proxy_url: proxy_url.clone(),
                    tls_config: tls_config.clone(),
                };
                all.push(jobs(&proxies(), &style, &template));
            }
        }
    }
    all
}

#[test]
fn every_style_is_taken_in_every_base_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bases");
    let mut bases: Vec<PathBuf> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // Prometheus's own, as Debian has them.
    for own in [
        "/etc/prometheus/prometheus.yml",
        "/usr/share/doc/prometheus/examples/prometheus.yml",
    ] {
        bases.extend(Some(PathBuf::from(own)).filter(|path| path.is_file()));
    }
    assert!(bases.len() > 3, "Debian's own configuration is missing");
    let long = folder.path().join("long.yaml");
    let mut text = String::from("global: {}\nscrape_configs:\n");
    for job in 0..500 {
        writeln!(text, "  - job_name: 'job {job}'\n    # Job {job}.\n    static_configs:\n      - targets: ['localhost:{job}']").unwrap();
    }
    assert!(text.lines().count() >= 2_000);
    std::fs::write(&long, text).unwrap();
    bases.push(long);
    assert!(taken(&bases).iter().all(|taken| *taken), "{bases:?}");

    let mut results = Vec::new();
    for path in &bases {
        let text = std::fs::read_to_string(path).unwrap();
        for (position, jobs) in every_style().iter().enumerate() {
            for (ends, text) in [
                ("unix", text.clone()),
                ("windows", text.replace('\n', "\r\n")),
                ("open", text.trim_end().to_owned()),
            ] {
                let name = path.file_name().unwrap().to_str().unwrap();
                let result = base::insert(text.as_bytes(), jobs)
                    .unwrap_or_else(|error| panic!("{name} {ends}: {error}"));
                let file = folder
                    .path()
                    .join(format!("{}-{position}-{ends}-{name}", results.len()));
                std::fs::write(&file, result).unwrap();
                results.push(file);
            }
        }
    }
    for (file, taken) in results.iter().zip(taken(&results)) {
        assert!(
            taken,
            "{}:\n{}",
            file.display(),
            std::fs::read_to_string(file).unwrap()
        );
    }
}

#[test]
fn a_file_of_scrape_configs_alone_is_taken_as_those_of_a_configuration() {
    // Debian's 2.42 does not know scrape_config_files yet: the file is judged as what it holds.
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = every_style()
        .iter()
        .enumerate()
        .map(|(position, jobs)| {
            let file = folder.path().join(format!("{position}.yaml"));
            std::fs::write(&file, base::alone(jobs).unwrap()).unwrap();
            file
        })
        .collect();
    assert!(taken(&files).iter().all(|taken| *taken));
}

#[test]
fn the_judge_tells_good_from_bad() {
    let folder = tempfile::tempdir().unwrap();
    let [good, bad] = ["good.yaml", "bad.yaml"].map(|name| folder.path().join(name));
    std::fs::write(&good, "scrape_configs: [{job_name: a}]\n").unwrap();
    std::fs::write(&bad, "scrape_configs: [{job_name: a}, {job_name: a}]\n").unwrap();
    assert_eq!(taken(&[good, bad]), [true, false]);
}

/// Configurations of every shape that an editor leaves behind.
fn any_base() -> impl Strategy<Value = String> {
    let comment = prop_oneof![
        Just(String::new()),
        Just("\n".to_owned()),
        Just("# scrape_configs:\n".to_owned()),
        Just("      # deep\n\n".to_owned()),
        Just("#\ttab ü\n".to_owned()),
    ];
    let other = prop_oneof![
        Just("global: {scrape_interval: 15s}\n".to_owned()),
        Just("global:\n  external_labels:\n    a: \"x\ty # scrape_configs: []\"\n    b: 'it''s'\n".to_owned()),
        Just("global:\n    external_labels:\n        text: |\n            scrape_configs:\n              - job_name: no\n".to_owned()),
        Just("global:\n  external_labels:\n    text: |+\n      kept\n\n\n".to_owned()),
        Just("global:\n  external_labels: {folded: >-\n      no flow here\n    }\n".to_owned()),
        Just("global:\n  external_labels: &labels\n    ü: ö\n".to_owned()),
        Just("global: # nothing\n".to_owned()),
    ];
    let rules = prop_oneof![
        Just(String::new()),
        Just("rule_files:\n- 'a*.yaml'\n".to_owned()),
        Just("rule_files: [\n  a.yaml,\n  b.yaml ]\n".to_owned()),
        Just("\"rule_files\": []\n".to_owned()),
        Just(
            "alerting:\n  alertmanagers:\n  - static_configs:\n    - targets:\n      - am:9093\n"
                .to_owned()
        ),
    ];
    let (margin, gap) = (0usize..5, 1usize..4);
    let list = (
        0usize..4,
        margin,
        gap,
        comment.clone(),
        any::<bool>(),
        any::<u8>(),
    )
        .prop_map(|(count, margin, gap, comment, flow, style)| {
            let key = [
                "scrape_configs:",
                "\"scrape_configs\":",
                "'scrape_configs' :",
                "scrape_configs: # jobs",
            ][usize::from(style) % 4];
            let anchor = [" &jobs", " !!seq", "", ""][usize::from(style / 4) % 4];
            let key = if key.contains('#') {
                key.to_owned()
            } else {
                format!("{key}{anchor}")
            };
            if count == 0 {
                let empty = ["", " []", " [ ]", " ~", " null # none"][usize::from(style) % 5];
                return if key.contains('#') || !anchor.is_empty() {
                    "scrape_configs: []\n".to_owned()
                } else {
                    format!("{key}{empty}\n")
                };
            }
            if flow {
                let jobs: Vec<_> = (0..count)
                    .map(|job| format!("{{job_name: j{job}, scheme: http}}"))
                    .collect();
                let separator = [", ", ",\n    ", " ,\n  # c\n  "][usize::from(style) % 3];
                let key = key.split('#').next().unwrap().trim_end();
                return format!("{key} [{}]\n", jobs.join(separator));
            }
            let (margin, gap) = (" ".repeat(margin), " ".repeat(gap));
            let mut text = format!("{key}\n{comment}");
            for job in 0..count {
                writeln!(
                    text,
                    "{margin}-{gap}job_name: 'j{job}' # {job}\n{margin} {gap}scheme: http"
                )
                .unwrap();
                text.push_str(&comment);
            }
            text
        });
    let list = prop_oneof![4 => list, 1 => Just(String::new())];
    let parts = (other, rules, list, comment).prop_flat_map(|(other, rules, list, comment)| {
        Just(vec![other, comment.clone(), rules, list, comment]).prop_shuffle()
    });
    (parts, any::<[bool; 5]>()).prop_map(|(parts, [start, end, windows, open, mark])| {
        let mut text = parts.concat();
        if start {
            text.insert_str(0, "---\n");
        }
        if end {
            text.push_str("...\n");
        }
        if open {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if windows {
            text = text.replace('\n', "\r\n");
        }
        if mark {
            format!("\u{feff}{text}")
        } else {
            text
        }
    })
}

#[test]
fn any_base_that_is_taken_is_taken_with_proxies_or_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = any_base();
    let mut bases = Vec::new();
    for number in 0..600 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        let file = folder.path().join(format!("base-{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        bases.push(file);
    }
    let good: Vec<PathBuf> = bases
        .iter()
        .zip(taken(&bases))
        .filter(|(_, taken)| *taken)
        .map(|(file, _)| file.clone())
        .collect();
    assert!(
        good.len() > 300,
        "only {} of the bases are any good",
        good.len()
    );
    let styles = every_style();
    let (mut results, mut refused) = (Vec::new(), Vec::new());
    for (position, file) in good.iter().enumerate() {
        let text = std::fs::read(file).unwrap();
        match base::insert(&text, &styles[position % styles.len()]) {
            Ok(result) => {
                assert!(
                    has_all_bytes(&text, &result),
                    "{:?}",
                    String::from_utf8_lossy(&text)
                );
                let file = folder.path().join(format!("result-{position}.yaml"));
                std::fs::write(&file, result).unwrap();
                results.push(file);
            }
            Err(error) => refused.push((error, String::from_utf8_lossy(&text).into_owned())),
        }
    }
    for (file, taken) in results.iter().zip(taken(&results)) {
        assert!(taken, "{:?}", std::fs::read_to_string(file).unwrap());
    }
    // What Prometheus takes is hardly ever refused.
    assert!(
        refused.len() * 50 < good.len(),
        "{} of {}: {refused:?}",
        refused.len(),
        good.len()
    );
}

/// Whether `result` is `base` with one piece put in.
fn has_all_bytes(base: &[u8], result: &[u8]) -> bool {
    let same = |(a, b): &(&u8, &u8)| a == b;
    let head = base.iter().zip(result).take_while(same).count();
    let tail = base
        .iter()
        .rev()
        .zip(result.iter().rev())
        .take_while(same)
        .count();
    head + tail >= base.len()
}
