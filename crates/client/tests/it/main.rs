//! The client against a proxy and targets that are played by hand on bare sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on has failed"
)]

mod answers;
mod at_once;
mod failures;
mod leakage;
mod outage;
mod peers;
mod process;
mod proxy_trouble;
mod rounds;
mod support;
mod tls;
