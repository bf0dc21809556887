//! Bad input of every kind: a clear 4xx where there can be an answer, and a proxy that goes on as
//! if nothing had been.

use std::time::Duration;

use pushprox_testkit::pushprox::{Client, Proxy};
use pushprox_testkit::target::Target;
use pushprox_testkit::wait::{SOON, until};
use pushprox_testkit::wire::{Connection, Message, told_early};
use tokio::task::JoinSet;

#[tokio::test]
async fn bad_polls_are_refused_with_the_reason() {
    let long = format!("{}.test", "a".repeat(300));
    let huge = "a".repeat(10_000_000);
    let bodies: [(&str, &[u8], &str); 16] = [
        ("an empty body", b"", "empty"),
        ("blanks", b" \r\n\t ", "empty"),
        ("10 MB", huge.as_bytes(), "long"),
        ("300 letters", long.as_bytes(), "253"),
        ("NUL", b"node\0.test", ""),
        ("two lines", b"node.test\nX-Evil: 1", ""),
        ("a blank", b"node test", ""),
        ("a URL", b"http://node.test:9100/metrics", ""),
        ("a path", b"node.test/metrics", ""),
        ("user information", b"user@node.test", ""),
        ("port 0x50", b"node.test:0x50", "port"),
        ("port 99999", b"node.test:99999", "port"),
        ("half an address", b"[::1", ""),
        ("markup", b"<script>alert(1)</script>", ""),
        ("other letters", "n\u{f6}de.test".as_bytes(), ""),
        ("no UTF-8", b"node\xff.test", ""),
    ];
    let proxy = Proxy::start(&[]).await;
    let mut polls = JoinSet::new();
    for (what, body, part) in bodies {
        let request = post("/poll", body);
        let (address, what, part) = (proxy.address, what.to_owned(), part.to_owned());
        polls.spawn(async move {
            let answer = told_early(address, &request).await;
            (what, part, answer)
        });
    }
    while let Some(done) = polls.join_next().await {
        let (what, part, answer) = done.unwrap();
        assert_refused(&what, &answer, &part);
        assert!(
            answer.body.len() < 1000,
            "{what}: {} bytes said",
            answer.body.len()
        );
    }
    assert_eq!(proxy.names().await, [""; 0]);
    assert_healthy(&proxy).await;
}

#[tokio::test]
async fn bad_pushes_are_refused_with_the_reason() {
    let huge = vec![b'x'; 10_000_000];
    let unknown = b"Id: 9a3f3c1e-6f0e-4c62-9a3e-0f6f1c2d3e4f\r\n";
    let answer_to = |id: &[u8], body: &[u8]| {
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        [b"HTTP/1.1 200 OK\r\n", id, length.as_bytes(), body].concat()
    };
    let many_headers = b"X: 1\r\n".repeat(100_000);
    let bodies: [(&str, Vec<u8>, &[u16]); 15] = [
        ("an empty body", vec![], &[400]),
        ("garbage", b"what is this\r\n\r\n".to_vec(), &[400]),
        ("10 MB of garbage", huge.clone(), &[400, 413, 431]),
        ("NUL", vec![0; 1000], &[400]),
        (
            "a request",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "half a head",
            b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
            &[400],
        ),
        ("status abc", b"HTTP/1.1 abc OK\r\n\r\n".to_vec(), &[400]),
        ("no id", answer_to(b"", b"x"), &[400]),
        ("an empty id", answer_to(b"Id: \r\n", b"x"), &[400, 410]),
        (
            "two ids",
            answer_to(&[&unknown[..], b"Id: x\r\n"].concat(), b"x"),
            &[400, 410],
        ),
        (
            "an id of another kind",
            answer_to(b"Id: 1795546384-2-16969\r\n", b"x"),
            &[400, 410],
        ),
        ("an unknown id", answer_to(unknown, b"x"), &[410]),
        ("an unknown id and 10 MB", answer_to(unknown, &huge), &[410]),
        (
            "100,000 headers",
            answer_to(&[&unknown[..], &many_headers].concat(), b"x"),
            &[400, 431],
        ),
        (
            "length abc",
            [
                b"HTTP/1.1 200 OK\r\n",
                &unknown[..],
                b"Content-Length: abc\r\n\r\n",
            ]
            .concat(),
            &[400, 410],
        ),
    ];
    let proxy = Proxy::start(&[]).await;
    for (what, body, expected) in bodies {
        let answer = told_early(proxy.address, &post("/push", &body)).await;
        assert_refused(what, &answer, "");
        assert!(expected.contains(&answer.status()), "{what}: {answer:?}");
    }
    assert_healthy(&proxy).await;
}

