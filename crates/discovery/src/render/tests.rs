//! What is rendered, compared with golden files.

use super::*;
use crate::listing::Listing;
use crate::placement::Placement;

fn proxy(address: &str) -> Proxy {
    Proxy {
        address: address.parse().unwrap(),
        namespace: "monitoring".to_owned(),
        service: "proxy".to_owned(),
    }
}

fn files() -> SdFiles {
    SdFiles {
        folder: "/prometheus".into(),
        prefix: "pushprox-prometheus.yaml-".to_owned(),
    }
}

fn style(targets: Targets) -> Style {
    Style {
        targets,
        job_name: JobName::Service,
        proxy_url: "http://proxy/".parse().unwrap(),
        tls_config: Mapping::new(),
    }
}

fn yaml(jobs: &[Mapping]) -> String {
    serde_yaml::to_string(jobs).unwrap()
}

/// Compares with a file of `tests/data`, or writes it where `UPDATE_GOLDEN` is set.
fn assert_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, wanted,
        "differs from {name}; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[test]
fn scrape_configs_with_files() {
    let proxies = [proxy("10.1.0.1:8080"), proxy("[fd00::1]:8080")];
    let template = Template::parse(b"scrape_interval: 30s\nrelabel_configs:\n- source_labels: [__meta_pushprox_proxy]\n  target_label: proxy\n").unwrap();
    assert_golden(
        "jobs-files.yaml",
        &yaml(&jobs(&proxies, &style(Targets::Files(files())), &template)),
    );
}

#[test]
fn scrape_configs_that_ask_the_proxy() {
    let mut style = style(Targets::Http {
        refresh_interval: 60,
        token_file: None,
    });
    style.proxy_url = "https://us%40er:p%3Aw@proxy.monitoring.svc/prefix/"
        .parse()
        .unwrap();
    style.tls_config =
        serde_yaml::from_str("{ca_file: /tls/ca.crt, server_name: proxy.monitoring.svc}").unwrap();
    assert_golden(
        "jobs-http.yaml",
        &yaml(&jobs(
            &[proxy("10.1.0.1:8080")],
            &style,
            &Template::default(),
        )),
    );
}

#[test]
fn scrape_configs_with_a_token_or_with_any_certificate() {
    let mut style = style(Targets::Http {
        refresh_interval: 60,
        token_file: Some("/tls/token".to_owned()),
    });
    style.proxy_url = "https://proxy/".parse().unwrap();
    style.tls_config = serde_yaml::from_str("{insecure_skip_verify: true}").unwrap();
    assert_golden(
        "jobs-token.yaml",
        &yaml(&jobs(
            &[proxy("10.1.0.1:8080")],
            &style,
            &Template::default(),
        )),
    );
}

#[test]
fn scrape_configs_named_by_ip() {
    let mut style = style(Targets::Files(files()));
    style.job_name = JobName::Ip;
    let proxies = [
        proxy("10.1.0.1:8080"),
        proxy("10.1.0.2:8080"),
        proxy("10.1.0.2:8081"),
        proxy("[fd00::1]:80"),
    ];
    let jobs = jobs(&proxies, &style, &Template::default());
    let names: Vec<_> = jobs
        .iter()
        .map(|job| job["job_name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["10.1.0.1", "10.1.0.2:8080", "10.1.0.2:8081", "fd00::1"]
    );
    assert!(!jobs[0].contains_key("relabel_configs"));
    assert_eq!(jobs[3]["proxy_url"], "http://[fd00::1]/");
}

#[test]
fn sd_files_group_clients_by_labels_and_say_where_they_were_found() {
    let listing = Listing::parse(
        r#"[{"targets":["b:9100","A"],"labels":{}},{"targets":["c"],"labels":{"room":"\"é\n: -"}}]"#.as_bytes(),
    )
    .unwrap();
    let proxy = proxy("10.1.0.1:8080");
    let placed = Placement::default().place(&[(proxy.address, &listing)].into());
    let text = String::from_utf8(sd_file(&proxy, &placed[&proxy.address])).unwrap();
    assert_golden("sd-file.json", &text);
    let again = Listing::parse(text.as_bytes()).unwrap();
    assert_eq!(
        (again.len(), again.unusable),
        (3, 6),
        "it reads back, but for the labels added"
    );
}

#[test]
fn a_proxy_without_clients_has_an_empty_list() {
    assert_eq!(sd_file(&proxy("10.1.0.1:8080"), &Placed::new()), b"[\n]\n");
}

#[test]
fn names_of_sd_files_lead_back_to_their_proxy() {
    for address in [
        "10.1.0.1:8080",
        "[fd00::1]:8080",
        "[::]:1",
        "[::ffff:10.0.0.1]:80",
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let path = files().path(address);
        assert_eq!(files().proxy(&path), Some(address), "{}", path.display());
    }
    for foreign in [
        "other.json",
        "pushprox-prometheus.yaml-10.1.0.1.json",
        "pushprox-prometheus.yaml-10.1.0.1_080.json",
        "pushprox-prometheus.yaml-10.1.0.1_80.json.tmp",
        "pushprox-other.yaml-10.1.0.1_80.json",
        "pushprox-prometheus.yaml-x-10.1.0.1_80.json",
    ] {
        assert_eq!(files().proxy(Path::new(foreign)), None, "{foreign}");
    }
}

#[test]
fn texts_stand_for_themselves_in_relabel_rules() {
    assert_eq!(escape("a/b.c:[1]"), r"a/b\.c:\[1\]");
    assert_eq!(literal("a$1"), "a$$1");
}
