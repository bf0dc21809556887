//! The `proxy` command.

use std::process::ExitCode;

use anyhow::Context as _;
use pushprox_daemon::{Shutdown, cli, exit, file_limit, logging};
use pushprox_proxy::cli::Args;
use pushprox_proxy::{Config, run};
use tracing::info;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Args = cli::parse();
    logging::init(&args.log, &args.logger_name);
    exit::code("proxy", start(&args).await)
}

async fn start(args: &Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.signals().context("cannot handle signals")?;
    let mut listeners = Vec::new();
    for address in &args.listen {
        let listener = address.bind().await?;
        info!(address = %listener.local_addr()?, "listening");
        listeners.push(listener);
    }
    file_limit::raise();
    run(Config::from(args), listeners, shutdown).await;
    Ok(())
}
