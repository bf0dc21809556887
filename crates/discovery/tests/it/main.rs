//! The real `discovery` against an API server that speaks the real protocol, against proxies and
//! against a real Prometheus.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod api;
mod cli;
mod killed;
#[cfg(feature = "test-kubernetes")]
mod kubernetes;
mod manifests;
mod prometheus;
mod promtool;
mod proxies;
mod reload;
mod scale;
mod secured;
mod support;
mod tls;
