//! What the time of a scrape covers.

use std::pin::pin;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Config;
use crate::access::{Access, Roles};
use crate::rendezvous::PollEnd;

#[tokio::test(start_paused = true)]
async fn it_runs_while_the_scraper_proves_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    let hash = bcrypt::hash("password", 4).unwrap();
    std::fs::write(&file, format!("basic_auth_users: {{user: {hash}}}\n")).unwrap();
    let access = Access::load(Some(file), None).unwrap();
    let proxy = Proxy::new(&Config::default(), access, CancellationToken::new());
    let proxy = Arc::new(proxy);
    let peer = Peer {
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        certificate: None,
        roles: Roles::ALL,
    };
    let name = "node".parse().unwrap();
    let mut poll = proxy.rendezvous.park(&name, None, Instant::now()).unwrap();

    let (mut prometheus, end) = tokio::io::duplex(1024);
    let mut socket = Socket::new(end);
    let head = b"GET http://node/ HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\
                 X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n";
    prometheus.write_all(head).await.unwrap();
    socket.fill(&proxy.buffers).await.unwrap();
    let request = Request::parse(socket.ahead(), &proxy.limits)
        .unwrap()
        .unwrap();
    let mut serving = pin!(serve(socket, request, &peer, &proxy));

    // Its password is being looked at.
    assert!(poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_pending())).await);
    tokio::time::advance(Duration::from_secs(3)).await;
    let end = tokio::select! {
        end = poll.end() => end,
        _ = serving => panic!("it is over"),
    };
    let PollEnd::HandedOut(handed_out) = end else {
        panic!("{end:?}");
    };
    let instruction = handed_out.encode();
    let instruction = std::str::from_utf8(&instruction).unwrap();
    assert!(
        instruction.contains("X-Prometheus-Scrape-Timeout-Seconds: 7\r\n"),
        "{instruction}"
    );
}
