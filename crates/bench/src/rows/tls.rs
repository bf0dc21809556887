//! What TLS costs: memory per parked client that shows a certificate, and CPU per scrape beside plain
//! HTTP. One connection at a time does something here, so that each is a plain blocking one.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{Bench, RowName};
use crate::messages;
use crate::payload::Payload;
use crate::placement;
use crate::relay::Relay;
use crate::report::{Row, median};

pub(super) fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let certificates = Certificates::new()?;
    Ok(vec![
        memory(bench, &certificates)?,
        cpu(bench, &certificates)?,
    ])
}

fn memory(bench: &Bench, certificates: &Certificates) -> anyhow::Result<Row> {
    let clients = bench.clients.min(MOST_CLIENTS);
    let mut relay = certificates.proxy(bench)?;
    let parked = (0..u32::try_from(clients)?)
        .map(|client| {
            let mut connection = certificates.connect(relay.address)?;
            connection.poll(client)?;
            Ok(connection)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    relay.process.wait_until_quiet()?;
    let resident = relay.process.account.memory()?;
    let each = resident.saturating_sub(relay.memory_at_rest) as f64 / clients as f64;
    drop(parked);
    let figure = format!("resident memory per parked client over TLS, {clients} clients");
    let row = Row::new(RowName::Tls.name(), &figure, each, 12_000.0, "bytes");
    Ok(row.detail("each has shown a certificate and is a member by it"))
}

fn cpu(bench: &Bench, certificates: &Certificates) -> anyhow::Result<Row> {
    // Of a single scrape at a time, the kernel puts the two sides in different places: beside their
    // peers the one, apart from them the other, whose messages then wake another CPU.
    let _together = placement::on_one_cpu()?;
    let mut plain = Scrapes::new(Relay::proxy(&bench.proxy)?, |relay| {
        Ok(Connection(Box::new(TcpStream::connect(relay)?)))
    })?;
    let mut secure = Scrapes::new(certificates.proxy(bench)?, |relay| {
        certificates.connect(relay)
    })?;
    let payload = Payload::new(20_000);
    // The first scrapes bring the handshakes of their connections.
    plain.round(bench, &payload)?;
    secure.round(bench, &payload)?;
    let (mut plains, mut secures) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        plains.push(plain.round(bench, &payload)?);
        secures.push(secure.round(bench, &payload)?);
    }
    let ratios: Vec<f64> = secures
        .iter()
        .zip(&plains)
        .map(|(one, other)| one / other)
        .collect();
    let figure = "CPU per scrape of 20 kB over TLS on both legs ÷ plain";
    let row = Row::of_rounds(RowName::Tls.name(), figure, ratios, 2.5, "×");
    Ok(row.detail(format!(
        "one at a time: {:.1} µs of CPU per scrape over TLS, {:.1} µs plain",
        median(&secures),
        median(&plains)
    )))
}

/// An authority, and what it has issued.
struct Certificates {
    folder: TempDir,
    config: Arc<ClientConfig>,
}

impl Certificates {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let issue = |name: &str| -> anyhow::Result<_> {
            let key = KeyPair::generate()?;
            let params = CertificateParams::new([name.to_owned()])?;
            Ok((params.signed_by(&key, &authority)?, key))
        };
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).context("cannot write a file for the proxy")
        };
        let (server, key) = issue("127.0.0.1")?;
        write("server.crt", &server.pem())?;
        write("server.key", &key.serialize_pem())?;
        write("ca.crt", &authority.pem())?;
        write("web.yml", WEB)?;
        write("auth.yml", AUTH)?;

        let (client, key) = issue("client.fleet.example")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec()))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let chain = vec![CertificateDer::from(client.der().to_vec())];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self {
            folder,
            config: Arc::new(config),
        })
    }

    /// Starts the proxy with TLS and members.
    fn proxy(&self, bench: &Bench) -> anyhow::Result<Relay> {
        let flag = |name: &str, file: &str| {
            let mut flag = OsString::from(name);
            flag.push(self.folder.path().join(file));
            flag
        };
        let flags = [
            flag("--web.config.file=", "web.yml"),
            flag("--auth.config.file=", "auth.yml"),
        ];
        Relay::proxy_with(&bench.proxy, flags)
    }

    fn connect(&self, relay: SocketAddr) -> anyhow::Result<Connection> {
        let name = ServerName::IpAddress(relay.ip().into());
        let tls = ClientConnection::new(Arc::clone(&self.config), name)?;
        let tcp = TcpStream::connect(relay)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        Ok(Connection(Box::new(StreamOwned::new(tls, tcp))))
    }
}

