//! Where the proxy is: its URL may have a path prefix and credentials.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderValue;
use url::{Host, Url};

use crate::urls::{HttpUrl, UrlError};

/// The value of `--proxy-url`.
#[derive(Clone)]
pub struct ProxyUrl {
    inner: HttpUrl,
    poll: Url,
    push: Url,
}

impl ProxyUrl {
    /// Where to poll.
    #[must_use]
    pub fn poll(&self) -> &Url {
        &self.poll
    }

    /// Where to push.
    #[must_use]
    pub fn push(&self) -> &Url {
        &self.push
    }

    /// The credentials of the URL.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.inner.authorization.as_ref()
    }

    /// Whether the proxy is on this machine, where no other proxy leads to it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.inner.url.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        }
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let inner = HttpUrl::parse(text)?;
        if inner.url.query().is_some() {
            return Err(UrlError::Query);
        }
        let below = |name| {
            let mut url = inner.url.clone();
            url.set_path(&format!("{}/{name}", url.path().trim_end_matches('/')));
            url
        };
        let (poll, push) = (below("poll"), below("push"));
        Ok(Self { inner, poll, push })
    }
}

impl fmt::Display for ProxyUrl {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.shown())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_kept_with_and_without_its_last_slash() {
        for (text, poll, push) in [
            ("http://h", "http://h/poll", "http://h/push"),
            ("http://h:8080/", "http://h:8080/poll", "http://h:8080/push"),
            ("https://h/a/b", "https://h/a/b/poll", "https://h/a/b/push"),
            (
                "https://u:p@h/a%2Fb/",
                "https://h/a%2Fb/poll",
                "https://h/a%2Fb/push",
            ),
        ] {
            let url: ProxyUrl = text.parse().unwrap();
            assert_eq!(url.poll().as_str(), poll);
            assert_eq!(url.push().as_str(), push);
        }
        assert_eq!(
            "http://h/?x".parse::<ProxyUrl>().err(),
            Some(UrlError::Query)
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let url: ProxyUrl = "http://user:secret@h/a".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://h/a http://h/a");
        assert!(url.authorization().unwrap().is_sensitive());
    }

    #[test]
    fn the_own_machine_is_known() {
        for (text, own) in [
            ("http://localhost:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:8080", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example.org", false),
        ] {
            assert_eq!(
                text.parse::<ProxyUrl>().unwrap().is_loopback(),
                own,
                "{text}"
            );
        }
    }
}
