//! Plumbing that the daemons share, so that they start, log, listen, report and stop alike.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line: one-line usage errors, Go's spelling of flags, durations |
//! | [`logging`] | one line per event on stderr, in logfmt or JSON |
//! | [`exit`] | from the result of a run to the code and the line that a process ends with |
//! | [`shutdown`] | signals, the tasks in hand, the grace period |
//! | [`file_limit`] | how many connections the system allows |
//! | [`listen`] | listen addresses in Go's syntax, sockets, the accept loop |
//! | [`metrics`] | the registry, build and process metrics, the exposition formats |
//! | [`admin`] | `/metrics`, `/-/healthy`, `/-/ready` |
//! | [`respond`] | plain answers with a telling reason phrase |

pub mod admin;
pub mod cli;
pub mod exit;
pub mod file_limit;
pub mod listen;
pub mod logging;
pub mod metrics;
mod process;
pub mod respond;
pub mod shutdown;

pub use shutdown::Shutdown;

/// The version of this build.
pub const VERSION: &str = match option_env!("PUSHPROX_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The revision of the source that this build was made from, where the build was told.
pub const REVISION: Option<&str> = option_env!("PUSHPROX_REVISION");
