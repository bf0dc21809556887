//! Proxies with TLS: their certificates are for a name that they share, and they may ask for one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pushprox_testkit::wait::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::bench::{Bench, SOON};
use crate::support::tls::Authority;

/// A proxy behind TLS that lists `name`. It keeps the heads of its requests.
struct Secured {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Secured {
    async fn start(
        authority: &Authority,
        certificate: &str,
        asks: bool,
        name: &'static str,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = authority.acceptor(certificate, asks);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                kept.lock().push(String::from_utf8(head).unwrap());
                let body = format!(r#"[{{"targets":["{name}"],"labels":{{}}}}]"#);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Self {
            address,
            requests,
            _serving: serving,
        }
    }
}

fn flag(name: &str, folder: &Path, file: &str) -> String {
    format!("--tls.{name}={}", folder.join(file).display())
}

#[tokio::test]
async fn each_is_asked_at_its_address_by_the_name_in_their_certificates() {
    let bench = Bench::new().await;
    let authority = Authority::new();
    let own = authority.sign("discovery");
    bench.write("proxies.crt", &authority.pem());
    bench.write("own.crt", &own.certificate.pem());
    bench.write("own.key", &own.key.serialize_pem());
    let one = Secured::start(&authority, "proxy.test", true, "a").await;
    let two = Secured::start(&authority, "proxy.test", true, "b").await;
    let wrong = Secured::start(&authority, "other.test", true, "c").await;
    bench.service(
        "web",
        &[
            (one.address, true),
            (two.address, true),
            (wrong.address, true),
        ],
    );
    let folder = bench.path();
    let (ca, cert, key) = (
        flag("cacert", folder, "proxies.crt"),
        flag("cert", folder, "own.crt"),
        flag("key", folder, "own.key"),
    );
    let url = "--proxy-url=https://me:secret@proxy.test/";
    let mut discovery = bench.start(&[url, &ca, &cert, &key]).await;
    discovery
        .daemon
        .line(&["level=warn", &wrong.address.to_string(), "certificate"])
        .await;
    until("both clients", SOON, async || {
        let clients = bench.clients();
        let list = |address: SocketAddr| {
            let key = clients
                .keys()
                .find(|proxy| proxy.contains(&address.to_string()))?;
            clients.get(key).cloned()
        };
        (list(one.address)? == ["a"]
            && list(two.address)? == ["b"]
            && list(wrong.address)?.is_empty())
        .then_some(())
    })
    .await;
    let request = one.requests.lock()[0].clone();
    assert!(
        request
            .to_lowercase()
            .contains(&format!("host: proxy.test:{}\r\n", one.address.port())),
        "{request}"
    );
    assert!(wrong.requests.lock().is_empty());

    // Prometheus is told the same, when it loads what was written.
    let jobs = until("Prometheus has all three", SOON, async || {
        let config: serde_yaml::Value = serde_yaml::from_str(&bench.reloads.config()).ok()?;
        let jobs = config["scrape_configs"].as_sequence()?.clone();
        (jobs.len() == 3).then_some(jobs)
    })
    .await;
    for job in &jobs {
        let tls = &job["tls_config"];
        assert_eq!(tls["server_name"], "proxy.test");
        assert_eq!(tls["ca_file"], folder.join("proxies.crt").to_str().unwrap());
        assert_eq!(tls["cert_file"], folder.join("own.crt").to_str().unwrap());
        assert_eq!(tls["key_file"], folder.join("own.key").to_str().unwrap());
        assert!(
            job["proxy_url"]
                .as_str()
                .unwrap()
                .starts_with("https://me:secret@127.0.0.1:")
        );
    }
}

#[tokio::test]
async fn a_proxy_is_not_trusted_by_another_authority_and_does_not_trust_who_shows_nothing() {
    let bench = Bench::new().await;
    let (authority, other) = (Authority::new(), Authority::new());
    bench.write("proxies.crt", &authority.pem());
    let foreign = Secured::start(&other, "proxy.test", false, "a").await;
    let asking = Secured::start(&authority, "proxy.test", true, "b").await;
    let fine = Secured::start(&authority, "proxy.test", false, "c").await;
    bench.service(
        "web",
        &[
            (foreign.address, true),
            (asking.address, true),
            (fine.address, true),
        ],
    );
    let ca = flag("cacert", bench.path(), "proxies.crt");
    let discovery = bench.start(&["--proxy-url=https://proxy.test/", &ca]).await;
    discovery
        .metric_is("clients", |clients| clients == 1.0)
        .await;
    discovery
        .metric_is("proxies_failing", |failing| failing == 2.0)
        .await;
    assert!(foreign.requests.lock().is_empty() && asking.requests.lock().is_empty());
}
