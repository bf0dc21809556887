//! Events in, proxies out.

use super::*;

fn slice(service: &str, ports: &[(&str, u16)], endpoints: &[(&str, bool, &str)]) -> Slice {
    let ports = ports.iter().map(|&(name, number)| Port {
        name: name.to_owned(),
        number,
    });
    let endpoints = endpoints.iter().map(|&(ip, is_ready, pod)| Endpoint {
        ip: ip.parse().unwrap(),
        is_ready,
        pod: (!pod.is_empty()).then(|| pod.to_owned()),
    });
    Slice {
        namespace: "demo".to_owned(),
        service: service.to_owned(),
        groups: vec![Group {
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }],
    }
}

fn key(name: &str) -> Key {
    ("demo".to_owned(), name.to_owned())
}

fn index(slices: Vec<Slice>) -> Index {
    let mut index = Index::default();
    for (number, slice) in slices.into_iter().enumerate() {
        index.apply(Event::Applied(key(&number.to_string()), slice));
    }
    index
}

fn ready(index: &Index) -> Vec<String> {
    index
        .found()
        .ready
        .keys()
        .map(ToString::to_string)
        .collect()
}

const HTTP: &[(&str, u16)] = &[("http", 8080)];

#[test]
fn ready_endpoints_are_proxies_and_others_are_known() {
    let index = index(vec![slice(
        "web",
        HTTP,
        &[("10.1.0.1", true, ""), ("10.1.0.2", false, "")],
    )]);
    assert_eq!(ready(&index), ["10.1.0.1:8080"]);
    assert_eq!(index.found().known.len(), 2);
}

#[test]
fn what_a_new_list_lacks_is_gone_once_it_is_complete() {
    let one = slice("web", HTTP, &[("10.1.0.1", true, "")]);
    let two = slice("web", HTTP, &[("10.1.0.2", true, "")]);
    let mut index = Index::default();
    assert!(!index.is_synced());
    index.apply(Event::Restarted);
    index.apply(Event::Listed(key("a"), one));
    assert_eq!(ready(&index), Vec::<String>::new());
    index.apply(Event::Synced);
    assert!(index.is_synced());
    index.apply(Event::Restarted);
    index.apply(Event::Listed(key("b"), two));
    assert_eq!(
        ready(&index),
        ["10.1.0.1:8080"],
        "kept while the list comes"
    );
    index.apply(Event::Synced);
    assert_eq!(ready(&index), ["10.1.0.2:8080"]);
    index.apply(Event::Deleted(key("b")));
    assert_eq!(ready(&index), Vec::<String>::new());
}

#[test]
fn a_list_that_breaks_off_leaves_nothing_behind() {
    let mut index = index(vec![slice("web", HTTP, &[("10.1.0.1", true, "")])]);
    index.apply(Event::Restarted);
    index.apply(Event::Listed(
        key("x"),
        slice("web", HTTP, &[("10.9.9.9", true, "")]),
    ));
    index.apply(Event::Restarted);
    index.apply(Event::Synced);
    assert_eq!(ready(&index), Vec::<String>::new());
}

#[test]
fn a_pod_of_both_families_is_one_proxy_at_its_ipv4_address() {
    let v6 = slice(
        "web",
        HTTP,
        &[("fd00::1", true, "pod1"), ("fd00::2", true, "pod2")],
    );
    let v4 = slice(
        "web",
        HTTP,
        &[("10.1.0.1", true, "pod1"), ("10.1.0.2", false, "pod2")],
    );
    assert_eq!(
        ready(&index(vec![v6, v4])),
        ["10.1.0.1:8080", "[fd00::2]:8080"]
    );
}

#[test]
fn an_endpoint_of_several_slices_and_services_is_one_proxy() {
    let twice = index(vec![
        slice("headless", HTTP, &[("10.1.0.1", true, "pod1")]),
        slice("api", HTTP, &[("10.1.0.1", false, "pod1")]),
        slice("api", HTTP, &[("10.1.0.1", true, "pod1")]),
    ]);
    let found = twice.found();
    assert_eq!(found.ready.len(), 1);
    assert_eq!(found.ready.values().next().unwrap().service, "api");
}

#[test]
fn two_proxies_in_one_pod_are_two() {
    let both = index(vec![
        slice("a", &[("http", 8080)], &[("10.1.0.1", true, "pod1")]),
        slice("b", &[("http", 8081)], &[("10.1.0.1", true, "pod1")]),
    ]);
    assert_eq!(ready(&both), ["10.1.0.1:8080", "10.1.0.1:8081"]);
}

#[test]
fn the_port_is_chosen_by_name_by_number_or_as_the_only_one() {
    let several = [("metrics", 9090), ("http", 8080)];
    for (choice, ports, number) in [
        ("", &several[..], Some(8080)),
        ("", &several[..1], Some(9090)),
        ("", &[("", 80)], Some(80)),
        ("", &[("a", 1), ("b", 2)], None),
        ("", &[], None),
        ("metrics", &several, Some(9090)),
        ("web", &several, None),
        ("9999", &several, Some(9999)),
        ("9999", &[], Some(9999)),
    ] {
        let choice = if choice.is_empty() {
            PortChoice::default()
        } else {
            choice.parse().unwrap()
        };
        let mut index = Index::new(choice.clone());
        index.apply(Event::Applied(
            key("a"),
            slice("web", ports, &[("10.1.0.1", true, "")]),
        ));
        let found = index.found();
        let picked = found.ready.keys().next().map(SocketAddr::port);
        assert_eq!(picked, number, "{choice:?} {ports:?}");
        assert_eq!(
            found.problems.is_empty(),
            number.is_some(),
            "{:?}",
            found.problems
        );
    }
    for wrong in ["", "0", "65536", "Http", "a b", "-"] {
        assert!(wrong.parse::<PortChoice>().is_err(), "{wrong:?}");
    }
}
