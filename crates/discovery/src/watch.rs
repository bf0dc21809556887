//! The watch on Kubernetes, the only place that talks to its API: a list, then what changes, for
//! ever, whatever the API server does.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::Response;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource};
use pushprox_daemon::Shutdown;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tower::util::MapResponseLayer;
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, debug, info, warn};

use crate::backoff::Waits;
use crate::index::Event;
use crate::metrics::Metrics;
use crate::slices::{ToSlice, key};
use crate::told::Told;
use crate::trouble::{Place, Trouble};

/// What is watched, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Outside a cluster; inside, the pod's service account tells all.
    pub kubeconfig: Option<PathBuf>,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which services, by their labels.
    pub selector: String,
}

/// There is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not in a pod that has a service account.
    #[error("cannot find the cluster that this pod is in; outside a cluster, give --kubeconfig")]
    InCluster(#[source] kube::config::InClusterError),
    /// The file of `--kubeconfig`.
    #[error("--kubeconfig: cannot use {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Certificates or credentials.
    #[error("cannot set up the connection to the Kubernetes API")]
    Client(#[source] kube::Error),
}

/// Watches until the shutdown begins, and sends what happens.
#[derive(Debug)]
pub struct Watch {
    settings: Settings,
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    waits: Waits,
    told: Told,
}

/// Which kind of object is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slices,
    Endpoints,
}

/// Why a watch has ended.
enum End {
    Trouble(Trouble),
    /// It is time to see whether the better kind can be watched meanwhile.
    TryBetter,
    /// Nobody listens any more.
    Stopped,
}

impl Watch {
    /// A watch that has not begun.
    #[must_use]
    pub fn new(settings: Settings, events: mpsc::Sender<Event>, metrics: Metrics) -> Self {
        Self {
            settings,
            events,
            metrics,
            waits: Waits::new(FIRST_WAIT, LONGEST_WAIT),
            told: Told::default(),
        }
    }

    /// Checks that there is a configuration to reach an API server with.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which waiting would not mend.
    pub async fn check(&self) -> Result<(), ConnectError> {
        self.connect().await.map(drop)
    }

    /// Runs until the shutdown begins.
    pub async fn run(mut self, shutdown: Shutdown) {
        let stopped = shutdown.token().clone();
        tokio::select! {
            () = self.run_for_ever() => {}
            () = stopped.cancelled() => {}
        }
    }

    async fn run_for_ever(&mut self) {
        let mut kind = Kind::Slices;
        loop {
            let started = Instant::now();
            // Anew each time: certificates and credentials may have been replaced.
            let end = match self.connect().await {
                Err(error) => End::Trouble(Trouble::Config(pushprox_daemon::exit::causes(&error))),
                Ok(client) => match kind {
                    Kind::Slices => self.follow::<EndpointSlice>(client, kind).await,
                    Kind::Endpoints => self.follow::<Endpoints>(client, kind).await,
                },
            };
            match end {
                End::Stopped => return,
                End::TryBetter => kind = Kind::Slices,
                End::Trouble(trouble) => {
                    self.tell(&trouble);
                    if trouble.is_of_this_kind() {
                        kind = match kind {
                            Kind::Slices => Kind::Endpoints,
                            Kind::Endpoints => Kind::Slices,
                        };
                    }
                    if started.elapsed() > HEALTHY {
                        self.waits.reset();
                    }
                    sleep(self.waits.after_failure()).await;
                }
            }
        }
    }

