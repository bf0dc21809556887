//! The hub: takes in what Kubernetes says and what proxies answer, and hands on what Prometheus is
//! to know.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pushprox_daemon::Shutdown;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::{debug, info, warn};

use crate::answers::Answers;
use crate::fetch::{FetchError, Fetcher};
use crate::index::{Event, Found, Index, Proxy};
use crate::listing::Listing;
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::render;

/// What Prometheus is to know.
#[derive(Debug, Clone, Default)]
pub enum Knowledge {
    /// Nothing yet.
    #[default]
    Waiting,
    /// Nothing, and Kubernetes has had its time to answer.
    Unsynced,
    /// These proxies.
    Known(Arc<Snapshot>),
}

/// All proxies at a moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The proxies in the order of their addresses, with the content of their SD files; without one
    /// where Prometheus asks them itself.
    pub proxies: Vec<(Proxy, Option<Vec<u8>>)>,
}

/// When what happens.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How often each proxy is asked.
    pub resync: Duration,
    /// How long Kubernetes has for its first list.
    pub sync_timeout: Duration,
}

/// The hub's state.
#[derive(Debug)]
pub struct Tracker {
    index: Index,
    found: Found,
    answers: Answers,
    placement: Placement,
    /// None where Prometheus asks the proxies itself.
    fetcher: Option<Fetcher>,
    times: Times,
    metrics: Metrics,
    knowledge: watch::Sender<Knowledge>,
    /// Being asked now.
    asking: BTreeSet<SocketAddr>,
    to_ask: Vec<SocketAddr>,
    /// Since when something is known that is not handed on.
    changed: Option<Instant>,
    /// When that is handed on.
    publish_at: Option<Instant>,
    is_published: bool,
    /// Until when the first publication waits for proxies that do not answer.
    patience: Option<Instant>,
}

impl Tracker {
    /// A tracker that knows nothing.
    #[must_use]
    pub fn new(
        index: Index,
        fetcher: Option<Fetcher>,
        times: Times,
        metrics: Metrics,
        knowledge: watch::Sender<Knowledge>,
    ) -> Self {
        Self {
            index,
            found: Found::default(),
            answers: Answers::default(),
            placement: Placement::default(),
            fetcher,
            times,
            metrics,
            knowledge,
            asking: BTreeSet::new(),
            to_ask: Vec::new(),
            changed: None,
            publish_at: None,
            is_published: false,
            patience: None,
        }
    }

    /// Takes over what another run had found out of a proxy.
    pub fn restore(&mut self, proxy: SocketAddr, listing: Listing) {
        self.placement.remember(proxy, &listing);
        self.answers.restore(proxy, listing, Instant::now());
    }

