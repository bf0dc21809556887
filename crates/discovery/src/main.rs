//! The `discovery` command.

use std::process::ExitCode;

use anyhow::Context as _;
use pushprox_daemon::{Shutdown, cli, exit, logging};
use pushprox_discovery::cli::Args;
use pushprox_discovery::config::Config;

fn main() -> ExitCode {
    let args = cli::parse::<Args>();
    logging::init(&args.log, &args.loggername);
    exit::code("discovery", start(args))
}

fn start(args: Args) -> anyhow::Result<()> {
    let config = Config::new(args)?;
    // One thread: there is little to do at a time, and each would cost memory.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Its end waits for a write that has begun.
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.signals().context("cannot handle signals")?;
        pushprox_discovery::run(config, shutdown).await
    })
}
