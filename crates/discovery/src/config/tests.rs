//! What flags come to, and mistakes in them.

use super::*;
use pushprox_daemon::cli::{Stop, parse_from};

const PAIR: [&str; 4] = ["-labelname", "app", "-labelvalue", "pushprox"];

fn config(more: &[&str]) -> anyhow::Result<Config> {
    match parse_from::<Args>("discovery", [&PAIR[..], more].concat()) {
        Ok(args) => Config::new(args),
        Err(Stop::Usage(error)) => Err(error.into()),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_forks_flags_have_the_forks_defaults() {
    let config = config(&[]).unwrap();
    assert_eq!(config.watch.selector, "app=pushprox");
    assert_eq!(config.watch.namespace, None);
    assert_eq!(
        config.publish.source.unwrap(),
        Path::new("/etc/prometheus/prometheus.yaml.base")
    );
    assert_eq!(
        config.publish.files.target,
        Path::new("/etc/prometheus/prometheus.yaml")
    );
    assert_eq!(config.publish.files.sd.folder, Path::new("/prometheus"));
    assert_eq!(config.times.resync.as_secs(), 60);
    let reloader = format!("{:?}", config.publish.reloader.unwrap());
    assert_eq!(reloader, "http://localhost:9090/-/reload");
}

#[test]
fn the_forks_flags_are_taken_with_one_dash_and_with_two() {
    for dash in ["-", "--"] {
        let flag = |name: &str| format!("{dash}{name}");
        let (source, target, namespace, reload) = (
            flag("source"),
            flag("target=/t/x"),
            flag("namespace"),
            flag("reloadurl"),
        );
        let config = config(&[&source, "/s", &target, &namespace, "mon", &reload, ""]).unwrap();
        assert_eq!(config.publish.source.unwrap(), Path::new("/s"));
        assert_eq!(config.publish.files.target, Path::new("/t/x"));
        assert_eq!(config.watch.namespace.as_deref(), Some("mon"));
        assert!(config.publish.reloader.is_none());
    }
}

#[test]
fn a_selector_stands_instead_of_the_pair() {
    let args = parse_from::<Args>("discovery", ["--label-selector", "app in (a,b),!old"]).unwrap();
    assert_eq!(
        Config::new(args).unwrap().watch.selector,
        "app in (a,b),!old"
    );
}

#[test]
fn mistakes_are_one_line_each() {
    let none: [&str; 0] = [];
    let error = Config::new(parse_from::<Args>("discovery", none).unwrap()).unwrap_err();
    assert!(error.is::<UsageError>());
    assert!(
        error
            .to_string()
            .starts_with("--labelname and --labelvalue are required"),
        "{error}"
    );
    for (flags, part) in [
        (
            &["--label-selector", "a=b"][..],
            "--labelname cannot be given together with --label-selector",
        ),
        (
            &["--namespace", "a/../b"],
            "--namespace: it is not the name of a namespace",
        ),
        (
            &["--mode", "x"],
            "--mode: \"x\" is not one of config, scrape-configs, http-sd",
        ),
        (&["--sd-dir", "/a*b"], "--sd-dir: Prometheus takes"),
        (&["--port", "Web"], "--port: \"Web\" is no port"),
        (
            &["--resync-interval", "0"],
            "--resync-interval: \"0\" is zero",
        ),
        (
            &["--proxy-url", "u:secret@x"],
            "--proxy-url: the URL begins neither with http:// nor with https://",
        ),
        (
            &["--web.config.file="],
            "--web.config.file: the value is empty; give the name of a file",
        ),
        (
            &["--job-template", ""],
            "--job-template: the value is empty; give the name of a file",
        ),
        (
            &["--kubeconfig="],
            "--kubeconfig: the value is empty; give the name of a file",
        ),
        (&["--tls.cacert", "/ca.pem"], "--proxy-url: it has no https"),
        (
            &["--tls.server-name", "p.test"],
            "--proxy-url: it has no https",
        ),
        (
            &["--tls.insecure-skip-verify"],
            "--proxy-url: it has no https",
        ),
        (
            &["--proxy-url", "https://10.0.0.1/"],
            "--proxy-url: over https the host must be the name that the proxies' certificates have, not an address; write that name, or give it by --tls.server-name",
        ),
        (
            &["--tls.server-name", "10.0.0.1"],
            "--tls.server-name: \"10.0.0.1\" is not a host name",
        ),
        (
            &["--proxy.header", "s3cret"],
            "--proxy.header: the value is not a header",
        ),
        (
            &["--mode=http-sd", "--proxy.header=X-A: secret"],
            "--proxy.header: in the mode http-sd it is Prometheus that asks the proxies, and it has no setting for headers",
        ),
        (
            &["--proxy.bearer-token-file=/t", "--proxy.basic-auth-file=/b"],
            "--proxy.bearer-token-file cannot be given together with --proxy.basic-auth-file",
        ),
        (
            &[
                "--proxy-url=http://u:secret@p",
                "--proxy.basic-auth-file=/b",
            ],
            "--proxy.bearer-token-file, --proxy.basic-auth-file, a user in --proxy-url and --proxy.header Authorization exclude each other",
        ),
        (
            &["--proxy.bearer-token-file="],
            "--proxy.bearer-token-file: the value is empty; give the name of a file",
        ),
        (
            &["--proxy.bearer-token-file=/no/file"],
            "--proxy.bearer-token-file: cannot read /no/file",
        ),
        (&["--tls.cert", "/c.pem"], "--tls.key is required"),
        (
            &["--proxy-url", "https://p", "--tls.cacert", "/no/file"],
            "--tls.cacert: cannot read /no/file",
        ),
        (
            &["--reloadurl", "localhost"],
            "--reloadurl: the URL begins neither with http:// nor with https://",
        ),
        (&["--target", "/"], "--target: it is a folder"),
        (
            &["-source=/etc/x", "-target=/etc/./x"],
            "--source: discovery writes this file itself; name another",
        ),
        (
            &["-source=/etc/x.good", "-target=/etc/x"],
            "--source: discovery writes this file itself; name another",
        ),
        (
            &["--job-template=/etc/x", "-target=/etc/x"],
            "--job-template: discovery writes this file itself; name another",
        ),
    ] {
        let error = config(flags).unwrap_err().to_string();
        assert!(error.starts_with(part), "{flags:?}: {error}");
        assert!(
            !error.contains('\n') && !error.contains("secret"),
            "{error}"
        );
    }
    for (name, value) in [("a,b", "c"), ("a", "b,c=d"), ("", "c"), ("a", "")] {
        let flags = ["--labelname", name, "--labelvalue", value];
        assert!(
            Config::new(parse_from::<Args>("discovery", flags).unwrap()).is_err(),
            "{name} {value}"
        );
    }
}

#[test]
fn prometheus_is_told_of_tls_as_far_as_it_goes() {
    let told = |flags: &[&str]| {
        let config = config(flags).unwrap().publish.style.tls_config;
        serde_yaml::to_string(&config).unwrap()
    };
    assert_eq!(told(&[]), "{}\n");
    assert_eq!(
        told(&["--proxy-url=https://p.test"]),
        "server_name: p.test\n"
    );
    for url in ["https://p.test", "https://10.0.0.1", "https://[::1]"] {
        let flags = ["--proxy-url", url, "--tls.server-name=Q.test"];
        assert_eq!(told(&flags), "server_name: q.test\n");
    }
    let any = ["--proxy-url=https://10.0.0.1", "--tls.insecure-skip-verify"];
    assert_eq!(told(&any), "insecure_skip_verify: true\n");
}

#[test]
fn a_user_and_a_token_in_files_are_for_prometheus_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shown");
    let config = |flags: &[&str], text: &str| {
        std::fs::write(&file, text).unwrap();
        config(flags)
    };
    let (basic, bearer) = (
        format!("--proxy.basic-auth-file={}", file.display()),
        format!("--proxy.bearer-token-file={}", file.display()),
    );
    let with_user = config(&[&basic], "me:sec:ret\n").unwrap();
    let url = with_user.to_proxies.current().proxy_url().clone();
    let user = ("me".to_owned(), "sec:ret".to_owned());
    assert_eq!(url.credentials(), Some(user));
    assert!(!format!("{with_user:?}").contains("sec"));

    let with_token = config(&["--mode=http-sd", &bearer], "secret\n").unwrap();
    let targets = &with_token.publish.style.targets;
    let path = file.to_str().unwrap();
    assert!(
        matches!(targets, Targets::Http { token_file: Some(file), .. } if file == path),
        "{targets:?}"
    );
    let url = with_token.to_proxies.current().proxy_url().clone();
    assert_eq!(url.credentials(), None);
    assert!(!format!("{with_token:?}").contains("secret"));

    let error = config(&[&basic], "secret").unwrap_err().to_string();
    assert!(error.ends_with("is not one line user:password"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn nothing_secret_is_in_the_debug_output() {
    let flags = [
        "--proxy-url",
        "http://u:secret@x/",
        "--reloadurl",
        "http://u:secret@x/",
    ];
    assert!(!format!("{:?}", config(&flags).unwrap()).contains("secret"));
    let flags = ["--proxy.header", "X-A: secret"];
    assert!(!format!("{:?}", config(&flags).unwrap()).contains("secret"));
}
