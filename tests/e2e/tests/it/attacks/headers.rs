//! Out of a header, and into another: names, queries, reason phrases.

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wire::scrape_request;

use super::{open, post, send};

#[tokio::test]
async fn nothing_breaks_out_of_a_header() {
    let target = Target::echoing().await;
    let proxy = Proxy::start(&[]).await;
    let _client = Client::start(&proxy.url(), &target.url("/fixed"), "node.test", &[]);
    proxy.registered("node.test").await;
    // Through a name.
    for name in [
        "a\r\nSet-Cookie: x",
        "a\nb",
        "a\"b",
        "a{b=\"c\"}",
        "a\u{85}b",
        "a%0d%0ab",
    ] {
        let refused = send(&proxy, &post("/poll", "", name)).await;
        assert_eq!(refused.status(), 400, "{name:?}");
        assert_eq!(refused.header("Set-Cookie"), None);
    }
    // Through a query: it reaches the target as it is, in its place.
    let query = "a=%0d%0aX-Evil:%201&b=%00%2f..%2f&c=http://evil.test/";
    let scraped = proxy
        .scrape(&format!("http://node.test/?{query}"), 10.0)
        .await;
    assert_eq!(scraped.text(), query);
    let seen = target.requests().pop().unwrap();
    assert_eq!(seen.uri(), format!("/fixed?{query}"));
    assert_eq!(seen.header("X-Evil"), None);
    // Through the reason phrase and the headers of a pushed answer.
    for (line, status) in [
        ("HTTP/1.1 500 bad\rX-Evil: 1", 502),
        ("HTTP/1.1 500 bad\0", 502),
        ("HTTP/1.1 500 b\u{e4}d \u{1b}[31m", 502),
        ("HTTP/1.1 500 bad\r\nX: a\rX-Evil: 1", 502),
        ("HTTP/1.1 500 bad\r\nX-Evil\0: 1", 502),
    ] {
        let mut poll = open(&proxy, &post("/poll", "", "raw.test")).await;
        proxy.registered("raw.test").await;
        let mut scrape = open(&proxy, &scrape_request("http://raw.test/", 10.0, "")).await;
        let instruction = poll.receive().await.unwrap().text();
        let id = instruction
            .lines()
            .find_map(|line| line.strip_prefix("Id: "))
            .unwrap();
        let push = format!("{line}\r\nId: {id}\r\nContent-Length: 0\r\n\r\n");
        send(&proxy, &post("/push", "", &push)).await;
        let seen = scrape.receive().await.unwrap();
        assert!([status, 500].contains(&seen.status()), "{line:?}: {seen:?}");
        assert_eq!(seen.header("X-Evil"), None, "{line:?}");
        assert!(
            !seen
                .head
                .replace("\r\n", "")
                .contains(|c: char| c.is_control()),
            "{seen:?}"
        );
    }
    let lines = proxy.daemon.log();
    assert!(
        lines.iter().all(|line| !line.contains('\u{1b}')),
        "{lines:?}"
    );
}
