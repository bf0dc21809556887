//! Names that clients register, and targets that scrapes ask for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use equivalent::Equivalent;
use http::Uri;
use memchr::{memchr, memchr2, memrchr};

/// A registered name: `host` or `host:port`.
///
/// The host is a DNS name, an IPv4 address or a bracketed IPv6 address. Names compare without
/// regard to case, and a DNS name's trailing dot does not count; they print as they were written.
/// A clone costs next to nothing: a host of up to 44 characters stands in place, and clones of a
/// longer one share it.
///
/// ```
/// use pushprox_protocol::Fqdn;
/// let name: Fqdn = "Node.example.org:9100".parse()?;
/// assert_eq!(name, "node.EXAMPLE.org:9100".parse()?);
/// assert_eq!(name.to_string(), "Node.example.org:9100");
/// # Ok::<(), pushprox_protocol::fqdn::NameError>(())
/// ```
#[derive(Clone)]
pub struct Fqdn(Name);

/// A name's host and port, in 48 bytes. Whoever keeps many names finds those of common length without
/// a look at another place in memory.
#[derive(Clone)]
enum Name {
    Short {
        port: Option<NonZeroU16>,
        length: u8,
        host: [u8; IN_PLACE],
    },
    Long {
        port: Option<NonZeroU16>,
        host: Arc<str>,
    },
}

/// A name as it is looked up: borrowed, so that a look-up allocates nothing.
#[derive(Clone, Copy)]
pub struct FqdnRef<'a> {
    /// In any case; ASCII, as of every name.
    host: &'a [u8],
    /// The port, or none for the bare name.
    pub port: Option<NonZeroU16>,
}

/// What a scrape asks for: the host and port of its absolute URI.
///
/// It is answered by the client that registered `host:port`, else by the one that registered the
/// bare `host`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target(Fqdn);

/// Why a text is not a name. The message is for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("the name is empty; send a host name such as node.example.org, or host:port")]
    Empty,
    /// Longer than any DNS name.
    #[error("the host name has {0} characters; a DNS name has 253 at the most")]
    TooLong(usize),
    /// A character that no host has.
    #[error("the host name has the character {0:?}; it may have letters, digits, '-', '_' and '.'")]
    Character(char),
    /// Two dots in a row, or one in front.
    #[error("the host name has an empty part; parts are separated by single dots")]
    EmptyLabel,
    /// An IPv6 address without its brackets, or two ports.
    #[error("there is more than one ':'; an IPv6 address is written in brackets, [::1]:9100")]
    Colons,
    /// Brackets around something else.
    #[error("there is no IPv6 address between the brackets; write one like [2001:db8::1]")]
    Ipv6,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// An absolute URI whose scheme is neither http nor https, or without a host.
    #[error("the target is not an http URL with a host")]
    Uri,
}

impl Fqdn {
    /// A host that has been looked at, and a port.
    fn new(host: &str, port: Option<NonZeroU16>) -> Self {
        let mut place = [0; IN_PLACE];
        let (Some(to), Ok(length)) = (place.get_mut(..host.len()), u8::try_from(host.len())) else {
            let host = host.into();
            return Self(Name::Long { port, host });
        };
        to.copy_from_slice(host.as_bytes());
        Self(Name::Short {
            port,
            length,
            host: place,
        })
    }

    /// The host, as it was written.
    #[must_use]
    pub fn host(&self) -> &str {
        self.as_ref().host()
    }

    /// The port, if the name has one.
    #[must_use]
    pub fn port(&self) -> Option<NonZeroU16> {
        let (Name::Short { port, .. } | Name::Long { port, .. }) = &self.0;
        *port
    }

    /// This host with another port, or none.
    fn with_port(mut self, other: Option<NonZeroU16>) -> Self {
        let (Name::Short { port, .. } | Name::Long { port, .. }) = &mut self.0;
        *port = other;
        self
    }

    /// This name as a look-up key.
    #[must_use]
    pub fn as_ref(&self) -> FqdnRef<'_> {
        match &self.0 {
            Name::Short { port, length, host } => FqdnRef {
                host: host.get(..usize::from(*length)).unwrap_or_default(),
                port: *port,
            },
            Name::Long { port, host } => FqdnRef {
                host: host.as_bytes(),
                port: *port,
            },
        }
    }
}

impl<'a> FqdnRef<'a> {
    /// The host, in any case.
    #[must_use]
    pub fn host(self) -> &'a str {
        std::str::from_utf8(self.host).unwrap_or_default()
    }

    /// The host alone.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { port: None, ..self }
    }
}

impl Target {
    /// Reads the target of an absolute URI. Port 80 where none is given, 443 for `https`.
    ///
    /// # Errors
    ///
    /// The URI is not absolute, or its host is not one that a client could have registered.
    pub fn from_uri(uri: &Uri) -> Result<Self, NameError> {
        let scheme = uri.scheme_str().ok_or(NameError::Uri)?;
        let authority = uri.authority().ok_or(NameError::Uri)?.as_str();
        Self::new(scheme, without_user(authority))
    }

    /// Splits an absolute URI: the target, its host and port as they are written, and the rest
    /// without a fragment.
    ///
    /// # Errors
    ///
    /// As [`Target::from_uri`].
    pub fn parse(uri: &str) -> Result<(Self, &str, &str), NameError> {
        let (scheme, rest) = split_at_byte(uri, b':').ok_or(NameError::Uri)?;
        let rest = rest.strip_prefix("//").ok_or(NameError::Uri)?;
        let rest = split_at_byte(rest, b'#').map_or(rest, |(rest, _)| rest);
        let end = memchr2(b'/', b'?', rest.as_bytes()).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = without_user(authority);
        Ok((Self::new(scheme, host)?, host, path))
    }

