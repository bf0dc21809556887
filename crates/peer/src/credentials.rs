//! What a leg shows of itself in its headers: a token or a password out of a file, and headers that
//! the operator adds.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use pushprox_daemon::credentials::Credentials;
use pushprox_daemon::reload::Files;
use pushprox_daemon::secret::Secret;
use pushprox_protocol::headers::{ID, SCRAPE_TIMEOUT, SCRAPE_TIMEOUT_SECONDS};

use crate::leg::LegError;

/// The value of `--proxy.header` and `--pull.header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value, which is not shown.
    pub value: HeaderValue,
}

/// Why a text is not an [`ExtraHeader`]. The text is not repeated, because it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No colon, or no name before it.
    #[error("the value is not a header; write one like 'X-Name: value'")]
    Syntax,
    /// Something that no header can hold.
    #[error("the value of header {0} has characters that a header cannot hold")]
    Value(HeaderName),
    /// One that the program needs for itself.
    #[error("header {0} is the program's own and cannot be set")]
    Own(HeaderName),
}

impl FromStr for ExtraHeader {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        let (name, value) = text.split_once(':').ok_or(HeaderError::Syntax)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let name = name.map_err(|_| HeaderError::Syntax)?;
        if OWN.contains(&name) {
            return Err(HeaderError::Own(name));
        }
        match HeaderValue::from_str(value.trim()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Ok(Self { name, value })
            }
            Err(_) => Err(HeaderError::Value(name)),
        }
    }
}

/// The files of a leg with its credentials.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    /// What the names of the leg's flags begin with.
    pub prefix: &'static str,
    /// A token.
    pub bearer: Option<PathBuf>,
    /// A user and a password.
    pub basic: Option<PathBuf>,
}

impl CredentialFiles {
    /// Whether there is any.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.bearer.is_some() || self.basic.is_some()
    }

    /// Reads what is to be shown.
    ///
    /// # Errors
    ///
    /// [`LegError`] names the flag and the file.
    pub fn read(&self, files: &mut Files) -> Result<Option<Proof>, LegError> {
        match (&self.bearer, &self.basic) {
            (Some(path), _) => {
                let flag = format!("{}.bearer-token-file", self.prefix);
                let token = secret(files, &flag, path)?;
                if token.contains(char::is_whitespace) {
                    return Err(LegError::new(&flag, path, "has more than a token in it"));
                }
                // A mark of the byte order, say, which an editor has put in front.
                if !token.is_ascii() {
                    return Err(LegError::new(
                        &flag,
                        path,
                        "has characters that no token has",
                    ));
                }
                let mut header =
                    HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                        LegError::new(&flag, path, "has characters that a header cannot hold")
                    })?;
                header.set_sensitive(true);
                let credentials = Credentials::Bearer(Secret::new(token.into_bytes()));
                Ok(Some(Proof {
                    header,
                    credentials,
                }))
            }
            (None, Some(path)) => {
                let flag = format!("{}.basic-auth-file", self.prefix);
                let pair = secret(files, &flag, path)?;
                match pair.split_once(':') {
                    Some((user, password)) if !pair.contains('\n') => Ok(Some(Proof {
                        header: basic(&pair),
                        credentials: Credentials::Basic {
                            user: user.to_owned(),
                            password: Secret::new(password.as_bytes()),
                        },
                    })),
                    _ => Err(LegError::new(&flag, path, "is not one line user:password")),
                }
            }
            (None, None) => Ok(None),
        }
    }
}

/// What is in a file of credentials.
#[derive(Debug, Clone)]
pub struct Proof {
    /// As the value of an `Authorization` header.
    pub header: HeaderValue,
    /// As it was read.
    pub credentials: Credentials,
}

/// The value of an `Authorization` header for a user and a password with a colon between them.
#[must_use]
pub fn basic(pair: impl AsRef<[u8]>) -> HeaderValue {
    let text = format!("Basic {}", BASE64_STANDARD.encode(pair));
    // Base64 has nothing that a header could not hold.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// What is in a file, without the end of its line.
fn secret(files: &mut Files, flag: &str, path: &Path) -> Result<String, LegError> {
    let bytes = files
        .read(path)
        .map_err(|error| LegError::read(flag, &error))?;
    let text =
        String::from_utf8(bytes).map_err(|_| LegError::new(flag, path, "is not text in UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(LegError::new(flag, path, "is empty")),
        false => Ok(text.to_owned()),
    }
}

const OWN: [HeaderName; 11] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    ID,
    SCRAPE_TIMEOUT,
    SCRAPE_TIMEOUT_SECONDS,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn files(bearer: Option<&str>, basic: Option<&str>) -> Result<Option<HeaderValue>, String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = CredentialFiles {
            prefix: "--proxy",
            bearer: bearer.map(|text| write("token", text)),
            basic: basic.map(|text| write("basic", text)),
        };
        let folder = format!("{}/", folder.path().display());
        let read = files.read(&mut Files::default());
        let read = read.map(|proof| proof.map(|proof| proof.header));
        read.map_err(|error| error.to_string().replace(&folder, ""))
    }

    #[test]
    fn files_become_a_header_that_is_not_shown() {
        let token = files(Some("s3cret\n"), None).unwrap().unwrap();
        assert_eq!(token, "Bearer s3cret");
        assert_eq!(format!("{token:?}"), "Sensitive");
        let basic = files(None, Some("user:pa:ss wörd\r\n")).unwrap().unwrap();
        let encoded = BASE64_STANDARD.encode("user:pa:ss wörd");
        assert_eq!(basic, format!("Basic {encoded}"));
        assert_eq!(files(None, None), Ok(None));
    }

    #[test]
    fn files_without_credentials_are_told_with_their_flag() {
        for (bearer, basic, wanted) in [
            (Some(""), None, "--proxy.bearer-token-file: token is empty"),
            (
                Some("s3cret two"),
                None,
                "--proxy.bearer-token-file: token has more than a token in it",
            ),
            (
                Some("s3cret\u{1}"),
                None,
                "--proxy.bearer-token-file: token has characters that a header cannot hold",
            ),
            (
                Some("\u{feff}s3cret\n"),
                None,
                "--proxy.bearer-token-file: token has characters that no token has",
            ),
            (
                None,
                Some("s3cret"),
                "--proxy.basic-auth-file: basic is not one line user:password",
            ),
            (
                None,
                Some("s3cret:x\ny"),
                "--proxy.basic-auth-file: basic is not one line user:password",
            ),
        ] {
            assert_eq!(files(bearer, basic), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn headers_are_read_and_their_values_are_not_shown() {
        let header: ExtraHeader = "X-Scope: s3cret: 1 ".parse().unwrap();
        assert_eq!(header.name, "x-scope");
        assert_eq!(header.value, "s3cret: 1");
        assert!(!format!("{header:?}").contains("s3cret"));
        for (text, error) in [
            ("s3cret", HeaderError::Syntax),
            (": s3cret", HeaderError::Syntax),
            ("a b: s3cret", HeaderError::Syntax),
            (
                "X-A: s3cret\r\nX-B: c",
                HeaderError::Value(HeaderName::from_static("x-a")),
            ),
            ("Host: s3cret", HeaderError::Own(HOST)),
            (
                "transfer-encoding: chunked",
                HeaderError::Own(TRANSFER_ENCODING),
            ),
        ] {
            assert_eq!(text.parse::<ExtraHeader>(), Err(error.clone()));
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
