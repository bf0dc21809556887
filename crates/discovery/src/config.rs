//! What discovery runs with: the command line and the files that it names, checked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pushprox_daemon::cli::UsageError;
use pushprox_daemon::listen::ListenAddress;
use pushprox_peer::verifier::{self, PeerTlsError};
use reqwest::Identity;
use serde_yaml::Mapping;

use crate::cli::{Args, Mode};
use crate::fetch::{Fetcher, Tls};
use crate::files::Files;
use crate::index::PortChoice;
use crate::publish;
use crate::reload::Reloader;
use crate::render::{Style, Targets};
use crate::tracker::Times;
use crate::watch;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// What is watched.
    pub watch: watch::Settings,
    /// Which port of a proxy is asked.
    pub port: PortChoice,
    /// Asks proxies; none where Prometheus does so itself.
    pub fetcher: Option<Fetcher>,
    /// When what happens.
    pub times: Times,
    /// What is published.
    pub publish: publish::Settings,
    /// Whether everything is done once.
    pub once: bool,
    /// Where discovery's own pages are.
    pub metrics_address: Option<ListenAddress>,
    /// Who may see them, and how.
    pub web_config: Option<PathBuf>,
}

impl Config {
    /// Checks what the operator typed.
    ///
    /// # Errors
    ///
    /// [`UsageError`] for what is wrong on the command line; files that cannot be read.
    pub fn new(args: Args) -> anyhow::Result<Self> {
        let selector = selector(&args)?;
        let namespace = namespace(args.namespace)?;
        let target = absolute("--target", &args.target)?;
        if target.file_name().is_none() {
            return Err(usage("--target: it is a folder; name the file in it").into());
        }
        if args.mode != Mode::ScrapeConfigs && absolute("--source", &args.source)? == target {
            return Err(usage("--source: it is the target as well; name another file").into());
        }
        let sd_folder = sd_folder(&args.sd_dir)?;
        let proxies = args.tls_cacert.as_deref().or(args.tls_cert.as_deref());
        if proxies.is_some() && args.proxy_url.server_name().is_none() {
            let text = "--proxy-url: it has no https, and so the --tls flags mean nothing; write https://name-in-certificate/";
            return Err(usage(text).into());
        }
        let tls = read_tls(
            args.tls_cacert.as_deref(),
            args.tls_cert.as_deref().zip(args.tls_key.as_deref()),
        )?;
        let mut tls_config = Mapping::new();
        if let Some(name) = args.proxy_url.server_name() {
            tls_config.insert("server_name".into(), name.into());
            for (key, flag, file) in [
                ("ca_file", "--tls.cacert", &args.tls_cacert),
                ("cert_file", "--tls.cert", &args.tls_cert),
                ("key_file", "--tls.key", &args.tls_key),
            ] {
                if let Some(path) = file {
                    tls_config.insert(key.into(), text(flag, &absolute(flag, path)?)?.into());
                }
            }
        }
        let refresh_interval = args.resync_interval.as_secs().max(1);
        let files = Files::new(target, sd_folder);
        let fetcher = match args.mode {
            Mode::HttpSd => None,
            Mode::Config | Mode::ScrapeConfigs => Some(
                Fetcher::new(args.proxy_url.clone(), tls, refresh_interval)
                    .context("cannot set up TLS towards the proxies")?,
            ),
        };
        let reloader = args.reloadurl.0.map(Reloader::new).transpose();
        Ok(Self {
            watch: watch::Settings {
                kubeconfig: args.kubeconfig,
                namespace,
                selector,
            },
            port: args.port.unwrap_or_default(),
            fetcher,
            times: Times {
                resync: args.resync_interval,
                sync_timeout: args.sync_timeout,
            },
            publish: publish::Settings {
                source: (args.mode != Mode::ScrapeConfigs).then_some(args.source),
                template: args.job_template,
                style: Style {
                    targets: match args.mode {
                        Mode::HttpSd => Targets::Http { refresh_interval },
                        Mode::Config | Mode::ScrapeConfigs => Targets::Files(files.sd.clone()),
                    },
                    job_name: args.job_name,
                    proxy_url: args.proxy_url,
                    tls_config,
                },
                files,
                reloader: reloader.context("cannot set up TLS with the system's certificates")?,
                resync: args.resync_interval,
            },
            once: args.once,
            metrics_address: args.metrics_addr.0,
            web_config: args.web_config,
        })
    }
}

