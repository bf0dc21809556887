//! The client: fetches metrics for a Prometheus that cannot reach them.
//!
//! [`poller`] keeps one poll open at the proxy. Each scrape that comes back becomes a task of
//! [`executor`]: [`scraper`] asks the pull URL, [`answer`] turns what comes, or what went wrong,
//! into the body of a push, and [`pusher`] takes that to the proxy while it is still coming in. The
//! two legs have HTTP clients of their own ([`http`]), so that nothing of one reaches the other.
//!
//! The client ends with a signal, never because of what a peer does.

pub mod answer;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod error;
pub mod executor;
pub mod hostname;
pub mod http;
pub mod metrics;
pub mod poller;
pub mod proxy_url;
pub mod pull_url;
pub mod pusher;
pub mod readiness;
pub mod scraper;
pub mod urls;

use std::sync::Arc;

use anyhow::Context as _;
use pushprox_daemon::listen::ListenAddress;
use pushprox_daemon::metrics::Registry;
use pushprox_daemon::{Shutdown, admin};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::executor::Executor;
use crate::http::ToTarget;
use crate::metrics::Metrics;
use crate::poller::Poller;
use crate::pusher::Pusher;
use crate::readiness::Readiness;
use crate::scraper::Scraper;

/// Runs a client until the shutdown begins and the scrapes in hand are done.
///
/// # Errors
///
/// It could not start: no usable name, or certificates that cannot be used.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let to_proxy = http::to_proxy(&config.proxy_url, &config.tls)?;
    let to_target = ToTarget::new()?;
    to_target
        .client(&config.pull_url.for_scrape(None))
        .context("cannot set up TLS with the system's certificates")?;
    let fqdn = match config.fqdn {
        Some(fqdn) => fqdn,
        None => hostname::fqdn().await?,
    };
    let mut registry = Registry::new();
    let metrics = Metrics::register(&mut registry);
    let readiness = Arc::new(Readiness::new());
    if let Some(address) = &config.metrics_address {
        serve_own_pages(address, registry, &readiness, &shutdown).await;
    }
    info!(
        version = pushprox_daemon::VERSION,
        %fqdn,
        proxy_url = %config.proxy_url,
        pull_url = %config.pull_url,
        "client started"
    );
    let executor = Arc::new(Executor {
        scraper: Scraper::new(to_target, config.pull_url, config.pull_token),
        pusher: Pusher::new(to_proxy.clone(), config.proxy_url.clone()),
        timeouts: config.timeouts,
        metrics: metrics.clone(),
    });
    Poller::new(
        to_proxy,
        config.proxy_url,
        &fqdn,
        config.poll_wait,
        Backoff::new(config.retry_initial_wait, config.retry_max_wait),
        readiness,
        metrics,
    )
    .run(executor, &shutdown)
    .await;
    shutdown.drain(config.grace_period).await;
    info!("client stopped");
    Ok(())
}

/// A port that is taken keeps nobody from being scraped: several clients may run on a machine.
async fn serve_own_pages(
    address: &ListenAddress,
    registry: Registry,
    readiness: &Arc<Readiness>,
    shutdown: &Shutdown,
) {
    match address.bind().await {
        Ok(listener) => {
            if let Ok(address) = listener.local_addr() {
                info!(%address, "serving own pages");
            }
            let readiness = Arc::clone(readiness);
            let ready = move || readiness.is_ready(Instant::now());
            shutdown.spawn(admin::serve(
                listener,
                Arc::new(registry),
                ready,
                shutdown.clone(),
            ));
        }
        Err(error) => warn!(%error, "the client runs without its own /metrics"),
    }
}
