//! What the tests are made of: real programs in child processes, raw HTTP/1.1 over TCP,
//! and the waiting in between.
//!
//! - [`process`] starts a program, keeps its log, signals it and ends it on drop
//! - [`pushprox`] finds this workspace's own binaries and starts them
//! - [`prometheus`], [`node_exporter`], [`nginx`] start Debian's programs
//! - [`wire`] reads and writes HTTP/1.1 messages byte by byte, so that a test sees what a peer sees
//! - [`seeds`] are bytes to try parsers with: recordings, and what lies near them
//! - [`tls`] issues certificates, and has curl use them
//! - [`target`] is a scrape target whose answer a test writes itself
//! - [`hanging`] is a file whose readers wait
//! - [`network`] gives a test hosts of its own whose cables it can cut
//! - [`rest`] holds a program to what it had open and in memory before a fault
//! - [`wait`] waits for a condition, never for a length of time
//!
//! Nothing here returns an error: a step that fails panics, for then the test has failed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a step of a test that fails must fail the test, with a backtrace"
)]

pub mod hanging;
pub mod network;
pub mod nginx;
pub mod node_exporter;
pub mod process;
pub mod prometheus;
pub mod pushprox;
pub mod rest;
pub mod seeds;
pub mod target;
pub mod tls;
pub mod wait;
pub mod wire;
