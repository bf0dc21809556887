//! The command line, as the operator types it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use pushprox_daemon::cli::{file_name, positive_go_duration};
use pushprox_daemon::logging::LogArgs;
use pushprox_daemon::own_pages::MetricsAddress;
use pushprox_peer::args::ToProxyArgs;

use crate::index::PortChoice;
use crate::render::JobName;
use crate::urls::{ProxyUrl, ReloadUrl};

/// Runs beside Prometheus in Kubernetes: finds every PushProx proxy and every client, and keeps
/// Prometheus's configuration up to date.
#[derive(Debug, Parser)]
#[command(
    name = "discovery",
    mut_arg("proxy_bearer_token_file", |flag| flag.help(BEARER_TOKEN_FILE)),
    mut_arg("proxy_basic_auth_file", |flag| flag.help(BASIC_AUTH_FILE)),
    mut_arg("proxy_header", |flag| flag.help(HEADER)),
)]
pub struct Args {
    /// URL by which Prometheus is told to reload; empty for never.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://localhost:9090/-/reload",
        hide_env_values = true
    )]
    pub reloadurl: ReloadUrl,

    /// The configuration without proxies, which is not changed.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/prometheus/prometheus.yaml.base"
    )]
    pub source: PathBuf,

    /// The configuration with proxies, which is written.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/prometheus/prometheus.yaml"
    )]
    pub target: PathBuf,

    /// Namespace of the proxies' services; empty for all.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub namespace: String,

    /// Label that the proxies' services have.
    #[arg(long, value_name = "NAME")]
    pub labelname: Option<String>,

    /// Value of that label.
    #[arg(long, value_name = "VALUE")]
    pub labelvalue: Option<String>,

    /// Any selector for the labels of the services, instead of that pair.
    #[arg(long, value_name = "SELECTOR", conflicts_with_all = ["labelname", "labelvalue"])]
    pub label_selector: Option<String>,

    /// The proxy's port by name or number [default: the one named http, or the only one].
    #[arg(long, value_name = "PORT")]
    pub port: Option<PortChoice>,

    /// What is written.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,

    /// Folder for the files with the clients, under the same path for Prometheus.
    #[arg(long, value_name = "FOLDER", default_value = "/prometheus")]
    pub sd_dir: PathBuf,

    /// What scrape configs are called.
    #[arg(long, value_enum, default_value_t)]
    pub job_name: JobName,

    /// YAML file with settings for each scrape config, such as scrape_interval.
    #[arg(long, value_name = "FILE", value_parser = file_name)]
    pub job_template: Option<PathBuf>,

    /// How often proxies are asked for their clients; in the mode http-sd, by Prometheus, in whole
    /// seconds.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive_go_duration)]
    pub resync_interval: Duration,

    /// How long Kubernetes has for its first answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive_go_duration)]
    pub sync_timeout: Duration,

    /// How proxies are reached: host and port are replaced by each proxy's, scheme, credentials and
    /// path stay. Over https the host is the name that their certificates have.
    #[arg(
        long,
        value_name = "URL",
        env = "PROXY_URL",
        hide_env_values = true,
        default_value = "http://proxy/"
    )]
    pub proxy_url: ProxyUrl,

    /// How proxies are spoken to.
    #[command(flatten)]
    pub to_proxies: ToProxyArgs,

    /// File that tells how to reach the Kubernetes API from outside a cluster.
    #[arg(long, value_name = "FILE", value_parser = file_name)]
    pub kubeconfig: Option<PathBuf>,

    /// Do everything once and end; the exit code is 0 if Prometheus has it all.
    #[arg(long)]
    pub once: bool,

    /// Address for /metrics, /-/healthy and /-/ready; empty for none.
    #[arg(long, value_name = "ADDRESS", default_value = ":9370")]
    pub metrics_addr: MetricsAddress,

    /// File with TLS, users, headers and a rate limit for that address, in the format of
    /// Prometheus's exporters.
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = file_name)]
    pub web_config: Option<PathBuf>,

    /// Name of the logger, in each line of the log.
    #[arg(long, value_name = "NAME", default_value = "discovery")]
    pub loggername: String,

    /// How the log is written.
    #[command(flatten)]
    pub log: LogArgs,
}

const BEARER_TOKEN_FILE: &str = "File with a token for the proxy, to ask it for its clients. Scrapes \
    cannot carry it: they need a certificate, a user, or a listener for scrapers";

const BASIC_AUTH_FILE: &str = "File with user:password for the proxy; Prometheus's configuration gets \
    them, too";

const HEADER: &str = "Header to send to the proxy with discovery's own requests; may be given several \
    times";

/// Values of `--mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The target is the source with a scrape config per proxy.
    #[default]
    Config,
    /// The target is a file for Prometheus's scrape_config_files.
    ScrapeConfigs,
    /// As config, but Prometheus asks the proxies itself.
    HttpSd,
}
