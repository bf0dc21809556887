//! From the objects of Kubernetes to what the index knows of them: pure.

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, ObjectReference};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use crate::index::{Endpoint, Group, Key, Port, Slice};

/// An object that tells where a service's pods are.
pub trait ToSlice {
    /// What matters of it.
    fn to_slice(&self) -> Slice;
}

impl ToSlice for EndpointSlice {
    fn to_slice(&self) -> Slice {
        let mut group = Group::default();
        for port in self.ports.iter().flatten() {
            let is_tcp = port
                .protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP");
            if let Some(number) = port.port.and_then(port_number).filter(|_| is_tcp) {
                group.ports.push(Port {
                    name: port.name.clone().unwrap_or_default(),
                    number,
                });
            }
        }
        for endpoint in self.endpoints.iter().flatten() {
            // Several addresses of one endpoint are interchangeable, and only the first is meant
            // to be used. Names, of slices with addressType FQDN, are none.
            let Some(ip) = endpoint
                .addresses
                .first()
                .and_then(|first| first.parse().ok())
            else {
                continue;
            };
            let conditions = endpoint.conditions.as_ref();
            group.endpoints.push(Endpoint {
                ip,
                // Not known means ready.
                is_ready: conditions
                    .and_then(|conditions| conditions.ready)
                    .unwrap_or(true),
                pod: endpoint.target_ref.as_ref().and_then(pod),
            });
        }
        let service = self.labels().get(SERVICE_NAME).cloned();
        Slice {
            namespace: self.namespace().unwrap_or_default(),
            service: service.unwrap_or_else(|| self.name_any()),
            groups: vec![group],
        }
    }
}

impl ToSlice for Endpoints {
    fn to_slice(&self) -> Slice {
        let groups = self.subsets.iter().flatten().map(|subset| {
            let ports = subset.ports.iter().flatten().filter_map(|port| {
                let is_tcp = port
                    .protocol
                    .as_deref()
                    .is_none_or(|protocol| protocol == "TCP");
                Some(Port {
                    name: port.name.clone().unwrap_or_default(),
                    number: port_number(port.port).filter(|_| is_tcp)?,
                })
            });
            let ready = subset
                .addresses
                .iter()
                .flatten()
                .map(|address| (address, true));
            let unready = subset
                .not_ready_addresses
                .iter()
                .flatten()
                .map(|address| (address, false));
            let endpoint = |(address, is_ready): (&EndpointAddress, bool)| {
                Some(Endpoint {
                    ip: address.ip.parse().ok()?,
                    is_ready,
                    pod: address.target_ref.as_ref().and_then(pod),
                })
            };
            Group {
                ports: ports.collect(),
                endpoints: ready.chain(unready).filter_map(endpoint).collect(),
            }
        });
        Slice {
            namespace: self.namespace().unwrap_or_default(),
            service: self.name_any(),
            groups: groups.collect(),
        }
    }
}

/// The key of an object.
pub fn key(object: &impl kube::Resource) -> Key {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn pod(reference: &ObjectReference) -> Option<String> {
    if reference.kind.as_deref() != Some("Pod") {
        return None;
    }
    reference.uid.clone().or_else(|| {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        reference
            .name
            .as_ref()
            .map(|name| format!("{namespace}/{name}"))
    })
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Event, Index};
    use serde::de::DeserializeOwned;
    use serde_json::json;

    fn slice<T: ToSlice + DeserializeOwned>(object: serde_json::Value) -> Slice {
        serde_json::from_value::<T>(object).unwrap().to_slice()
    }

    fn ready(slices: impl IntoIterator<Item = Slice>) -> Vec<String> {
        let mut index = Index::default();
        for (number, slice) in slices.into_iter().enumerate() {
            index.apply(Event::Applied((String::new(), number.to_string()), slice));
        }
        index
            .found()
            .ready
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_real_list_is_understood() {
        let text = include_str!("../tests/data/kubernetes/list.http");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let list: kube::core::ObjectList<EndpointSlice> = serde_json::from_str(body).unwrap();
        let slices: Vec<_> = list.iter().map(ToSlice::to_slice).collect();
        assert_eq!(key(&list.items[0]), ("demo".to_owned(), "web-a".to_owned()));
        assert_eq!(slices[0].service, "web");
        assert_eq!(ready(slices), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    }

    #[test]
    fn every_object_of_a_real_watch_is_understood() {
        let text = include_str!("../tests/data/kubernetes/rawwatch.ndjson");
        let mut index = Index::default();
        let mut seen = Vec::new();
        for line in text.lines() {
            let event: kube::core::WatchEvent<EndpointSlice> = serde_json::from_str(line).unwrap();
            match event {
                kube::core::WatchEvent::Added(object)
                | kube::core::WatchEvent::Modified(object) => {
                    index.apply(Event::Applied(key(&object), object.to_slice()));
                }
                kube::core::WatchEvent::Deleted(object) => {
                    index.apply(Event::Deleted(key(&object)))
                }
                kube::core::WatchEvent::Bookmark(_) => {}
                kube::core::WatchEvent::Error(error) => panic!("{error:?}"),
            }
            seen.push(index.found().ready.len());
        }
        assert_eq!(seen.iter().max(), Some(&4), "{seen:?}");
        assert_eq!(seen.last(), Some(&3), "{seen:?}");
    }

    #[test]
    fn only_tcp_ports_and_ready_addresses_count() {
        let odd = slice::<EndpointSlice>(json!({
            "metadata": {"name": "odd", "namespace": "demo"},
            "addressType": "IPv6",
            "endpoints": [
                {"addresses": ["fd00::1", "fd00::2"], "conditions": {"ready": true}},
                {"addresses": ["fd00::3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["fd00::4"], "conditions": {"ready": null}},
                {"addresses": [], "conditions": {}},
                {"addresses": ["not an address"]}
            ],
            "ports": [{"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "", "port": 8080}, {"name": "none", "port": null}]
        }));
        assert_eq!(odd.service, "odd");
        assert_eq!(ready([odd]), ["[fd00::1]:8080", "[fd00::4]:8080"]);
        let empty = slice::<EndpointSlice>(json!({
            "metadata": {"name": "empty"}, "addressType": "IPv4", "endpoints": null, "ports": null
        }));
        assert_eq!(ready([empty]), Vec::<String>::new());
    }

    #[test]
    fn endpoints_say_the_same_as_their_slices() {
        let pod = json!({"kind": "Pod", "name": "p", "namespace": "demo", "uid": "u"});
        let endpoints = slice::<Endpoints>(json!({
            "metadata": {"name": "web", "namespace": "demo"},
            "subsets": [
                {"addresses": [{"ip": "10.1.0.1", "targetRef": pod}], "notReadyAddresses": [{"ip": "10.1.0.2"}],
                 "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
                {"addresses": [{"ip": "10.1.0.3"}], "ports": [{"name": "http", "port": 9090}]}
            ]
        }));
        assert_eq!(endpoints.service, "web");
        assert_eq!(endpoints.groups[0].endpoints[0].pod.as_deref(), Some("u"));
        assert_eq!(ready([endpoints]), ["10.1.0.1:8080", "10.1.0.3:9090"]);
        assert_eq!(
            ready([slice::<Endpoints>(json!({"metadata": {"name": "none"}}))]),
            Vec::<String>::new()
        );
    }
}
