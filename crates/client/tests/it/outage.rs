//! A proxy that is not there, or something else in its place: the client goes on at the pace of its
//! backoff, the log tells it once, and the first scrape after it is well again is answered.

use std::net::SocketAddr;
use std::time::Duration;

use pushprox_testkit::wait::{SOON, free_port, idle, listener_at, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::peers::{Peer, Proxy};
use crate::support::{Client, Log, scrape, time_passes};

/// What sits at the proxy's address instead of it.
#[derive(Clone, Copy)]
enum Impostor {
    /// It closes connections without an answer.
    HangsUp,
    /// It says this, and waits for the next request.
    Says(&'static str),
    /// It says the first, and then the second without end.
    GoesOn(&'static str, &'static str),
}

impl Impostor {
    /// Sits down at the address until the guard is dropped.
    async fn at(self, address: SocketAddr) -> DropGuard {
        let listener = listener_at(address).await;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        let spawning = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawning.spawn(stopped.clone().run_until_cancelled_owned(async move {
                    // Its end is the client's doing, or that of the test.
                    self.serve(stream).await.ok();
                }));
            }
        }));
        stop.drop_guard()
    }

    async fn serve(self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nnode") {
                if stream.read_buf(&mut request).await? == 0 {
                    return Ok(());
                }
            }
            match self {
                Self::HangsUp => return Ok(()),
                Self::Says(text) => stream.write_all(text.as_bytes()).await?,
                Self::GoesOn(text, more) => {
                    stream.write_all(text.as_bytes()).await?;
                    loop {
                        stream.write_all(more.repeat(100).as_bytes()).await?;
                    }
                }
            }
        }
    }
}

/// A client whose proxy is nowhere at first, and its log.
struct Outage {
    log: Log,
    address: SocketAddr,
    client: Client,
}

impl Outage {
    async fn begin(impostor: Option<Impostor>) -> (Self, Option<DropGuard>) {
        let log = Log::start();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let sitting = match impostor {
            Some(impostor) => Some(impostor.at(address).await),
            None => None,
        };
        let flags = [
            "--proxy.retry.initial-wait=100ms",
            "--proxy.retry.max-wait=300ms",
        ];
        let client = Client::start(&format!("http://{address}/"), "http://127.0.0.1:1/", &flags);
        let outage = Self {
            log,
            address,
            client,
        };
        (outage, sitting)
    }

    /// Waits until the log tells of `why`.
    async fn told(&mut self, why: &str) {
        let line = self.log.line("poll failed").await;
        assert!(line.contains("level=warn"), "{line}");
        assert!(line.contains(why), "{line}");
    }

    /// Watches the client go on, and say no more.
    async fn goes_on_in_silence(&mut self) {
        let from = Instant::now();
        let mut log = String::new();
        let attempts = until("two more attempts", SOON, async || {
            idle(Duration::from_secs(2)).await;
            log += &self.log.rest();
            let attempts = log.matches("msg=\"poll failed\"").count();
            (attempts >= 2).then_some(attempts)
        })
        .await;
        // A wait is at least 100 ms, and at most 300.
        let most = from.elapsed().as_millis() / 100 + 1;
        assert!(attempts as u128 <= most, "{attempts}: {log}");
        assert!(!log.contains("level=warn"), "{log}");
    }

    /// The proxy comes back, and the first scrape is answered.
    async fn ends(mut self) {
        let listener = listener_at(self.address).await;
        let mut proxy = Proxy::over(Peer::serve(listener, |stream| async { Some(stream) }));
        proxy.hand_out(&scrape("1", "", "10", "")).await;
        let line = self.log.line("the proxy takes polls again").await;
        assert!(line.contains("level=info"), "{line}");
        assert!(line.contains(" after="), "{line}");
        let push = proxy.push().await;
        assert!(push.text().contains("\r\nId: 1\r\n"), "{}", push.text());
        push.answer("200 OK", "");
        self.client.stop().await;
    }
}

async fn is_outlived(impostor: Impostor, why: &str) {
    let (mut outage, sitting) = Outage::begin(Some(impostor)).await;
    outage.told(why).await;
    outage.goes_on_in_silence().await;
    drop(sitting);
    outage.ends().await;
}

#[tokio::test]
async fn nobody_listens() {
    let (mut outage, _) = Outage::begin(None).await;
    outage
        .told("cannot reach the proxy: connection refused")
        .await;
    outage.goes_on_in_silence().await;
    outage.ends().await;
}

#[tokio::test]
async fn the_log_tells_it_again_after_a_minute() {
    let (mut outage, _) = Outage::begin(None).await;
    outage.told("connection refused").await;
    for _ in 0..2 {
        time_passes(Duration::from_secs(40)).await;
        outage.goes_on_in_silence().await;
        time_passes(Duration::from_secs(20)).await;
        outage.told("connection refused").await;
        outage.goes_on_in_silence().await;
    }
    outage.ends().await;
}

#[tokio::test]
async fn another_trouble_is_told_at_once() {
    let (mut outage, _) = Outage::begin(None).await;
    outage.told("connection refused").await;
    let sitting = Impostor::HangsUp.at(outage.address).await;
    let line = loop {
        let line = outage.log.line("poll failed").await;
        if line.contains("level=warn") {
            break line;
        }
    };
    assert!(line.contains("closed before the answer"), "{line}");
    drop(sitting);
    outage.ends().await;
}

#[tokio::test]
async fn connections_are_closed_without_an_answer() {
    let why = "the poll broke off: the connection was closed before the answer";
    is_outlived(Impostor::HangsUp, why).await;
}

