//! What the two URLs of the command line have in common: their credentials are taken out, and they are
//! shown without a secret.

use http::HeaderValue;
use pushprox_peer::urls;
pub use pushprox_peer::urls::UrlError;
pub(crate) use pushprox_peer::urls::shown;
use url::Url;

/// A URL whose credentials have been taken out of it.
#[derive(Clone)]
pub(crate) struct HttpUrl {
    pub(crate) url: Url,
    /// The credentials as the value of an `Authorization` header.
    pub(crate) authorization: Option<HeaderValue>,
}

impl HttpUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let url = urls::parse(text)?;
        Ok(Self {
            authorization: urls::authorization(&url),
            url: urls::without_credentials(&url),
        })
    }

    /// The URL for people.
    pub(crate) fn shown(&self) -> String {
        shown(&self.url)
    }
}
