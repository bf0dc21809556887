//! The `proxy` command.

use std::process::ExitCode;

use anyhow::Context as _;
use pushprox_daemon::{Shutdown, cli, exit, file_limit, logging};
use pushprox_proxy::access::DoorAddress;
use pushprox_proxy::cli::Args;
use pushprox_proxy::{Access, Config, Door, Entrance, run};
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
    let access = Access::load(args.web_config.clone(), args.auth_config.clone())?;
    let mut doors = Vec::new();
    for DoorAddress { address, roles } in &args.listen {
        let listener = address.bind().await?;
        info!(address = %listener.local_addr()?, %roles, "listening");
        doors.push(Door {
            listener,
            roles: *roles,
        });
    }
    let mut config = Config::from(args);
    config.limits.fit_into(file_limit::raise());
    run(config, Entrance { doors, access }, shutdown).await;
    Ok(())
}
