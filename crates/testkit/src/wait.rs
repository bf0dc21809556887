//! Waiting for a condition with a deadline, the only place in the tests where time is slept away.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::net::TcpListener;
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
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + (start + step) % 12_000));
        // A listener to try it with would be inherited by a program that another test starts at this
        // moment, and hold the port until that program runs.
        let tried = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        if tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return address.port();
        }
    }
}

/// Listens at a port of [`free_port`], where another may have listened until now, and not be gone
/// yet: a program that a test was starting inherits the listeners of all, until it runs.
pub async fn listener_at(address: SocketAddr) -> TcpListener {
    until("the address is free", SOON, async || {
        TcpListener::bind(address).await.ok()
    })
    .await
}

const INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_free_port_is_free_although_other_programs_are_being_started() {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        Command::new("true").status().unwrap();
                    }
                });
            }
            // Of the ports that a listener has tried, three in a thousand are still taken.
            let taken = (0..5_000).filter(|_| {
                let port = free_port();
                std::net::TcpListener::bind(("127.0.0.1", port)).is_err()
            });
            let taken = taken.count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(taken, 0);
        });
    }
}
