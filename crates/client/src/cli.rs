//! The command line, as the operator types it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use pushprox_daemon::cli::{file_name, go_duration, positive_go_duration};
use pushprox_daemon::logging::LogArgs;
use pushprox_daemon::own_pages::MetricsAddress;
use pushprox_peer::args::ToProxyArgs;
use pushprox_peer::credentials::ExtraHeader;
use pushprox_peer::tls::ServerName;
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

    /// File with TLS, users, headers and a rate limit for that address, in the format of
    /// Prometheus's exporters.
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = file_name)]
    pub web_config: Option<PathBuf>,

    /// How the proxy is spoken to.
    #[command(flatten)]
    pub to_proxy: ToProxyArgs,

    /// File with the certificates to trust the target by, instead of the system's (PEM).
    #[arg(long = "pull.tls.cacert", value_name = "FILE", value_parser = file_name)]
    pub pull_tls_cacert: Option<PathBuf>,

    /// File with a certificate to show to the target (PEM).
    #[arg(long = "pull.tls.cert", value_name = "FILE", value_parser = file_name, requires = "pull_tls_key")]
    pub pull_tls_cert: Option<PathBuf>,

    /// File with the key of that certificate (PEM).
    #[arg(long = "pull.tls.key", value_name = "FILE", value_parser = file_name, requires = "pull_tls_cert")]
    pub pull_tls_key: Option<PathBuf>,

    /// Name that the target's certificate must have, instead of the one in the URL.
    #[arg(long = "pull.tls.server-name", value_name = "NAME")]
    pub pull_tls_server_name: Option<ServerName>,

    /// Take any certificate of the target's: whoever answers is believed.
    #[arg(long = "pull.tls.insecure-skip-verify")]
    pub pull_tls_insecure_skip_verify: bool,

    /// File with a token for the target.
    #[arg(
        long = "pull.bearer-token-file",
        value_name = "FILE",
        value_parser = file_name,
        conflicts_with = "pull_basic_auth_file"
    )]
    pub pull_bearer_token_file: Option<PathBuf>,

    /// File with user:password for the target.
    #[arg(long = "pull.basic-auth-file", value_name = "FILE", value_parser = file_name)]
    pub pull_basic_auth_file: Option<PathBuf>,

    /// Header to send to the target; may be given several times.
    #[arg(long = "pull.header", value_name = "NAME: VALUE")]
    pub pull_header: Vec<ExtraHeader>,

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
