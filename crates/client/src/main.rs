//! The `client` program: parses, sets up the log and the runtime, runs.

use std::process::ExitCode;

use anyhow::Context as _;
use pushprox_client::cli::Args;
use pushprox_client::config::Config;
use pushprox_daemon::{Shutdown, cli, exit, logging};

fn main() -> ExitCode {
    let args = cli::parse::<Args>();
    logging::init(&args.log, &args.loggername);
    exit::code("client", start(args))
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::new(args, std::env::var_os("PROM_TOKEN"))?;
    // One thread: the work is a handful of connections, and each thread would cost memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.signals().context("cannot handle signals")?;
        pushprox_client::run(config, shutdown).await
    });
    // A look-up that the resolver has not finished does not hold the end up.
    runtime.shutdown_background();
    result
}
