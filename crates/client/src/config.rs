//! What a client runs with: the command line and the files and variables that it names, checked.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pushprox_daemon::cli::UsageError;
use pushprox_daemon::listen::ListenAddress;
use pushprox_daemon::reload::Reloaded;
use pushprox_peer::credentials::CredentialFiles;
use pushprox_peer::leg::{LegError, LegFlags};
use pushprox_peer::tls::TlsFlags;
use pushprox_protocol::Fqdn;
use pushprox_protocol::timeout::ScrapeTimeouts;

use crate::cli::Args;
use crate::leg::{ProxyLeg, TargetLeg};
use crate::proxy_url::ProxyUrl;
use crate::pull_url::PullUrl;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the proxy is.
    pub proxy_url: ProxyUrl,
    /// What is pulled.
    pub pull_url: PullUrl,
    /// The name to register; the machine's where there is none.
    pub fqdn: Option<Fqdn>,
    /// Bounds on a scrape's time.
    pub timeouts: ScrapeTimeouts,
    /// Bound of the wait after a first failed poll.
    pub retry_initial_wait: Duration,
    /// Bound of the wait after any failed poll.
    pub retry_max_wait: Duration,
    /// Seconds that a poll asks to be held for.
    pub poll_wait: Option<u32>,
    /// Where the client's own pages are.
    pub metrics_address: Option<ListenAddress>,
    /// Who may see them, and how.
    pub web_config: Option<PathBuf>,
    /// How the proxy is spoken to.
    pub to_proxy: Arc<Reloaded<ProxyLeg, LegError>>,
    /// How the target is spoken to.
    pub to_target: Arc<Reloaded<TargetLeg, LegError>>,
    /// How long scrapes in hand may take at the end.
    pub grace_period: Duration,
    /// The token for the pull URL.
    pub pull_token: Option<PullToken>,
}

impl Config {
    /// Checks what the operator typed, with the value of `PROM_TOKEN`.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or does not hold what its flag is for; the token fits no header.
    pub fn new(mut args: Args, prom_token: Option<OsString>) -> anyhow::Result<Self> {
        let to_target = to_target(&mut args);
        let to_proxy = LegFlags::from(args.to_proxy);
        to_proxy.check("--proxy-url", args.proxy_url.authorization().is_some())?;
        if to_proxy.tls.server_name.is_some() && crate::http::leads_elsewhere(&args.proxy_url) {
            let what = "--tls.server-name does not go with the HTTP proxy in the environment \
                        (HTTPS_PROXY or ALL_PROXY); unset that one";
            return Err(UsageError(what.to_owned()).into());
        }
        to_target.check("--pull-url", args.pull_url.authorization().is_some())?;
        Ok(Self {
            to_proxy: Arc::new(ProxyLeg::load(to_proxy, args.proxy_url.clone())?),
            to_target: Arc::new(TargetLeg::load(to_target, args.pull_url.clone())?),
            web_config: args.web_config,
            proxy_url: args.proxy_url,
            pull_url: args.pull_url,
            fqdn: args.fqdn,
            timeouts: ScrapeTimeouts {
                default: args.scrape_default_timeout,
                max: args.scrape_max_timeout,
            },
            retry_initial_wait: args.retry_initial_wait,
            retry_max_wait: args.retry_max_wait,
            poll_wait: whole_seconds(args.poll_wait),
            metrics_address: args.metrics_addr.0,
            grace_period: args.shutdown_grace_period,
            pull_token: PullToken::new(prom_token)?,
        })
    }
}

fn to_target(args: &mut Args) -> LegFlags {
    LegFlags {
        tls: TlsFlags {
            prefix: "--pull.tls",
            cacert: args.pull_tls_cacert.take(),
            cert: args.pull_tls_cert.take(),
            key: args.pull_tls_key.take(),
            server_name: args.pull_tls_server_name.take(),
            insecure_skip_verify: args.pull_tls_insecure_skip_verify,
        },
        credentials: CredentialFiles {
            prefix: "--pull",
            bearer: args.pull_bearer_token_file.take(),
            basic: args.pull_basic_auth_file.take(),
        },
        headers: std::mem::take(&mut args.pull_header),
    }
}

/// `PROM_TOKEN`, which goes to the pull URL and nowhere else.
#[derive(Clone)]
pub struct PullToken(HeaderValue);

impl PullToken {
    /// Takes the variable's value. An empty one is none.
    ///
    /// # Errors
    ///
    /// It holds what no header can hold.
    pub fn new(value: Option<OsString>) -> Result<Option<Self>, UsageError> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let header = value
            .to_str()
            .map(|text| text.trim_end_matches(['\r', '\n']))
            .filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')))
            .and_then(|text| HeaderValue::from_str(text).ok());
        let mut header = header.ok_or_else(|| {
            UsageError(
                "PROM_TOKEN in the environment has characters that a header cannot hold; \
                 use printable ASCII"
                    .to_owned(),
            )
        })?;
        header.set_sensitive(true);
        Ok(Some(Self(header)))
    }

    /// The token as the value of a header.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for PullToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullToken(hidden)")
    }
}

