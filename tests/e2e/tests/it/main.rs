//! The real binaries on loopback, with the programs that they are made for around them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod attacks;
mod behind_nginx;
mod big;
mod broken;
mod cable;
mod cli;
mod credentials;
mod examples;
mod faults;
mod hostile;
mod left_out;
mod mended;
mod mixes;
mod observe;
mod prometheus;
mod readme;
mod restart;
mod rotation;
mod scrape;
mod secured;
mod shutdown;
mod systemd;
mod tls;
