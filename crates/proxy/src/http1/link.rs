//! A connection by its addresses, and what the system knows of what was sent on it.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// Both ends of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    own: SocketAddr,
    peer: SocketAddr,
}

impl Link {
    pub(crate) fn of(stream: &TcpStream) -> Option<Self> {
        Some(Self {
            own: stream.local_addr().ok()?,
            peer: stream.peer_addr().ok()?,
        })
    }

    /// Whether the peer's system has acknowledged all that was sent. `None` when there is no such
    /// connection any more, or this system does not tell.
    ///
    /// Linux tells by netlink (sock_diag(7)), to anybody: a few system calls, none of which waits.
    pub(crate) fn is_acknowledged(&self) -> Option<bool> {
        self.ask()
            .ok()
            .flatten()
            .map(|unacknowledged| unacknowledged == 0)
    }

    fn ask(&self) -> io::Result<Option<u32>> {
        let mut netlink = Socket::new(
            Domain::from(AF_NETLINK),
            Type::DGRAM.nonblocking(),
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )?;
        // Without an address it goes to the kernel, which has answered when the call returns.
        netlink.send(&self.request())?;
        let mut answer = [0; 1024];
        let length = netlink.read(&mut answer)?;
        Ok(answer.get(..length).and_then(unacknowledged))
    }

    /// `struct nlmsghdr` and `struct inet_diag_req_v2`, for this one connection.
    fn request(&self) -> Vec<u8> {
        let (own, peer) = (self.own.ip().to_canonical(), self.peer.ip().to_canonical());
        let family = if own.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut out = Vec::new();
        out.extend(REQUEST.to_ne_bytes());
        out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        out.extend(NLM_F_REQUEST.to_ne_bytes());
        out.extend([0; 8]);
        out.extend([family, IPPROTO_TCP, 0, 0]);
        // In any state.
        out.extend(u32::MAX.to_ne_bytes());
        out.extend(self.own.port().to_be_bytes());
        out.extend(self.peer.port().to_be_bytes());
        out.extend(words(own));
        out.extend(words(peer));
        let interface = match self.peer {
            SocketAddr::V6(peer) => peer.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        out.extend(interface.to_ne_bytes());
        // No cookie.
        out.extend([0xff; 8]);
        out
    }
}

/// The field of `struct inet_diag_msg` that says how many bytes have been written and not been
/// acknowledged. `None` when the answer is an error.
fn unacknowledged(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let bytes = answer.get(HEADER + 60..HEADER + 64)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn words(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut words = [0; 16];
            let octets = address.octets();
            words
                .iter_mut()
                .zip(octets)
                .for_each(|(word, octet)| *word = octet);
            words
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const REQUEST: u32 = 16 + 56;

#[cfg(test)]
mod tests {
    use super::*;
    use pushprox_testkit::wait::{SOON, until};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_system_tells_what_the_peer_has_acknowledged() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                continue;
            };
            let mut to = listener.local_addr().unwrap();
            if address == "[::]:0" {
                // An IPv4 peer of a socket for both families.
                to = ([127, 0, 0, 1], to.port()).into();
            }
            let mut peer = TcpStream::connect(to).await.unwrap();
            let (mut end, _) = listener.accept().await.unwrap();
            let link = Link::of(&end).unwrap();
            end.write_all(b"abc").await.unwrap();
            peer.read_exact(&mut [0; 3]).await.unwrap();
            until("the acknowledgement", SOON, async || {
                (link.is_acknowledged() == Some(true)).then_some(())
            })
            .await;
            // A peer that takes nothing lets the rest lie.
            let all = vec![0; 16 << 20];
            let wrote =
                tokio::time::timeout(std::time::Duration::from_millis(200), end.write_all(&all));
            assert!(wrote.await.is_err());
            assert_eq!(link.is_acknowledged(), Some(false), "{address}");
            drop(peer);
            drop(end);
            assert_ne!(link.is_acknowledged(), Some(true), "{address}");
        }
    }
}
