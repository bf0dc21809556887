//! The command line, as the operator types it.

use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use pushprox_daemon::cli::{go_duration, positive_go_duration};
use pushprox_daemon::listen::{AddressError, ListenAddress};
use pushprox_daemon::logging::LogArgs;
use pushprox_protocol::Fqdn;

use crate::proxy_url::ProxyUrl;
use crate::pull_url::PullUrl;

/// Fetches metrics for a Prometheus that cannot reach them: polls a PushProx proxy for scrapes,
/// pulls each from one fixed URL, and pushes the answer.
///
/// PROM_TOKEN in the environment, if set, is sent to the pull URL as X-Prom-Pull-Token.
#[derive(Debug, Parser)]
#[command(name = "client")]
pub struct Args {
    /// URL of the proxy; it may have a path and credentials.
    #[arg(
        long = "proxy-url",
        value_name = "URL",
        env = "PROXY_URL",
        hide_env_values = true
    )]
    pub proxy_url: ProxyUrl,

    /// The only URL that is ever pulled; a scrape can add query parameters to it.
    #[arg(
        long = "pull-url",
        value_name = "URL",
        env = "PULL_URL",
        hide_env_values = true
    )]
    pub pull_url: PullUrl,

    /// Name to register, host or host:port [default: the machine's FQDN].
    #[arg(long, value_name = "NAME")]
    pub fqdn: Option<Fqdn>,

    /// Time for a scrape that comes without one.
    #[arg(long = "scrape.default-timeout", value_name = "DURATION", default_value = "15s",
          value_parser = positive_go_duration)]
    pub scrape_default_timeout: Duration,

    /// Longest time for any scrape.
    #[arg(long = "scrape.max-timeout", value_name = "DURATION", default_value = "5m",
          value_parser = positive_go_duration)]
    pub scrape_max_timeout: Duration,

    /// Longest wait after the first of several failed polls; it doubles with each one.
    #[arg(long = "proxy.retry.initial-wait", value_name = "DURATION", default_value = "1s",
          value_parser = positive_go_duration)]
    pub retry_initial_wait: Duration,

    /// Longest wait after any failed poll.
    #[arg(long = "proxy.retry.max-wait", value_name = "DURATION", default_value = "5s",
          value_parser = positive_go_duration)]
    pub retry_max_wait: Duration,

    /// How long the proxy shall hold a poll, in whole seconds; 0 for as long as it likes.
    #[arg(long = "poll.wait", value_name = "DURATION", default_value = "45s",
          value_parser = go_duration)]
    pub poll_wait: Duration,

    /// Address for /metrics, /-/healthy and /-/ready; empty for none.
    #[arg(
        long = "metrics-addr",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9369"
    )]
    pub metrics_addr: MetricsAddress,

    /// File with the certificates to trust the proxy by, instead of the system's (PEM).
    #[arg(long = "tls.cacert", value_name = "FILE", value_parser = file_name)]
    pub tls_cacert: Option<String>,

    /// File with a certificate to show to the proxy (PEM).
    #[arg(long = "tls.cert", value_name = "FILE", value_parser = file_name, requires = "tls_key")]
    pub tls_cert: Option<String>,

    /// File with the key of that certificate (PEM).
    #[arg(long = "tls.key", value_name = "FILE", value_parser = file_name, requires = "tls_cert")]
    pub tls_key: Option<String>,

    /// How long scrapes in hand may take after SIGTERM or SIGINT.
    #[arg(long = "shutdown.grace-period", value_name = "DURATION", default_value = "10s",
          value_parser = go_duration)]
    pub shutdown_grace_period: Duration,

    /// Name of the logger, in each line of the log.
    #[arg(long, value_name = "NAME", default_value = "proxyclient")]
    pub loggername: String,

    /// How the log is written.
    #[command(flatten)]
    pub log: LogArgs,
}

fn file_name(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("the value is empty; give the name of a PEM file"),
        _ => Ok(text.to_owned()),
    }
}

/// The value of `--metrics-addr`, where nothing means nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsAddress(pub Option<ListenAddress>);

impl FromStr for MetricsAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "" => Ok(Self(None)),
            _ => text.parse().map(|address| Self(Some(address))),
        }
    }
}
