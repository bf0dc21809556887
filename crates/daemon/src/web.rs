//! How the web configuration applies to connections and requests.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::HeaderMap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Shutdown;
use crate::config_file::FileError;
use crate::credentials::Credentials;
use crate::exit::causes;
use crate::guard::{Denied, Guard, Place};
use crate::passwords::PasswordHash;
use crate::rate::Bucket;
use crate::reload::Reloaded;
use crate::san::{self, San};
use crate::web_config::WebConfig;

/// What stands between the network and the daemon's pages.
#[derive(Debug)]
pub struct Web {
    config: Arc<Reloaded<WebConfig>>,
    requests: Mutex<Bucket>,
    /// What is remembered of attempts, here and wherever else credentials are looked at.
    pub guard: Guard,
}

/// A connection whose handshake, if there was to be one, is done.
#[derive(Debug)]
pub enum Accepted {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS, and the client's certificate if that was verified.
    Tls(Box<TlsStream<TcpStream>>, Option<ClientCertificate>),
}

/// What a client's certificate says that was verified in the handshake.
///
/// A connection may outlive the certificate that it began with, and the authority: polls keep theirs
/// for months.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The names in it.
    pub names: Vec<San>,
    not_after: SystemTime,
    /// The generation of the files by which it was last verified.
    verified_by: AtomicU64,
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("it was not done in time")]
    TimedOut,
    /// The peer speaks something else.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// The client's certificate is no good.
    #[error("the client's certificate: {0}")]
    Certificate(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Web {
    /// Open to everyone, plain HTTP.
    #[must_use]
    pub fn open() -> Self {
        Self::new(Reloaded::fixed(WebConfig::default()))
    }

    /// As the file has it, or open where there is none.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub fn load(file: Option<PathBuf>) -> Result<Self, FileError> {
        Ok(match file {
            Some(file) => Self::new(WebConfig::load(file)?),
            None => Self::open(),
        })
    }

    /// The same, for a daemon whose users stand elsewhere: a file with users is refused, and `why`
    /// is the reason that is told.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub fn load_without_users(file: Option<PathBuf>, why: &'static str) -> Result<Self, FileError> {
        Ok(match file {
            Some(file) => Self::new(WebConfig::load_without_users(file, why)?),
            None => Self::open(),
        })
    }

    fn new(config: Reloaded<WebConfig>) -> Self {
        Self {
            config: Arc::new(config),
            requests: Mutex::new(Bucket::full()),
            guard: Guard::default(),
        }
    }

    /// What is in force now.
    #[must_use]
    pub fn config(&self) -> Arc<WebConfig> {
        self.config.current()
    }

    /// Reads the files again if they have changed. Whether something else is in force now.
    pub fn refresh(&self) -> bool {
        self.config.refresh()
    }

    /// How often what is in force has been replaced.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.config.generation()
    }

    /// Reads the files again when they change, until the shutdown begins.
    pub async fn watch(&self, shutdown: Shutdown) {
        Arc::clone(&self.config).watch(shutdown).await;
    }

    /// Does the handshake where TLS is served, with a peer that gets it done by `until`. It is
    /// `greeted` once its part of that has begun well. What fails is counted here.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`].
    pub async fn accept(
        &self,
        stream: TcpStream,
        until: Instant,
        greeted: impl FnOnce() + Send,
    ) -> Result<Accepted, HandshakeError> {
        // Before the configuration: of two that are taken at once the older number is the safe one.
        let generation = self.generation();
        let config = self.config();
        let Some(tls) = config.tls() else {
            return Ok(Accepted::Plain(stream));
        };
        let shaken = timeout_at(until, shake_hands(stream, Arc::clone(tls), greeted)).await;
        let stream = shaken
            .unwrap_or(Err(HandshakeError::TimedOut))
            .inspect_err(|error| self.guard.count_handshake(error.label()))?;
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let certificate = certificate
            .filter(|_| config.verifies_clients())
            .map(|certificate| ClientCertificate::new(certificate, generation));
        Ok(Accepted::Tls(stream, certificate))
    }

    /// Whether a certificate from an earlier handshake would get through in another. `chain` is what
    /// the client showed then.
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are good until a date"
    )]
    pub fn still_trusts(
        &self,
        certificate: &ClientCertificate,
        chain: &[CertificateDer<'_>],
    ) -> bool {
        let generation = self.generation();
        let verified_by = &certificate.verified_by;
        if verified_by.load(Ordering::Relaxed) == generation
            && certificate.not_after > SystemTime::now()
        {
            return true;
        }
        let is_trusted = self.config().trusts_client(chain);
        if is_trusted {
            verified_by.store(generation, Ordering::Relaxed);
        }
        is_trusted
    }

    /// Passes if there are not too many requests.
    ///
    /// # Errors
    ///
    /// [`Denied::RateLimit`].
    pub fn check_rate(&self, config: &WebConfig) -> Result<(), Denied> {
        match config.rate_limit() {
            Some(rate) if !self.requests.lock().take(rate, Instant::now()) => {
                Err(Denied::RateLimit)
            }
            _ => Ok(()),
        }
    }

    /// Passes if the request shows a user of the file's, or the file has none. Which user it is, and
    /// the hash that its password met.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub async fn check_user(
        &self,
        config: &WebConfig,
        headers: &HeaderMap,
        place: Place,
        address: IpAddr,
    ) -> Result<Option<(String, PasswordHash)>, Denied> {
        let Some(users) = config.users() else {
            return Ok(None);
        };
        match Guard::credentials(headers, place)? {
            Some(Credentials::Basic { user, password }) => {
                let guard = &self.guard;
                guard
                    .check_password(users, &user, &password, address)
                    .await?;
                let hash = users.hash(&user).ok_or(Denied::Wrong)?.clone();
                Ok(Some((user, hash)))
            }
            Some(Credentials::Bearer(token)) => {
                // No token is right here, and guesses count as such.
                self.guard.check_token(&token, address, |_| None)
            }
            None => Err(Denied::Missing),
        }
    }
}

