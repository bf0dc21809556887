//! Brings files and Prometheus to what is known: writes, has it reloaded, and goes back to the last
//! good configuration when Prometheus refuses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::backoff::Waits;
use crate::base;
use crate::files::Files;
use crate::metrics::Metrics;
use crate::reload::{ReloadError, Reloader};
use crate::render::{Style, jobs};
use crate::source::{Material, Source};
use crate::to_proxies::Reloading;
use crate::told::Told;
use crate::tracker::{Knowledge, Snapshot};
use crate::writer::{self, FileError};

/// What is published, and how.
#[derive(Debug)]
pub struct Settings {
    /// Where the files are.
    pub files: Files,
    /// The operator's configuration; none if the scrape configs get a file of their own.
    pub source: Option<PathBuf>,
    /// Settings for each job.
    pub template: Option<PathBuf>,
    /// What scrape configs look like.
    pub style: Style,
    /// How proxies are spoken to: its URL takes the place of the style's.
    pub to_proxies: Arc<Reloading>,
    /// How Prometheus is told; none if it is not.
    pub reloader: Option<Reloader>,
    /// How often the operator's files are looked at.
    pub resync: Duration,
}

/// Why Prometheus does not have what is known.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The base or the template.
    #[error("{0}")]
    Source(String),
    /// Prometheus.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// Prometheus has refused this before, and nothing has changed since.
    #[error("Prometheus has refused this configuration")]
    StillRefused,
    /// Prometheus had not come up with this configuration and is given the last good one.
    #[error("Prometheus is given its last good configuration until it is up: {0}")]
    HeldBack(ReloadError),
    /// A task has died.
    #[error("a write was given up")]
    Cancelled,
}

/// Publishes what is known.
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    source: Source,
    metrics: Metrics,
    /// The last configuration that Prometheus has taken, as far as one knows.
    good: Option<Arc<[u8]>>,
    /// Whether Prometheus has loaded what is in the target.
    is_loaded: bool,
    refused: Option<Refused>,
    /// Since when Prometheus is down with a configuration that it has never loaded.
    down_since: Option<Instant>,
    /// Whether the target has the last good configuration because of that.
    is_held_back: bool,
    told: Told,
    /// A reload is not waited for while the daemon stops.
    stopped: CancellationToken,
}

#[derive(Debug)]
struct Refused {
    config: Arc<[u8]>,
    /// Rule files and the like may be mended without a change here: it is tried again then.
    until: Instant,
}

impl Publisher {
    /// A publisher that finds the files of another run, or none.
    ///
    /// # Errors
    ///
    /// Files are there and cannot be read.
    pub fn new(
        settings: Settings,
        metrics: Metrics,
        stopped: CancellationToken,
    ) -> Result<Self, FileError> {
        let files = &settings.files;
        let target = writer::read(&files.target)?;
        let good = writer::read(&files.good())?;
        let is_loaded = target.is_some() && target == good;
        Ok(Self {
            source: Source::new(settings.source.clone(), settings.template.clone()),
            good: good.or(target).map(Arc::from),
            is_loaded,
            settings,
            metrics,
            refused: None,
            down_since: None,
            is_held_back: false,
            told: Told::default(),
            stopped,
        })
    }

    /// Publishes what comes until the shutdown begins. `published` is called after each success of
    /// the writing.
    pub async fn run(mut self, mut knowledge: watch::Receiver<Knowledge>, published: impl Fn()) {
        let mut waits = Waits::new(FIRST_WAIT, LONGEST_WAIT);
        let to_proxies = Arc::clone(&self.settings.to_proxies);
        loop {
            let generation = to_proxies.generation();
            let known = knowledge.borrow_and_update().clone();
            let mut wait = self.settings.resync;
            match known {
                Knowledge::Waiting => {}
                Knowledge::Unsynced => self.give_base_alone().await,
                Knowledge::Known(snapshot) => match self.publish(&snapshot).await {
                    Ok(()) => {
                        if self.told.is_over() {
                            info!("Prometheus has all that is known again");
                        }
                        published();
                        waits.reset();
                    }
                    Err(failure) => {
                        if matches!(failure, PublishError::Reload(_)) {
                            published();
                        }
                        wait = waits.after_failure().min(wait);
                        let text = failure.to_string();
                        if self.told.is_news(&text) {
                            error!(error = %text, "Prometheus does not have all that is known, trying on");
                        }
                    }
                },
            }
            tokio::select! {
                () = self.stopped.cancelled() => return,
                () = sleep(wait) => {}
                changed = knowledge.changed() => if changed.is_err() { return },
                () = to_proxies.replaced(generation) => {}
            }
        }
    }

