//! How many files the process may open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the soft limit on open files to the hard one, as Go programs do, and says how many
/// connections that allows. It is given back; none where there is no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(%error, "cannot raise the limit on open files");
            limit.current
        }
    };
    match current {
        Some(files) => info!(
            files,
            connections = connections(files),
            "open files are limited"
        ),
        None => info!("open files are not limited"),
    }
    current
}

/// How many connections so many open files leave room for.
#[must_use]
pub fn connections(files: u64) -> u64 {
    files.saturating_sub(FILES_OF_ITS_OWN).max(files / 2)
}

/// Standard streams, listeners, what the runtime needs, files that are read again, and connections
/// that are only told that there is no room.
const FILES_OF_ITS_OWN: u64 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
