//! What the tests are made of: an API server, proxies, a Prometheus that only reloads, and a bench
//! that starts discovery among them.

pub mod api;
pub mod bench;
pub mod mounts;
pub mod reloads;
pub mod roster;
pub mod server;
pub mod tls;
