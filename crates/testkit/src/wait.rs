//! Waiting for a condition with a deadline, the only place in the tests where time is slept away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What a step may take that ought to be over in an instant, on a machine that is busy, or stands
/// still for a while. Only a test that fails waits for so long.
pub const SOON: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it has an answer, and returns it.
///
/// # Panics
/// When `limit` has passed without one. The message says `what` was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        sleep(INTERVAL).await;
    }
}

/// Lets `length` pass while nothing is meant to happen, and says so by its name: the spell itself
/// is under test.
pub async fn idle(length: Duration) {
    sleep(length).await;
}

/// A port on which nothing listens. It lies outside the range from which the kernel picks ports for
/// connections, so that none of those takes it before its user does, or after its user has stopped.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);

    // Test processes run side by side: each starts somewhere else.
    let start = u16::try_from(std::process::id() % 600).unwrap() * 20;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (start + step) % 12_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(20);