impl ClientCertificate {
    fn new(certificate: &CertificateDer<'_>, generation: u64) -> Self {
        let not_after = san::not_after(certificate).unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            verified_by: AtomicU64::new(generation),
            ..Self::with_names(san::of(certificate).unwrap_or_default(), not_after)
        }
    }

    /// One with these names, from a handshake by the first of the files.
    #[must_use]
    pub fn with_names(names: Vec<San>, not_after: SystemTime) -> Self {
        Self {
            names,
            not_after,
            verified_by: AtomicU64::new(0),
        }
    }
}

impl HandshakeError {
    fn of(error: &io::Error) -> Self {
        use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(NoCertificatesPresented) => Self::Certificate("there is none".to_owned()),
            Some(InvalidCertificate(error)) => Self::Certificate(error.to_string()),
            _ => Self::Failed(causes(error)),
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::NotTls => "not_tls",
            Self::Certificate(_) => "client_certificate",
            Self::Failed(_) => "failed",
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    greeted: impl FnOnce() + Send,
) -> Result<Box<TlsStream<TcpStream>>, HandshakeError> {
    let mut first = [0];
    let came = stream.peek(&mut first).await;
    if matches!(came, Ok(1)) && first[0].is_ascii_uppercase() {
        refuse_plain(stream).await;
        return Err(HandshakeError::NotTls);
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await;
    let hello = hello.map_err(|error| HandshakeError::of(&error))?;
    greeted();
    let accepted = hello.into_stream(tls).await;
    accepted
        .map(Box::new)
        .map_err(|error| HandshakeError::of(&error))
}

/// Tells who speaks plain HTTP what is wrong, as Go's server does.
async fn refuse_plain(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.0 400 this port speaks TLS, use https\r\n\
        Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        this port speaks TLS, use https\n";
    if stream.write_all(ANSWER).await.is_ok() && stream.shutdown().await.is_ok() {
        // What is left unread would make the close a reset, which takes the answer away.
        let mut taken = [0; 4096];
        for _ in 0..MAX_DRAINED_READS {
            if !matches!(stream.read(&mut taken).await, Ok(1..)) {
                return;
            }
        }
    }
}

/// Reads of what a peer still sends that is told to go elsewhere.
const MAX_DRAINED_READS: usize = 16;