    /// Publishes once.
    ///
    /// # Errors
    ///
    /// Whatever keeps Prometheus from having all of `snapshot`.
    pub async fn publish(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), PublishError> {
        let sd = self.write_sd(snapshot).await;
        let material = self.material(snapshot).await?;
        let config = &material.config;
        if let Some(refused) = &self.refused
            && refused.config == *config
            && Instant::now() < refused.until
        {
            self.stand_by_good(config).await;
            return Err(PublishError::StillRefused);
        }
        if self.is_held_back {
            if let Err(error) = self.ask_to_reload().await
                && error.is_silence()
            {
                return Err(PublishError::HeldBack(error));
            }
            self.is_held_back = false;
        }
        if self.write_target(Arc::clone(config)).await? {
            self.is_loaded = false;
            info!(
                proxies = snapshot.proxies.len(),
                target = %self.settings.files.target.display(),
                "configuration written"
            );
        }
        if !self.is_loaded {
            self.reload(&material).await?;
        }
        sd?;
        self.source.is_good(&material);
        self.refused = None;
        self.metrics.config_refused.set(0);
        self.remove_stale(snapshot).await?;
        if let Some(complaint) = material.complaint {
            return Err(PublishError::Source(complaint));
        }
        self.metrics.succeeded();
        Ok(())
    }

    async fn material(&mut self, snapshot: &Snapshot) -> Result<Material, PublishError> {
        let to_proxies = self.settings.to_proxies.current();
        let style = &self.settings.style.with_url(to_proxies.proxy_url());
        let proxies = snapshot.proxies.iter().map(|(proxy, _)| proxy);
        let material = self.source.make(|base, template| {
            let jobs = jobs(proxies.clone(), style, template);
            match self.settings.source {
                Some(_) => base::insert(base, &jobs),
                None => base::alone(&jobs),
            }
        });
        let material = material.await;
        let made = material.as_ref();
        let is_usable = made.is_ok_and(|material| material.complaint.is_none());
        self.metrics.source_unusable.set(i64::from(!is_usable));
        material.map_err(PublishError::Source)
    }

    /// Has the target reloaded, and deals with what Prometheus says.
    async fn reload(&mut self, material: &Material) -> Result<(), ReloadError> {
        let outcome = self.ask_to_reload().await;
        match &outcome {
            Ok(()) => {
                self.is_loaded = true;
                // Without anybody to ask, nobody has said that it is good.
                if self.settings.reloader.is_some() {
                    self.remember_good(Arc::clone(&material.config)).await;
                }
            }
            Err(ReloadError::Refused(said)) => {
                self.metrics.config_refused.set(1);
                error!(%said, "Prometheus refuses the configuration");
                let until = Instant::now() + TRY_REFUSED;
                // With the base that was good before, proxies still come and go.
                self.source.set_aside(material, until);
                self.refused = Some(Refused {
                    config: Arc::clone(&material.config),
                    until,
                });
                self.stand_by_good(&material.config).await;
            }
            Err(ReloadError::Down(_)) => self.hold_back(material).await,
            // It may be loading this very configuration.
            Err(ReloadError::Unanswered(_) | ReloadError::Unavailable(_)) => {}
        }
        // One that answers has taken what it found when it started.
        if !outcome.as_ref().is_err_and(ReloadError::is_silence) {
            self.down_since = None;
        }
        outcome
    }

