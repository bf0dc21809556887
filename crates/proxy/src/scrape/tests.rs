//! What the time of a scrape covers.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Config;
use crate::access::{Access, Roles};
use crate::rendezvous::PollEnd;

/// A proxy with a user whose password takes some time to look at, longer with a higher `cost`.
fn proxy(cost: u32) -> Arc<Proxy> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    let hash = bcrypt::hash("password", cost).unwrap();
    std::fs::write(&file, format!("basic_auth_users: {{user: {hash}}}\n")).unwrap();
    let access = Access::load(Some(file), None).unwrap();
    let proxy = Proxy::new(&Config::default(), access, CancellationToken::new());
    Arc::new(proxy)
}

fn peer() -> Peer {
    Peer {
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        certificate: None,
        roles: Roles::ALL,
    }
}

/// A scrape of that user's that has just come, and Prometheus's end of its connection.
async fn scrape(proxy: &Proxy) -> (Socket, Request, DuplexStream) {
    let (mut prometheus, end) = tokio::io::duplex(1024);
    let mut socket = Socket::new(end);
    let head = b"GET http://node/ HTTP/1.1\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\
                 X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n";
    prometheus.write_all(head).await.unwrap();
    socket.fill(&proxy.buffers).await.unwrap();
    let request = Request::parse(socket.ahead(), &proxy.limits);
    (socket, request.unwrap().unwrap(), prometheus)
}

#[tokio::test(start_paused = true)]
async fn it_runs_while_the_scraper_proves_who_it_is() {
    let (proxy, peer) = (proxy(4), peer());
    let name = "node".parse().unwrap();
    let mut poll = proxy.rendezvous.park(&name, None, Instant::now()).unwrap();
    let (socket, request, _prometheus) = scrape(&proxy).await;
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

#[tokio::test(start_paused = true)]
async fn it_ends_while_the_scraper_proves_who_it_is() {
    let (proxy, peer) = (proxy(12), peer());
    let (socket, request, mut prometheus) = scrape(&proxy).await;
    let mut serving = pin!(serve(socket, request, &peer, &proxy));
    assert!(poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_pending())).await);
    tokio::time::advance(Duration::from_secs(10)).await;
    let served = timeout_at(Instant::now() + Duration::from_secs(1), serving);
    assert!(served.await.unwrap().is_some());
    let mut answer = [0; 64];
    prometheus.read_exact(&mut answer).await.unwrap();
    let answer = std::str::from_utf8(&answer).unwrap();
    let reason = "HTTP/1.1 503 the proxy says: too many passwords are being";
    assert!(answer.starts_with(reason), "{answer}");
}
