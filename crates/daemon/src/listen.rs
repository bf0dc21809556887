//! Where a daemon listens: addresses in Go's syntax, sockets, and an accept loop that neither
//! spins nor ends.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::warn;

use crate::exit::io_reason;

/// A place to listen, in Go's syntax: `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Every address of either family.
    Any,
    Ip(IpAddr),
    Name(String),
}

/// Why a text is not a [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `host:port` in it.
    #[error("it is not a listen address; write one like :8080, 127.0.0.1:8080 or [::1]:8080")]
    Syntax,
    /// The part behind the last colon is no port.
    #[error("it has no port from 0 to 65535 at its end; write one like :8080 or 127.0.0.1:8080")]
    Port,
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", io_reason(source))]
pub struct ListenError {
    address: ListenAddress,
    source: io::Error,
}

impl ListenAddress {
    /// The address of one socket.
    #[must_use]
    pub fn ip(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }

    /// Opens the socket. Without a host it takes both families where the machine has IPv6.
    ///
    /// # Errors
    ///
    /// [`ListenError`] names the address and the system's reason.
    pub async fn bind(&self) -> Result<Listener, ListenError> {
        self.open().await.map_err(|source| ListenError {
            address: self.clone(),
            source,
        })
    }

    async fn open(&self) -> io::Result<Listener> {
        match &self.host {
            // As Go does: the unspecified IPv6 address takes IPv4 too.
            Host::Ip(ip) => {
                let dual_stack = *ip == Ipv6Addr::UNSPECIFIED;
                listen(SocketAddr::new(*ip, self.port), dual_stack)
            }
            Host::Any => listen((Ipv6Addr::UNSPECIFIED, self.port).into(), true).or_else(|error| {
                // A port that is taken is taken for both families: only a missing IPv6 is passed over.
                if error.kind() == io::ErrorKind::AddrInUse {
                    return Err(error);
                }
                listen((Ipv4Addr::UNSPECIFIED, self.port).into(), false)
            }),
            Host::Name(name) => {
                let mut found: Vec<_> = tokio::net::lookup_host((name.as_str(), self.port))
                    .await?
                    .collect();
                // As Go does: IPv4 first.
                found.sort_by_key(SocketAddr::is_ipv6);
                let mut failure =
                    io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in found {
                    match listen(address, false) {
                        Ok(listener) => return Ok(listener),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Syntax)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::Port);
        }
        let port = port.parse().map_err(|_| AddressError::Port)?;
        let host = if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::Syntax)?;
            Host::Ip(IpAddr::V6(inner.parse().map_err(|_| AddressError::Syntax)?))
        } else if host.is_empty() {
            Host::Any
        } else if let Ok(ip) = host.parse::<Ipv4Addr>() {
            Host::Ip(ip.into())
        } else if is_host_name(host) {
            Host::Name(host.to_owned())
        } else {
            return Err(AddressError::Syntax);
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => write!(f, ":{}", self.port),
            Host::Ip(ip) => fmt::Display::fmt(&SocketAddr::new(*ip, self.port), f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

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
                    tokio::time::sleep(PAUSE_WHILE_SHORT).await;
                }
            }
        }
    }
}

impl Listener {
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
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )
}

/// By how many seconds connections differ in when they are probed.
const KEEPALIVE_SPREAD: u32 = 15;

/// How long a connection is idle, at the most, before the peer is asked whether it lives.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// The time between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Unanswered questions after which the connection is dead.
pub const KEEPALIVE_RETRIES: u32 = 3;

/// How long sent bytes may stay unacknowledged: as long as keep-alive takes to find a peer dead.
/// Without it the kernel sends them again for a quarter of an hour, and keep-alive does not run.
pub const USER_TIMEOUT: Duration = Duration::from_secs(45);

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

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
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

/// More than the usual limit of the kernel, which clamps it: thousands of clients come back in the
/// same moment when a proxy was restarted.
const BACKLOG: i32 = 4096;

const PAUSE_WHILE_SHORT: Duration = Duration::from_millis(100);

/// A shortage that has not shown for this long is over: the next one is told again.
const SHORTAGE_IS_OVER_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn go_addresses_are_read_and_shown_as_typed() {
        for text in [
            ":8080",
            ":0",
            "127.0.0.1:8080",
            "0.0.0.0:1",
            "[::1]:65535",
            "localhost:9369",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_remedy() {
        for (text, error) in [
            ("", AddressError::Syntax),
            ("8080", AddressError::Syntax),
            ("localhost", AddressError::Syntax),
            ("::1:8080", AddressError::Syntax),
            ("[::1:80", AddressError::Syntax),
            ("[::g]:80", AddressError::Syntax),
            ("http://x:80", AddressError::Syntax),
            ("a b:80", AddressError::Syntax),
            (":", AddressError::Port),
            (":65536", AddressError::Port),
            (":-1", AddressError::Port),
            (":+1", AddressError::Port),
            (":http", AddressError::Port),
            ("[::1]", AddressError::Port),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
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