    /// Runs until the shutdown begins.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, shutdown: Shutdown) {
        let start = Instant::now();
        let mut resync = interval_at(start + self.times.resync, self.times.resync);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sync_deadline = Some(start + self.times.sync_timeout);
        let mut questions = FuturesUnordered::new();
        loop {
            let again = self.answers.next_question();
            let wake = [
                self.publish_at,
                self.patience,
                again.map(|(at, _)| at),
                sync_deadline,
            ]
            .into_iter()
            .flatten()
            .min();
            let sleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => match event {
                    Some(event) => self.heard(event),
                    None => return,
                },
                Some((proxy, answer)) = questions.next(), if !questions.is_empty() => {
                    self.answered(proxy, answer);
                }
                _ = resync.tick() => self.to_ask.extend(self.found.ready.keys()),
                () = sleep => {}
            }
            let now = Instant::now();
            if self.index.is_synced() {
                sync_deadline = None;
            } else if sync_deadline.is_some_and(|deadline| now >= deadline) {
                sync_deadline = None;
                self.is_late();
            }
            if let Some((at, proxy)) = again.filter(|(at, _)| *at <= now) {
                debug!(%proxy, ?at, "asking a young proxy again");
                self.answers.asking_again(proxy);
                self.to_ask.push(proxy);
            }
            for proxy in std::mem::take(&mut self.to_ask) {
                if let Some(fetcher) = &self.fetcher
                    && self.found.ready.contains_key(&proxy)
                    && self.asking.insert(proxy)
                {
                    let fetcher = fetcher.clone();
                    questions.push(async move { (proxy, fetcher.clients(proxy).await) });
                }
            }
            if self.patience.is_some_and(|at| at <= now) {
                self.has_waited_enough(now);
            }
            let failing = count(self.answers.failing());
            self.metrics.proxies_failing.set(failing);
            if self.publish_at.is_some_and(|at| at <= now) {
                self.publish();
            }
        }
    }

    fn heard(&mut self, event: Event) {
        self.index.apply(event);
        // A list may take a while; what was known before it stays until it is complete.
        if !self.index.is_synced() || self.index.is_listing() {
            return;
        }
        let found = self.index.found();
        for problem in found.problems.difference(&self.found.problems) {
            warn!(%problem, "a service cannot be used");
        }
        if found.ready == self.found.ready && self.is_published {
            self.answers.keep(&found.known);
            self.found = found;
            return;
        }
        let now = Instant::now();
        for (address, proxy) in &found.ready {
            if !self.found.ready.contains_key(address) {
                let Proxy {
                    namespace, service, ..
                } = proxy;
                info!(proxy = %address, namespace, service, "proxy found");
                self.answers.appeared(*address, now);
                self.to_ask.push(*address);
            }
        }
        for address in self.found.ready.keys() {
            if !found.ready.contains_key(address) {
                info!(proxy = %address, "proxy gone");
            }
        }
        self.answers.keep(&found.known);
        self.metrics.proxies.set(count(found.ready.len()));
        self.found = found;
        self.has_changed(now);
    }

    fn answered(&mut self, proxy: SocketAddr, answer: Result<Listing, FetchError>) {
        self.asking.remove(&proxy);
        if !self.found.known.contains(&proxy) {
            return;
        }
        let now = Instant::now();
        let has_changed = match answer {
            Ok(listing) => {
                debug!(%proxy, clients = listing.len(), "asked");
                if listing.unusable > 0 {
                    debug!(%proxy, count = listing.unusable, "names or labels that Prometheus could not use");
                }
                self.answers.answered(proxy, listing, now)
            }
            Err(error) => {
                self.metrics.fetch_failures.inc();
                if self.answers.is_failing(&proxy) {
                    debug!(%proxy, %error, "still no clients from a proxy");
                } else {
                    warn!(%proxy, %error, "no clients from a proxy, keeping those it had");
                }
                self.answers.failed(proxy, now)
            }
        };
        if has_changed {
            self.has_changed(now);
        }
    }

    fn has_changed(&mut self, now: Instant) {
        // A rolling update is many changes; the last of them may be waited for, but not for ever.
        let changed = *self.changed.get_or_insert(now);
        self.publish_at = Some((now + QUIET).min(changed + LONGEST_DELAY));
        // Nobody is to be told half of it at the start: each proxy is asked first.
        if !self.is_published && self.fetcher.is_some() {
            self.patience.get_or_insert(now + PATIENCE);
            let is_asked = |address| self.answers.listing(address).is_some();
            self.publish_at = self.found.ready.keys().all(is_asked).then_some(now);
        }
    }

    /// Proxies that are still silent count as failing: what another run knew of them serves.
    fn has_waited_enough(&mut self, now: Instant) {
        self.patience = None;
        for address in self.found.ready.keys() {
            if self.answers.listing(address).is_none() {
                self.answers.failed(*address, now);
            }
        }
        self.publish_at = Some(now);
    }

    fn publish(&mut self) {
        self.changed = None;
        self.publish_at = None;
        self.patience = None;
        self.is_published = true;
        if self.found.ready.is_empty() {
            warn!("there is no ready proxy");
        }
        let proxies = if self.fetcher.is_some() {
            self.place()
        } else {
            let proxies = self.found.ready.values();
            proxies.map(|proxy| (proxy.clone(), None)).collect()
        };
        let snapshot = Snapshot { proxies };
        let is_new = match &*self.knowledge.borrow() {
            Knowledge::Known(old) => **old != snapshot,
            Knowledge::Waiting | Knowledge::Unsynced => true,
        };
        if is_new {
            self.knowledge
                .send_replace(Knowledge::Known(Arc::new(snapshot)));
        }
    }

    fn place(&mut self) -> Vec<(Proxy, Option<Vec<u8>>)> {
        let listings = self
            .found
            .ready
            .keys()
            .filter_map(|address| Some((*address, self.answers.listing(address)?)))
            .collect();
        let placed = self.placement.place(&listings);
        let clients: usize = placed
            .values()
            .flat_map(|placed| placed.values())
            .map(Vec::len)
            .sum();
        let unusable: usize = listings.values().map(|listing| listing.unusable).sum();
        self.metrics.clients.set(count(clients));
        self.metrics.clients_unusable.set(count(unusable));
        placed
            .iter()
            .filter_map(|(address, placed)| {
                let proxy = self.found.ready.get(address)?;
                Some((proxy.clone(), Some(render::sd_file(proxy, placed))))
            })
            .collect()
    }

    fn is_late(&self) {
        warn!(
            waited = ?self.times.sync_timeout,
            "Kubernetes has not said yet which proxies there are"
        );
        self.knowledge.send_if_modified(|knowledge| {
            let is_waiting = matches!(knowledge, Knowledge::Waiting);
            if is_waiting {
                *knowledge = Knowledge::Unsynced;
            }
            is_waiting
        });
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
