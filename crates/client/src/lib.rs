//! The client: fetches metrics for a Prometheus that cannot reach them.
//!
//! [`poller`] keeps one [`poll`] open at the proxy. Each scrape that comes back becomes a task of
//! [`executor`]: [`scraper`] asks the pull URL, [`answer`] turns what comes, or what went wrong,
//! into the body of a push, and [`pusher`] takes that to the proxy while it is still coming in
//! ([`target_body`]). The two legs have HTTP clients, certificates and credentials of their own
//! ([`leg`], [`http`]), so that nothing of one reaches the other.
//!
//! The client ends with a signal, never because of what a peer does.

pub mod answer;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod error;
pub mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hostname;
pub mod http;
pub mod in_hand;
pub mod leg;
pub mod metrics;
pub mod poll;
pub mod poller;
pub mod proxy_url;
pub mod pull_url;
pub mod pusher;
pub mod readiness;
pub mod repeatable;
pub mod scraper;
pub mod target_body;
pub mod trouble;
pub mod urls;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pushprox_daemon::metrics::Registry;
use pushprox_daemon::web::Web;
use pushprox_daemon::{Shutdown, own_pages, systemd};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::executor::Executor;
use crate::metrics::Metrics;
use crate::poll::Polls;
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
    let web = Web::load(config.web_config)?;
    shutdown.spawn(config.to_proxy.clone().watch(shutdown.clone()));
    shutdown.spawn(config.to_target.clone().watch(shutdown.clone()));
    let fqdn = match config.fqdn {
        Some(fqdn) => fqdn,
        None => match shutdown.token().run_until_cancelled(hostname::fqdn()).await {
            Some(fqdn) => fqdn?,
            None => {
                info!("client stopped");
                return Ok(());
            }
        },
    };
    let mut registry = Registry::new();
    let metrics = Metrics::register(&mut registry);
    let readiness = Arc::new(Readiness::new());
    if let Some(address) = &config.metrics_address {
        let readiness = Arc::clone(&readiness);
        let ready = move || readiness.is_ready(Instant::now());
        own_pages::serve(address, registry, ready, web, &shutdown).await;
    }
    info!(
        version = pushprox_daemon::VERSION,
        %fqdn,
        proxy_url = %config.proxy_url,
        pull_url = %config.pull_url,
        "client started"
    );
    let give_up = CancellationToken::new();
    let executor = Arc::new(Executor {
        fqdn: fqdn.clone(),
        scraper: Scraper::new(config.to_target, config.pull_url, config.pull_token),
        pusher: Pusher::new(config.to_proxy.clone(), config.proxy_url.clone()),
        timeouts: config.timeouts,
        metrics: metrics.clone(),
        trouble: Mutex::default(),
        give_up: give_up.clone(),
    });
    systemd::attend(&shutdown);
    systemd::ready();
    let polls = Polls::new(
        config.to_proxy,
        config.proxy_url,
        &fqdn,
        config.poll_wait,
        Arc::clone(&readiness),
    );
    let backoff = Backoff::new(config.retry_initial_wait, config.retry_max_wait);
    Poller::new(polls, backoff, readiness, metrics)
        .run(executor, &shutdown)
        .await;
    let grace_is_over = async {
        tokio::time::sleep(config.grace_period).await;
        give_up.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = shutdown.drain(config.grace_period + LAST_WORDS) => {}
        () = grace_is_over => {}
    }
    info!("client stopped");
    Ok(())
}

/// For telling the proxy about the scrapes that the grace period was too short for.
const LAST_WORDS: Duration = Duration::from_secs(1);
