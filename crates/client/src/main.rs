//! The `client` program.

use std::process::ExitCode;

use pushprox_client::cli::Args;
use pushprox_client::config::Config;
use pushprox_daemon::{cli, exit, logging, runtime};

fn main() -> ExitCode {
    let args = cli::parse::<Args>();
    logging::init(&args.log, &args.loggername);
    exit::code("client", start(args))
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::new(args, std::env::var_os("PROM_TOKEN"))?;
    runtime::run(|shutdown| pushprox_client::run(config, shutdown))
}
