//! TLS on the leg to the proxy, with certificates made for the test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::peers::{Peer, Proxy};
use crate::support::{Client, Log, scrape};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issued(by: &Issuer, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, by).unwrap(), key)
}

/// A certificate for localhost that is its own authority, and says so or not.
fn on_its_own(is_ca: IsCa) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = is_ca;
    (params.self_signed(&key).unwrap(), key)
}

/// A proxy behind TLS that offers only HTTP/1.1 and asks for a certificate of `clients`.
async fn proxy(server: &Issuer, clients: Option<&Issuer>) -> Proxy {
    proxy_with(issued(server, "localhost"), clients).await
}

async fn proxy_with(
    (certificate, key): (rcgen::Certificate, KeyPair),
    clients: Option<&Issuer>,
) -> Proxy {
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(issuer) => {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Proxy::over(Peer::serve(listener, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.ok()?;
            // The client speaks HTTP/1.1 only, and says so.
            assert_eq!(
                stream.get_ref().1.alpn_protocol(),
                Some(b"http/1.1".as_slice())
            );
            Some(stream)
        }
    }))
}

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[tokio::test]
async fn the_given_authority_is_trusted_and_the_certificate_shown() {
    let folder = TempDir::new().unwrap();
    let (servers, clients) = (authority("servers"), authority("clients"));
    let mut proxy = proxy(&servers, Some(&clients)).await;
    let mut target = Peer::start().await;
    let (certificate, key) = issued(&clients, "node");
    let cacert = file(&folder, "ca.pem", &servers.pem());
    let cert = file(&folder, "cert.pem", &certificate.pem());
    let key = file(&folder, "key.pem", &key.serialize_pem());
    let url = format!("https://localhost:{}/", proxy.peer.address.port());
    let flags = [
        "--tls.cacert",
        &cacert,
        "--tls.cert",
        &cert,
        "--tls.key",
        &key,
    ];
    let client = Client::start(&url, &target.url("/metrics"), &flags);
    for round in 0..50 {
        proxy
            .hand_out(&scrape(&round.to_string(), "", "10", ""))
            .await;
        target.next().await.answer("200 OK", "abc");
        let push = proxy.push().await;
        assert!(push.text().ends_with("abc"), "{}", push.text());
        push.answer("200 OK", "");
    }
    proxy.poll().await;
    assert!(
        proxy.peer.connections() <= 2,
        "{}",
        proxy.peer.connections()
    );
    client.stop().await;
}

