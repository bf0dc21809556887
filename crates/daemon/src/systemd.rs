//! What systemd hands over, and what it is told: sockets that it has opened, that the daemon is
//! ready, that it goes down, and that its event loop still turns.
//!
//! Without systemd, or for a unit that does not ask, all of it is nothing.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::Shutdown;
use crate::exit::io_reason;
use crate::listen::Listener;

/// A socket that systemd has opened.
#[derive(Debug)]
pub struct Handed {
    /// The socket.
    pub listener: Listener,
    /// `FileDescriptorName=` of its unit, which is the unit's name where none is set.
    pub name: String,
}

/// Why there is nothing to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The process was not started by a socket unit.
    #[error(
        "--web.systemd-socket: systemd has handed over no socket; start a socket unit, or give an \
         address with --web.listen-address instead"
    )]
    None,
    /// It is something else than a TCP socket that listens.
    #[error(
        "--web.systemd-socket: the socket {name:?} cannot be used: {}; its unit must have an address \
         or a port in ListenStream=, and Accept=no",
        io_reason(source)
    )]
    Unfit {
        /// Its name.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Takes the sockets that systemd has opened for this process.
///
/// # Errors
///
/// [`SocketError`]: there are none, or one cannot be used.
pub fn sockets() -> Result<Vec<Handed>, SocketError> {
    let mut handed = ListenFd::from_env();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let mut sockets = Vec::new();
    for number in 0..handed.len() {
        let name = names.next().unwrap_or_default();
        let taken = handed.take_tcp_listener(number);
        match taken.and_then(|tcp| tcp.map(listener).transpose()) {
            Ok(Some(listener)) => sockets.push(Handed { listener, name }),
            Ok(None) => {}
            Err(source) => return Err(SocketError::Unfit { name, source }),
        }
    }
    match sockets.is_empty() {
        true => Err(SocketError::None),
        false => Ok(sockets),
    }
}

fn listener(tcp: std::net::TcpListener) -> io::Result<Listener> {
    if !SockRef::from(&tcp).is_listener()? {
        let reason = "it is a connection";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    tcp.set_nonblocking(true)?;
    Listener::new(TcpListener::from_std(tcp)?)
}

/// Tells systemd, if it wants to know, that the daemon does what it is there for.
pub fn ready() {
    if let Some(manager) = Manager::from_env() {
        manager.tell("READY=1");
    }
}

/// From now on tells systemd, if it wants to know, that the event loop turns, and when the shutdown
/// has begun.
pub fn attend(shutdown: &Shutdown) {
    if let Some(manager) = Manager::from_env() {
        shutdown.accompany(manager.attend(shutdown.token().clone()));
    }
}

/// systemd, as one that is told things (`sd_notify(3)`).
#[derive(Debug)]
struct Manager {
    address: SocketAddr,
    /// The silence after which it takes the daemon for stuck.
    watchdog: Option<Duration>,
}

impl Manager {
    fn from_env() -> Option<Self> {
        let socket = env::var_os("NOTIFY_SOCKET")?;
        let address = match address(&socket) {
            Ok(address) => address,
            Err(error) => {
                warn!(?socket, %error, "cannot tell systemd anything: NOTIFY_SOCKET is no socket");
                return None;
            }
        };
        Some(Self {
            address,
            watchdog: watchdog(
                env::var("WATCHDOG_USEC").ok(),
                env::var("WATCHDOG_PID").ok(),
            ),
        })
    }

    async fn attend(self, shutdown: CancellationToken) {
        // Twice in that time, so that one that is late is not taken for none.
        let mut ticks = self.watchdog.map(|silence| interval(silence / 2));
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut is_going_down = false;
        while !is_going_down || ticks.is_some() {
            tokio::select! {
                () = shutdown.cancelled(), if !is_going_down => {
                    is_going_down = true;
                    self.tell("STOPPING=1");
                }
                () = tick(&mut ticks) => self.tell("WATCHDOG=1"),
            }
        }
    }

    fn tell(&self, what: &str) {
        let told = UnixDatagram::unbound().and_then(|socket| {
            // The event loop must not wait for systemd.
            socket.set_nonblocking(true)?;
            socket.send_to_addr(what.as_bytes(), &self.address)
        });
        if let Err(error) = told {
            warn!(error = io_reason(&error), what, "cannot tell systemd");
        }
    }
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// The address in `NOTIFY_SOCKET`: a path, or a name behind an `@`.
fn address(socket: &OsString) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn watchdog(micros: Option<String>, pid: Option<String>) -> Option<Duration> {
    // Set for another process, of which this one is a child.
    if pid.is_some_and(|pid| pid.parse() != Ok(process::id())) {
        return None;
    }
    let micros = micros?.parse().ok().filter(|micros| *micros > 1)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(watchdog: Option<Duration>) -> (Manager, UnixDatagram) {
        let name = format!("pushprox-test-{}-{watchdog:?}", process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (Manager { address, watchdog }, socket)
    }

    fn told(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 64];
        let next = || {
            socket
                .recv(&mut buffer)
                .ok()
                .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_twice_in_its_time_even_on_the_way_down() {
        let (manager, socket) = manager(Some(Duration::from_secs(10)));
        let shutdown = Shutdown::new();
        let attending = manager.attend(shutdown.token().clone());
        let life = async {
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert_eq!(told(&socket), ["WATCHDOG=1"; 3]);
            shutdown.begin();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(told(&socket), ["STOPPING=1", "WATCHDOG=1", "WATCHDOG=1"]);
        };
        tokio::select! {
            () = attending => panic!("it has stopped before the process"),
            () = life => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_the_end_is_all_there_is_to_tell() {
        let (manager, socket) = manager(None);
        let shutdown = Shutdown::new();
        shutdown.begin();
        manager.attend(shutdown.token().clone()).await;
        assert_eq!(told(&socket), ["STOPPING=1"]);
    }

    #[test]
    fn only_ones_own_watchdog_counts() {
        let text = |text: &str| Some(text.to_owned());
        let own = Some(process::id().to_string());
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(text("1000000"), None), second);
        assert_eq!(watchdog(text("1000000"), own), second);
        for (micros, pid) in [
            (None, None),
            (text("0"), None),
            (text("1"), None),
            (text("soon"), None),
            (text("1000000"), text("1")),
            (text("1000000"), text("")),
        ] {
            assert_eq!(watchdog(micros, pid), None);
        }
    }

    #[test]
    fn an_address_is_a_path_or_a_name() {
        let path = address(&"/run/systemd/notify".into()).unwrap();
        assert_eq!(
            path.as_pathname().unwrap().to_str(),
            Some("/run/systemd/notify")
        );
        assert_eq!(
            address(&"@x".into()).unwrap().as_abstract_name(),
            Some(&b"x"[..])
        );
        for wrong in ["", "x", "vsock:2:1234"] {
            assert!(address(&wrong.into()).is_err(), "{wrong}");
        }
    }
}
