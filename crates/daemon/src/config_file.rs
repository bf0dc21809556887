//! Configuration files: strict YAML, and errors that name the file, the place and the remedy, and
//! never show a secret.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::exit::io_reason;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not give it out.
    #[error("cannot read {}: {}", path.display(), io_reason(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What is in it is no good.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl FileError {
    /// A file that could not be read.
    #[must_use]
    pub fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    /// A file with something wrong in it.
    #[must_use]
    pub fn content(path: &Path, what: impl Into<String>) -> Self {
        Self::Content {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// Parses the contents of a file. A file without any is none.
///
/// # Errors
///
/// [`FileError`] with the line. Texts out of the file are left out of it: where something is in the
/// wrong place, it may be a secret.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<Option<T>, FileError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| FileError::content(path, "it is not text in UTF-8"))?;
    serde_yaml::from_str(text)
        .map_err(|error| FileError::content(path, without_values(&error.to_string())))
}

/// A path in a file is relative to the folder of that file.
#[must_use]
pub fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// Deserializes what is made of a text, so that an error has the text's own place.
///
/// # Errors
///
/// Those of the conversion.
pub fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<String, Error: fmt::Display>,
    D: Deserializer<'de>,
{
    struct Reader<T>(std::marker::PhantomData<T>);
    impl<T: TryFrom<String, Error: fmt::Display>> Visitor<'_> for Reader<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            T::try_from(text.to_owned()).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Reader(std::marker::PhantomData))
}

/// A map of the file's whose keys are each there once, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs<V>(pub Vec<(String, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Reader<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_unit<E>(self) -> Result<Pairs<V>, E> {
                Ok(Pairs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = Vec::<(String, V)>::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if pairs.iter().any(|(other, _)| *other == key) {
                        return Err(A::Error::custom(format!("{key:?} is there twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

/// serde quotes what stands where something else is expected: it may be a password, which may be a
/// number. A number that is only too large is shown.
fn without_values(message: &str) -> String {
    for (kind, quote) in QUOTED {
        let start = message.find(kind).map(|at| at + kind.len() - 1);
        let end = message.rfind(&format!("{quote}, expected"));
        if let (Some(start), Some(end)) = (start, end)
            && start < end
            && let (Some(before), Some(after)) = (message.get(..start), message.get(end + 1..))
        {
            return format!("{before}(hidden){after}");
        }
    }
    message.to_owned()
}

/// How serde begins to quote, up to the quote.
const QUOTED: [(&str, char); 3] = [
    ("string \"", '"'),
    ("invalid type: integer `", '`'),
    ("invalid type: floating point `", '`'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        users: Pairs<String>,
        #[serde(default)]
        number: Option<u16>,
    }

    fn sample(text: &str) -> Result<Option<Sample>, String> {
        parse(Path::new("dir/x.yml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_need_no_quotes_and_nothing_is_no_file() {
        let read = sample("users:\n  12: 1\n  b: true\n").unwrap().unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read.users.0, [pair("12", "1"), pair("b", "true")]);
        assert_eq!(sample("users:\n").unwrap().unwrap().users, Pairs::default());
        for empty in ["", "# only a comment\n", "---\n", "~"] {
            assert_eq!(sample(empty), Ok(None), "{empty:?}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, wanted) in [
            (
                "users: {}\nuser: {}\n",
                "dir/x.yml: unknown field `user`, expected `users` or `number` at line 2 column 1",
            ),
            (
                "users: {a: x}\nusers: {b: x}\n",
                "dir/x.yml: duplicate field `users`",
            ),
            (
                "number: 70000\n",
                "dir/x.yml: number: invalid value: integer `70000`, expected u16 at line 1 column 9",
            ),
        ] {
            assert_eq!(sample(text), Err(wanted.to_owned()));
        }
        let twice = sample("users:\n  a: x\n  a: y\n").unwrap_err();
        assert!(twice.contains("\"a\" is there twice"), "{twice}");
        assert!(parse::<Sample>(Path::new("x"), &[0xff]).is_err());
    }

    #[test]
    fn values_are_not_shown() {
        for text in [
            "users: s3cret\n",
            "number: s3cret\n",
            "users: [s3cret]",
            "number: 's3\"cr, expected'",
            "users: 53000",
            "users: [53000]",
            "number: 53.25",
        ] {
            let error = sample(text).unwrap_err();
            assert!(!error.contains("s3") && !error.contains("53"), "{error}");
            assert!(error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn paths_are_relative_to_their_file() {
        assert_eq!(
            beside(Path::new("/etc/p/web.yml"), "tls/a.crt"),
            Path::new("/etc/p/tls/a.crt")
        );
        assert_eq!(beside(Path::new("/etc/p/web.yml"), "/x"), Path::new("/x"));
        assert_eq!(beside(Path::new("web.yml"), "a"), Path::new("a"));
    }
}
