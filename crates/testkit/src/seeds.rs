//! Bytes to try the parsers of foreign bytes with: for each fuzz target the recordings and files
//! that it starts from, the findings that are kept, and a strategy for property tests that changes
//! them at random.

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The fuzz targets, as they are named in `fuzz/fuzz_targets`.
pub const TARGETS: [&str; 18] = [
    "base",
    "certificate",
    "chunked",
    "credentials",
    "duration",
    "auth_config",
    "instruction",
    "listing",
    "name",
    "name_pattern",
    "poll",
    "pull_query",
    "pushed",
    "request",
    "san_pattern",
    "scrape",
    "timeout",
    "web_config",
];

/// Bytes for a parser, which print so that a test that fails can be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// What a target starts from.
///
/// # Panics
///
/// When there is no such target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "name" => texts(&[
            "node.example.org:9100",
            " Node_1\r\n",
            "[2001:db8::1]:9100",
            "10.0.0.1:80",
            "http://user:password@node:9100/metrics?a=b#c",
        ]),
        "duration" => texts(&[
            "1m30s",
            "2562047h47m16.854775807s",
            "-.5h",
            "+1.000001µs",
            "0",
        ]),
        "timeout" => texts(&["9.5", "10.000000", "1e300", "-0", "inf", "1e-10"]),
        "name_pattern" => texts(&[
            "*.example.org:9100\nnode.EXAMPLE.org:9100",
            "{san}:*\nnode:9100\nnode",
            "[2001:db8:*]:9100\n[2001:db8::7]:9100",
        ]),
        "san_pattern" => texts(&[
            "*.example.org\nnode.example.org",
            "spiffe://a/*\nspiffe://a/b",
            "*@a.b\nme@a.b",
        ]),
        "credentials" => texts(&["Basic dTpw", "bearer abc.def", "Basic dTpw==", "Basic :"]),
        "pull_query" => texts(&[
            "a=1&b=%2f+x&_scheme=https",
            "token=x&mode&&=&#@host",
            "c=%zz",
        ]),
        "listing" => files("crates/discovery/tests/data", ".json"),
        "base" => files("crates/discovery/tests/data/bases", ".yaml"),
        "auth_config" => files("deploy/examples", "auth.yml"),
        "web_config" => {
            let mut seeds = files("deploy/examples", "web.yml");
            seeds.push(WEB_CONFIG.as_bytes().to_vec());
            seeds
        }
        "certificate" => {
            let names = ["node.example.org".to_owned(), "192.0.2.1".to_owned()];
            let certificate = rcgen::generate_simple_self_signed(names).unwrap();
            vec![certificate.cert.der().to_vec()]
        }
        "poll" | "request" => [files(WIRE, "request.bin"), files(WIRE, "push.bin")].concat(),
        "scrape" => files(WIRE, "scrape-request.bin"),
        "instruction" => bodies(&files(WIRE, "poll-response.bin")),
        "pushed" => bodies(&pushes()),
        "chunked" => bodies(&bodies(&pushes())),
        other => panic!("{other} is none of the fuzz targets"),
    }
}

/// What was once found with a target, and must not be found again.
///
/// # Panics
///
/// When a file that is there cannot be read.
#[must_use]
pub fn regressions(target: &str) -> Vec<Vec<u8>> {
    match root().join("fuzz/regressions").join(target) {
        folder if folder.exists() => files_in(&folder, ""),
        _ => Vec::new(),
    }
}

/// Bytes such as a target may get: what it starts from with some changes, or anything at all.
pub fn near(target: &str) -> impl Strategy<Value = Bytes> + use<> {
    let mut seeds = of(target);
    for seed in &mut seeds {
        // The head and some of the body: the rest is more of the same.
        seed.truncate(3_000);
    }
    seeds.push(Vec::new());
    let change = (
        any::<Index>(),
        any::<Index>(),
        0..5u8,
        any::<u8>(),
        select(TOKENS.to_vec()),
    );
    let changed =
        (select(seeds), prop::collection::vec(change, 0..6)).prop_map(|(seed, changes)| {
            changes
                .into_iter()
                .fold(seed, |bytes, (from, length, kind, byte, token)| {
                    let at = from.index(bytes.len() + 1);
                    let end = (at + length.index(40)).min(bytes.len());
                    let (head, tail) = (&bytes[..at], &bytes[end..]);
                    match kind {
                        0 => head.to_vec(),
                        1 => [head, tail].concat(),
                        2 => [head, &[byte], &bytes[(at + 1).min(bytes.len())..]].concat(),
                        3 => [head, token.as_bytes(), &bytes[at..]].concat(),
                        _ => [head, &bytes[at..end], &bytes[at..]].concat(),
                    }
                })
        });
    let anything = prop_oneof![
        8 => changed,
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => "[ -~\\r\\n\u{a0}-\u{200}]{0,80}".prop_map(String::into_bytes),
    ];
    anything.prop_map(Bytes)
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Changed bytes are often refused at the first of these.
const TOKENS: [&str; 31] = [
    "\r\n",
    "\n",
    "\r\n\r\n",
    "\n\n",
    " ",
    ":",
    ".",
    "-",
    "[",
    "]",
    "*",
    "{san}",
    "%",
    "&",
    "#",
    "0",
    "9",
    "ffffffffffffffff",
    "é",
    "\0",
    "\u{feff}",
    "\t",
    "0\r\n",
    ";x",
    "Id: 1\r\n",
    "Connection: id, date, x\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "HTTP/2.0",
    "- ",
    "scrape_configs:\n",
];

const WIRE: &str = "crates/protocol/tests/data/wire";

const WEB_CONFIG: &str = "tls_server_config:
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [a.example.org]
  min_version: TLS12
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=1}
basic_auth_users:
  alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG
rate_limit: {interval: 1s, burst: 5}
";

fn pushes() -> Vec<Vec<u8>> {
    let recorded = |part: &str| files_in(&root().join(WIRE), part);
    [recorded("push.bin"), recorded("push-")].concat()
}

/// The bodies of recorded messages.
fn bodies(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let body = |message: &Vec<u8>| {
        let end = message.windows(4).position(|four| four == b"\r\n\r\n");
        end.map(|end| message[end + 4..].to_vec())
    };
    messages.iter().filter_map(body).collect()
}

fn files(folder: &str, part: &str) -> Vec<Vec<u8>> {
    let found = files_in(&root().join(folder), part);
    assert!(!found.is_empty(), "no {part} in {folder}");
    found
}

/// The contents of the files whose names have `part` in them, in the order of their names.
fn files_in(folder: &Path, part: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files_in(&path, part));
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(part))
        {
            found.push(fs::read(&path).unwrap());
        }
    }
    found
}

/// The folder of the whole workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fuzz_target_has_seeds_and_checks_what_it_is_named_for() {
        let folder = root().join("fuzz/fuzz_targets");
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.contains(&format!("::fuzzing::{name}(bytes)")),
                "{text}"
            );
            assert!(!of(&name).is_empty());
            found.push(name);
        }
        found.sort();
        let mut known = TARGETS;
        known.sort_unstable();
        assert_eq!(found, known);
        let kept = root().join("fuzz/regressions");
        for entry in fs::read_dir(kept).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.contains(&&*name), "{name} is no target");
        }
    }
}
