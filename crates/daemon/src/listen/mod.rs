//! Where a daemon listens: addresses, sockets, and an accept loop that neither spins nor ends.

mod address;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::exit::io_reason;
pub use address::{AddressError, ListenAddress, ListenError};

/// A listening socket whose connections have Nagle's algorithm off and keep-alive on, and which
/// pauses while the process is out of descriptors or memory.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    accepted: u32,
    shortage: Shortage,
}

impl Listener {
    /// Takes over a socket that listens already.
    ///
    /// # Errors
    ///
    /// When the system refuses the socket's options.
    pub fn new(tcp: TcpListener) -> io::Result<Self> {
        tune(&SockRef::from(&tcp))?;
        Ok(Self {
            tcp,
            accepted: 0,
            shortage: Shortage::default(),
        })
    }

    /// The address that the socket got.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection. Cancel safe.
    ///
    /// Failures of a single connection are passed over. When the process is out of descriptors or
    /// memory, it pauses before it tries again, and says so once per shortage.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        self.accept_in_place_of(|| false).await
    }

    /// As [`Listener::accept`]; but when the process is out of descriptors or memory, `leave` is to
    /// let go of a connection, and says whether there was one.
    pub async fn accept_in_place_of(
        &mut self,
        leave: impl Fn() -> bool,
    ) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok(connection) => {
                    self.spread_keepalive(&connection.0);
                    return connection;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if self.shortage.begins(Instant::now()) {
                        warn!(
                            error = io_reason(&error),
                            "cannot accept connections for now"
                        );
                    }
                    if self.has_somebody_waiting() && leave() {
                        // It is gone once its task has had its turn.
                        yield_now().await;
                    } else {
                        sleep(PAUSE_WHILE_SHORT).await;
                    }
                }
            }
        }
    }

    /// A system that is out of descriptors says so before it looks whether there is a connection.
    fn has_somebody_waiting(&self) -> bool {
        let mut asked = [PollFd::new(&self.tcp, PollFlags::IN)];
        let told = poll(&mut asked, Some(&Timespec::default()));
        let [listener] = asked;
        told.is_ok() && listener.revents().contains(PollFlags::IN)
    }

    /// Gives each connection its own moment to be probed. Thousands of clients that came in the same
    /// second would else be probed in the same moment, more than the system's queues take, and
    /// live ones would be given up for dead.
    fn spread_keepalive(&mut self, stream: &TcpStream) {
        self.accepted = self.accepted.wrapping_add(1);
        let earlier = Duration::from_secs(u64::from(self.accepted % KEEPALIVE_SPREAD));
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE - earlier);
        // A connection that has ended already needs no probes.
        SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
    }
}

/// Something that there is too little of, which is told once and not each time that it is missed.
#[derive(Debug, Default)]
pub struct Shortage {
    last: Option<Instant>,
}

impl Shortage {
    /// Notes that it is missed at `now`. Whether that has begun anew.
    pub fn begins(&mut self, now: Instant) -> bool {
        self.last
            .replace(now)
            .is_none_or(|last| now.duration_since(last) >= SHORTAGE_IS_OVER_AFTER)
    }
}

/// Switches Nagle's algorithm off and keep-alive on, so that a peer that vanished is noticed: by
/// keep-alive while nothing is on its way to it, and by the user timeout while something is.
///
/// Connections inherit all of it from the socket that accepts them, which saves six system calls
/// each.
///
/// # Errors
///
/// When the system refuses the options.
fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )
}

fn listen(address: SocketAddr, dual_stack: bool) -> io::Result<Listener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Listener::new(TcpListener::from_std(socket.into())?)
}

/// Errors that accept(2) passes on from the connection it was about to return.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
    )
}

/// By how many seconds connections differ in when they are probed.
const KEEPALIVE_SPREAD: u32 = 15;

/// How long a connection is idle, at the most, before the peer is asked whether it lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// The time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Unanswered questions after which the connection is dead.
pub const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent bytes may stay unacknowledged: as long as keep-alive takes to find a peer dead.
/// Without it the kernel sends them again for a quarter of an hour, and keep-alive does not run.
pub const USER_TIMEOUT: Duration = Duration::from_secs(45);

/// More than the usual limit of the kernel, which clamps it: thousands of clients come back in the
/// same moment when a proxy was restarted.
const BACKLOG: i32 = 4096;

const PAUSE_WHILE_SHORT: Duration = Duration::from_millis(100);

/// A shortage that has not shown for this long is over: the next one is told again.
const SHORTAGE_IS_OVER_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn parse(text: &str) -> Result<ListenAddress, AddressError> {
        text.parse()
    }

    #[tokio::test]
    async fn a_port_without_a_host_is_open_to_both_families() {
        for address in [":0", "[::]:0"] {
            is_open_to_both_families(address).await;
        }
    }

    async fn is_open_to_both_families(address: &str) {
        let Ok(mut listener) = parse(address).unwrap().bind().await else {
            assert_ne!(address, ":0", "a machine without IPv6 has IPv4");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let reached = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        listener.accept().await;
        drop(reached);
        if listener.local_addr().unwrap().is_ipv6() {
            let reached = TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .unwrap();
            listener.accept().await;
            drop(reached);
        }
    }

    #[tokio::test]
    async fn accepted_connections_have_keep_alive_and_no_delay() {
        let mut listener = parse("127.0.0.1:0").unwrap().bind().await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await;
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert!(socket.tcp_nodelay().unwrap());
        let idle = socket.tcp_keepalive_time().unwrap();
        assert!(
            idle <= KEEPALIVE_IDLE && idle > KEEPALIVE_IDLE / 2,
            "{idle:?}"
        );
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_its_address() {
        let first = parse("localhost:0").unwrap().bind().await.unwrap();
        let taken = ListenAddress::ip(first.local_addr().unwrap());
        let error = taken.bind().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {taken}: address already in use")
        );
    }
}
