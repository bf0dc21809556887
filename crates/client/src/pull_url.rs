//! The one place that a client pulls from. A scrape can add query parameters, and lift the scheme
//! to https; all the rest is the operator's.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;
use url::{Url, form_urlencoded};

use crate::urls::{HttpUrl, UrlError};

/// The value of `--pull-url`.
#[derive(Clone)]
pub struct PullUrl {
    inner: HttpUrl,
    /// The same with https. It is read from the operator's text, since a URL does not tell whether
    /// the port that its scheme has anyway was written.
    lifted: Url,
    /// Names of the query parameters that the URL has, and which no scrape can change.
    fixed: Vec<String>,
}

impl PullUrl {
    /// The URL to pull for a scrape with this query.
    ///
    /// Parameters keep their order and their encoding; the few characters that a URL's query cannot
    /// have are encoded. Those that the pull URL has already are left out, and so is
    /// `_scheme=https`, which asks for TLS.
    #[must_use]
    pub fn for_scrape(&self, scrape_query: Option<&str>) -> Url {
        let mut url = &self.inner.url;
        let mut query = url.query().unwrap_or_default().to_owned();
        // A URL drops these wherever they are, which would make another name of a parameter's.
        let mut added = scrape_query.unwrap_or_default().to_owned();
        added.retain(|c| !matches!(c, '\t' | '\n' | '\r'));
        for piece in added.split('&') {
            let Some((name, value)) = form_urlencoded::parse(piece.as_bytes()).next() else {
                continue;
            };
            if self.fixed.iter().any(|fixed| *fixed == name) {
                continue;
            }
            if name == "_scheme" && value == "https" {
                url = &self.lifted;
                continue;
            }
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(piece);
        }
        let mut url = url.clone();
        url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        url
    }

    /// The credentials of the URL, for scrapes that bring none of their own.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.inner.authorization.as_ref()
    }
}

impl FromStr for PullUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let inner = HttpUrl::parse(text)?;
        let (_, place) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let lifted = HttpUrl::parse(&format!("https://{place}"))?.url;
        let fixed = inner
            .url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
        Ok(Self {
            inner,
            lifted,
            fixed,
        })
    }
}

impl fmt::Display for PullUrl {
    /// Without credentials and query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.shown())
    }
}

impl fmt::Debug for PullUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(url: &str, query: &str) -> String {
        let url: PullUrl = url.parse().unwrap();
        url.for_scrape(Some(query).filter(|query| !query.is_empty()))
            .into()
    }

    #[test]
    fn a_scrape_adds_its_parameters_in_order_and_as_they_are() {
        let base = "http://h:9100/metrics";
        for (query, wanted) in [
            ("", "http://h:9100/metrics"),
            ("a=1", "http://h:9100/metrics?a=1"),
            (
                "collect%5B%5D=cpu&b=%2f+x&collect%5b%5d=m&a&=z&a=",
                "http://h:9100/metrics?collect%5B%5D=cpu&b=%2f+x&collect%5b%5d=m&a&=z&a=",
            ),
            ("&&a=1&&", "http://h:9100/metrics?a=1"),
            (
                "c=%zz&match[]={a=\"b\"}|\\^`",
                "http://h:9100/metrics?c=%zz&match[]={a=%22b%22}|\\^`",
            ),
            ("a='<é>", "http://h:9100/metrics?a=%27%3C%C3%A9%3E"),
        ] {
            assert_eq!(pull(base, query), wanted);
        }
    }

    #[test]
    fn parameters_of_the_pull_url_are_fixed() {
        let base = "https://h/m?token=a%20b&mode=x&mode=y";
        assert_eq!(pull(base, ""), base);
        for forged in [
            "token=evil",
            "mode",
            "%74oken=evil",
            "token=1&token=2",
            "mode=%00",
        ] {
            assert_eq!(pull(base, forged), base, "{forged}");
        }
        assert_eq!(
            pull(base, "Token=1&q=2&mode=z"),
            format!("{base}&Token=1&q=2")
        );
    }

    #[test]
    fn the_scheme_is_lifted_and_never_lowered() {
        for (base, query, wanted) in [
            ("http://h/m", "_scheme=https", "https://h/m"),
            (
                "http://h:81/m",
                "a=1&_scheme=https&b=2",
                "https://h:81/m?a=1&b=2",
            ),
            ("http://h:80/m", "_scheme=https", "https://h:80/m"),
            ("http://u:p:80@h/m", "_scheme=https", "https://h/m"),
            (
                " HTTP://u:80@[::1]:080?a=b:80\n",
                "_scheme=https&_scheme=https",
                "https://[::1]:80/?a=b:80",
            ),
            ("http://h:443/m", "_scheme=https", "https://h/m"),
            ("https://h:80/m", "_scheme=https", "https://h:80/m"),
            ("https://h/m", "_scheme=https", "https://h/m"),
            ("https://h/m", "_scheme=http", "https://h/m?_scheme=http"),
            ("http://h/m", "_scheme=ftp", "http://h/m?_scheme=ftp"),
            ("http://h/m", "%5Fscheme=https", "https://h/m"),
            (
                "http://h/m?_scheme=x",
                "_scheme=https",
                "http://h/m?_scheme=x",
            ),
        ] {
            assert_eq!(pull(base, query), wanted);
        }
    }

    #[test]
    fn nothing_in_a_query_moves_the_place() {
        for query in ["#x", "/../y", "?x", "a=http://evil/", "@evil", "%2e%2e/"] {
            let url: PullUrl = "http://h:9100/metrics".parse().unwrap();
            let url = url.for_scrape(Some(query));
            assert_eq!(url.host_str(), Some("h"), "{query}");
            assert_eq!(url.port(), Some(9100), "{query}");
            assert_eq!(url.path(), "/metrics", "{query}");
            assert_eq!(url.fragment(), None, "{query}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let url: PullUrl = "http://user:secret@h/m?token=secret".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "http://h/m http://h/m");
    }
}
