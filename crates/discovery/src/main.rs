//! The `discovery` program.

use std::process::ExitCode;

use pushprox_daemon::{cli, exit, logging, runtime};
use pushprox_discovery::cli::Args;
use pushprox_discovery::config::Config;

fn main() -> ExitCode {
    let args = cli::parse::<Args>();
    logging::init(&args.log, &args.loggername);
    exit::code("discovery", start(args))
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::new(args)?;
    runtime::run(|shutdown| pushprox_discovery::run(config, shutdown))
}
