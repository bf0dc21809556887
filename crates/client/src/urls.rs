//! What the two URLs of the command line have in common: how they are read, how their credentials
//! are taken out, how they are shown without a secret.

use http::HeaderValue;
use percent_encoding::percent_decode_str;
use pushprox_peer::credentials::basic;
use url::Url;

/// Why a text is not a URL to use. The text is not repeated, because it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No URL at all.
    #[error("the value is not a URL; write one like http://host.example.org:8080/")]
    Syntax,
    /// Another scheme, or none: `localhost:8080` has the scheme `localhost`.
    #[error("the URL begins neither with http:// nor with https://; write http://host:port/")]
    Scheme,
    /// A line break or the like, which the parser would drop or keep in silence.
    #[error("the URL has a line break or another control character in it; write it without")]
    Control,
    /// The port 0, which nobody can connect to.
    #[error("the port of the URL is 0; write the one that the server listens on")]
    Port,
    /// A proxy's URL with a query.
    #[error(
        "the URL of the proxy cannot have a query ('?'); write one like http://host:8080/path/"
    )]
    Query,
    /// A fragment, which is not sent to anybody.
    #[error("the URL cannot have a fragment ('#'); write %23 if the character is meant")]
    Fragment,
    /// Credentials that no header can hold.
    #[error("the user of the URL cannot have a ':' in its name")]
    User,
}

/// A URL whose credentials have been taken out of it.
#[derive(Clone)]
pub(crate) struct HttpUrl {
    pub(crate) url: Url,
    /// The credentials as the value of an `Authorization` header.
    pub(crate) authorization: Option<HeaderValue>,
}

impl HttpUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        if text.contains(char::is_control) {
            return Err(UrlError::Control);
        }
        // The parser mends what browsers mend: `http:/host` and `http:///host` are hosts to it.
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        if !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            return Err(UrlError::Scheme);
        }
        if rest.starts_with(['/', '\\']) {
            return Err(UrlError::Syntax);
        }
        let mut url = Url::parse(text).map_err(|_| UrlError::Syntax)?;
        if url.port() == Some(0) {
            return Err(UrlError::Port);
        }
        if url.fragment().is_some() {
            return Err(UrlError::Fragment);
        }
        let authorization = authorization(&url)?;
        // Neither fails for a scheme that has a host.
        url.set_username("").map_err(|()| UrlError::Syntax)?;
        url.set_password(None).map_err(|()| UrlError::Syntax)?;
        Ok(Self { url, authorization })
    }

    /// The URL for people: without a query too, where tokens like to stand.
    pub(crate) fn shown(&self) -> String {
        shown(&self.url)
    }
}

/// `url`, whose credentials have been taken out, without its query.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn authorization(url: &Url) -> Result<Option<HeaderValue>, UrlError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let user: Vec<u8> = percent_decode_str(url.username()).collect();
    if user.contains(&b':') {
        return Err(UrlError::User);
    }
    let password = percent_decode_str(url.password().unwrap_or_default());
    let pair: Vec<u8> = user.into_iter().chain([b':']).chain(password).collect();
    Ok(Some(basic(pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_leave_the_url() {
        let parsed = HttpUrl::parse("http://us%20er:p%40ss:w@host:81/x?token=1").unwrap();
        assert_eq!(parsed.url.as_str(), "http://host:81/x?token=1");
        assert_eq!(parsed.shown(), "http://host:81/x");
        assert_eq!(parsed.authorization.unwrap(), basic("us er:p@ss:w"));
        // Files end in a line break, and so do variables that are filled from them.
        let url = HttpUrl::parse(" HTTP://host/x\n").unwrap().url;
        assert_eq!(url.as_str(), "http://host/x");
        let only_user = HttpUrl::parse("http://u@host").unwrap();
        assert_eq!(only_user.authorization.unwrap(), "Basic dTo=");
        assert!(
            HttpUrl::parse("http://host")
                .unwrap()
                .authorization
                .is_none()
        );
    }

    #[test]
    fn other_urls_are_refused_without_showing_them() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("host:8080", UrlError::Scheme),
            ("//host/", UrlError::Scheme),
            ("ftp://host", UrlError::Scheme),
            ("http:/host", UrlError::Scheme),
            ("http:host", UrlError::Scheme),
            ("http:\\\\host", UrlError::Scheme),
            ("http://", UrlError::Syntax),
            ("http:///host", UrlError::Syntax),
            ("http:///\\host", UrlError::Syntax),
            ("http://host:0/", UrlError::Port),
            ("http://u:se\ncret@host/", UrlError::Control),
            ("http://ho\tst/", UrlError::Control),
            ("ht\u{7f}tp://host/", UrlError::Control),
            ("http://host:99999", UrlError::Syntax),
            ("http://host/#x", UrlError::Fragment),
            ("http://a%3Ab:c@host/", UrlError::User),
        ] {
            assert_eq!(HttpUrl::parse(text).err(), Some(error), "{text}");
        }
    }
}
