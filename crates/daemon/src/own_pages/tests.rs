//! The pages over real sockets, and what becomes of those that do not ask for them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pushprox_testkit::tls::{Authority, Pair};
use pushprox_testkit::wait::{SOON, until};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

async fn start(ready: Arc<AtomicBool>) -> (SocketAddr, Shutdown) {
    start_with(ready, Web::open()).await
}

async fn start_with(ready: Arc<AtomicBool>, web: Web) -> (SocketAddr, Shutdown) {
    start_shared(ready, Arc::new(web)).await
}

async fn start_shared(ready: Arc<AtomicBool>, web: Arc<Web>) -> (SocketAddr, Shutdown) {
    let listener = "127.0.0.1:0"
        .parse::<crate::listen::ListenAddress>()
        .unwrap()
        .bind()
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let is_ready = move || ready.load(Ordering::Relaxed);
    shutdown.spawn(serve_on(
        listener,
        Arc::new(Registry::new()),
        is_ready,
        web,
        shutdown.clone(),
    ));
    (address, shutdown)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn pages_answer_and_others_do_not() {
    let ready = Arc::new(AtomicBool::new(false));
    let (address, shutdown) = start(Arc::clone(&ready)).await;
    for (request, wanted) in [
        ("GET /-/healthy", "HTTP/1.1 200 OK\r\n"),
        ("GET /-/ready", "HTTP/1.1 503 not ready\r\n"),
        ("GET /metrics", "HTTP/1.1 200 OK\r\n"),
        (
            "POST /metrics",
            "HTTP/1.1 405 method not allowed here, use GET or HEAD\r\n",
        ),
        ("GET /", "HTTP/1.1 404 not found; there are"),
    ] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with(wanted), "{request}: {answer}");
    }
    ready.store(true, Ordering::Relaxed);
    assert!(
        ask(address, "GET /-/ready")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let head = ask(address, "HEAD /metrics").await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert!(shutdown.drain(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn a_rate_limit_is_not_for_probes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yml");
    std::fs::write(&file, "rate_limit: {interval: 1h, burst: 1}\n").unwrap();
    let web = Web::load(Some(file)).unwrap();
    let (address, shutdown) = start_with(Arc::new(AtomicBool::new(true)), web).await;
    for (request, wanted) in [
        ("GET /-/healthy", "HTTP/1.1 200 "),
        ("GET /metrics", "HTTP/1.1 200 "),
        ("GET /metrics", "HTTP/1.1 429 "),
        ("GET /-/healthy", "HTTP/1.1 200 "),
        ("GET /-/ready", "HTTP/1.1 200 "),
    ] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with(wanted), "{request}: {answer}");
    }
    assert!(shutdown.drain(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn the_shutdown_closes_idle_connections() {
    let (address, shutdown) = start(Arc::new(AtomicBool::new(true))).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 15];
    idle.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 200 OK");
    assert!(shutdown.drain(Duration::from_secs(60)).await);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_probe_is_answered_beside_those_that_say_nothing() {
    let (address, shutdown) = start(Arc::new(AtomicBool::new(true))).await;
    for said in [&b""[..], b"GET /metr"] {
        // Again where the machine has stood still.
        until(
            "a probe is answered before their time is up",
            SOON,
            async || {
                let mut strangers = Vec::new();
                for _ in 0..2 * MAX_CONNECTIONS {
                    let mut stranger = TcpStream::connect(address).await.unwrap();
                    stranger.write_all(said).await.unwrap();
                    strangers.push(stranger);
                }
                let probe = ask(address, "GET /-/healthy");
                let answer = timeout(FIRST_HEAD_TIMEOUT / 2, probe).await.ok()?;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                Some(())
            },
        )
        .await;
    }
    assert!(shutdown.drain(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn the_first_head_has_ten_seconds_and_idling_between_requests_more() {
    let (address, shutdown) = start(Arc::new(AtomicBool::new(true))).await;
    for (said, seconds) in [
        (&b""[..], 10),
        (b"GET /metr", 10),
        (b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n", 90),
    ] {
        let before = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        if said.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut [0; 15]).await.unwrap();
        }
        // Nothing is on its way any more, so that the clock may jump.
        tokio::time::pause();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        tokio::time::resume();
        let lasted = before.elapsed().as_secs();
        assert!(
            (seconds..seconds + 60).contains(&lasted),
            "{said:?}: {lasted} s"
        );
    }
    assert!(shutdown.drain(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_hangs_does_not_hold_the_shutdown_up() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA");
    let web = with_tls(folder.path(), &authority);
    let (address, shutdown) = start_shared(Arc::new(AtomicBool::new(true)), web).await;
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger
        .write_all(b"\x16\x03\x01\x02\x00\x01")
        .await
        .unwrap();
    // It is being waited for.
    sleep(Duration::from_secs(1)).await;
    let before = Instant::now();
    assert!(shutdown.drain(Duration::from_secs(60)).await);
    assert_eq!(before.elapsed().as_secs(), 0);
}

#[tokio::test]
async fn a_connection_ends_with_the_trust_in_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("CA");
    let web = with_tls(folder.path(), &authority);
    let (address, shutdown) = start_shared(Arc::new(AtomicBool::new(true)), Arc::clone(&web)).await;
    let pair = authority.issue(folder.path(), "client", &["client"]);
    let mut stream = connect(address, &authority, &pair).await;
    for _ in 0..2 {
        assert!(is_served(&mut stream).await);
    }
    // Another authority of that name has not signed it.
    std::fs::write(folder.path().join("ca.pem"), Authority::new("CA").pem()).unwrap();
    assert!(web.refresh());
    assert!(!is_served(&mut stream).await);
    assert!(shutdown.drain(Duration::from_secs(60)).await);
}

/// TLS by a certificate of the authority's, and for clients who show one of it.
fn with_tls(folder: &Path, authority: &Authority) -> Arc<Web> {
    let pair = authority.issue(folder, "server", &["127.0.0.1"]);
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let file = folder.join("web.yml");
    let [cert, key, ca] = [pair.cert, pair.key, ca].map(|path| path.display().to_string());
    let text = format!(
        "tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n  client_ca_file: {ca}\n  \
         client_auth_type: RequireAndVerifyClientCert\n"
    );
    std::fs::write(&file, text).unwrap();
    Arc::new(Web::load(Some(file)).unwrap())
}

async fn connect(address: SocketAddr, authority: &Authority, pair: &Pair) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let certificate = CertificateDer::from_pem_file(&pair.cert).unwrap();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect("127.0.0.1".try_into().unwrap(), stream)
        .await
        .unwrap()
}

/// Asks whether it is ready on a connection that stays. False where the connection ends instead.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    let request = b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte).await {
        answer.extend_from_slice(&byte);
        if answer.ends_with(b"\r\n\r\nready\n") {
            return true;
        }
    }
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    false
}
