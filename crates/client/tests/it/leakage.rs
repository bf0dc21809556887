//! Nothing of one leg reaches the other, the target is asked for nothing but its pull URL, and no
//! secret is in the log.

use crate::peers::{Peer, Proxy};
use crate::support::{Client, Log, scrape};

#[tokio::test]
async fn secrets_stay_on_their_leg_and_out_of_the_log() {
    let mut log = Log::start();
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let proxy_url = format!("http://user:proxysecret@{}/", proxy.peer.address);
    let pull_url = format!(
        "http://user:pullsecret@{}/m?token=querysecret",
        target.address
    );
    let client = Client::start_with_token(&proxy_url, &pull_url, &[], Some("tokensecret"));

    let poll = proxy.poll().await;
    assert_eq!(
        poll.header("authorization"),
        Some("Basic dXNlcjpwcm94eXNlY3JldA==")
    );
    let forged = "X-Prom-Pull-Token: forged\r\nProxy-Authorization: Basic eDp5\r\n\
                  Cookie: a=b\r\nX-Other: kept\r\n";
    poll.answer("200 OK", scrape("1", "?token=forged&x=1", "10", forged));

    let pull = target.next().await;
    assert!(
        pull.head
            .starts_with("GET /m?token=querysecret&x=1 HTTP/1.1\r\n"),
        "{}",
        pull.head
    );
    assert_eq!(
        pull.header("authorization"),
        Some("Basic dXNlcjpwdWxsc2VjcmV0")
    );
    assert_eq!(pull.header("x-prom-pull-token"), Some("tokensecret"));
    assert_eq!(pull.header("x-other"), Some("kept"));
    assert_eq!(pull.header("cookie"), Some("a=b"));
    assert_eq!(pull.header("proxy-authorization"), None);
    assert!(!pull.head.contains("forged"), "{}", pull.head);
    assert!(!pull.head.contains("node"), "{}", pull.head);
    pull.reply("HTTP/1.1 500 Oh\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n");

    let push = proxy.push().await;
    assert_eq!(
        push.header("authorization"),
        Some("Basic dXNlcjpwcm94eXNlY3JldA==")
    );
    assert!(!push.text().contains("secret"), "{}", push.text());
    assert!(!push.head.contains("token"), "{}", push.head);
    push.reply("HTTP/1.1 500 Oh\r\nSet-Cookie: e=f\r\nContent-Length: 0\r\n\r\n");

    // Authorization of the scrape is the target's own, and comes before the pull URL's.
    let own = scrape("2", "", "10", "Authorization: Bearer scrape\r\n");
    let poll = proxy.poll().await;
    assert_eq!(poll.header("cookie"), None);
    poll.answer("200 OK", own);
    let pull = target.next().await;
    assert_eq!(pull.header("authorization"), Some("Bearer scrape"));
    assert_eq!(pull.header("cookie"), None);
    drop(target);
    drop(pull);
    let push = proxy.push().await;
    assert!(
        push.status_line().starts_with("HTTP/1.1 502 "),
        "{}",
        push.status_line()
    );
    assert!(!push.text().contains("secret"), "{}", push.text());
    push.answer("410 Gone", "over");
    drop(proxy.poll().await);
    drop(proxy);
    client.stop().await;

    let log = log.rest();
    assert!(log.contains("msg=\"client started\""), "{log}");
    assert!(log.contains("msg=\"pull failed\""), "{log}");
    assert!(log.contains("msg=\"push failed\""), "{log}");
    assert!(log.contains("scrape_id=1"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn without_a_token_no_token_is_sent() {
    for token in [None, Some("")] {
        let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
        let client = Client::start_with_token(&proxy.url(), &target.url("/m"), &[], token);
        let forged = "X-Prom-Pull-Token: forged\r\n";
        proxy.hand_out(&scrape("1", "", "10", forged)).await;
        assert_eq!(target.next().await.header("x-prom-pull-token"), None);
        client.shutdown.begin();
    }
}

#[tokio::test]
async fn hop_by_hop_headers_and_promises_of_a_body_end_at_the_client() {
    let (mut proxy, mut target) = (Proxy::start().await, Peer::start().await);
    let client = Client::start(&proxy.url(), &target.url("/m"), &[]);
    let headers = "Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: x\r\nTE: trailers\r\n\
                   Upgrade: h2c\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\
                   X-Prometheus-Scrape-Timeout: 3\r\nAccept: a/b\r\n";
    proxy.hand_out(&scrape("1", "", "10", headers)).await;
    let pull = target.next().await;
    let mut lines: Vec<&str> = pull.head.trim_end().split("\r\n").collect();
    lines.sort_unstable();
    let host = format!("Host: {}", target.address);
    let time = lines.pop().unwrap();
    assert!(
        time.starts_with("X-Prometheus-Scrape-Timeout-Seconds: "),
        "{time}"
    );
    assert_eq!(lines, ["Accept: a/b", "GET /m HTTP/1.1", &host]);
    client.shutdown.begin();
}
