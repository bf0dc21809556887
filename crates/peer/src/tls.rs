//! TLS on a leg: which certificates it trusts, which it shows, and which name it wants to see.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::header::HOST;
use pushprox_daemon::reload::Files;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Identity, Request};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::leg::LegError;
use crate::verifier::{self, PeerTlsError};

/// The value of `--tls.server-name` and `--pull.tls.server-name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(String);

impl ServerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`ServerName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a host name; write one like proxy.example.org")]
pub struct NoServerName;

impl FromStr for ServerName {
    type Err = NoServerName;

    fn from_str(text: &str) -> Result<Self, NoServerName> {
        match Host::parse(text) {
            Ok(Host::Domain(name)) => Ok(Self(name)),
            _ => Err(NoServerName),
        }
    }
}

/// The flags of a leg for TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFlags {
    /// What their names begin with.
    pub prefix: &'static str,
    /// What is trusted in place of the system's authorities.
    pub cacert: Option<PathBuf>,
    /// A certificate to show.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name that the peer's certificate must have.
    pub server_name: Option<ServerName>,
    /// Whether any certificate will do.
    pub insecure_skip_verify: bool,
}

/// What the flags come to.
#[derive(Clone, Default)]
pub struct Tls {
    /// With the identity in it, where the system's authorities are not the ones to trust.
    config: Option<ClientConfig>,
    identity: Option<Identity>,
    server_name: Option<ServerName>,
    insecure_skip_verify: bool,
    /// The flags that there are, for an error that concerns them all.
    flags: String,
}

impl TlsFlags {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`LegError`] names the flag and the file.
    pub fn read(&self, files: &mut Files) -> Result<Tls, LegError> {
        let flag = |name: &str| format!("{}.{name}", self.prefix);
        let mut flags = Vec::new();
        let mut trusted = None;
        if let Some(path) = &self.cacert {
            flags.push(flag("cacert"));
            trusted = Some((path, read(files, &flag("cacert"), path)?));
        }
        let mut identity = None;
        let mut shown = None;
        if let Some((cert, key)) = self.cert.as_deref().zip(self.key.as_deref()) {
            flags.extend([flag("cert"), flag("key")]);
            let mut pem = read(files, &flag("cert"), cert)?;
            pem.push(b'\n');
            pem.extend(read(files, &flag("key"), key)?);
            identity = Some(Identity::from_pem(&pem).map_err(|_| {
                LegError::other(format!(
                    "{}, {}: {} and {} are not a certificate and its key in PEM format",
                    flag("cert"),
                    flag("key"),
                    cert.display(),
                    key.display()
                ))
            })?);
            shown = Some(pem);
        }
        let flags = flags.join(", ");
        let mut config = None;
        if let Some((path, pem)) = trusted {
            let made = verifier::config(&pem, path, shown.as_deref());
            config = Some(made.map_err(|error| match error {
                PeerTlsError::Unusable(_) => LegError::other(format!("{flags}: {error}")),
                _ => LegError::new(&flag("cacert"), path, &error.to_string()),
            })?);
        }
        Ok(Tls {
            config,
            identity,
            server_name: self.server_name.clone(),
            insecure_skip_verify: self.insecure_skip_verify,
            flags,
        })
    }
}

impl Tls {
    /// Has a client of `url` use this.
    pub fn apply(&self, mut builder: ClientBuilder, url: &Url) -> ClientBuilder {
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if self.insecure_skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if let Some(config) = &self.config {
            builder = builder.tls_backend_preconfigured(config.clone());
        }
        match (&self.server_name, url.host()) {
            (Some(_), Some(host)) => builder.dns_resolver(Arc::new(One::new(&host))),
            _ => builder,
        }
    }

    /// What is to blame when a client cannot be built.
    #[must_use]
    pub fn blame(&self, error: &reqwest::Error) -> LegError {
        let why = pushprox_daemon::exit::causes(error);
        LegError::other(match self.flags.as_str() {
            "" => format!("cannot set up TLS with the system's certificates: {why}"),
            flags => format!("{flags}: cannot use these files: {why}"),
        })
    }

    /// Addresses a request to the name that the peer's certificate must have. It goes to the host
    /// that it was for all the same, and says so.
    pub fn address(&self, request: &mut Request) {
        let Some(ServerName(name)) = &self.server_name else {
            return;
        };
        let url = request.url();
        if url.scheme() != "https" {
            return;
        }
        let host = url.authority().rsplit('@').next().map(str::to_owned);
        if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
            request.headers_mut().insert(HOST, host);
        }
        // Cannot be refused: the scheme has hosts, and the name is one.
        request.url_mut().set_host(Some(name)).ok();
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trusts_system", &self.config.is_none())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .field("insecure_skip_verify", &self.insecure_skip_verify)
            .finish_non_exhaustive()
    }
}

/// Leads every name to one host.
#[derive(Debug)]
struct One(String);

impl One {
    fn new(host: &Host<&str>) -> Self {
        Self(match host {
            Host::Domain(name) => (*name).to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        })
    }
}

impl Resolve for One {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port comes from the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn read(files: &mut Files, flag: &str, path: &Path) -> Result<Vec<u8>, LegError> {
    files
        .read(path)
        .map_err(|error| LegError::read(flag, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::Method;

    #[test]
    fn a_request_is_addressed_to_the_name_and_goes_to_the_host() {
        let tls = Tls {
            server_name: Some("proxy.example.org".parse().unwrap()),
            ..Tls::default()
        };
        for (url, addressed, host) in [
            (
                "https://192.0.2.1:8443/a?b",
                "https://proxy.example.org:8443/a?b",
                Some("192.0.2.1:8443"),
            ),
            (
                "https://[::1]/",
                "https://proxy.example.org/",
                Some("[::1]"),
            ),
            ("http://192.0.2.1/", "http://192.0.2.1/", None),
        ] {
            let mut request = Request::new(Method::GET, url.parse().unwrap());
            tls.address(&mut request);
            assert_eq!(request.url().as_str(), addressed);
            let set = request
                .headers()
                .get(HOST)
                .map(|host| host.to_str().unwrap());
            assert_eq!(set, host);
        }
    }

    #[test]
    fn a_server_name_is_a_host_name() {
        for text in ["", "192.0.2.1", "[::1]", "a b", "a:443"] {
            assert_eq!(text.parse::<ServerName>(), Err(NoServerName), "{text}");
        }
    }
}