/// A connection, with or without TLS.
struct Connection(Box<dyn Stream>);

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(bytes)?;
        Ok(self.0.flush()?)
    }

    fn poll(&mut self, client: u32) -> anyhow::Result<()> {
        let mut poll = Vec::new();
        messages::poll(client, &mut poll);
        self.send(&poll)
    }

    /// Reads an answer that tells its length: all of it.
    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let mut slots = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut slots);
            if let httparse::Status::Complete(start) = head.parse(&answer)? {
                ensure!(
                    head.code == Some(200),
                    "the proxy answered {:?} {:?}",
                    head.code,
                    head.reason
                );
                let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
                let length = head.headers.iter().find(|header| is_length(header.name));
                let length = length.context("an answer does not tell its length")?;
                let length: usize = std::str::from_utf8(length.value)?.parse()?;
                if answer.len() >= start + length {
                    return Ok(answer);
                }
            }
            let count = self.0.read(&mut buffer)?;
            ensure!(count > 0, "the proxy has closed a connection");
            answer.extend(buffer.get(..count).unwrap_or_default());
        }
    }
}

/// A client and a scraper at one proxy.
struct Scrapes {
    relay: Relay,
    poll: Connection,
    push: Connection,
    scrape: Connection,
}

impl Scrapes {
    fn new(
        relay: Relay,
        connect: impl Fn(SocketAddr) -> anyhow::Result<Connection>,
    ) -> anyhow::Result<Self> {
        let address = relay.address;
        Ok(Self {
            relay,
            poll: connect(address)?,
            push: connect(address)?,
            scrape: connect(address)?,
        })
    }

    /// Microseconds of CPU for each of some scrapes.
    fn round(&mut self, bench: &Bench, payload: &Payload) -> anyhow::Result<f64> {
        let before = self.relay.process.account.cpu()?;
        for _ in 0..SCRAPES {
            self.once(bench, payload)?;
        }
        let cpu = self.relay.process.account.cpu()?.saturating_sub(before);
        Ok(cpu.as_secs_f64() * 1e6 / f64::from(SCRAPES))
    }

    fn once(&mut self, bench: &Bench, payload: &Payload) -> anyhow::Result<()> {
        let mut scrape = Vec::new();
        messages::scrape(CLIENT, &mut scrape);
        self.poll.poll(CLIENT)?;
        self.scrape.send(&scrape)?;
        let instruction = self.poll.receive()?;
        let text = std::str::from_utf8(&instruction)?;
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("Id: "))
            .context("an instruction has no id")?;
        let mut push = Vec::new();
        messages::push_head(id, CLIENT, payload, bench.inner, &mut push);
        push.extend_from_slice(payload.rest());
        push.extend_from_slice(messages::push_tail(bench.inner));
        self.push.send(&push)?;
        let answer = self.scrape.receive()?;
        ensure!(
            answer.ends_with(payload.rest()),
            "an answer has something else in it"
        );
        self.push.receive().map(drop)
    }
}

const WEB: &str = "tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
";

const AUTH: &str = "scrapers: [{san: '*.fleet.example', names: ['*']}]
clients: [{san: '*.fleet.example', names: ['*.fleet.example']}]
";

/// Handshakes take a while, and more clients change nothing.
const MOST_CLIENTS: usize = 3000;
const SCRAPES: u32 = 300;
const CLIENT: u32 = 7;
const TIMEOUT: Duration = Duration::from_secs(20);
