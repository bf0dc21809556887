//! What must hold of each parser for any bytes whatsoever. The fuzz targets in `fuzz/` and the
//! property tests call the same functions; each panics where a promise is broken.
//!
//! Not part of the crate's interface: the feature `fuzzing` opens it for `fuzz/` alone.

mod messages;
mod texts;

pub use messages::{chunked, instruction, pushed, scrape};
pub use texts::{duration, name, timeout};

/// Places to cut `length` bytes at: all of them where they are few, else some all over.
pub fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(length / 64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pushprox_testkit::seeds;

    #[test]
    fn what_was_found_once_is_not_found_again() {
        let targets = [
            ("chunked", chunked as fn(&[u8])),
            ("duration", duration),
            ("instruction", instruction),
            ("name", name),
            ("pushed", pushed),
            ("scrape", scrape),
            ("timeout", timeout),
        ];
        for (target, check) in targets {
            for bytes in [seeds::of(target), seeds::regressions(target)].concat() {
                check(&bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_chunked_body_is_read_right_or_refused(bytes in seeds::near("chunked")) {
            chunked(&bytes);
        }

        #[test]
        fn any_duration_is_read_right_or_refused(bytes in seeds::near("duration")) {
            duration(&bytes);
        }

        #[test]
        fn any_instruction_is_read_right_or_refused(bytes in seeds::near("instruction")) {
            instruction(&bytes);
        }

        #[test]
        fn any_name_is_read_right_or_refused(bytes in seeds::near("name")) {
            name(&bytes);
        }

        #[test]
        fn any_pushed_response_is_read_right_or_refused(bytes in seeds::near("pushed")) {
            pushed(&bytes);
        }

        #[test]
        fn any_scrape_is_read_right_or_refused(bytes in seeds::near("scrape")) {
            scrape(&bytes);
        }

        #[test]
        fn any_timeout_is_read_right_or_refused(bytes in seeds::near("timeout")) {
            timeout(&bytes);
        }
    }
}
