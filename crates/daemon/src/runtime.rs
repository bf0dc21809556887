//! What a daemon runs on.

use std::time::Duration;

use anyhow::Context as _;

use crate::Shutdown;

/// Runs a daemon to its end, which SIGTERM and SIGINT [begin](Shutdown::signals). On one thread: the work is
/// on sockets, and each thread would cost memory and wake the others.
///
/// # Errors
///
/// What the daemon returns, or why it could not begin.
pub fn run<D>(daemon: impl FnOnce(Shutdown) -> D) -> anyhow::Result<()>
where
    D: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.signals().context("cannot handle signals")?;
        daemon(shutdown).await
    });
    // A file that is being written is finished. A file system that hangs and a resolver that does not
    // answer hold nothing up.
    runtime.shutdown_timeout(LAST_WORK);
    result
}

const LAST_WORK: Duration = Duration::from_secs(1);
