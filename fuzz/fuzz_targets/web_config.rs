#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pushprox_daemon::fuzzing::web_config(bytes));