    /// Asks Prometheus for a reload, and counts it. Nothing where there is none to ask.
    async fn ask_to_reload(&mut self) -> Result<(), ReloadError> {
        let Some(reloader) = &mut self.settings.reloader else {
            return Ok(());
        };
        let outcome = tokio::select! {
            outcome = reloader.reload() => outcome,
            () = self.stopped.cancelled() => {
                Err(ReloadError::Unanswered("discovery is shutting down".to_owned()))
            }
        };
        match &outcome {
            Ok(()) => info!("Prometheus has reloaded"),
            Err(error) => debug!(%error, "Prometheus has not reloaded"),
        }
        self.metrics
            .reloaded(outcome.as_ref().map_or_else(ReloadError::label, |()| "ok"));
        outcome
    }

    /// Sees to it that Prometheus has its last good configuration instead of a refused one.
    async fn stand_by_good(&mut self, refused: &Arc<[u8]>) {
        let Some(good) = self.good.clone().filter(|good| good != refused) else {
            return;
        };
        match self.write_target(good).await {
            Ok(false) => {}
            Ok(true) => {
                self.is_loaded = false;
                warn!("the last good configuration is put back");
            }
            Err(error) => {
                error!(%error, "cannot put the last good configuration back");
                return;
            }
        }
        if !self.is_loaded {
            self.is_loaded = self.ask_to_reload().await.is_ok();
        }
    }

    /// A Prometheus that is down may be so because it does not start with a configuration that it
    /// has never loaded: after a while it gets the last good one instead.
    async fn hold_back(&mut self, material: &Material) {
        let now = Instant::now();
        let since = *self.down_since.get_or_insert(now);
        if self.is_held_back || now.duration_since(since) < HOLD_BACK {
            return;
        }
        let Some(good) = self.good.clone().filter(|good| *good != material.config) else {
            return;
        };
        match self.write_target(good).await {
            Ok(_) => {
                self.is_held_back = true;
                warn!(
                    "Prometheus is down since its configuration was written, its last good one is put back"
                );
            }
            Err(error) => error!(%error, "cannot put the last good configuration back"),
        }
    }

    /// Prometheus does not start without its file: it gets the operator's own part of it, if there
    /// is nothing from another run.
    async fn give_base_alone(&mut self) {
        if self.settings.files.target.exists() {
            return;
        }
        let written = match self.material(&Snapshot::default()).await {
            Ok(material) => self.write_target(material.config).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(_) => warn!("Prometheus gets its configuration without proxies for now"),
            Err(error) => {
                error!(%error, "cannot give Prometheus its configuration without proxies")
            }
        }
    }

    async fn remember_good(&mut self, config: Arc<[u8]>) {
        self.good = Some(Arc::clone(&config));
        let files = self.settings.files.clone();
        if let Err(error) = self.on_disk(move || files.write_good(&config)).await {
            warn!(%error, "cannot keep a copy of the good configuration");
        }
    }

    async fn write_sd(&self, snapshot: &Arc<Snapshot>) -> Result<(), PublishError> {
        let (files, snapshot) = (self.settings.files.clone(), Arc::clone(snapshot));
        let written = self.on_disk(move || files.write_sd(&snapshot)).await?;
        if written > 0 {
            debug!(files = written, "SD files written");
        }
        Ok(())
    }

    async fn write_target(&mut self, config: Arc<[u8]>) -> Result<bool, PublishError> {
        let files = self.settings.files.clone();
        let written = self.on_disk(move || files.write_target(&config)).await;
        if let Some(reloader) = &mut self.settings.reloader
            && matches!(written, Ok(true))
        {
            reloader.file_changed();
        }
        written
    }

    async fn remove_stale(&self, snapshot: &Arc<Snapshot>) -> Result<(), PublishError> {
        let (files, snapshot) = (self.settings.files.clone(), Arc::clone(snapshot));
        self.on_disk(move || files.remove_stale(&snapshot)).await
    }

    /// Runs work on files beside the runtime's thread. Once begun it is carried to its end, also when
    /// the daemon stops.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, PublishError> {
        let result = match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(PublishError::File),
            Err(_) => Err(PublishError::Cancelled),
        };
        if result.is_err() {
            self.metrics.write_failures.inc();
        }
        result
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// How long a refused configuration is left alone.
const TRY_REFUSED: Duration = Duration::from_secs(300);
/// How long Prometheus may be down with a new configuration.
const HOLD_BACK: Duration = Duration::from_secs(60);
