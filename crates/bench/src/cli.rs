//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::fleet::Polls;
use crate::messages::Inner;
use crate::placement::Placement;
use crate::rows::RowName;

/// Measures what PushProx's proxy and client cost, and compares it with the goals.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
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
    /// Measure how memory and CPU grow with the fleet
    Scale {
        /// Numbers of clients
        #[arg(long, value_name = "COUNTS", value_delimiter = ',',
              default_values_t = [1000, 2000, 4000, 6000, 9000, 12_000, 15_000, 18_000])]
        counts: Vec<usize>,

        #[command(flatten)]
        bench: BenchArgs,
    },
    /// Draw what `scale` has measured
    Plot {
        /// The JSON that `scale` has written
        #[arg(value_name = "JSON")]
        scale: PathBuf,

        /// Where the plot goes
        #[arg(value_name = "SVG")]
        svg: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Measure these rows only
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub(crate) only: Vec<RowName>,

    /// Print the table as Markdown too, at the end
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Exit with 1 also when a goal is missed, not only when a figure cannot be measured
    #[arg(long)]
    pub(crate) strict: bool,

    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The proxy to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) proxy: Option<PathBuf>,

    /// The client to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) client: Option<PathBuf>,

    /// Where the result goes [default: bench.json or scale.json in the target folder]
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,

    /// How many clients are a whole fleet
    #[arg(long, value_name = "COUNT", default_value_t = 18_000)]
    pub(crate) clients: usize,

    /// How often each side is measured in turn
    #[arg(long, value_name = "COUNT", default_value_t = 14)]
    pub(crate) rounds: usize,

    /// How many scrapes a second the open loop has
    #[arg(long, value_name = "COUNT", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Which CPUs the fleet and the processes under test run on
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Placement::Free)]
    pub(crate) placement: Placement,

    /// Which connections polls go out on
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Polls::Same)]
    pub(crate) polls: Polls,

    /// How pushed answers tell their length
    #[arg(long, value_name = "FRAMING", value_enum, default_value_t = Inner::Length)]
    pub(crate) inner: Inner,
}