#[tokio::test]
async fn the_answer_is_not_http() {
    let ssh = Impostor::Says("SSH-2.0-OpenSSH_9.2\r\n");
    is_outlived(ssh, "the poll broke off: it is not HTTP").await;
}

#[tokio::test]
async fn a_page_is_answered() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
                Content-Length: 15\r\n\r\n<html>hi</html>";
    is_outlived(Impostor::Says(page), "is an HTML page: something else than").await;
}

#[tokio::test]
async fn a_login_is_redirected_to_and_nobody_goes_there() {
    let mut portal = Peer::start().await;
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}?session=s3cret\r\nContent-Length: 0\r\n\r\n",
        portal.url("/login")
    );
    let why = format!(
        "the proxy answered 302 Found, and redirects to {}; redirects are not followed",
        portal.url("/login")
    );
    is_outlived(Impostor::Says(redirect.leak()), &why).await;
    assert!(portal.try_next().is_none());
}

#[tokio::test]
async fn credentials_are_not_taken() {
    let status = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\
                  Content-Length: 18\r\n\r\nwrong credentials\n";
    let why = "the proxy answered 401 Unauthorized: wrong credentials";
    is_outlived(Impostor::Says(status), why).await;
}

#[tokio::test]
async fn the_name_is_not_allowed() {
    let status = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    is_outlived(Impostor::Says(status), "the proxy answered 403 Forbidden").await;
}

#[tokio::test]
async fn the_path_is_not_the_proxys() {
    let status = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\
                  Content-Length: 14\r\n\r\n<html>\nno\n<x>\n";
    is_outlived(
        Impostor::Says(status),
        "the proxy answered 404 Not Found: <html>",
    )
    .await;
}

#[tokio::test]
async fn another_proxy_wants_credentials() {
    let status = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let why = "the proxy answered 407 Proxy Authentication Required";
    is_outlived(Impostor::Says(status), why).await;
}

#[tokio::test]
async fn the_server_fails() {
    let status = "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    is_outlived(Impostor::Says(status), "the proxy answered 500 Oh: a").await;
}

#[tokio::test]
async fn the_gateway_has_nobody_behind_it() {
    let status = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    is_outlived(Impostor::Says(status), "the proxy answered 502 Bad Gateway").await;
}

#[tokio::test]
async fn polls_are_answered_at_once() {
    let status = "HTTP/1.1 204 No Content\r\n\r\n";
    is_outlived(Impostor::Says(status), "the proxy does not hold polls").await;
}

#[tokio::test]
async fn the_head_of_the_answer_never_ends() {
    let forever = Impostor::GoesOn("HTTP/1.1 200 OK\r\n", "X-More: more and more and more\r\n");
    is_outlived(forever, "the poll broke off: it is not HTTP").await;
}

#[tokio::test]
async fn the_body_of_the_answer_never_ends() {
    let forever = Impostor::GoesOn(
        "HTTP/1.1 200 OK\r\n\r\n",
        "GET GET GET GET GET GET GET GET ",
    );
    is_outlived(
        forever,
        "the proxy's answer to a poll has more than 1048576 bytes",
    )
    .await;
}

#[tokio::test]
async fn the_body_of_a_refusal_never_ends() {
    let forever = Impostor::GoesOn(
        "HTTP/1.1 503 No\r\n\r\n",
        "no no no no no no no no no no no\n",
    );
    is_outlived(forever, "the proxy answered 503 No: no").await;
}

#[tokio::test]
async fn the_body_of_the_answer_never_comes() {
    for (head, within, why) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nGET",
            10,
            "the proxy's instruction broke off",
        ),
        (
            "HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nno",
            5,
            "the proxy answered 500 Oh: no",
        ),
    ] {
        let mut log = Log::start();
        let mut proxy = Proxy::start().await;
        let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &[]);
        proxy.poll().await.reply(head);
        let line = loop {
            // What is to be timed out has to be on its way first, and nothing tells when.
            time_passes(Duration::from_secs(within)).await;
            tokio::select! {
                line = log.line("poll failed") => break line,
                () = idle(Duration::from_millis(300)) => {}
            }
        };
        assert!(line.contains(why), "{line}");
        proxy.hand_out(&scrape("1", "", "10", "")).await;
        proxy.push().await.answer("200 OK", "");
        client.stop().await;
    }
}

#[tokio::test]
async fn a_proxy_that_accepts_and_says_nothing_is_polled_once_and_left_when_it_goes() {
    let mut log = Log::start();
    let mut proxy = Proxy::start().await;
    let client = Client::start(&proxy.url(), "http://127.0.0.1:1/", &[]);
    let silent = proxy.poll().await;
    time_passes(Duration::from_secs(3_600)).await;
    idle(Duration::from_secs(1)).await;
    assert!(proxy.peer.try_next().is_none());
    assert!(!log.rest().contains("level=warn"));
    drop(silent);
    assert!(log.line("poll failed").await.contains("level=warn"));
    proxy.hand_out(&scrape("1", "", "10", "")).await;
    proxy.push().await.answer("200 OK", "");
    client.stop().await;
}

#[tokio::test]
async fn a_poll_that_is_held_tells_that_the_proxy_is_back() {
    let (mut outage, _) = Outage::begin(None).await;
    outage.told("connection refused").await;
    let listener = listener_at(outage.address).await;
    let mut proxy = Proxy::over(Peer::serve(listener, |stream| async { Some(stream) }));
    let _held = proxy.poll().await;
    outage.log.line("the proxy takes polls again").await;
    outage.client.stop().await;
}