fn selector(args: &Args) -> Result<String, UsageError> {
    if let Some(selector) = &args.label_selector {
        if selector.trim().is_empty() {
            return Err(usage(
                "--label-selector: it is empty; write one like app=pushprox",
            ));
        }
        return Ok(selector.clone());
    }
    let (Some(name), Some(value)) = (&args.labelname, &args.labelvalue) else {
        return Err(usage(
            "--labelname and --labelvalue are required, or --label-selector instead of both",
        ));
    };
    // Anything else would be more than a pair to the API server.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(usage(
            "--labelname: it is not the name of a label; write one like app or example.org/app",
        ));
    }
    if value.is_empty() || !value.bytes().all(|byte| is_plain(byte) && byte != b'/') {
        return Err(usage(
            "--labelvalue: it is not the value of a label; write one like pushprox",
        ));
    }
    Ok(format!("{name}={value}"))
}

fn namespace(name: String) -> Result<Option<String>, UsageError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.bytes().all(is_plain) {
        return Err(usage(
            "--namespace: it is not the name of a namespace; write one like monitoring, or nothing for all",
        ));
    }
    Ok((!name.is_empty()).then_some(name))
}

fn sd_folder(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = absolute("--sd-dir", path)?;
    if text("--sd-dir", &folder)?.contains(['*', '?', '[', '\\']) {
        return Err(usage(
            "--sd-dir: Prometheus takes * ? [ and \\ in it for a pattern; choose another folder",
        )
        .into());
    }
    Ok(folder)
}

fn absolute(flag: &str, path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{flag}: cannot use {}", path.display()))
}

fn text<'a>(flag: &str, path: &'a Path) -> Result<&'a str, UsageError> {
    path.to_str().ok_or_else(|| {
        usage(&format!(
            "{flag}: it is not UTF-8, which Prometheus's configuration must be"
        ))
    })
}

fn read_tls(trusted: Option<&Path>, shown: Option<(&Path, &Path)>) -> anyhow::Result<Tls> {
    let mut tls = Tls::default();
    let mut pem = None;
    if let Some((cert, key)) = shown {
        let mut both = read("--tls.cert", cert)?;
        both.push(b'\n');
        both.extend(read("--tls.key", key)?);
        tls.identity = Some(Identity::from_pem(&both).context(
            "--tls.cert, --tls.key: they are not a certificate and its key in PEM format",
        )?);
        pem = Some(both);
    }
    if let Some(path) = trusted {
        let made = verifier::config(&read("--tls.cacert", path)?, pem.as_deref());
        tls.config = Some(made.map_err(|error| match error {
            PeerTlsError::Unusable(_) => {
                anyhow::anyhow!("--tls.cacert, --tls.cert, --tls.key: {error}")
            }
            _ => anyhow::anyhow!("--tls.cacert: {} {error}", path.display()),
        })?);
    }
    Ok(tls)
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}

fn usage(text: &str) -> UsageError {
    UsageError(text.to_owned())
}

#[cfg(test)]
mod tests {
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
        let args =
            parse_from::<Args>("discovery", ["--label-selector", "app in (a,b),!old"]).unwrap();
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
                "--proxy-url: the URL is not an http or https URL",
            ),
            (&["--tls.cacert", "/ca.pem"], "--proxy-url: it has no https"),
            (&["--tls.cert", "/c.pem"], "--tls.key is required"),
            (
                &["--proxy-url", "https://p", "--tls.cacert", "/no/file"],
                "--tls.cacert: cannot read /no/file",
            ),
            (
                &["--reloadurl", "localhost"],
                "--reloadurl: the URL is not an http or https URL",
            ),
            (&["--target", "/"], "--target: it is a folder"),
            (
                &["-source=/etc/x", "-target=/etc/./x"],
                "--source: it is the target as well",
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
    fn nothing_secret_is_in_the_debug_output() {
        let flags = [
            "--proxy-url",
            "http://u:secret@x/",
            "--reloadurl",
            "http://u:secret@x/",
        ];
        assert!(!format!("{:?}", config(&flags).unwrap()).contains("secret"));
    }
}