/// `Prefer: wait` knows whole seconds only: a part of one counts as one.
fn whole_seconds(wait: Duration) -> Option<u32> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    match u32::try_from(seconds) {
        Ok(0) => None,
        Ok(seconds) => Some(seconds),
        Err(_) => Some(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pushprox_daemon::cli::{Stop, parse_from};

    const URLS: [&str; 4] = [
        "--proxy-url",
        "http://u:secret@p/x",
        "--pull-url",
        "http://t/m",
    ];

    fn config(more: &[&str], token: Option<&str>) -> anyhow::Result<Config> {
        let args = parse_from::<Args>("client", [&URLS[..], more].concat()).unwrap();
        Config::new(args, token.map(OsString::from))
    }

    fn usage(args: &[&str]) -> String {
        match parse_from::<Args>("client", args) {
            Err(Stop::Usage(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let config = config(&[], None).unwrap();
        assert_eq!(config.timeouts, ScrapeTimeouts::default());
        assert_eq!(config.retry_initial_wait, Duration::from_secs(1));
        assert_eq!(config.retry_max_wait, Duration::from_secs(5));
        assert_eq!(config.poll_wait, Some(45));
        assert_eq!(config.grace_period, Duration::from_secs(10));
        assert_eq!(
            config.metrics_address.unwrap().to_string(),
            "127.0.0.1:9369"
        );
        assert!(config.fqdn.is_none() && config.pull_token.is_none());
    }

    #[test]
    fn an_empty_metrics_address_switches_the_pages_off() {
        assert_eq!(
            config(&["--metrics-addr="], None).unwrap().metrics_address,
            None
        );
        assert_eq!(
            config(&["--metrics-addr", ""], None)
                .unwrap()
                .metrics_address,
            None
        );
    }

    #[test]
    fn polls_ask_for_whole_seconds() {
        for (text, wait) in [
            ("0", None),
            ("300ms", Some(1)),
            ("45s", Some(45)),
            ("1.5s", Some(2)),
        ] {
            assert_eq!(
                config(&["--poll.wait", text], None).unwrap().poll_wait,
                wait
            );
        }
    }

    #[test]
    fn nothing_secret_is_in_the_debug_output() {
        let config = config(&[], Some("secret")).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let args = parse_from::<Args>("client", URLS).unwrap();
        assert!(!format!("{args:?}").contains("secret"));
    }

    #[test]
    fn an_empty_token_is_none_and_a_bad_one_is_told_without_showing_it() {
        assert!(config(&[], Some("")).unwrap().pull_token.is_none());
        assert!(config(&[], Some("se cret\n")).unwrap().pull_token.is_some());
        for bad in ["sec\u{0}ret", "sec\tret", "s\u{e9}cret", "sec\nret"] {
            let error = config(&[], Some(bad)).unwrap_err();
            assert!(error.is::<UsageError>());
            assert!(error.to_string().starts_with("PROM_TOKEN"), "{error}");
            assert!(!error.to_string().contains(bad));
        }
    }

    #[test]
    fn mistakes_are_one_line_each() {
        assert_eq!(
            usage(&[]),
            "--proxy-url and --pull-url are required (or PROXY_URL and PULL_URL in the environment)"
        );
        assert_eq!(
            usage(&["--proxy-url", "u:secret@host:80", "--pull-url", "http://t"]),
            "--proxy-url: the URL begins neither with http:// nor with https://; write http://host:port/"
        );
        assert_eq!(
            usage(&[&URLS[..], &["--fqdn", "a b"]].concat()),
            "--fqdn: the host name has the character ' '; it may have letters, digits, '-', '_' and '.'"
        );
        assert_eq!(
            usage(&[&URLS[..], &["--tls.cert", "x"]].concat()),
            "--tls.key is required"
        );
        for flag in ["--tls.cacert", "--tls.cert", "--tls.key"] {
            assert_eq!(
                usage(&[&URLS[..], &[&format!("{flag}=")]].concat()),
                format!("{flag}: the value is empty; give the name of a file")
            );
        }
        assert_eq!(
            usage(&[&URLS[..], &["--metrics-addr", "9369"]].concat()),
            "--metrics-addr: \"9369\" is not a listen address; \
             write one like :8080, 127.0.0.1:8080 or [::1]:8080"
        );
        assert_eq!(
            usage(&[&URLS[..], &["--scrape.max-timeout", "0"]].concat()),
            "--scrape.max-timeout: \"0\" is zero; write one like 5m, 1m30s or 500ms"
        );
    }

    #[test]
    fn unreadable_files_are_told_with_their_flag() {
        let error = config(&["--tls.cacert", "/no/such/file"], None).unwrap_err();
        assert_eq!(
            pushprox_daemon::exit::causes(error.as_ref()),
            "--tls.cacert: cannot read /no/such/file: no such file or directory"
        );
        let error = config(&["--tls.cacert", "/dev/null"], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--tls.cacert: /dev/null has no certificate in PEM format in it"
        );
    }
}