#[tokio::test]
async fn another_authority_is_not_trusted_and_nothing_is_said_to_it() {
    let folder = TempDir::new().unwrap();
    let (servers, others) = (authority("servers"), authority("others"));
    let mut proxy = proxy(&servers, None).await;
    let cacert = file(&folder, "ca.pem", &others.pem());
    let url = format!("https://localhost:{}/", proxy.peer.address.port());
    let flags = [
        "--tls.cacert",
        &cacert,
        "--proxy.retry.initial-wait=100ms",
        "--proxy.retry.max-wait=100ms",
    ];
    let mut log = Log::start();
    let client = Client::start(&url, "http://127.0.0.1:1/", &flags);
    for _ in 0..2 {
        let line = log.line("poll failed").await;
        let why = "cannot reach the proxy: no secure connection: invalid peer certificate: ";
        assert!(line.contains(why), "{line}");
    }
    assert!(proxy.peer.try_next().is_none());
    client.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_name_is_not_taken_and_told_once() {
    let folder = TempDir::new().unwrap();
    let servers = authority("servers");
    let mut proxy = proxy(&servers, None).await;
    let cacert = file(&folder, "ca.pem", &servers.pem());
    // The certificate is for localhost.
    let url = format!("https://127.0.0.1:{}/", proxy.peer.address.port());
    let flags = [
        "--tls.cacert",
        &cacert,
        "--proxy.retry.initial-wait=100ms",
        "--proxy.retry.max-wait=100ms",
    ];
    let mut log = Log::start();
    let client = Client::start(&url, "http://127.0.0.1:1/", &flags);
    let line = log.line("poll failed").await;
    let why = "cannot reach the proxy: no secure connection: invalid peer certificate: ";
    assert!(line.contains("level=warn") && line.contains(why), "{line}");
    assert!(line.contains("not valid for name"), "{line}");
    for _ in 0..5 {
        let line = log.line("poll failed").await;
        assert!(line.contains("level=debug"), "{line}");
    }
    assert!(proxy.peer.try_next().is_none());
    client.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_is_taken_also_where_it_is_an_authority() {
    let folder = TempDir::new().unwrap();
    for is_ca in [
        IsCa::ExplicitNoCa,
        IsCa::Ca(BasicConstraints::Unconstrained),
    ] {
        let (certificate, key) = on_its_own(is_ca);
        let cacert = file(&folder, "ca.pem", &certificate.pem());
        let mut proxy = proxy_with((certificate, key), None).await;
        let port = proxy.peer.address.port();
        let start = |host: &str, cacert: &str| {
            let url = format!("https://{host}:{port}/");
            Client::start(&url, "http://127.0.0.1:1/", &["--tls.cacert", cacert])
        };
        let client = start("localhost", &cacert);
        assert_eq!(proxy.poll().await.text(), "node");
        client.stop().await;
        // Neither under another name, nor where another one is trusted.
        let other = file(&folder, "other.pem", &on_its_own(is_ca).0.pem());
        for (host, cacert) in [("127.0.0.1", &cacert), ("localhost", &other)] {
            let mut log = Log::start();
            let client = start(host, cacert);
            let line = log.line("poll failed").await;
            assert!(line.contains("no secure connection: "), "{line}");
            client.stop().await;
        }
        assert!(proxy.peer.try_next().is_none());
    }
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_vouches_for_nobody() {
    let folder = TempDir::new().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let cacert = file(&folder, "ca.pem", &leaf.pem());
    let proxy = proxy(&leaf, None).await;
    let url = format!("https://localhost:{}/", proxy.peer.address.port());
    let mut log = Log::start();
    let client = Client::start(&url, "http://127.0.0.1:1/", &["--tls.cacert", &cacert]);
    let line = log.line("poll failed").await;
    assert!(line.contains("no secure connection: "), "{line}");
    client.stop().await;
}

#[tokio::test]
async fn an_authority_that_shows_itself_and_is_not_trusted_is_told() {
    let folder = TempDir::new().unwrap();
    let proxy = proxy_with(on_its_own(IsCa::Ca(BasicConstraints::Unconstrained)), None).await;
    let cacert = file(&folder, "ca.pem", &on_its_own(IsCa::ExplicitNoCa).0.pem());
    let url = format!("https://localhost:{}/", proxy.peer.address.port());
    let mut log = Log::start();
    let client = Client::start(&url, "http://127.0.0.1:1/", &["--tls.cacert", &cacert]);
    let line = log.line("poll failed").await;
    let why = "no secure connection: the peer shows the certificate of an authority \
               (basicConstraints CA:TRUE), which is taken only where the file of trusted \
               certificates has that very one";
    assert!(line.contains(why), "{line}");
    client.stop().await;
}

#[test]
fn a_key_that_does_not_fit_is_told_with_its_flags() {
    let folder = TempDir::new().unwrap();
    let clients = authority("clients");
    let cert = file(&folder, "cert.pem", &issued(&clients, "a").0.pem());
    let key = file(&folder, "key.pem", &issued(&clients, "b").1.serialize_pem());
    let flags = [
        "--proxy-url=https://p",
        "--pull-url=http://t",
        "--tls.cert",
        &cert,
        "--tls.key",
        &key,
    ];
    let args = pushprox_daemon::cli::parse_from("client", flags).unwrap();
    let error = pushprox_client::config::Config::new(args, None).unwrap_err();
    let told = pushprox_daemon::exit::causes(error.as_ref());
    assert!(
        told.starts_with("--tls.cert, --tls.key: cannot use these files: "),
        "{told}"
    );
}
