//! What must hold of discovery's parsers for any bytes whatsoever. The fuzz targets in `fuzz/` and the
//! property tests call the same functions; each panics where a promise is broken.
//!
//! Not part of the crate's interface: the feature `fuzzing` opens it for `fuzz/` alone.

use pushprox_protocol::Fqdn;
use serde_json::json;
use serde_yaml::{Mapping, Value};

use crate::base::{self, BaseError};
use crate::listing::Listing;

/// The operator's configuration: extended with every byte of it kept, or refused.
pub fn base(bytes: &[u8]) {
    let jobs = [job("generated-a"), job("generated-b")];
    let Ok(result) = base::insert(bytes, &jobs) else {
        return;
    };
    assert!(
        is_kept(bytes, &result),
        "the base is not in it: {:?}",
        String::from_utf8_lossy(&result)
    );
    // It is the operator's configuration with the jobs in front, to another reader as well.
    let text = std::str::from_utf8(&result).unwrap_or_else(|error| panic!("{error}"));
    let text = text.trim_start_matches('\u{feff}');
    let value = base::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let list = value.get("scrape_configs").and_then(Value::as_sequence);
    let first: Vec<Value> = list.into_iter().flatten().take(2).cloned().collect();
    assert_eq!(first, jobs.clone().map(Value::Mapping));
    // It is as good a base as any, but that the names are taken.
    let again = base::insert(&result, &jobs);
    assert!(matches!(again, Err(BaseError::SameName(_))), "{again:?}");
    let more = base::insert(&result, &[job("generated-c")]);
    assert!(more.is_ok(), "{more:?}: {text}");
    assert!(base::insert(bytes, &[]).is_ok());
}

/// Whether `base` is `result` without one piece of it.
fn is_kept(base: &[u8], result: &[u8]) -> bool {
    let same = |(one, other): &(&u8, &u8)| one == other;
    let head = base.iter().zip(result).take_while(same).count();
    let tail = base
        .iter()
        .rev()
        .zip(result.iter().rev())
        .take_while(same)
        .count();
    result.len() > base.len() && head + tail >= base.len()
}

fn job(name: &str) -> Mapping {
    let text = format!(
        "job_name: {name}\nproxy_url: http://10.0.0.1:8080/\nfile_sd_configs:\n- files: [/a.json]\n"
    );
    serde_yaml::from_str(&text).unwrap_or_default()
}

/// A proxy's answer on `/clients`.
pub fn listing(bytes: &[u8]) {
    let Ok(listing) = Listing::parse(bytes) else {
        return;
    };
    let mut entries = Vec::new();
    for (labels, clients) in listing.clients() {
        assert!(!clients.is_empty());
        let mut targets = Vec::new();
        for client in clients {
            let name: Result<Fqdn, _> = client.target.parse();
            let name = name.unwrap_or_else(|error| panic!("{error}: {:?}", client.target));
            assert_eq!(name.to_string().to_ascii_lowercase(), *client.key);
            targets.push(&*client.target);
        }
        entries.push(json!({"targets": targets, "labels": labels}));
    }
    // Written and read again it is the same, and has nothing to leave out.
    let again = serde_json::to_vec(&entries).map(|text| Listing::parse(&text));
    let Ok(Ok(mut again)) = again else {
        panic!("{entries:?} cannot be read");
    };
    assert_eq!(again.unusable, 0);
    again.add_missing(&listing);
    again.unusable = listing.unusable;
    assert_eq!(again, listing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushprox_testkit::seeds;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [("base", base as fn(&[u8])), ("listing", listing)];
        for (target, check) in targets {
            for bytes in [seeds::of(target), seeds::regressions(target)].concat() {
                check(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_base_is_read_right_or_refused(bytes in seeds::near("base")) {
            base(&bytes);
        }

        #[test]
        fn any_listing_is_read_right_or_refused(bytes in seeds::near("listing")) {
            listing(&bytes);
        }
    }
}
