//! The proxy in one process with its test, spoken to in raw bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    reason = "a helper of a test may fail as the test itself does"
)]

mod clients;
mod delivery;
mod limits;
mod overload;
mod parking;
mod poll;
mod push;
mod rounds;
mod scrape;
mod shutdown;
mod support;
mod wire;
