//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::fleet::PerClient;
use crate::messages::Inner;
use crate::rows::RowName;

/// Measures what PushProx's proxy and client cost, and compares it with the goals.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the least relay until killed
    LeastRelay {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Measure these rows only
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub(crate) only: Vec<RowName>,

    /// The proxy to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) proxy: Option<PathBuf>,

    /// The client to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) client: Option<PathBuf>,

    /// Where the result goes as JSON [default: bench.json in the target folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,

    /// Exit with 1 when a goal is missed
    #[arg(long)]
    pub(crate) strict: bool,

    /// How many clients are a whole fleet
    #[arg(long, value_name = "COUNT", default_value_t = 18_000)]
    pub(crate) clients: usize,

    /// How often each side is measured in turn
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    pub(crate) rounds: usize,

    /// How many connections a client uses
    #[arg(long, value_name = "HOW", value_enum, default_value_t = PerClient::Two)]
    pub(crate) connections: PerClient,

    /// How pushed answers tell their length
    #[arg(long, value_name = "FRAMING", value_enum, default_value_t = Inner::Length)]
    pub(crate) inner: Inner,
}