    fn new(scheme: &str, host: &str) -> Result<Self, NameError> {
        let default_port = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => HTTP_PORT,
            _ if scheme.eq_ignore_ascii_case("https") => HTTPS_PORT,
            _ => return Err(NameError::Uri),
        };
        let name = match host.strip_suffix(':') {
            Some(host) => Fqdn::parse(host).and_then(|name| match name.port() {
                None => Ok(name),
                Some(_) => Err(NameError::Colons),
            })?,
            None => Fqdn::parse(host)?,
        };
        let port = name.port().or(default_port);
        Ok(Self(name.with_port(port)))
    }

    /// The name that matches first: host and port.
    #[must_use]
    pub fn exact(&self) -> FqdnRef<'_> {
        self.0.as_ref()
    }

    /// The port that its authority, as it was written, leaves to a scheme other than `http`.
    pub(crate) fn port_left_out(&self, authority: &str) -> Option<NonZeroU16> {
        let port = self.0.port().filter(|port| Some(*port) != HTTP_PORT)?;
        let behind_host = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        let is_written = split_at_byte(behind_host, b':').is_some_and(|(_, port)| !port.is_empty());
        (!is_written).then_some(port)
    }

    /// The name that matches where nobody registered the exact one: the host alone.
    #[must_use]
    pub fn bare(&self) -> FqdnRef<'_> {
        self.0.as_ref().bare()
    }

    /// The bare name itself, to be kept as a key.
    #[must_use]
    pub fn into_bare(self) -> Fqdn {
        self.0.with_port(None)
    }

    /// Whether a client of this name may answer for this target.
    #[must_use]
    pub fn matches(&self, name: FqdnRef<'_>) -> bool {
        name == self.exact() || name == self.bare()
    }
}

impl FromStr for Fqdn {
    type Err = NameError;

    /// Parses a name as it stands in the body of a poll: white space around it does not count.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text.trim())
    }
}

impl Fqdn {
    fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or(NameError::Ipv6)?;
            let address: Ipv6Addr = address.parse().map_err(|_| NameError::Ipv6)?;
            let port = match after {
                "" => None,
                _ => Some(parse_port(after.strip_prefix(':').ok_or(NameError::Port)?)?),
            };
            return Ok(Self::new(&format!("[{address}]"), port));
        }
        let (host, port) = match split_at_byte(text, b':') {
            None => (text, None),
            Some((_, port)) if port.bytes().any(|b| b == b':') => return Err(NameError::Colons),
            Some((host, port)) => (host, Some(parse_port(port)?)),
        };
        Ok(Self::new(parse_host(host)?, port))
    }
}

impl PartialEq for FqdnRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(other.host)
    }
}

impl Eq for FqdnRef<'_> {}

impl Hash for FqdnRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lower = [0; 64];
        for part in self.host.chunks(lower.len()) {
            if let Some(place) = lower.get_mut(..part.len()) {
                place.copy_from_slice(part);
            }
            // All of it: the compiler makes a few wide instructions of that.
            lower.make_ascii_lowercase();
            state.write(lower.get(..part.len()).unwrap_or_default());
        }
        state.write_u32(END_OF_HOST | u32::from(self.port.map_or(0, NonZeroU16::get)));
    }
}

impl PartialEq for Fqdn {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl Eq for Fqdn {}

impl Hash for Fqdn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl Equivalent<Fqdn> for FqdnRef<'_> {
    fn equivalent(&self, key: &Fqdn) -> bool {
        *self == key.as_ref()
    }
}

impl fmt::Display for FqdnRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(self.host()),
            Some(port) => write!(f, "{}:{port}", self.host()),
        }
    }
}

impl fmt::Debug for FqdnRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

impl fmt::Debug for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What stands before the first such byte, which is ASCII, and behind it.
fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    let place = memchr(byte, text.as_bytes())?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// A user in a URI means nothing here: credentials for the target are a header.
fn without_user(authority: &str) -> &str {
    match memrchr(b'@', authority.as_bytes()) {
        Some(place) => authority.get(place + 1..).unwrap_or_default(),
        None => authority,
    }
}

fn parse_host(host: &str) -> Result<&str, NameError> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !host.bytes().all(is_known) {
        let foreign = |c: &char| !u8::try_from(*c).is_ok_and(is_known);
        let character = host.chars().find(foreign);
        return Err(NameError::Character(character.unwrap_or_default()));
    }
    if host.len() > MAX_HOST {
        return Err(NameError::TooLong(host.len()));
    }
    let has_empty_label = host.is_empty()
        || host.starts_with('.')
        || host.ends_with('.')
        || host.as_bytes().windows(2).any(|two| two == b"..");
    if has_empty_label {
        return Err(NameError::EmptyLabel);
    }
    Ok(host)
}

fn parse_port(port: &str) -> Result<NonZeroU16, NameError> {
    // `u16` would take a sign.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::Port);
    }
    port.parse().map_err(|_| NameError::Port)
}

/// With the rest, a name is 48 bytes.
const IN_PLACE: usize = 44;
/// RFC 1035, section 2.3.4, without the length octets.
const MAX_HOST: usize = 253;
/// No byte of a host, so that no host can look like another with its port.
const END_OF_HOST: u32 = 0xff << 16;
const HTTP_PORT: Option<NonZeroU16> = NonZeroU16::new(80);
const HTTPS_PORT: Option<NonZeroU16> = NonZeroU16::new(443);

#[cfg(test)]
mod tests;
