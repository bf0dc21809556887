//! The `proxy` program.

use std::process::ExitCode;

use pushprox_daemon::{Shutdown, cli, exit, file_limit, logging, runtime, systemd};
use pushprox_proxy::access::{DoorAddress, Roles};
use pushprox_proxy::cli::Args;
use pushprox_proxy::{Access, Config, Door, Entrance, run};
use tracing::info;

fn main() -> ExitCode {
    let args: Args = cli::parse();
    logging::init(&args.log, &args.logger_name);
    exit::code("proxy", runtime::run(|shutdown| start(&args, shutdown)))
}

async fn start(args: &Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let access = Access::load(args.web_config.clone(), args.auth_config.clone())?;
    let mut doors = Vec::new();
    if args.systemd_socket {
        for socket in systemd::sockets()? {
            let roles = Roles::of_socket(&socket.name)?;
            doors.push(Door {
                listener: socket.listener,
                roles,
            });
        }
    } else {
        for DoorAddress { address, roles } in &args.listen {
            doors.push(Door {
                listener: address.bind().await?,
                roles: *roles,
            });
        }
    }
    for Door { listener, roles } in &doors {
        info!(address = %listener.local_addr()?, %roles, "listening");
    }
    let mut config = Config::from(args);
    config.limits.fit_into(file_limit::raise());
    systemd::attend(&shutdown);
    systemd::ready();
    run(config, Entrance { doors, access }, shutdown.clone()).await;
    Ok(shutdown.outcome()?)
}
