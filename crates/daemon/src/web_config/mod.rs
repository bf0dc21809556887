//! `--web.config.file`: TLS, users, headers and a rate limit, in the format of Prometheus's
//! exporter-toolkit, which every exporter has.
//!
//! The file is strict: what it has and this program cannot do is an error with the reason. Read
//! again, it never opens what was closed: a file that is caught half written must not switch TLS
//! or passwords off.

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod tls;
mod tls_names;
mod verifier;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};

use self::file::WebFile;
use self::tls::Tls;
use crate::config_file::{self, FileError};
use crate::passwords::Users;
use crate::rate::Rate;
use crate::reload::{Files, Reloaded};

/// What the file comes to. The default is that of no file: open, plain HTTP.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    tls: Option<Tls>,
    headers: HeaderMap,
    users: Option<Users>,
    rate_limit: Option<Rate>,
}

impl WebConfig {
    /// Reads the file, and from then on whatever it and the files that it names come to be.
    ///
    /// # Errors
    ///
    /// [`FileError`]: a file cannot be read, or is no good.
    pub(crate) fn load(path: PathBuf) -> Result<Reloaded<Self>, FileError> {
        Self::load_if(path, |_| Ok(()))
    }

    /// The same, but users are refused, and `why` is the reason that is told.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(crate) fn load_without_users(
        path: PathBuf,
        why: &'static str,
    ) -> Result<Reloaded<Self>, FileError> {
        Self::load_if(path, move |config| match config.users {
            Some(_) => Err(why),
            None => Ok(()),
        })
    }

    fn load_if(
        path: PathBuf,
        check: impl Fn(&Self) -> Result<(), &'static str> + Send + Sync + 'static,
    ) -> Result<Reloaded<Self>, FileError> {
        Reloaded::load("web.config.file", move |files, before: Option<&Self>| {
            let config = Self::read(&path, files)?;
            check(&config)
                .and_then(|()| before.map_or(Ok(()), |before| before.keeps_closed(&config)))
                .map_err(|what| FileError::content(&path, what))?;
            Ok(config)
        })
    }

    /// How TLS is served, if it is.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| &tls.config)
    }

    /// Whether a certificate that a client has shown proves who it is.
    #[must_use]
    pub fn verifies_clients(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.verifies_clients)
    }

    /// Whether nobody gets in without such a certificate.
    #[must_use]
    pub fn requires_clients(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.requires_clients)
    }

    /// Whether a client that shows these certificates proves who it is by the first of them.
    #[must_use]
    pub(crate) fn trusts_client(&self, chain: &[CertificateDer<'_>]) -> bool {
        let verifier = self.tls.as_ref().and_then(|tls| tls.verifier.as_ref());
        match (verifier, chain.split_first()) {
            (Some(verifier), Some((own, others))) if self.verifies_clients() => verifier
                .verify_client_cert(own, others, UnixTime::now())
                .is_ok(),
            _ => false,
        }
    }

    /// The users, if it takes one to be let in.
    #[must_use]
    pub fn users(&self) -> Option<&Users> {
        self.users.as_ref()
    }

    /// Headers to add to the daemon's own answers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// How many requests are taken.
    #[must_use]
    pub(crate) fn rate_limit(&self) -> Option<Rate> {
        self.rate_limit
    }

    fn read(path: &Path, files: &mut Files) -> Result<Self, FileError> {
        let text = files.read(path)?;
        let file: WebFile = config_file::parse(path, &text)?.unwrap_or_default();
        let tls = file.tls_server_config.unwrap_or_default();
        let rate_limit = match file.rate_limit {
            Some(limit) => limit
                .rate()
                .map_err(|what| FileError::content(path, what))?,
            None => None,
        };
        Ok(Self {
            tls: tls::server(&tls, path, files)?,
            headers: file.http_server_config.unwrap_or_default().headers.0,
            users: Some(Users::new(file.basic_auth_users.0)).filter(|users| !users.is_empty()),
            rate_limit,
        })
    }

    /// Whether nothing that is closed here is open there; what is otherwise, and takes a restart.
    fn keeps_closed(&self, next: &Self) -> Result<(), &'static str> {
        if self.tls.is_some() != next.tls.is_some() {
            return Err("TLS is switched on and off by a restart only");
        }
        if self.users.is_some() && next.users.is_none() {
            return Err("the last of basic_auth_users goes by a restart only");
        }
        if (self.verifies_clients() && !next.verifies_clients())
            || (self.requires_clients() && !next.requires_clients())
        {
            return Err("client_auth_type is weakened by a restart only");
        }
        let has_allowed = |config: &Self| config.tls.as_ref().is_some_and(|tls| tls.allows_some);
        if has_allowed(self) && !has_allowed(next) {
            return Err("client_allowed_sans goes by a restart only");
        }
        Ok(())
    }
}
