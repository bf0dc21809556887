//! Answers that are large or that nobody takes: they pass in little memory, and end in time.

use std::time::Duration;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::rest::{Bystander, Rest, withstands};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, idle};
use pushprox_testkit::wire::{Connection, scrape_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_gigabyte_streams_through_in_the_memory_of_a_small_one() {
    let target = flood().await;
    let proxy = Proxy::start(&[]).await;
    let rest = Rest::of(&proxy.daemon);
    let client = Client::start(&proxy.url(), &target.url("/"), NAME, &[]);
    proxy.registered(NAME).await;
    let bystander = Bystander::at(&proxy).await;
    bystander
        .meanwhile(async {
            pass(&proxy, "/?50").await;
            let daemons = [&proxy.daemon, &client.daemon];
            let before = daemons.map(|daemon| daemon.own_memory());
            let passing = pass(&proxy, "/?1000");
            let watching = async {
                let mut most = before;
                loop {
                    for (most, daemon) in most.iter_mut().zip(daemons) {
                        *most = daemon.own_memory().max(*most);
                    }
                    for (most, before) in most.iter().zip(before) {
                        assert!(
                            *most <= before + 2 * MIB,
                            "{before} KiB after 50 MB, {most} KiB in 1 GB"
                        );
                    }
                    idle(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                count = passing => assert_eq!(count, 1_000 * PIECE),
                () = watching => {}
            }
        })
        .await;
    bystander.leave().await;
    drop(client);
    rest.descriptors_return(&proxy.daemon, SOON).await;
}

#[tokio::test]
async fn readers_of_a_byte_a_second_are_cut_off_when_their_time_is_up() {
    let target = flood().await;
    let proxy = Proxy::start(&[]).await;
    withstands(&proxy, async || {
        let client = Client::start(&proxy.url(), &target.url("/"), NAME, &[]);
        proxy.registered(NAME).await;
        let before = proxy.daemon.own_memory();
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            let socket = TcpSocket::new_v4().unwrap();
            // The kernel is not to read it all for them.
            socket.set_recv_buffer_size(4_096).unwrap();
            let mut stream = socket.connect(proxy.address).await.unwrap();
            readers.spawn(async move {
                let started = Instant::now();
                let request = scrape_request(&format!("http://{NAME}/?1000"), 4.0, "");
                stream.write_all(&request).await.unwrap();
                let mut count = 0;
                while stream.read_u8().await.is_ok() {
                    count += 1;
                    idle(Duration::from_secs(1)).await;
                    // What the kernel has taken by then is still there to be read.
                    if started.elapsed() > Duration::from_secs(6) {
                        break;
                    }
                }
                (stream, count)
            });
        }
        let ending = async {
            while let Some(read) = readers.join_next().await {
                let (mut stream, count) = read.unwrap();
                assert!(count >= 1, "{count} bytes");
                // The connection ended long before the answer.
                let mut rest = Vec::new();
                let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
                let ended = ended.expect("the end of the connection");
                assert!(ended.is_err() || rest.len() < PIECE, "{} bytes", rest.len());
            }
        };
        // A buffer and what it says to each, whatever the length of the answer.
        let enough = before + (READERS as u64) * 256 + MIB;
        let watching = async {
            loop {
                let now = proxy.daemon.own_memory();
                assert!(
                    now <= enough,
                    "{before} KiB before, {now} KiB while {READERS} read slowly"
                );
                idle(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = ending => {}
            () = watching => {}
        }
        drop(client);
    })
    .await;
}

/// A target that says as many megabytes as its query asks for, in chunks.
async fn flood() -> Target {
    Target::start(|request, mut connection| async move {
        let (_, count) = request.uri().split_once('?')?;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(head.as_bytes()).await.ok()?;
        let mut chunk = format!("{PIECE:x}\r\n").into_bytes();
        chunk.resize(chunk.len() + PIECE, b'x');
        chunk.extend_from_slice(b"\r\n");
        for _ in 0..count.parse().ok()? {
            connection.send(&chunk).await.ok()?;
        }
        connection.send(b"0\r\n\r\n").await.ok()?;
        Some(connection)
    })
    .await
}

/// Scrapes and reads all of the answer, of which nothing is kept: how long it was.
async fn pass(proxy: &Proxy, path: &str) -> usize {
    let mut scrape = Connection::open(proxy.address).await.unwrap();
    let request = scrape_request(&format!("http://{NAME}{path}"), 290.0, "");
    scrape.send(&request).await.unwrap();
    let head = scrape.receive_head().await.unwrap();
    assert_eq!(head.status(), 200, "{head:?}");
    let mut pieces = scrape.pieces(&head);
    let mut count = 0;
    while let Some(piece) = pieces.next().await.unwrap() {
        count += piece.len();
    }
    assert!(pieces.is_whole(), "after {count} bytes");
    count
}

const NAME: &str = "large.test";

const PIECE: usize = 1_000_000;

const READERS: usize = 50;

/// In KiB, as the kernel counts memory.
const MIB: u64 = 1024;
