//! Patterns: which names a member may reach or register, and which certificates are meant.

use std::fmt;
use std::num::NonZeroU16;

use pushprox_daemon::config_file::from_text;
use pushprox_daemon::san::San;
use pushprox_protocol::Fqdn;
use pushprox_protocol::fqdn::FqdnRef;
use serde::{Deserialize, Deserializer};

/// A pattern of names: `host` or `host:port`, where `*` stands for any characters of a host or for
/// any port, and `{san}` for the name in a client's certificate.
///
/// Without a port it means that host with any port and without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    /// In lower case.
    host: String,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// Any, or none.
    Open,
    /// Any, but one.
    Any,
    Is(NonZeroU16),
}

impl NamePattern {
    /// Whether there is a `{san}` in it.
    pub(crate) fn needs_san(&self) -> bool {
        self.host.contains(SAN)
    }

    /// Whether it is `*`.
    pub(crate) fn is_for_everything(&self) -> bool {
        self.host == "*" && self.port == Port::Open
    }

    /// Whether a client may register this name.
    pub(crate) fn allows(&self, name: FqdnRef<'_>, san: Option<&San>) -> bool {
        let is_port = match self.port {
            Port::Open => true,
            Port::Any => name.port.is_some(),
            Port::Is(port) => name.port == Some(port),
        };
        is_port && self.is_host(name.host(), san)
    }

    /// Whether who may reach this may know of the name. One without a port serves all of them.
    pub(crate) fn shows(&self, name: FqdnRef<'_>, san: Option<&San>) -> bool {
        match name.port {
            Some(_) => self.allows(name, san),
            None => self.is_host(name.host(), san),
        }
    }

    fn is_host(&self, host: &str, san: Option<&San>) -> bool {
        if !self.needs_san() {
            return glob(&self.host, host);
        }
        let san = match san {
            Some(San::Ip(address)) if address.is_ipv6() => format!("[{address}]"),
            Some(san) => san.to_string(),
            None => return false,
        };
        // The name in a certificate is what it is, never a pattern: *.example.org is no host.
        let san = san.strip_suffix('.').unwrap_or(&san).to_ascii_lowercase();
        !san.contains('*') && glob(&self.host.replace(SAN, &san), host)
    }
}

impl TryFrom<String> for NamePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?} {what}; write one like *.example.org, node:9100, *:* or {SAN}:9100")
        };
        // Brackets are an IPv6 address's, whose colons are not the port's.
        let end_of_host = text.rfind(']').unwrap_or(0);
        let (host, port) = match text.get(end_of_host..).and_then(|rest| rest.rfind(':')) {
            Some(at) => text.split_at(end_of_host + at),
            None => (text.as_str(), ""),
        };
        let port = match port.strip_prefix(':') {
            None => Port::Open,
            Some("*") => Port::Any,
            Some(port) => Port::Is(
                port.parse()
                    .map_err(|_| wrong("has no port from 1 to 65535"))?,
            ),
        };
        if !host.contains(['*', '{']) {
            let name: Fqdn = host
                .parse()
                .map_err(|error| wrong(&format!("is no name: {error}")))?;
            return Ok(Self {
                host: name.host().to_ascii_lowercase(),
                port,
            });
        }
        let rest = host.replace(SAN, "");
        let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.*[]:".contains(c);
        if let Some(other) = rest.chars().find(|c| !is_known(*c)) {
            return Err(wrong(&format!("has the character {other:?}")));
        }
        if rest.contains(':') && !rest.starts_with('[') {
            return Err(wrong("has more than one ':'"));
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.split('.').any(str::is_empty) {
            // No name has one: it would never match.
            return Err(wrong("has an empty part between its dots"));
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Port::Open => Ok(()),
            Port::Any => f.write_str(":*"),
            Port::Is(port) => write!(f, ":{port}"),
        }
    }
}

/// A pattern of names in certificates. It meets names of its own kind only: one with `://` meets
/// URIs, one with `@` mail addresses, any other hosts and IP addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SanPattern(String);

impl SanPattern {
    pub(crate) fn meets(&self, san: &San) -> bool {
        let is_uri = self.0.contains("://");
        let is_kind = match san {
            San::Uri(_) => is_uri,
            San::Email(_) => !is_uri && self.0.contains('@'),
            San::Dns(_) | San::Ip(_) => !is_uri && !self.0.contains('@'),
        };
        is_kind && glob(&self.0, &san.to_string())
    }
}

impl TryFrom<String> for SanPattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.is_empty() {
            true => Err("the san is empty; write one like node.example.org or *.example.org"),
            false => Ok(Self(text.to_ascii_lowercase())),
        }
    }
}

