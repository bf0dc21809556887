//! What each leg is spoken with: an HTTP client, and headers. Both come from files that may change
//! while the client runs, and are then made anew; what is under way keeps what it began with.

use std::fmt;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use pushprox_daemon::reload::{Files, Reloaded};
use pushprox_peer::leg::{LegError, LegFlags};
use pushprox_peer::tls::Tls;
use url::Url;

use crate::answer::PushBody;
use crate::http::{ToProxy, ToTarget, on_a_live_connection};
use crate::proxy_url::ProxyUrl;
use crate::pull_url::PullUrl;
use crate::repeatable::Repeatable;

/// The leg to the proxy.
pub struct ProxyLeg {
    pub(crate) http: ToProxy,
    pub(crate) tls: Tls,
    /// Credentials among them.
    pub(crate) headers: HeaderMap,
}

impl ProxyLeg {
    /// Reads what the flags name.
    ///
    /// # Errors
    ///
    /// [`LegError`].
    pub fn load(flags: LegFlags, url: ProxyUrl) -> Result<Reloaded<Self, LegError>, LegError> {
        let what = "what is shown to the proxy and expected of it";
        Reloaded::load(what, move |files, _| Self::read(&flags, &url, files))
    }

    fn read(flags: &LegFlags, url: &ProxyUrl, files: &mut Files) -> Result<Self, LegError> {
        let tls = flags.tls.read(files)?;
        let mut headers = flags.headers();
        let from_file = flags.credentials.read(files)?.map(|proof| proof.header);
        if let Some(authorization) = from_file.or_else(|| url.authorization().cloned()) {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(Self {
            http: ToProxy::new(url, &tls)?,
            tls,
            headers,
        })
    }

    /// Sends a poll, with what this leg adds to it.
    pub(crate) async fn poll(
        &self,
        mut request: reqwest::Request,
    ) -> reqwest::Result<reqwest::Response> {
        self.complete(&mut request);
        self.http.polls.execute(request).await
    }

    /// Sends a push, with what this leg adds to it: once more where the connection on which it went
    /// out turns out dead. The proxy takes one answer for a scrape, whatever comes twice.
    pub(crate) async fn push(
        &self,
        url: &Url,
        push: PushBody,
    ) -> reqwest::Result<reqwest::Response> {
        let send = |body| {
            let mut request = reqwest::Request::new(Method::POST, url.clone());
            *request.body_mut() = Some(body);
            self.complete(&mut request);
            self.http.pushes.execute(request)
        };
        let push = Repeatable::new(push);
        on_a_live_connection(send(push.first()), || push.again().map(send)).await
    }

    fn complete(&self, request: &mut reqwest::Request) {
        request.headers_mut().extend(self.headers.clone());
        self.tls.address(request);
    }
}

/// The leg to the target.
pub struct TargetLeg {
    pub(crate) http: ToTarget,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
}

impl TargetLeg {
    /// Reads what the flags name.
    ///
    /// # Errors
    ///
    /// [`LegError`].
    pub fn load(flags: LegFlags, url: PullUrl) -> Result<Reloaded<Self, LegError>, LegError> {
        let what = "what is shown to the target and expected of it";
        Reloaded::load(what, move |files, _| Self::read(&flags, &url, files))
    }

    fn read(flags: &LegFlags, url: &PullUrl, files: &mut Files) -> Result<Self, LegError> {
        let from_file = flags.credentials.read(files)?.map(|proof| proof.header);
        Ok(Self {
            http: ToTarget::new(flags.tls.read(files)?, &url.for_scrape(None))?,
            authorization: from_file.or_else(|| url.authorization().cloned()),
            headers: flags.headers(),
        })
    }
}

impl fmt::Debug for ProxyLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyLeg")
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TargetLeg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetLeg").finish_non_exhaustive()
    }
}
