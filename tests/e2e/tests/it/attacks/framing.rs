//! Requests whose end or whose lines two programs may see at different places.

use super::{ALICE, open, proxy};
use crate::secured::Folder;

#[tokio::test]
async fn requests_that_end_in_two_places_are_refused() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let smuggled = "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nalice.test";
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 40\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length : 4\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\r\n folded\r\n",
        "X: a\r\n\tContent-Length: 4\r\n",
        "X\0: a\r\n",
    ] {
        for line in [
            "POST /push",
            "POST /poll",
            "GET /metrics",
            "GET http://alice.test/",
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{head}\r\n0\r\n\r\n{smuggled}");
            let mut connection = open(&proxy, request.as_bytes()).await;
            let first = connection.receive().await.unwrap();
            assert_eq!(first.status(), 400, "{line} {head:?}: {first:?}");
            assert_eq!(connection.rest().await, b"", "{line} {head:?}");
        }
    }
    assert_eq!(proxy.names().await, [""; 0], "nothing was smuggled in");
}

#[tokio::test]
async fn half_a_line_end_is_none() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    for request in [
        "GET /-/ready HTTP/1.1\nHost: x\n\n",
        "GET /-/ready HTTP/1.1\r\nHost: x\nX: a\r\n\r\n",
        "GET /-/ready HTTP/1.1\r\nHost: x\r\n\n",
        "\nGET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://alice.test/ HTTP/1.1\r\nX: a\nProxy-Authorization: Basic x\r\n\r\n",
        "POST /poll HTTP/1.1\r\nX: a\nContent-Length: 4\r\n\r\nname",
        "GET /-/ready HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
        "GET /-/ready HTTP/1.1\rHost: x\r\r",
    ] {
        let mut connection = open(&proxy, request.as_bytes()).await;
        let first = connection.receive().await.unwrap();
        assert_eq!(first.status(), 400, "{request:?}: {first:?}");
        assert_eq!(connection.rest().await, b"", "{request:?}");
    }
}

#[tokio::test]
async fn nothing_is_served_behind_a_body_whose_end_is_not_clear() {
    let folder = Folder::new();
    let proxy = proxy(&folder).await;
    let smuggled = "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nmallory.test";
    for body in [
        "+4\r\nabcd\r\n0\r\n\r\n",
        "0x4\r\nabcd\r\n0\r\n\r\n",
        " 4\r\nabcd\r\n0\r\n\r\n",
        "-4\r\nabcd\r\n0\r\n\r\n",
        "4\nabcd\r\n0\r\n\r\n",
        "4\r\nabcd\n0\r\n\r\n",
        "4\r\nabcde\r\n0\r\n\r\n",
        "4;a\nabcd\r\n0\r\n\r\n",
        "4;\rabcd\r\n0\r\n\r\n",
        "4\r\nabcd\r\n0\r\n\n",
        "4\r\nabcd\r\n0\r\nX: a\n\n",
        "4\r\nabcd\r\n0\r\nX: a\rb\r\n\r\n",
        "10000000000000004\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabcd\r\n0\r\n\r\n",
    ] {
        for path in ["/push", "/poll"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\n{ALICE}Transfer-Encoding: chunked\r\n\r\n\
                 {body}{smuggled}"
            );
            let mut connection = open(&proxy, request.as_bytes()).await;
            connection.finish().await.unwrap();
            let first = connection.receive().await.unwrap();
            assert_eq!(first.status(), 400, "{path} {body:?}: {first:?}");
            assert_eq!(connection.rest().await, b"", "{path} {body:?}");
        }
    }
    assert_eq!(proxy.names().await, [""; 0], "nothing was smuggled in");
}
