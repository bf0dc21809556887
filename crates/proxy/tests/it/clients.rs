//! `/clients`, and the proxy's other pages.

use pushprox_testkit::wire::{ask, get};

use crate::support::start;

#[tokio::test]
async fn the_list_is_sorted_json_as_service_discovery_takes_it() {
    let proxy = start().await;
    let empty = get(proxy.address, "/clients").await;
    assert_eq!(empty.text(), "[]\n");
    assert_eq!(empty.header("Content-Type"), Some("application/json"));
    let mut polls = Vec::new();
    for name in ["b:9100", "Node.example.org", "a", "b:99", "[::1]:1"] {
        polls.push(proxy.park(name).await);
    }
    let list = get(proxy.address, "/clients").await;
    assert_eq!(
        list.text(),
        "[{\"targets\":[\"Node.example.org\"],\"labels\":{}},{\"targets\":[\"[::1]:1\"],\"labels\":{}},\
         {\"targets\":[\"a\"],\"labels\":{}},{\"targets\":[\"b:99\"],\"labels\":{}},\
         {\"targets\":[\"b:9100\"],\"labels\":{}}]\n"
    );
    assert_eq!(proxy.metric("pushprox_proxy_clients").await, Some(5.0));
}

#[tokio::test]
async fn a_young_proxy_does_not_wipe_the_list_of_service_discovery() {
    let proxy = start().await;
    let request = "GET /clients HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\
                   X-Prometheus-Refresh-Interval-Seconds: 60\r\n\r\n";
    let answer = ask(proxy.address, request.as_bytes()).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.reason().contains("has just started"));
}

#[tokio::test]
async fn pages_take_get_and_head_only() {
    let proxy = start().await;
    for path in ["/clients", "/metrics", "/-/healthy", "/-/ready"] {
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n");
        let mut connection = proxy.connect().await;
        connection.send(head.as_bytes()).await.unwrap();
        let bytes = connection.rest().await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"), "{path}");
        assert!(bytes.ends_with(b"\r\n\r\n"), "{path} has no body");
        let post = format!("POST {path} HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n");
        let answer = proxy.ask(post).await;
        assert_eq!(answer.status(), 405, "{path}");
        assert_eq!(answer.header("Allow"), Some("GET, HEAD"), "{path}");
    }
    assert_eq!(get(proxy.address, "/else").await.status(), 404);
}
