//! What a leg to a peer is spoken with, as its flags have it.

use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use pushprox_daemon::cli::UsageError;
use pushprox_daemon::config_file::FileError;
use tracing::warn;

use crate::credentials::{CredentialFiles, ExtraHeader};
use crate::tls::TlsFlags;

/// A file of a leg's that cannot be used: its flag, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LegError(String);

impl LegError {
    pub(crate) fn new(flag: &str, path: &Path, what: &str) -> Self {
        Self(format!("{flag}: {} {what}", path.display()))
    }

    pub(crate) fn read(flag: &str, error: &FileError) -> Self {
        Self(format!("{flag}: {error}"))
    }

    pub(crate) fn other(what: String) -> Self {
        Self(what)
    }
}

/// What a leg's flags have in common.
#[derive(Debug, Clone, Default)]
pub struct LegFlags {
    /// TLS.
    pub tls: TlsFlags,
    /// Credentials.
    pub credentials: CredentialFiles,
    /// Headers to add.
    pub headers: Vec<ExtraHeader>,
}

impl LegFlags {
    /// The headers to add.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for ExtraHeader { name, value } in &self.headers {
            map.append(name.clone(), value.clone());
        }
        map
    }

    /// Checks what goes together with what, for a leg whose URL is the value of the flag `url`, and
    /// has a user in it or not.
    ///
    /// # Errors
    ///
    /// There is one place for credentials, and only one may fill it.
    pub fn check(&self, url: &str, has_user: bool) -> Result<(), UsageError> {
        let prefix = self.credentials.prefix;
        let in_header = self
            .headers
            .iter()
            .any(|header| header.name == AUTHORIZATION);
        let ways = [self.credentials.is_some(), has_user, in_header];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            return Err(UsageError(format!(
                "{prefix}.bearer-token-file, {prefix}.basic-auth-file, a user in {url} and \
                 {prefix}.header Authorization exclude each other; give one of them"
            )));
        }
        if self.tls.insecure_skip_verify {
            warn!(
                flag = format!("{}.insecure-skip-verify", self.tls.prefix),
                "certificates are not verified: whoever answers is believed"
            );
        }
        Ok(())
    }
}
