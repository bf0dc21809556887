//! Plumbing that the daemons share, so that they start, log, listen, report and stop alike.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the command line: one-line usage errors, Go's spelling of flags, durations |
//! | [`logging`] | one line per event on stderr, in logfmt or JSON |
//! | [`exit`] | from the result of a run to the code and the line that a process ends with |
//! | [`runtime`] | the event loop, from the start to the end |
//! | [`shutdown`] | signals, the tasks in hand, the grace period |
//! | [`systemd`] | sockets that systemd hands over, and what it is told |
//! | [`file_limit`] | how many connections the system allows |
//! | [`listen`] | listen addresses in Go's syntax, sockets, the accept loop |
//! | [`metrics`] | the registry, build and process metrics, the exposition formats |
//! | [`own_pages`] | `/metrics`, `/-/healthy`, `/-/ready`; `--metrics-addr` |
//! | [`respond`] | plain answers with a telling reason phrase |
//! | [`config_file`], [`reload`] | strict YAML files, read again when they change |
//! | [`web_config`], [`web`] | `--web.config.file`: TLS, users, headers, a rate limit; and how they apply |
//! | [`guard`], [`credentials`], [`passwords`], `attempts`, `rate` | who proves what, and how often it may try |
//! | [`trusted`], [`pinned`], [`san`] | certificates to trust, by others or themselves; names in certificates |
//! | [`secret`], `digest` | texts that are not shown, and what is kept in their place |

mod attempts;
pub mod cli;
pub mod config_file;
pub mod credentials;
mod digest;
pub mod exit;
pub mod file_limit;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod guard;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod own_pages;
pub mod passwords;
pub mod pinned;
mod process;
mod rate;
mod recent;
pub mod reload;
pub mod respond;
pub mod runtime;
pub mod san;
pub mod secret;
pub mod shutdown;
pub mod systemd;
pub mod trusted;
pub mod web;
pub mod web_config;

pub use shutdown::Shutdown;

/// The version of this build.
pub const VERSION: &str = match option_env!("PUSHPROX_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The revision of the source that this build was made from, where the build was told.
pub const REVISION: Option<&str> = option_env!("PUSHPROX_REVISION");
