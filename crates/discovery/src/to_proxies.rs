//! How proxies are spoken to: by discovery itself, and as far as these files say, by Prometheus. It
//! comes from files that may change while discovery runs, and is then made anew.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use pushprox_daemon::credentials::Credentials;
use pushprox_daemon::reload::{Files, Reloaded};
use pushprox_peer::leg::{LegError, LegFlags};
use pushprox_peer::tls::Tls;
use pushprox_peer::urls::authorization;
use reqwest::{Client, ClientBuilder, Request, Response};

use crate::urls::ProxyUrl;

/// What is shown to the proxies and expected of them.
pub struct ToProxies {
    proxy_url: ProxyUrl,
    tls: Tls,
    /// Credentials among them.
    headers: HeaderMap,
    /// By no name, but at their addresses.
    plain: Client,
    /// A proxy with TLS is asked by the name in its certificate, which all of them share, so that
    /// each needs a client that finds the name at its address.
    named: Option<Mutex<HashMap<SocketAddr, Client>>>,
    /// Whether that name is the one of the URL, and so a host.
    is_named_by_url: bool,
}

/// What comes from files that may change.
pub type Reloading = Reloaded<ToProxies, LegError>;

impl ToProxies {
    /// Reads what the flags name.
    ///
    /// # Errors
    ///
    /// [`LegError`].
    pub fn load(flags: LegFlags, url: ProxyUrl) -> Result<Reloading, LegError> {
        let what = "what is shown to the proxies and expected of them";
        Reloaded::load(what, move |files, _| Self::read(flags.clone(), &url, files))
    }

    /// How they are reached, with the user that is in the files.
    #[must_use]
    pub fn proxy_url(&self) -> &ProxyUrl {
        &self.proxy_url
    }

    /// Asks a proxy for its clients, with these headers and its own.
    pub(crate) async fn ask(
        &self,
        proxy: SocketAddr,
        headers: HeaderMap,
    ) -> reqwest::Result<Response> {
        let mut request = Request::new(Method::GET, self.proxy_url.clients(proxy));
        let client = self.client(proxy, &request)?;
        *request.headers_mut() = headers;
        request.headers_mut().extend(self.headers.clone());
        self.tls.address(&mut request);
        if self.is_named_by_url {
            request.headers_mut().remove(HOST);
        }
        client.execute(request).await
    }

    fn read(mut flags: LegFlags, url: &ProxyUrl, files: &mut Files) -> Result<Self, LegError> {
        let by_url = url.server_name().and_then(|name| name.parse().ok());
        let is_named_by_url = flags.tls.server_name.is_none() && by_url.is_some();
        flags.tls.server_name = flags.tls.server_name.or(by_url);
        let tls = flags.tls.read(files)?;
        let mut headers = flags.headers();
        let mut proxy_url = url.clone();
        if let Some(proof) = flags.credentials.read(files)? {
            headers.insert(AUTHORIZATION, proof.header);
            if let Credentials::Basic { user, password } = &proof.credentials {
                proxy_url = url.with_user(user, password);
            }
        } else if let Some(authorization) = authorization(url.any()) {
            headers.insert(AUTHORIZATION, authorization);
        }
        let is_named = url.is_secure() && flags.tls.server_name.is_some();
        let plain = tls.apply(builder(url.is_secure()), url.any());
        Ok(Self {
            plain: plain.build().map_err(|error| tls.blame(&error))?,
            proxy_url,
            headers,
            tls,
            named: is_named.then(Mutex::default),
            is_named_by_url,
        })
    }

    fn client(&self, proxy: SocketAddr, request: &Request) -> reqwest::Result<Client> {
        let Some(named) = &self.named else {
            return Ok(self.plain.clone());
        };
        if let Some(client) = named.lock().get(&proxy) {
            return Ok(client.clone());
        }
        let client = self.tls.apply(builder(true), request.url()).build()?;
        let mut named = named.lock();
        // Addresses of proxies that have gone are not worth counting one by one.
        if named.len() >= MAX_NAMED {
            named.clear();
        }
        named.insert(proxy, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for ToProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToProxies")
            .field("proxy_url", &self.proxy_url)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Without `is_secure` no certificate is trusted, and none is loaded.
fn builder(is_secure: bool) -> ClientBuilder {
    let builder = match is_secure {
        true => Client::builder(),
        false => Client::builder().tls_certs_only([]),
    };
    builder
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        // An idle connection would keep the buffer that its last answer needed.
        .pool_max_idle_per_host(0)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_NAMED: usize = 1_000;
