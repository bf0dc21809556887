//! The format of `--auth.config.file`.

use std::fmt;
use std::path::Path;

use pushprox_daemon::config_file::{self, FileError, from_text};
use pushprox_daemon::guard::TokenDigest;
use pushprox_daemon::passwords::PasswordHash;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::pattern::{NamePattern, SanPattern};
use super::policy::{List, Members, Policy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthFile {
    scrapers: Entries,
    clients: Entries,
    #[serde(default)]
    operators: Option<Entries>,
}

/// The members of a role.
enum Entries {
    Anyone,
    Only(Vec<Entry>),
}

/// One member, by one kind of credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    user: Option<String>,
    password_bcrypt: Option<PasswordHash>,
    token_sha256: Option<Digest>,
    san: Option<SanPattern>,
    names: Option<Vec<NamePattern>>,
}

struct Digest(TokenDigest);

/// Reads the file's contents.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Policy, FileError> {
    let file: AuthFile = config_file::parse(path, text)?.ok_or_else(|| {
        FileError::content(path, "it is empty; it must have scrapers and clients in it")
    })?;
    let wrong = |what: String| FileError::content(path, what);
    Ok(Policy {
        scrapers: members("scrapers", file.scrapers, true).map_err(wrong)?,
        clients: members("clients", file.clients, true).map_err(wrong)?,
        operators: match file.operators {
            Some(operators) => members("operators", operators, false).map_err(wrong)?,
            None => Members::Anyone,
        },
    })
}

