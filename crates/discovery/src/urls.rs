//! URLs from the command line, whose credentials are never shown.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use pushprox_daemon::secret::Secret;
use pushprox_peer::urls::{UrlError, parse_without_query, shown, without_credentials};
use url::{Host, Url};

/// How proxies are reached, from `--proxy-url`: scheme, credentials and path are the same for all
/// of them, host and port are each one's own. Over TLS the host is the name of their certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

/// Where Prometheus is told to reload, from `-reloadurl`; empty for nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ReloadUrl(pub Option<Url>);

impl ProxyUrl {
    /// The URL of a proxy as Prometheus wants it in a scrape config.
    #[must_use]
    pub fn at(&self, proxy: SocketAddr) -> String {
        let mut url = self.with_address(proxy);
        url.set_path("/");
        url.into()
    }

    /// Where a proxy lists its clients, without credentials.
    #[must_use]
    pub fn clients(&self, proxy: SocketAddr) -> Url {
        let mut url = without_credentials(&self.with_address(proxy));
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/clients"));
        url
    }

    /// User and password, decoded.
    #[must_use]
    pub fn credentials(&self) -> Option<(String, String)> {
        let decode = |text| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let (user, password) = (self.0.username(), self.0.password());
        let has_any = !user.is_empty() || password.is_some();
        has_any.then(|| (decode(user), decode(password.unwrap_or_default())))
    }

    /// The same with this user. The URL must have none.
    #[must_use]
    pub fn with_user(&self, user: &str, password: &Secret) -> Self {
        // All that could mean something in a URL, the percent sign too, which the setters leave.
        let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let mut url = self.0.clone();
        // It has a host, so that neither can fail.
        url.set_username(&encode(user.as_bytes())).ok();
        url.set_password(Some(&encode(password.expose()))).ok();
        Self(url)
    }

    /// Whether the proxies have TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The name in the proxies' certificates, if they have TLS and the URL a name.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match self.0.host() {
            Some(Host::Domain(name)) if self.is_secure() => Some(name),
            _ => None,
        }
    }

    /// The URL as it was given: of no proxy, but like that of any.
    pub(crate) fn any(&self) -> &Url {
        &self.0
    }

    fn with_address(&self, proxy: SocketAddr) -> Url {
        let mut url = self.0.clone();
        url.set_ip_host(proxy.ip()).ok();
        url.set_port(Some(proxy.port())).ok();
        url
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse_without_query(text).map(Self)
    }
}

impl FromStr for ReloadUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        parse_without_query(text).map(|url| Self(Some(url)))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for ReloadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_ref().map(shown).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_its_own_host_and_port_and_the_rest_of_all() {
        for (text, address, at, clients) in [
            (
                "http://proxy",
                "10.0.0.1:80",
                "http://10.0.0.1/",
                "http://10.0.0.1/clients",
            ),
            (
                "http://u:p@x:1/a/",
                "[fd00::1]:8080",
                "http://u:p@[fd00::1]:8080/",
                "http://[fd00::1]:8080/a/clients",
            ),
            (
                "https://proxy.svc/",
                "10.0.0.1:443",
                "https://10.0.0.1/",
                "https://10.0.0.1/clients",
            ),
        ] {
            let url: ProxyUrl = text.parse().unwrap();
            let address = address.parse().unwrap();
            assert_eq!(url.at(address), at);
            assert_eq!(url.clients(address).as_str(), clients);
        }
        let url: ProxyUrl = "https://us%40er:p%3Aw@Proxy.svc/".parse().unwrap();
        assert_eq!(
            url.credentials(),
            Some(("us@er".to_owned(), "p:w".to_owned()))
        );
        assert_eq!(url.server_name(), Some("proxy.svc"));
        for text in ["http://proxy", "https://10.0.0.1/", "https://[fd00::1]/"] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap().server_name(), None);
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_showing_it() {
        for (text, wanted) in [
            ("u:secret@proxy", UrlError::Scheme),
            ("http:/secret", UrlError::Scheme),
            ("http://proxy:0/", UrlError::Port),
            ("http://se\ncret@proxy/", UrlError::Control),
            ("http://secret%3Ab:c@proxy/", UrlError::User),
            ("http://proxy/?secret", UrlError::Query),
        ] {
            let error = text.parse::<ProxyUrl>().unwrap_err();
            assert_eq!(error, wanted, "{text:?}");
            assert_eq!(text.parse::<ReloadUrl>(), Err(wanted), "{text:?}");
            assert!(!error.to_string().contains("secret"));
        }
        assert_eq!("".parse::<ProxyUrl>(), Err(UrlError::Scheme));
        assert_eq!("".parse::<ReloadUrl>(), Ok(ReloadUrl(None)));
    }

    #[test]
    fn a_user_comes_back_as_it_was_put_in() {
        let url: ProxyUrl = "http://proxy/".parse().unwrap();
        let (user, password) = ("us%41 er@", "p%3A/w:\"#?ö\u{1}");
        let with_user = url.with_user(user, &Secret::new(password.as_bytes()));
        assert_eq!(
            with_user.credentials(),
            Some((user.to_owned(), password.to_owned()))
        );
        assert_eq!(
            with_user.at("10.0.0.1:80".parse().unwrap()),
            "http://us%2541%20er%40:p%253A%2Fw%3A%22%23%3F%C3%B6%01@10.0.0.1/"
        );
        assert_eq!(format!("{with_user:?}"), "http://proxy/");
    }

    #[test]
    fn credentials_are_not_shown() {
        let proxy: ProxyUrl = "http://user:secret@x/".parse().unwrap();
        let reload: ReloadUrl = "http://user:secret@x/".parse().unwrap();
        assert_eq!(format!("{proxy:?} {reload:?}"), "http://x/ http://x/");
    }
}