impl<'de> Deserialize<'de> for SanPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// Whether `text` is what `pattern` says, in which `*` stands for any characters. `pattern` is in
/// lower case; the case of `text` does not matter.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut here) = (0, 0);
    // The last star, and where it ends for now.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(here).map(u8::to_ascii_lowercase) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(wanted) if *wanted == byte => {
                at += 1;
                here += 1;
            }
            _ => {
                let Some((from, end)) = star else {
                    return false;
                };
                star = Some((from, end + 1));
                at = from + 1;
                here = end + 1;
            }
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

const SAN: &str = "{san}";

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.to_owned().try_into().unwrap()
    }

    fn allows(text: &str, name: &str, san: Option<&San>) -> bool {
        pattern(text).allows(name.parse::<Fqdn>().unwrap().as_ref(), san)
    }

    #[test]
    fn a_star_is_any_part_of_a_host_and_never_a_port() {
        for (text, name, wanted) in [
            ("*", "node", true),
            ("*", "node.example.org:9100", true),
            ("*:9100", "node", false),
            ("*:9100", "node:9100", true),
            ("*:9100", "node:9101", false),
            ("*:*", "node", false),
            ("*:*", "node:1", true),
            ("node", "NODE", true),
            ("node", "node.", true),
            ("node", "node:9100", true),
            ("node", "node2", false),
            ("node:9100", "node", false),
            ("*.edge.example.org", "a.edge.example.org", true),
            ("*.edge.example.org", "a.b.EDGE.example.org:1", true),
            ("*.edge.example.org", "edge.example.org", false),
            ("*.edge.example.org", "a.edge.example.org.evil", false),
            ("*.edge.example.org", "aedge.example.org", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXb", false),
            ("[::1]:9100", "[0:0::1]:9100", true),
            ("[::1]", "[::2]", false),
            ("[2001:db8:*]:9100", "[2001:db8::7]:9100", true),
            ("192.0.2.*", "192.0.2.7:1", true),
        ] {
            assert_eq!(allows(text, name, None), wanted, "{text} {name}");
        }
    }

    #[test]
    fn the_name_in_a_certificate_is_taken_literally() {
        let dns = |name: &str| San::Dns(name.to_owned());
        for (text, name, san, wanted) in [
            ("{san}", "a.example.org", dns("A.example.org"), true),
            ("{san}", "a.example.org:9100", dns("a.example.org."), true),
            ("{san}:9100", "a.example.org", dns("a.example.org"), false),
            (
                "{san}:9100",
                "a.example.org:9100",
                dns("a.example.org"),
                true,
            ),
            ("{san}", "b.example.org", dns("a.example.org"), false),
            ("{san}", "b.example.org", dns("*.example.org"), false),
            ("{san}", "b.example.org", dns("*"), false),
            ("x-{san}", "x-a", dns("a"), true),
            (
                "{san}",
                "[2001:db8::1]:1",
                San::Ip("2001:db8::1".parse().unwrap()),
                true,
            ),
            (
                "{san}",
                "192.0.2.1",
                San::Ip("192.0.2.1".parse().unwrap()),
                true,
            ),
        ] {
            assert_eq!(
                allows(text, name, Some(&san)),
                wanted,
                "{text} {name} {san}"
            );
        }
        assert!(!allows("{san}", "a", None));
    }

    #[test]
    fn who_may_reach_a_port_may_know_the_name_that_serves_it() {
        let shows = |text: &str, name: &str| {
            pattern(text).shows(name.parse::<Fqdn>().unwrap().as_ref(), None)
        };
        assert!(shows("*.a:9100", "x.a") && shows("*.a:9100", "x.a:9100"));
        assert!(!shows("*.a:9100", "x.a:9101") && !shows("*.a:9100", "x.b"));
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for text in [
            "", "a b", "*/x", "*..a", ".*", "*..:*", "a:0", "a:x", "a:70000", "*:x:1", "{sam}",
            "{san", "a,b", ":9100",
        ] {
            let error = NamePattern::try_from(text.to_owned()).unwrap_err();
            assert!(error.starts_with(&format!("{text:?} ")), "{error}");
        }
        for text in ["*", "*.a.b:9100", "node:*", "{san}:9100", "[::1]:*"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn a_name_of_one_kind_is_not_taken_for_another() {
        let email = San::Email("me@x.edge.example.org".to_owned());
        let uri = San::Uri("spiffe://evil/x.edge.example.org".to_owned());
        let dns = San::Dns("x.Edge.example.org".to_owned());
        let meets =
            |text: &str, san: &San| SanPattern::try_from(text.to_owned()).unwrap().meets(san);
        assert!(meets("*.edge.example.org", &dns));
        assert!(!meets("*.edge.example.org", &email) && !meets("*.edge.example.org", &uri));
        assert!(meets("*@x.edge.example.org", &email) && !meets("*@*", &dns));
        assert!(meets("spiffe://evil/*", &uri) && !meets("spiffe://good/*", &uri));
        assert!(SanPattern::try_from(String::new()).is_err());
    }
}
