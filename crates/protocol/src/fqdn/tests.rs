//! Names and targets as they are written, and what is none.

use super::*;
use std::collections::HashSet;

fn name(text: &str) -> Fqdn {
    text.parse().unwrap()
}

fn target(uri: &str) -> Result<Target, NameError> {
    Target::from_uri(&uri.parse().unwrap())
}

#[test]
fn names_of_every_kind_are_taken() {
    for (text, printed) in [
        ("localhost", "localhost"),
        ("  node.test:9100\r\n", "node.test:9100"),
        ("my_host-1.example.org", "my_host-1.example.org"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]", "[::1]"),
        ("[2001:DB8:0::1]:9100", "[2001:db8::1]:9100"),
        ("node.example.org.", "node.example.org"),
    ] {
        assert_eq!(name(text).to_string(), printed);
    }
    for length in [IN_PLACE, IN_PLACE + 1, 253] {
        let host = "a".repeat(length);
        let bare = name(&host);
        assert_eq!((bare.host(), bare.port()), (&*host, None));
        let printed = format!("{host}:9100");
        assert_eq!(name(&printed).to_string(), printed);
    }
}

#[test]
fn a_name_is_small() {
    assert_eq!(size_of::<Fqdn>(), 48);
    assert_eq!(size_of::<Option<Fqdn>>(), 48);
}

#[test]
fn what_is_no_name_is_refused_with_the_reason() {
    for (text, error) in [
        ("", NameError::Empty),
        (" \t\n", NameError::Empty),
        ("a b", NameError::Character(' ')),
        ("a/b", NameError::Character('/')),
        ("nöde", NameError::Character('ö')),
        ("a\0", NameError::Character('\0')),
        ("a..b", NameError::EmptyLabel),
        (".a", NameError::EmptyLabel),
        (".", NameError::EmptyLabel),
        (":9100", NameError::EmptyLabel),
        ("::1", NameError::Colons),
        ("a:1:2", NameError::Colons),
        ("[::1", NameError::Ipv6),
        ("[localhost]", NameError::Ipv6),
        ("[fe80::1%eth0]", NameError::Ipv6),
        ("[::1]9100", NameError::Port),
        ("a:", NameError::Port),
        ("a:0", NameError::Port),
        ("a:65536", NameError::Port),
        ("a:+80", NameError::Port),
        ("a:http", NameError::Port),
    ] {
        assert_eq!(text.parse::<Fqdn>(), Err(error), "{text:?}");
    }
    assert_eq!(
        "a".repeat(254).parse::<Fqdn>(),
        Err(NameError::TooLong(254))
    );
}

#[test]
fn names_compare_without_regard_to_case() {
    let mut set = HashSet::from([name("Node.Example.org:9100")]);
    assert!(!set.insert(name("node.EXAMPLE.org.:9100")));
    assert!(set.insert(name("node.example.org")));
    assert!(set.insert(name("node.example.org:9101")));
}

#[test]
fn targets_come_from_absolute_uris() {
    for (uri, printed) in [
        ("http://localhost:28413/metrics", "localhost:28413"),
        ("http://localhost/metrics", "localhost:80"),
        ("http://localhost:80", "localhost:80"),
        ("https://localhost/x", "localhost:443"),
        ("http://u:p@Node:9100/", "Node:9100"),
        ("http://[::1]:9100/metrics?a=b", "[::1]:9100"),
        ("http://[::1]/metrics", "[::1]:80"),
    ] {
        assert_eq!(target(uri).unwrap().to_string(), printed);
        let (split, host, _) = Target::parse(uri).unwrap();
        assert_eq!(split, target(uri).unwrap());
        assert!(!host.contains('@') && uri.contains(host));
    }
    for space in ['\u{a0}', '\u{3000}', '\u{85}'] {
        let padded = format!("http://{space}localhost{space}/");
        assert_eq!(Target::parse(&padded), Err(NameError::Character(space)));
    }
    assert_eq!(
        Target::parse("http://localhost:/").unwrap().0.to_string(),
        "localhost:80"
    );
    for twice in [
        "http://localhost:1:/",
        "http://[::1]:1:/",
        "http://localhost::/",
    ] {
        assert!(Target::parse(twice).is_err(), "{twice}");
    }
    assert_eq!(Target::parse("/metrics"), Err(NameError::Uri));
    assert_eq!(Target::parse("http:///metrics"), Err(NameError::Empty));
    assert_eq!(target("/metrics"), Err(NameError::Uri));
    assert_eq!(target("localhost:80"), Err(NameError::Uri));
    assert_eq!(target("ftp://localhost/"), Err(NameError::Uri));
}

#[test]
fn a_target_matches_its_exact_name_and_its_bare_one() {
    let target = target("http://NODE:9100/metrics").unwrap();
    for (text, matches) in [
        ("node:9100", true),
        ("node", true),
        ("node:80", false),
        ("other", false),
    ] {
        assert_eq!(target.matches(name(text).as_ref()), matches, "{text}");
    }
}
