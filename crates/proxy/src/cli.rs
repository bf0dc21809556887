//! The command line, as the operator types it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use pushprox_daemon::cli::{file_name, go_duration, positive_go_duration};
use pushprox_daemon::logging::LogArgs;

use crate::access::DoorAddress;
use crate::limits::Limits;

/// PushProx's proxy: Prometheus scrapes through it what clients behind NAT pull for it.
#[derive(Debug, Parser)]
#[command(name = "proxy", version = pushprox_daemon::VERSION)]
pub struct Args {
    /// Where to listen; may be given several times, and with the roles that may come in there, as
    /// in scrapers,operators@127.0.0.1:8081
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        default_value = ":8080"
    )]
    pub listen: Vec<DoorAddress>,

    /// Serve on the sockets that systemd has opened, instead of an address; FileDescriptorName= of a
    /// socket unit may give the roles that may come in there
    #[arg(long = "web.systemd-socket", conflicts_with = "listen")]
    pub systemd_socket: bool,

    /// File with TLS, users, headers and a rate limit, in the format of Prometheus's exporters
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = file_name)]
    pub web_config: Option<PathBuf>,

    /// File that says who may scrape, poll and look
    #[arg(long = "auth.config.file", value_name = "FILE", value_parser = file_name)]
    pub auth_config: Option<PathBuf>,

    /// How long a client stays registered after its last poll has ended
    #[arg(long = "registration.timeout", value_name = "DURATION", default_value = "5m", value_parser = positive_go_duration)]
    pub registration_timeout: Duration,

    /// The longest that a scrape may take, whatever Prometheus asks for
    #[arg(long = "scrape.max-timeout", value_name = "DURATION", default_value = "5m", value_parser = positive_go_duration)]
    pub scrape_max_timeout: Duration,

    /// How long a scrape may take where Prometheus does not say
    #[arg(long = "scrape.default-timeout", value_name = "DURATION", default_value = "15s", value_parser = positive_go_duration)]
    pub scrape_default_timeout: Duration,

    /// The longest that a poll is held open; 0 holds it until there is a scrape
    #[arg(long = "poll.max-wait", value_name = "DURATION", default_value = "0", value_parser = go_duration)]
    pub poll_max_wait: Duration,

    /// How long scrapes in flight may take to finish when the proxy is told to stop
    #[arg(long = "shutdown.grace-period", value_name = "DURATION", default_value = "10s", value_parser = go_duration)]
    pub shutdown_grace_period: Duration,

    /// The name under which the proxy logs
    #[arg(
        long = "loggername",
        value_name = "NAME",
        default_value = "proxyserver"
    )]
    pub logger_name: String,

    /// How to log
    #[command(flatten)]
    pub log: LogArgs,

    /// What is borne of peers; last, since its heading would stand above what follows
    #[command(flatten)]
    pub limits: Limits,
}
