//! How a daemon stops: signals cancel a token, tasks in hand are waited for, a grace period bounds
//! the wait.

use std::future::Future;
use std::io;
use std::process;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::exit;

/// A cheap handle to the daemon's end: the token that tells everybody, and the tasks to wait for.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    /// Apart from the tasks, because they go on while those are waited for.
    companions: TaskTracker,
    failed: Arc<OnceLock<TaskEnded>>,
}

/// Why a daemon has ended that nobody told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task {0:?} has ended, without which the others are of no use")]
pub struct TaskEnded(&'static str);

/// Begins the shutdown on drop where it has not begun.
struct Essential {
    name: &'static str,
    shutdown: Shutdown,
}

impl Shutdown {
    /// A daemon's life that nothing ends yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that [`Shutdown::drain`] waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// A task that the daemon is of no use without: should it end before the shutdown begins, be it by
    /// a panic, then the shutdown begins, and the [`outcome`](Self::outcome) is a failure.
    pub fn essential<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = ()>,
    {
        let shutdown = self.clone();
        let essential = Essential { name, shutdown };
        async move {
            let _essential = essential;
            task.await;
        }
    }

    /// Whether the daemon has ended because it was told to.
    ///
    /// # Errors
    ///
    /// It has ended because one of its [essential](Self::essential) tasks had.
    pub fn outcome(&self) -> Result<(), TaskEnded> {
        self.failed.get().copied().map_or(Ok(()), Err)
    }

    /// Runs a task that goes on to the process's very end.
    pub(crate) fn accompany<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.companions.spawn(task);
    }

    /// Tells everybody to stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the shutdown begins. Cancel safe.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The token itself, for what ends by itself when the shutdown begins.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Begins the shutdown where it has not, and waits for the tasks for `grace` at the most.
    /// Whether they all ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.begin();
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !drained {
            warn!(
                unfinished = self.tasks.len(),
                ?grace,
                "the grace period is over, giving up what is unfinished"
            );
        }
        drained
    }

    /// From now on SIGTERM and SIGINT begin the shutdown, and a second one of either ends the
    /// process at once with code 1.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = self.token.clone();
        self.accompany(async move {
            let name = next(&mut terminate, &mut interrupt).await;
            info!(signal = name, "shutting down");
            token.cancel();
            let name = next(&mut terminate, &mut interrupt).await;
            warn!(signal = name, "second signal, ending at once");
            end_at_once()
        });
        Ok(())
    }
}

impl Drop for Essential {
    fn drop(&mut self) {
        let Self { name, shutdown } = self;
        if shutdown.is_cancelled() {
            return;
        }
        let panicked = thread::panicking();
        error!(
            task = name,
            panicked, "a task has ended that nothing works without, shutting down"
        );
        // The first one has taken the others with it.
        shutdown.failed.set(TaskEnded(name)).ok();
        shutdown.begin();
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[expect(clippy::exit, reason = "the operator has asked twice")]
fn end_at_once() -> ! {
    process::exit(exit::FAILURE.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_the_tasks() {
        let shutdown = Shutdown::new();
        let (done, ended) = oneshot::channel();
        let watching = shutdown.clone();
        shutdown.spawn(async move {
            watching.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            done.send(()).unwrap();
        });
        assert!(shutdown.drain(Duration::from_secs(10)).await);
        ended.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_essential_task_is_that_of_the_daemon() {
        for panics in [false, true] {
            let shutdown = Shutdown::new();
            shutdown.spawn(shutdown.essential("stays", shutdown.token().clone().cancelled_owned()));
            shutdown.spawn(shutdown.essential("ends", async move {
                assert!(!panics);
            }));
            let begun = timeout(Duration::from_secs(1), shutdown.cancelled()).await;
            assert!(begun.is_ok());
            assert!(shutdown.drain(Duration::from_secs(10)).await);
            assert_eq!(shutdown.outcome(), Err(TaskEnded("ends")));
        }
    }

    #[tokio::test]
    async fn an_essential_task_may_end_with_the_daemon() {
        let shutdown = Shutdown::new();
        shutdown.spawn(shutdown.essential("stays", shutdown.token().clone().cancelled_owned()));
        assert!(shutdown.drain(Duration::from_secs(10)).await);
        assert_eq!(shutdown.outcome(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_bounds_the_drain() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        let start = tokio::time::Instant::now();
        assert!(!shutdown.drain(Duration::from_secs(10)).await);
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert_eq!(shutdown.tasks(), 1);
    }
}
