//! URLs from the command line: read by the same rules in every program, and never shown with what is
//! secret in them.

use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::credentials::basic;

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
    /// A query where none is sent.
    #[error("the URL cannot have a query ('?'); write one like http://host:8080/path/")]
    Query,
    /// A fragment, which is not sent to anybody.
    #[error("the URL cannot have a fragment ('#'); write %23 if the character is meant")]
    Fragment,
    /// Credentials that no header can hold.
    #[error("the user of the URL cannot have a ':' in its name")]
    User,
}

/// Reads the URL of a server, which may have credentials.
///
/// # Errors
///
/// [`UrlError`].
pub fn parse(text: &str) -> Result<Url, UrlError> {
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
    let url = Url::parse(text).map_err(|_| UrlError::Syntax)?;
    if url.port() == Some(0) {
        return Err(UrlError::Port);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    if user(&url).contains(&b':') {
        return Err(UrlError::User);
    }
    Ok(url)
}

/// The same for a URL that other paths are put on.
///
/// # Errors
///
/// [`UrlError`]; there is a query.
pub fn parse_without_query(text: &str) -> Result<Url, UrlError> {
    let url = parse(text)?;
    match url.query() {
        Some(_) => Err(UrlError::Query),
        None => Ok(url),
    }
}

/// The credentials of a URL as the value of an `Authorization` header.
#[must_use]
pub fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let password = percent_decode_str(url.password().unwrap_or_default());
    let pair: Vec<u8> = user(url)
        .into_iter()
        .chain([b':'])
        .chain(password)
        .collect();
    Some(basic(pair))
}

/// A URL without its credentials.
#[must_use]
pub fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    // Neither fails for a scheme that has a host.
    url.set_username("").ok();
    url.set_password(None).ok();
    url
}

/// A URL for people: without credentials, and without a query, where tokens like to stand.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut url = without_credentials(url);
    url.set_query(None);
    url.into()
}

fn user(url: &Url) -> Vec<u8> {
    percent_decode_str(url.username()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_a_header_and_are_not_shown() {
        let url = parse("http://us%20er:p%40ss:w@host:81/x?token=1").unwrap();
        assert_eq!(authorization(&url).unwrap(), basic("us er:p@ss:w"));
        assert_eq!(
            without_credentials(&url).as_str(),
            "http://host:81/x?token=1"
        );
        assert_eq!(shown(&url), "http://host:81/x");
        // Files end in a line break, and so do variables that are filled from them.
        let url = parse(" HTTP://host/x\n").unwrap();
        assert_eq!(url.as_str(), "http://host/x");
        assert!(authorization(&url).is_none());
        let only_user = parse("http://u@host").unwrap();
        assert_eq!(authorization(&only_user).unwrap(), "Basic dTo=");
        let bytes = parse("http://u:%ff@host").unwrap();
        assert_eq!(authorization(&bytes).unwrap(), basic(b"u:\xff"));
    }

    #[test]
    fn a_query_is_refused_where_it_means_nothing() {
        assert_eq!(parse_without_query("http://u:p@h/a").unwrap().path(), "/a");
        assert_eq!(parse_without_query("http://h/?"), Err(UrlError::Query));
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
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
