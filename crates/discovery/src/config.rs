//! What discovery runs with: the command line and the files that it names, checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use pushprox_daemon::cli::UsageError;
use pushprox_daemon::listen::ListenAddress;
use pushprox_peer::leg::LegFlags;
use pushprox_peer::tls::{ServerName, TlsFlags};
use serde_yaml::Mapping;

use crate::cli::{Args, Mode};
use crate::fetch::Fetcher;
use crate::files::Files;
use crate::index::PortChoice;
use crate::publish;
use crate::reload::Reloader;
use crate::render::{Style, Targets};
use crate::to_proxies::{Reloading, ToProxies};
use crate::tracker::Times;
use crate::urls::ProxyUrl;
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
    /// How proxies are spoken to.
    pub to_proxies: Arc<Reloading>,
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
        let sd_folder = sd_folder(&args.sd_dir)?;
        let flags = LegFlags::from(args.to_proxies);
        check_proxies(&flags, &args.proxy_url, args.mode)?;
        let tls_config = tls_config(&flags.tls, &args.proxy_url)?;
        let refresh_interval = args.resync_interval.as_secs().max(1);
        let source = (args.mode != Mode::ScrapeConfigs).then_some(args.source);
        let mut files = Files::new(target, sd_folder);
        let kept = [
            ("--source", &source),
            ("--job-template", &args.job_template),
        ];
        for (flag, path) in kept {
            files.kept.extend(path.clone().map(|path| (flag, path)));
        }
        if let Some((flag, _)) = files.endangered() {
            return Err(usage(&format!(
                "{flag}: discovery writes this file itself; name another"
            ))
            .into());
        }
        let targets = match args.mode {
            Mode::Config | Mode::ScrapeConfigs => Targets::Files(files.sd.clone()),
            Mode::HttpSd => Targets::Http {
                refresh_interval,
                token_file: file_in_config(BEARER_FLAG, flags.credentials.bearer.as_deref())?,
            },
        };
        let to_proxies = Arc::new(ToProxies::load(flags, args.proxy_url.clone())?);
        let fetcher = match args.mode {
            Mode::Config | Mode::ScrapeConfigs => {
                Some(Fetcher::new(Arc::clone(&to_proxies), refresh_interval))
            }
            Mode::HttpSd => None,
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
            to_proxies: Arc::clone(&to_proxies),
            times: Times {
                resync: args.resync_interval,
                sync_timeout: args.sync_timeout,
            },
            publish: publish::Settings {
                source,
                template: args.job_template,
                style: Style {
                    targets,
                    job_name: args.job_name,
                    proxy_url: args.proxy_url,
                    tls_config,
                },
                files,
                to_proxies,
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

/// Checks the flags that say how proxies are spoken to.
fn check_proxies(flags: &LegFlags, url: &ProxyUrl, mode: Mode) -> Result<(), UsageError> {
    flags.check("--proxy-url", url.credentials().is_some())?;
    if mode == Mode::HttpSd && !flags.headers.is_empty() {
        return Err(usage(
            "--proxy.header: in the mode http-sd it is Prometheus that asks the proxies, and it has no setting for headers; leave it out",
        ));
    }
    let tls = &flags.tls;
    let has_files = tls.cacert.is_some() || tls.cert.is_some();
    if !url.is_secure() && (has_files || tls.server_name.is_some() || tls.insecure_skip_verify) {
        return Err(usage(
            "--proxy-url: it has no https, and so the --tls flags mean nothing; write https://name-in-certificate/",
        ));
    }
    let has_name = tls.server_name.is_some() || url.server_name().is_some();
    if url.is_secure() && !has_name && !tls.insecure_skip_verify {
        return Err(usage(
            "--proxy-url: over https the host must be the name that the proxies' certificates have, not an address; write that name, or give it by --tls.server-name",
        ));
    }
    Ok(())
}

/// What Prometheus must know to reach proxies with TLS.
fn tls_config(tls: &TlsFlags, url: &ProxyUrl) -> anyhow::Result<Mapping> {
    let mut config = Mapping::new();
    if !url.is_secure() {
        return Ok(config);
    }
    let name = tls.server_name.as_ref().map(ServerName::as_str);
    if let Some(name) = name.or(url.server_name()) {
        config.insert("server_name".into(), name.into());
    }
    for (key, flag, file) in [
        ("ca_file", "--tls.cacert", &tls.cacert),
        ("cert_file", "--tls.cert", &tls.cert),
        ("key_file", "--tls.key", &tls.key),
    ] {
        if let Some(path) = file_in_config(flag, file.as_deref())? {
            config.insert(key.into(), path.into());
        }
    }
    if tls.insecure_skip_verify {
        config.insert("insecure_skip_verify".into(), true.into());
    }
    Ok(config)
}

/// The name of a file for Prometheus, which looks for others in the folder of its configuration.
fn file_in_config(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(text(flag, &absolute(flag, path)?)?.to_owned()))
}

fn usage(text: &str) -> UsageError {
    UsageError(text.to_owned())
}

const BEARER_FLAG: &str = "--proxy.bearer-token-file";

#[cfg(test)]
mod tests;