#[tokio::test]
async fn requests_that_are_none_are_refused_or_cut_off() {
    let lengths = "POST /poll HTTP/1.1\r\nHost: x\r\n";
    let long_target = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "a".repeat(200_000)
    );
    let requests: [(&str, &str, &[u16]); 17] = [
        ("nothing", "", &[]),
        ("half a head of /poll", "POST /poll HTTP/1.1\r\nHos", &[400]),
        ("half a head of /push", "POST /push HTTP/1.1\r\nHos", &[400]),
        (
            "half a poll",
            "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nnode",
            &[400],
        ),
        (
            "half a push",
            "POST /push HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nHTTP",
            &[400],
        ),
        (
            "length abc",
            &format!("{lengths}Content-Length: abc\r\n\r\n"),
            &[400],
        ),
        (
            "length -1",
            &format!("{lengths}Content-Length: -1\r\n\r\n"),
            &[400],
        ),
        (
            "two lengths",
            &format!("{lengths}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
            &[400],
        ),
        (
            "no chunk",
            &format!("{lengths}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            &[400],
        ),
        (
            "GET of /poll",
            "GET /poll HTTP/1.1\r\nHost: x\r\n\r\n",
            &[405],
        ),
        (
            "PUT of /push",
            "PUT /push HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            &[405],
        ),
        (
            "DELETE of /clients",
            "DELETE /clients HTTP/1.1\r\nHost: x\r\n\r\n",
            &[405],
        ),
        (
            "an unknown path",
            "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
            &[404],
        ),
        (
            "a scrape by POST",
            "POST http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            &[405],
        ),
        (
            "a tunnel",
            "CONNECT node.test:9100 HTTP/1.1\r\nHost: node.test:9100\r\n\r\n",
            &[501],
        ),
        ("a long name", &long_target, &[400, 414, 431]),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}", &[400]),
    ];
    let proxy = Proxy::start(&[]).await;
    for (what, request, expected) in requests {
        let mut connection = Connection::open(proxy.address).await.unwrap();
        connection.send(request.as_bytes()).await.unwrap();
        // Half a message has no answer before its sender has said that no more comes.
        if !matches!(expected, [404 | 405 | 501]) {
            connection.finish().await.unwrap();
        }
        match connection.receive().await {
            Ok(answer) => assert!(expected.contains(&answer.status()), "{what}: {answer:?}"),
            Err(_) => assert!(
                matches!(expected, [] | [400]),
                "{what}: cut off without an answer"
            ),
        }
    }
    assert_healthy(&proxy).await;
}

