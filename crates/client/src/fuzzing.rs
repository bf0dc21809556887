//! What must hold of what the client makes of a scrape for any bytes whatsoever. The fuzz targets in `fuzz/` and the
//! property tests call the same functions; each panics where a promise is broken.
//!
//! Not part of the crate's interface: the feature `fuzzing` opens it for `fuzz/` alone.

use crate::pull_url::PullUrl;

/// The query of a scrape: whatever it is, the client pulls from the operator's place, with the
/// operator's parameters.
pub fn pull_query(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else {
        return;
    };
    for (text, port) in [
        ("http://node:80/metrics", Some(80)),
        ("http://node/?token=a%20b&mode=x&mode=y", None),
        (
            "https://user:password@[::1]:9100/a%2fb?_scheme=https",
            Some(9100),
        ),
    ] {
        let Ok(pull_url) = text.parse::<PullUrl>() else {
            panic!("{text} is no pull URL");
        };
        let (plain, url) = (pull_url.for_scrape(None), pull_url.for_scrape(Some(query)));
        assert!(
            url.scheme() == plain.scheme() || url.scheme() == "https",
            "{url}"
        );
        assert_eq!(url.host(), plain.host(), "{url}");
        match port {
            Some(_) => assert_eq!(url.port_or_known_default(), port, "{url}"),
            None => assert_eq!(url.port(), None, "{url}"),
        }
        assert_eq!(url.path(), plain.path(), "{url}");
        assert_eq!(url.username(), plain.username(), "{url}");
        assert_eq!(url.password(), plain.password(), "{url}");
        assert_eq!(url.fragment(), None, "{url}");
        let fixed: Vec<_> = plain.query_pairs().collect();
        let is_fixed = |name: &str| fixed.iter().any(|(other, _)| other == name);
        let of_the_operator: Vec<_> = url
            .query_pairs()
            .filter(|(name, _)| is_fixed(name))
            .collect();
        assert_eq!(of_the_operator, fixed, "{url}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushprox_testkit::seeds;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [("pull_query", pull_query as fn(&[u8]))];
        for (target, check) in targets {
            for bytes in [seeds::of(target), seeds::regressions(target)].concat() {
                check(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_pull_query_is_read_right_or_refused(bytes in seeds::near("pull_query")) {
            pull_query(&bytes);
        }
    }
}
