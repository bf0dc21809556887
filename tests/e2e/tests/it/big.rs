//! Large answers stream through: they cost no memory, and who reads slowly slows the target down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, idle, until};
use pushprox_testkit::wire::{Connection, scrape_request};

#[tokio::test]
async fn two_hundred_megabytes_stream_through_in_little_memory() {
    for chunked in [false, true] {
        let (target, _sent) = flood(chunked).await;
        let proxy = Proxy::start(&[]).await;
        let client = Client::start(&proxy.url(), &target.url("/"), "big.test", &[]);
        proxy.registered("big.test").await;
        // A first scrape, so that what is set up once is not counted.
        proxy.scrape("http://big.test/?small", 30.0).await;
        let rest = [proxy.daemon.memory(), client.daemon.memory()];

        let mut scrape = scrape(&proxy).await;
        let head = scrape.receive_head().await.unwrap();
        assert_eq!(head.status(), 200, "{head:?}");
        let mut pieces = scrape.pieces(&head);
        let mut count = 0;
        while let Some(piece) = pieces.next().await.unwrap() {
            assert!(
                piece.iter().all(|&byte| byte == b'x'),
                "after {count} bytes"
            );
            count += piece.len();
        }
        assert!(pieces.is_whole(), "chunked: {chunked}, after {count} bytes");
        assert_eq!(count, SIZE, "chunked: {chunked}");

        let peak = [proxy.daemon.peak_memory(), client.daemon.peak_memory()];
        for (which, (rest, peak)) in ["proxy", "client"].iter().zip(rest.iter().zip(peak)) {
            assert!(
                peak < rest + 4 * 1024,
                "{which} (chunked: {chunked}): {rest} KiB before, {peak} KiB at its peak"
            );
        }
    }
}

#[tokio::test]
async fn a_scraper_that_reads_slowly_holds_the_target_back() {
    let (target, sent) = flood(true).await;
    let proxy = Proxy::start(&[]).await;
    let client = Client::start(&proxy.url(), &target.url("/"), "big.test", &[]);
    proxy.registered("big.test").await;
    let rest = [proxy.daemon.memory(), client.daemon.memory()];
    let mut scrape = scrape(&proxy).await;
    let head = scrape.receive_head().await.unwrap();

    // The kernel's buffers on three connections fill up, and then the target stands.
    let mut before = usize::MAX;
    until("the target at a standstill", SOON, async || {
        let now = sent.load(Ordering::SeqCst);
        idle(Duration::from_millis(500)).await;
        let stands = now > 0 && now == std::mem::replace(&mut before, now);
        stands.then_some(())
    })
    .await;
    assert!(
        before < SIZE / 2,
        "{before} bytes were sent and none was read"
    );
    let now = [proxy.daemon.peak_memory(), client.daemon.peak_memory()];
    for (rest, now) in rest.iter().zip(now) {
        assert!(
            now < rest + 4 * 1024,
            "{rest} KiB before, {now} KiB while it stands"
        );
    }

    let mut pieces = scrape.pieces(&head);
    let mut count = 0;
    while let Some(piece) = pieces.next().await.unwrap() {
        count += piece.len();
    }
    assert_eq!(count, SIZE);
    assert!(pieces.is_whole());
}

/// A target with 200 MB to say, and how much of them it got rid of.
async fn flood(chunked: bool) -> (Target, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let target = Target::start(move |request, mut connection| {
        let counter = Arc::clone(&counter);
        async move {
            let size = if request.uri().contains("small") {
                PIECE
            } else {
                SIZE
            };
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {size}")
            };
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
            connection.send(head.as_bytes()).await.ok()?;
            let mut piece = vec![b'x'; PIECE];
            if chunked {
                piece.splice(0..0, format!("{PIECE:x}\r\n").into_bytes());
                piece.extend_from_slice(b"\r\n");
            }
            for _ in 0..size / PIECE {
                connection.send(&piece).await.ok()?;
                counter.fetch_add(PIECE, Ordering::SeqCst);
            }
            if chunked {
                connection.send(b"0\r\n\r\n").await.ok()?;
            }
            Some(connection)
        }
    })
    .await;
    (target, sent)
}

async fn scrape(proxy: &Proxy) -> Connection {
    let mut connection = Connection::open(proxy.address).await.unwrap();
    let request = scrape_request("http://big.test/", 290.0, "");
    connection.send(&request).await.unwrap();
    connection
}

const PIECE: usize = 50_000;
const SIZE: usize = 4_000 * PIECE;
