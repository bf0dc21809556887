//! Discovery: runs beside Prometheus in Kubernetes, and keeps its configuration up to date with
//! every proxy and every client.
//!
//! What flows, from left to right, each arrow a channel that holds no more than it must:
//!
//! ```text
//! watch ──events──▶ tracker ──the newest snapshot──▶ publish ──▶ files, Prometheus
//!                      ▲ │
//!           answers ───┘ └──▶ questions to proxies (fetch)
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`cli`], [`config`], [`urls`] | the flags, and what they come to |
//! | [`watch`], [`trouble`], [`slices`] | the Kubernetes API: events, and what is wrong with it |
//! | [`index`] | pure: events to the set of proxies |
//! | [`to_proxies`] | how proxies are spoken to, out of files that may change |
//! | [`fetch`], [`listing`], [`answers`] | asking proxies; what they say; the last good of it |
//! | [`placement`] | pure: which proxy a client is scraped through |
//! | [`tracker`] | the hub: what is known, and when it is handed on |
//! | [`render`], [`template`], [`base`] | pure: scrape configs, and their way into the operator's text |
//! | [`source`], [`files`], [`writer`] | the files that are read and written, whole at any moment |
//! | [`reload`], [`publish`] | Prometheus: reload, refusal, the way back |

pub mod answers;
pub mod backoff;
pub mod base;
pub mod cli;
pub mod config;
pub mod fetch;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod index;
pub mod listing;
pub mod metrics;
pub mod placement;
pub mod publish;
pub mod reload;
pub mod render;
pub mod slices;
pub mod source;
pub mod template;
pub mod to_proxies;
pub mod told;
pub mod tracker;
pub mod trouble;
pub mod urls;
pub mod watch;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pushprox_daemon::metrics::Registry;
use pushprox_daemon::web::Web;
use pushprox_daemon::{Shutdown, own_pages, systemd};
use tokio::sync::{mpsc, watch as latest};
use tracing::info;

use crate::config::Config;
use crate::index::Index;
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::tracker::{Knowledge, Tracker};
use crate::watch::Watch;

/// Runs until the shutdown begins, or once.
///
/// # Errors
///
/// It could not start, or has ended by itself; and of a single run, whatever keeps Prometheus from
/// having it all.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut registry = Registry::new();
    let metrics = Metrics::register(&mut registry);
    let web = Web::load(config.web_config)?;
    let (events, heard) = mpsc::channel(EVENTS);
    let (knowledge, known) = latest::channel(Knowledge::default());
    let watch = Watch::new(config.watch, events, metrics.clone());
    watch.check().await?;
    let mut tracker = Tracker::new(
        Index::new(config.port),
        config.fetcher,
        config.times,
        metrics.clone(),
        knowledge,
    );
    for (proxy, listing) in config.publish.files.listings() {
        tracker.restore(proxy, listing);
    }
    let publisher = Publisher::new(config.publish, metrics, shutdown.token().clone())?;
    let is_ready = Arc::new(AtomicBool::new(false));
    if let Some(address) = config.metrics_address.filter(|_| !config.once) {
        let is_ready = Arc::clone(&is_ready);
        let ready = move || is_ready.load(Ordering::Relaxed);
        own_pages::serve(&address, registry, ready, web, &shutdown).await;
    }
    info!(version = pushprox_daemon::VERSION, "discovery started");
    shutdown.spawn(config.to_proxies.watch(shutdown.clone()));
    shutdown.spawn(shutdown.essential("watch", watch.run(shutdown.clone())));
    shutdown.spawn(shutdown.essential("tracker", tracker.run(heard, shutdown.clone())));
    let result = if config.once {
        let result = once(publisher, known, &shutdown).await;
        shutdown.begin();
        result
    } else {
        systemd::attend(&shutdown);
        let published = move || {
            if !is_ready.swap(true, Ordering::Relaxed) {
                systemd::ready();
            }
        };
        shutdown.spawn(shutdown.essential("publisher", publisher.run(known, published)));
        shutdown.cancelled().await;
        Ok(())
    };
    shutdown.drain(GRACE_PERIOD).await;
    info!("discovery stopped");
    shutdown.outcome()?;
    result
}

async fn once(
    mut publisher: Publisher,
    mut known: latest::Receiver<Knowledge>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let told = known.wait_for(|knowledge| !matches!(knowledge, Knowledge::Waiting));
    let knowledge = tokio::select! {
        told = told => told.map(|knowledge| knowledge.clone()).unwrap_or_default(),
        () = shutdown.cancelled() => anyhow::bail!("stopped before everything was done"),
    };
    let Knowledge::Known(snapshot) = knowledge else {
        anyhow::bail!("Kubernetes has not said in time which proxies there are");
    };
    publisher.publish(&snapshot).await?;
    Ok(())
}

/// Events that may wait; the watch waits when there are more.
const EVENTS: usize = 64;
const GRACE_PERIOD: Duration = Duration::from_secs(5);
