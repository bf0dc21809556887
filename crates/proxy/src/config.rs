//! What the proxy runs with, after the command line has been checked.

use std::time::Duration;

use pushprox_protocol::timeout::ScrapeTimeouts;

use crate::cli::Args;
use crate::limits::Limits;

/// The proxy's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bounds on a scrape's time.
    pub scrape_timeouts: ScrapeTimeouts,
    /// How long a name outlives its last poll.
    pub registration_timeout: Duration,
    /// The longest that a poll is held open, if there is one.
    pub poll_max_wait: Option<Duration>,
    /// What is borne of peers.
    pub limits: Limits,
    /// How long scrapes in flight may take to finish at the end.
    pub shutdown_grace_period: Duration,
}

impl Default for Config {
    /// What the command line comes to without any flag.
    fn default() -> Self {
        Self {
            scrape_timeouts: ScrapeTimeouts::default(),
            registration_timeout: Duration::from_secs(300),
            poll_max_wait: None,
            limits: Limits::default(),
            shutdown_grace_period: Duration::from_secs(10),
        }
    }
}

impl From<&Args> for Config {
    fn from(args: &Args) -> Self {
        Self {
            scrape_timeouts: ScrapeTimeouts {
                default: args.scrape_default_timeout,
                max: args.scrape_max_timeout,
            },
            registration_timeout: args.registration_timeout,
            poll_max_wait: Some(args.poll_max_wait).filter(|wait| !wait.is_zero()),
            limits: args.limits,
            shutdown_grace_period: args.shutdown_grace_period,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        let typed = Config::from(&Args::parse_from(["proxy"]));
        assert_eq!(format!("{typed:?}"), format!("{:?}", Config::default()));
    }
}
