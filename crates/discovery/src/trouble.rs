//! What is wrong with the Kubernetes API, in words that tell the operator what to do.

use std::fmt;

use kube::Resource;
use kube::runtime::watcher;
use pushprox_daemon::exit::causes;

/// A kind of object in one namespace or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As RBAC has it: `endpointslices.discovery.k8s.io`.
    pub resource: String,
    /// The namespace; none for all.
    pub namespace: Option<String>,
}

/// A failure of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// RBAC does not allow it.
    #[error(
        "cannot {verb} {place}: grant the verbs list and watch on it to this service account by a {} ({said})",
        role(place)
    )]
    Forbidden {
        /// What was tried.
        verb: &'static str,
        /// On what.
        place: Place,
        /// What the API server said.
        said: String,
    },
    /// The API server does not know the kind.
    #[error("cannot {verb} {place}: the API server does not have them")]
    Unknown {
        /// What was tried.
        verb: &'static str,
        /// On what.
        place: Place,
    },
    /// The credentials are not valid, or not any more.
    #[error("cannot {verb} {place}: the API server does not accept the credentials ({said})")]
    Unauthorized {
        /// What was tried.
        verb: &'static str,
        /// On what.
        place: Place,
        /// What the API server said.
        said: String,
    },
    /// The API server refuses for another reason.
    #[error("cannot {verb} {place}: the API server answers {code}: {said}")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// On what.
        place: Place,
        /// The status.
        code: u16,
        /// What the API server said.
        said: String,
    },
    /// The API server is not there, or breaks off.
    #[error("cannot {verb} {place}: {said}")]
    Unreachable {
        /// What was tried.
        verb: &'static str,
        /// On what.
        place: Place,
        /// What the system or the library said.
        said: String,
    },
    /// The configuration cannot be read any more.
    #[error("{0}")]
    Config(String),
    /// The watch fell behind: what it missed is to be listed.
    #[error("the watch has fallen behind, listing anew")]
    Expired,
}

impl Place {
    /// Objects of the kind `K`.
    #[must_use]
    pub fn new<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        let (plural, group) = (K::plural(&()), K::group(&()));
        Self {
            resource: if group.is_empty() {
                plural.into_owned()
            } else {
                format!("{plural}.{group}")
            },
            namespace: namespace.map(str::to_owned),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in namespace {namespace}", self.resource),
            None => write!(f, "{} in all namespaces", self.resource),
        }
    }
}

impl Trouble {
    /// What kind of failure a watch has reported.
    #[must_use]
    pub fn of_watch(place: Place, error: &watcher::Error) -> Self {
        let (verb, error) = match error {
            watcher::Error::InitialListFailed(error) => ("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                ("watch", error)
            }
            watcher::Error::WatchError(status) => return Self::of_status("watch", place, status),
            watcher::Error::NoResourceVersion => {
                let said = "its answer has no resourceVersion".to_owned();
                return Self::Unreachable {
                    verb: "list",
                    place,
                    said,
                };
            }
        };
        match error {
            kube::Error::Api(status) => Self::of_status(verb, place, status),
            error => Self::Unreachable {
                verb,
                place,
                said: causes(error),
            },
        }
    }

    /// The API server has not answered in time.
    #[must_use]
    pub fn hanging(place: Place) -> Self {
        Self::Unreachable {
            verb: "list",
            place,
            said: "the API server does not answer".to_owned(),
        }
    }

    /// The watch has ended.
    #[must_use]
    pub fn ended(place: Place) -> Self {
        Self::Unreachable {
            verb: "watch",
            place,
            said: "the watch has ended".to_owned(),
        }
    }

    /// Whether another kind of object may be watched nevertheless.
    #[must_use]
    pub fn is_of_this_kind(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Unknown { .. })
    }

    /// The kind of failure, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::Unknown { .. } => "unknown_kind",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Config(_) => "config",
            Self::Expired => "expired",
        }
    }

    fn of_status(verb: &'static str, place: Place, status: &kube::core::Status) -> Self {
        let said = status.message.clone();
        match status.code {
            401 => Self::Unauthorized { verb, place, said },
            403 => Self::Forbidden { verb, place, said },
            404 => Self::Unknown { verb, place },
            410 => Self::Expired,
            code => Self::Refused {
                verb,
                place,
                code,
                said,
            },
        }
    }
}

fn role(place: &Place) -> &'static str {
    match place.namespace {
        Some(_) => "Role",
        None => "ClusterRole, or name one namespace with --namespace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Endpoints;
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    fn status(transcript: &str) -> Box<kube::core::Status> {
        let (_, body) = transcript.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn real_refusals_say_what_to_do() {
        let forbidden = status(include_str!("../tests/data/kubernetes/forbidden.http"));
        let place = Place::new::<EndpointSlice>(Some("demo"));
        let error = watcher::Error::InitialListFailed(kube::Error::Api(forbidden.clone()));
        let trouble = Trouble::of_watch(place.clone(), &error);
        assert!(trouble.is_of_this_kind());
        let text = trouble.to_string();
        assert!(
            text.starts_with(
                "cannot list endpointslices.discovery.k8s.io in namespace demo: \
                 grant the verbs list and watch on it to this service account by a Role (endpointslices"
            ),
            "{text}"
        );
        let error = watcher::Error::WatchStartFailed(kube::Error::Api(forbidden));
        let text = Trouble::of_watch(Place::new::<Endpoints>(None), &error).to_string();
        assert!(
            text.starts_with("cannot watch endpoints in all namespaces: "),
            "{text}"
        );
        assert!(
            text.contains("ClusterRole, or name one namespace with --namespace"),
            "{text}"
        );

        for (transcript, label) in [
            (
                include_str!("../tests/data/kubernetes/unauthorized.http"),
                "unauthorized",
            ),
            (
                include_str!("../tests/data/kubernetes/list-bad-selector.http"),
                "refused",
            ),
        ] {
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status(transcript)));
            let trouble = Trouble::of_watch(place.clone(), &error);
            assert_eq!(trouble.label(), label);
            assert!(!trouble.is_of_this_kind());
        }
    }

    #[test]
    fn an_expired_watch_is_told_from_others() {
        let text = include_str!("../tests/data/kubernetes/watch-rv1.http");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let event: kube::core::WatchEvent<EndpointSlice> = serde_json::from_str(body).unwrap();
        let kube::core::WatchEvent::Error(status) = event else {
            panic!("{event:?}")
        };
        let error = watcher::Error::WatchError(status);
        let place = Place::new::<EndpointSlice>(None);
        assert_eq!(Trouble::of_watch(place, &error), Trouble::Expired);
    }
}
