//! `--metrics-addr`: where a daemon serves its own pages that has nothing else to listen for.

use std::str::FromStr;
use std::sync::Arc;

use tracing::{info, warn};

use crate::Shutdown;
use crate::listen::{AddressError, ListenAddress};
use crate::metrics::Registry;
use crate::web::Web;

/// The value of `--metrics-addr`, where nothing means nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsAddress(pub Option<ListenAddress>);

impl FromStr for MetricsAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text {
            "" => Ok(Self(None)),
            _ => text.parse().map(|address| Self(Some(address))),
        }
    }
}

/// Has the pages served at `address`, as `web` has it, until the shutdown begins.
///
/// A port that is taken is told, and keeps nobody from being scraped: several daemons may run on a
/// machine.
pub async fn serve(
    address: &ListenAddress,
    mut registry: Registry,
    ready: impl Fn() -> bool + Send + Sync + 'static,
    web: Web,
    shutdown: &Shutdown,
) {
    let listener = match address.bind().await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "this program runs without its own /metrics");
            return;
        }
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "listening");
    }
    web.guard.register(&mut registry);
    let web = Arc::new(web);
    let (watched, until) = (Arc::clone(&web), shutdown.clone());
    shutdown.spawn(async move { watched.watch(until).await });
    let registry = Arc::new(registry);
    shutdown.spawn(super::serve_on(
        listener,
        registry,
        ready,
        web,
        shutdown.clone(),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_nowhere() {
        assert_eq!("".parse(), Ok(MetricsAddress(None)));
        let address = ":9369".parse().unwrap();
        assert_eq!(":9369".parse(), Ok(MetricsAddress(Some(address))));
        assert_eq!("x".parse::<MetricsAddress>(), Err(AddressError::Syntax));
    }
}