#[tokio::test]
async fn scrapes_with_unusable_times_are_answered_and_nothing_spins() {
    let proxy = Proxy::start(&["--scrape.default-timeout=1s", "--scrape.max-timeout=2s"]).await;
    let mut scrapes = JoinSet::new();
    for value in [
        "", "0", "-5", "NaN", "inf", "-inf", "1e400", "soon", "1e300", "3600",
    ] {
        let request = format!(
            "GET http://absent.test/ HTTP/1.1\r\nHost: absent.test\r\nConnection: close\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: {value}\r\n\r\n"
        );
        let address = proxy.address;
        scrapes.spawn(async move {
            let connection = Connection::open(address).await.unwrap();
            let answer = connection.send_and_receive(request.as_bytes()).await;
            (value, answer.unwrap())
        });
    }
    let limit = tokio::time::timeout(SOON, async {
        while let Some(done) = scrapes.join_next().await {
            let (value, answer) = done.unwrap();
            assert_eq!(answer.status(), 503, "{value}: {answer:?}");
            let reason = answer.reason();
            assert!(
                reason.contains("no client registered for absent.test"),
                "{reason:?}"
            );
        }
    });
    limit.await.expect("each has an answer in its time");
    let before = proxy.daemon.processor_ticks();
    pushprox_testkit::wait::idle(Duration::from_secs(1)).await;
    let spent = proxy.daemon.processor_ticks() - before;
    assert!(
        spent < 20,
        "{spent} hundredths of a second spent on nothing"
    );
    assert_healthy(&proxy).await;
}

#[tokio::test]
async fn thousands_of_unknown_names_and_ids_leave_no_memory_behind() {
    let proxy = Proxy::start(&["--registration.timeout=1s"]).await;
    let rest = proxy.daemon.descriptors();
    let flood = async |round: u32, batches: u32, at_once: u32| {
        for batch in 0..batches {
            let mut requests = JoinSet::new();
            for number in 0..at_once {
                let address = proxy.address;
                let name = format!("{round}-{batch}-{number}.{}.test", "x".repeat(60));
                requests.spawn(async move {
                    // A poll that is given up, a scrape that is given up, a push for nobody.
                    for request in [
                        post("/poll", name.as_bytes()),
                        format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n").into(),
                        post(
                            "/push",
                            format!("HTTP/1.1 200 OK\r\nId: {name}\r\n\r\n").as_bytes(),
                        ),
                    ] {
                        let mut connection = Connection::open(address).await.unwrap();
                        connection.send(&request).await.unwrap();
                    }
                });
            }
            while let Some(done) = requests.join_next().await {
                done.unwrap();
            }
        }
        until("names back at rest", SOON, async || {
            proxy.names().await.is_empty().then_some(())
        })
        .await;
        until("descriptors back at rest", SOON, async || {
            (proxy.daemon.descriptors() <= rest).then_some(())
        })
        .await;
        proxy.daemon.memory()
    };
    // What the most connections at once have cost stays with the allocator, so that comes first.
    let mut memory = vec![flood(0, 10, 200).await];
    for round in 1.. {
        memory.push(flood(round, 20, 50).await);
        // Of 12,000 requests nothing stays. On a machine that stands still more of them may be there
        // at once than ever before; a leak goes on.
        let is_flat = |four: &[u64]| four[4] < four[0] + 2 * 1024;
        if memory.windows(5).any(is_flat) {
            break;
        }
        assert!(memory.len() < 16, "KiB at rest: {memory:?}");
    }
    assert_healthy(&proxy).await;
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: proxy\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A 4xx with a text that says what is wrong.
fn assert_refused(what: &str, answer: &Message, part: &str) {
    assert!((400..500).contains(&answer.status()), "{what}: {answer:?}");
    let text = answer.text();
    assert!(
        !text.trim().is_empty(),
        "{what}: {} without a word",
        answer.status()
    );
    assert!(
        text.to_lowercase().contains(part),
        "{what}: {text:?} says nothing of {part:?}"
    );
    assert!(answer.whole, "{what}: {answer:?}");
}

async fn assert_healthy(proxy: &Proxy) {
    let target = Target::saying("healthy").await;
    let _client = Client::start(&proxy.url(), &target.url("/"), "healthy.test", &[]);
    proxy.registered("healthy.test").await;
    let answer = proxy.scrape("http://healthy.test/", 10.0).await;
    assert_eq!(answer.text(), "healthy", "{answer:?}");
    assert_eq!(
        proxy.daemon.lines_with(&["panicked", "level=error"]),
        [""; 0]
    );
}