fn members(role: &str, entries: Entries, have_names: bool) -> Result<Members, String> {
    let Entries::Only(entries) = entries else {
        return Ok(Members::Anyone);
    };
    let mut list = List::default();
    let mut hashes = Vec::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let wrong = |what: &str| format!("{role}[{number}]: {what}");
        let names = match (entry.names, have_names) {
            (Some(names), true) => names,
            (None, false) => Vec::new(),
            (None, true) => {
                return Err(wrong(
                    "names is missing; write names: ['*'] for all of them",
                ));
            }
            (Some(_), false) => return Err(wrong("operators have no names")),
        };
        if entry.san.is_none() && names.iter().any(NamePattern::needs_san) {
            return Err(wrong("{san} needs a san in the same entry"));
        }
        let at = list.add(entry.name.clone(), names);
        let is_new = match (
            entry.user,
            entry.password_bcrypt,
            entry.token_sha256,
            entry.san,
        ) {
            (Some(user), Some(_), None, None) if user.contains(':') => {
                return Err(wrong(
                    "a user name with a ':' can never be shown; take it out",
                ));
            }
            (Some(user), Some(hash), None, None) => {
                hashes.push((user.clone(), hash));
                list.add_user(user, at)
            }
            (None, None, Some(token), None) => list.add_token(token.0, at),
            (None, None, None, Some(_)) if entry.name.is_some() => {
                return Err(wrong(
                    "an entry with a san has no name: each certificate has its own",
                ));
            }
            (None, None, None, Some(san)) => {
                list.add_san(san, at);
                true
            }
            (Some(_), None, None, None) => return Err(wrong("password_bcrypt is missing")),
            (None, Some(_), None, None) => return Err(wrong("user is missing")),
            _ => {
                return Err(wrong(
                    "it must have exactly one of: user with password_bcrypt, token_sha256, san",
                ));
            }
        };
        if !is_new {
            return Err(wrong(
                "this user or token has an entry in this list already",
            ));
        }
    }
    list.set_passwords(hashes);
    Ok(Members::Only(Box::new(list)))
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of members, or the word anyone")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Entries, E> {
                match text {
                    "anyone" => Ok(Entries::Anyone),
                    _ => Err(E::custom(
                        "this is neither a list of members nor the word anyone",
                    )),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    entries.push(entry);
                }
                Ok(Entries::Only(entries))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Entries, E> {
                Err(E::custom(
                    "there is nothing; write [] for nobody, or the word anyone",
                ))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "token_sha256 is 64 hexadecimal digits; \
                             printf %s \"$TOKEN\" | sha256sum makes them";
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        for (byte, at) in digest.iter_mut().zip((0..text.len()).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or(WRONG)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(digest))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
    const TOKEN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn read(text: &str) -> Result<Policy, String> {
        let text = text.replace("HASH", HASH).replace("TOKEN", TOKEN);
        parse(Path::new("auth.yml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_read() {
        let policy = read(
            "scrapers:
- {user: prometheus, password_bcrypt: HASH, names: ['*']}
- {san: prometheus.example.org, names: ['*.edge.example.org:9100']}
clients:
- {san: '*.edge.example.org', names: ['{san}:9100', '{san}']}
- {name: node7, token_sha256: TOKEN, names: [node7.example.org]}
operators: []
",
        )
        .unwrap();
        assert!(matches!(policy.operators, Members::Only(_)));
        let policy = read("scrapers: anyone\nclients: []\n").unwrap();
        assert!(matches!(policy.scrapers, Members::Anyone));
        assert!(
            matches!(policy.operators, Members::Anyone),
            "where nothing is said"
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_without_secrets() {
        let scrapers = |entry: &str| format!("scrapers:\n- {entry}\nclients: []\n");
        for (text, wanted) in [
            (String::new(), "it is empty"),
            ("scrapers: []\n".to_owned(), "missing field `clients`"),
            (
                "scrapers: []\nclients: []\nroles: []\n".to_owned(),
                "unknown field `roles`",
            ),
            (
                "scrapers: all\nclients: []\n".to_owned(),
                "scrapers: this is neither a list of members nor the word anyone",
            ),
            (
                "scrapers:\nclients: []\n".to_owned(),
                "write [] for nobody, or the word anyone",
            ),
            (
                scrapers("{user: a, password_bcrypt: s3cret, names: ['*']}"),
                "this is not a bcrypt hash",
            ),
            (
                scrapers("{user: a, names: ['*']}"),
                "scrapers[0]: password_bcrypt is missing",
            ),
            (
                scrapers("{user: 'a:b', password_bcrypt: HASH, names: ['*']}"),
                "scrapers[0]: a user name with a ':' can never be shown",
            ),
            (
                scrapers("{password_bcrypt: HASH, names: ['*']}"),
                "scrapers[0]: user is missing",
            ),
            (scrapers("{names: ['*']}"), "exactly one of"),
            (
                scrapers("{token_sha256: TOKEN, san: x, names: ['*']}"),
                "exactly one of",
            ),
            (
                scrapers("{token_sha256: s3cret, names: ['*']}"),
                "64 hexadecimal digits",
            ),
            (
                scrapers("{token_sha256: TOKEN}"),
                "scrapers[0]: names is missing",
            ),
            (
                scrapers("{token_sha256: TOKEN, names: ['a/b']}"),
                "\"a/b\" is no name",
            ),
            (
                scrapers("{token_sha256: TOKEN, names: ['{san}']}"),
                "{san} needs a san in the same entry",
            ),
            (
                scrapers("{token_sha256: TOKEN, token: s3cret, names: []}"),
                "unknown field `token`",
            ),
            (
                scrapers("{name: x, san: a, names: ['*']}"),
                "an entry with a san has no name",
            ),
            (
                scrapers("{token_sha256: TOKEN, names: []}\n- {token_sha256: TOKEN, names: []}"),
                "scrapers[1]: this user or token has an entry",
            ),
            (
                "scrapers: []\nclients: []\noperators: [{token_sha256: TOKEN, names: []}]\n"
                    .to_owned(),
                "operators have no names",
            ),
        ] {
            let error = read(&text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(
                error.starts_with("auth.yml: ") && error.contains(wanted),
                "{text}\n{error}"
            );
            assert!(
                !error.contains("s3cret") && !error.contains(HASH),
                "{error}"
            );
        }
        let place = read(&scrapers("{token_sha256: x, names: []}"))
            .err()
            .unwrap();
        assert!(place.contains("line 2"), "{place}");
    }
}
