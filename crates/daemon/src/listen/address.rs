//! Addresses to listen on, in Go's syntax.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Listener, listen};
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

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

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
}