    /// Lists and watches one kind of object until something is wrong.
    async fn follow<K>(&mut self, client: Client, kind: Kind) -> End
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + ToSlice,
        K: Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let api: Api<K> = match &self.settings.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let place = Place::new::<K>(self.settings.namespace.as_deref());
        let config = watcher::Config::default()
            .labels(&self.settings.selector)
            .timeout(WATCH_SECONDS);
        let mut stream = pin!(watcher(api, config));
        let better = sleep(TRY_BETTER);
        let mut better = pin!(better);
        let mut is_listing = true;
        loop {
            // kube logs the same troubles again, in words that help nobody who runs this.
            let next = stream.next().with_subscriber(Dispatch::none());
            let next = async {
                // A watch has a limit of its own; a list has none.
                if is_listing {
                    timeout(LIST_LIMIT, next).await
                } else {
                    Ok(next.await)
                }
            };
            let next = tokio::select! {
                next = next => next,
                () = better.as_mut(), if kind == Kind::Endpoints => return End::TryBetter,
            };
            let event = match next {
                Err(_) => return End::Trouble(Trouble::hanging(place)),
                Ok(None) => return End::Trouble(Trouble::ended(place)),
                // Told by an event, this makes the watcher list anew by itself.
                Ok(Some(Err(watcher::Error::WatchError(status)))) if status.code == 410 => {
                    self.tell(&Trouble::Expired);
                    sleep(self.waits.after_failure()).await;
                    continue;
                }
                Ok(Some(Err(error))) => return End::Trouble(Trouble::of_watch(place, &error)),
                Ok(Some(Ok(event))) => event,
            };
            let event = match event {
                watcher::Event::Init => Event::Restarted,
                watcher::Event::InitApply(object) => Event::Listed(key(&object), object.to_slice()),
                watcher::Event::InitDone => Event::Synced,
                watcher::Event::Apply(object) => Event::Applied(key(&object), object.to_slice()),
                watcher::Event::Delete(object) => Event::Deleted(key(&object)),
            };
            match event {
                // The watcher only says that it will list.
                Event::Restarted => is_listing = true,
                Event::Synced => {
                    is_listing = false;
                    self.synced(kind, &place);
                }
                Event::Listed(..) | Event::Applied(..) | Event::Deleted(_) => {
                    self.metrics.contact().note();
                }
            }
            if self.events.send(event).await.is_err() {
                return End::Stopped;
            }
        }
    }

    fn synced(&mut self, kind: Kind, place: &Place) {
        if self.told.is_over() {
            info!(%place, "the Kubernetes API answers again");
        }
        self.metrics
            .fallback
            .set(i64::from(kind == Kind::Endpoints));
        match kind {
            Kind::Slices => debug!(%place, "listed"),
            Kind::Endpoints => {
                warn!(%place, "watching Endpoints, because EndpointSlices cannot be watched")
            }
        }
    }

    fn tell(&mut self, trouble: &Trouble) {
        self.metrics.api_error(trouble.label());
        let text = trouble.to_string();
        if *trouble == Trouble::Expired {
            debug!("{text}");
        } else if self.told.is_news(&text) {
            warn!(error = %text, "the Kubernetes API fails, trying on");
        }
    }

    async fn connect(&self) -> Result<Client, ConnectError> {
        let mut config = match &self.settings.kubeconfig {
            None => Config::incluster().map_err(ConnectError::InCluster)?,
            Some(path) => {
                let wrong = |source| ConnectError::Kubeconfig {
                    path: path.clone(),
                    source,
                };
                let file = Kubeconfig::read_from(path).map_err(wrong)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(wrong)?
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(Duration::from_secs(WATCH_SECONDS.into()) + MARGIN);
        config.reset_reader_on_write = true;
        // This has waits of its own, and knows when to say something.
        config.default_retry = false;
        let contact = self.metrics.contact().clone();
        let note = move |response: Response<_>| {
            if response.status().is_success() {
                contact.note();
            }
            response
        };
        let builder = ClientBuilder::try_from(config).map_err(ConnectError::Client)?;
        Ok(builder.with_layer(&MapResponseLayer::new(note)).build())
    }
}

/// The API server ends a watch after this time, so that a server that hangs is noticed soon after.
const WATCH_SECONDS: u32 = 60;
const MARGIN: Duration = Duration::from_secs(15);
const LIST_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server that comes back is seen at once; kube's own waits need up to 24 s.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A watch that lived as long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
const TRY_BETTER: Duration = Duration::from_secs(300);
