//! From what Kubernetes says of endpoints to the set of proxies: pure, fed one event after another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One EndpointSlice or Endpoints object, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The namespace of the service.
    pub namespace: String,
    /// The name of the service.
    pub service: String,
    /// Endpoints that share their ports: one group in an EndpointSlice, one per subset in an
    /// Endpoints object.
    pub groups: Vec<Group>,
}

/// Endpoints with the ports that each of them has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// TCP ports.
    pub ports: Vec<Port>,
    /// Addresses.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Empty where the service's only port has no name.
    pub name: String,
    /// The port that the pod listens on.
    pub number: u16,
}

/// An address of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// Whether traffic should go there.
    pub is_ready: bool,
    /// What tells the pod from others; it has an address per family.
    pub pod: Option<String>,
}

/// Namespace and name of an object.
pub type Key = (String, String);

/// What happened in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A list of everything begins.
    Restarted,
    /// An object of that list.
    Listed(Key, Slice),
    /// The list is complete: what is not in it is gone.
    Synced,
    /// An object is new or has changed.
    Applied(Key, Slice),
    /// An object is gone.
    Deleted(Key),
}

/// Which of a proxy's ports is asked, from `--port`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PortChoice {
    /// The one named `http`, or the only one.
    #[default]
    Http,
    /// The one of this name.
    Name(String),
    /// This one, whether or not the service has it.
    Number(u16),
}

/// A proxy that is ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// The namespace of its service.
    pub namespace: String,
    /// The name of its service.
    pub service: String,
}

/// What the index knows at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The proxies that are ready, each once, by their addresses.
    pub ready: BTreeMap<SocketAddr, Proxy>,
    /// The addresses of those that exist, ready or not.
    pub known: BTreeSet<SocketAddr>,
    /// What the operator should mend, in words.
    pub problems: BTreeSet<String>,
}

/// The objects that exist.
#[derive(Debug, Default)]
pub struct Index {
    port: PortChoice,
    slices: BTreeMap<Key, Slice>,
    /// The list that is under way.
    listing: Option<BTreeMap<Key, Slice>>,
    is_synced: bool,
}

impl Index {
    /// An index that knows nothing yet.
    #[must_use]
    pub fn new(port: PortChoice) -> Self {
        Self {
            port,
            ..Self::default()
        }
    }

    /// Takes an event in. While a list is under way, what was known before it stays.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Restarted => self.listing = Some(BTreeMap::new()),
            Event::Listed(key, slice) => {
                self.listing.get_or_insert_default().insert(key, slice);
            }
            Event::Synced => {
                self.slices = self.listing.take().unwrap_or_default();
                self.is_synced = true;
            }
            Event::Applied(key, slice) => {
                self.slices.insert(key, slice);
            }
            Event::Deleted(key) => {
                self.slices.remove(&key);
            }
        }
    }

    /// Whether there was a complete list.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Whether a list is under way.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// The proxies.
    ///
    /// A pod with an address of each family is one proxy, and so is one that several slices or
    /// services have; it counts as ready if one of them says so.
    #[must_use]
    pub fn found(&self) -> Found {
        let mut found = Found::default();
        // The first of a pod's addresses in this order stands for it: ready, then IPv4, then the
        // lowest, then the first service by name.
        let mut candidates = BTreeSet::new();
        for slice in self.slices.values() {
            for group in &slice.groups {
                if group.endpoints.is_empty() {
                    continue;
                }
                let port = match self.port.pick(&group.ports) {
                    Ok(port) => port,
                    Err(problem) => {
                        let Slice {
                            namespace, service, ..
                        } = slice;
                        found
                            .problems
                            .insert(format!("service {namespace}/{service} {problem}"));
                        continue;
                    }
                };
                for endpoint in &group.endpoints {
                    let address = SocketAddr::new(endpoint.ip, port);
                    found.known.insert(address);
                    candidates.insert((
                        !endpoint.is_ready,
                        address,
                        &slice.namespace,
                        &slice.service,
                        &endpoint.pod,
                    ));
                }
            }
        }
        let mut pods = BTreeSet::new();
        for (is_unready, address, namespace, service, pod) in candidates {
            if is_unready {
                break;
            }
            if let Some(pod) = pod
                && !pods.insert((pod, address.port()))
            {
                continue;
            }
            found.ready.entry(address).or_insert_with(|| Proxy {
                address,
                namespace: namespace.clone(),
                service: service.clone(),
            });
        }
        found
    }
}

impl PortChoice {
    fn pick(&self, ports: &[Port]) -> Result<u16, String> {
        let named = |name: &str| ports.iter().find(|port| port.name == name);
        let listed = || {
            let names = ports.iter().map(|port| match port.name.as_str() {
                "" => port.number.to_string(),
                name => name.to_owned(),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(name) => named(name).map(|port| port.number).ok_or_else(|| {
                format!("has no port named {name:?} (--port), it has: {}", listed())
            }),
            Self::Http => match (named("http"), ports) {
                (Some(port), _) => Ok(port.number),
                (None, [port]) => Ok(port.number),
                (None, []) => Err("has no TCP port; give the proxy's with --port".to_owned()),
                (None, _) => Err(format!(
                    "has several ports and none is named http: say which with --port ({})",
                    listed()
                )),
            },
        }
    }
}

impl FromStr for PortChoice {
    type Err = String;

    /// A number from 1 to 65535, or a port's name as Kubernetes has them.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match text.parse::<u16>() {
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            _ if text.bytes().any(|byte| byte.is_ascii_lowercase())
                && text.bytes().all(is_name) =>
            {
                Ok(Self::Name(text.to_owned()))
            }
            _ => Err("it is no port; write its name, such as http, or its number".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
