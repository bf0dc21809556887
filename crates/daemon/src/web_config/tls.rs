//! From `tls_server_config` to what rustls serves with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::file::TlsServer;
use super::tls_names::{CipherSuite, ClientAuth, Version};
use super::verifier::{self, Authorities};
use crate::config_file::{FileError, beside};
use crate::exit::causes;
use crate::reload::Files;
use crate::trusted::{TrustError, Trusted};

/// How TLS is served.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// Whether a client's certificate that got through was signed by one of the client CAs.
    pub(super) verifies_clients: bool,
    /// Whether nobody gets through without one.
    pub(super) requires_clients: bool,
    /// What takes or refuses certificates of clients, if these are asked for any.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether only certificates with certain names get through.
    pub(super) allows_some: bool,
}

/// Makes rustls's configuration. None where the file asks for no TLS.
pub(super) fn server(
    tls: &TlsServer,
    file: &Path,
    files: &mut Files,
) -> Result<Option<Tls>, FileError> {
    if tls.is_empty() {
        return Ok(None);
    }
    let mut source = Source { file, files };
    let wrong = |what: String| FileError::content(file, format!("tls_server_config: {what}"));
    let (cert, cert_path) = source.pem("cert", tls.cert.as_deref(), tls.cert_file.as_deref())?;
    let key = tls.key.as_ref().map(|key| key.0.expose());
    let (key, key_path) = source.pem_bytes("key", key, tls.key_file.as_deref())?;
    let cert = cert.ok_or_else(|| wrong("neither cert_file nor cert is there".to_owned()))?;
    let key = key.ok_or_else(|| wrong("neither key_file nor key is there".to_owned()))?;
    let chain = certificates(&cert, &cert_path)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        FileError::content(
            &key_path,
            "there is no private key in PEM format in it (PKCS#8, PKCS#1 or SEC1, not encrypted)",
        )
    })?;

    let (min, max) = (
        tls.min_version.unwrap_or(Version::Tls12),
        tls.max_version.unwrap_or(Version::Tls13),
    );
    if min > max {
        return Err(wrong("min_version is above max_version".to_owned()));
    }
    let provider = Arc::new(provider(tls));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&Version::range(min, max))
        .map_err(|error| {
            wrong(format!(
                "cipher_suites leave nothing for these versions: {error}"
            ))
        })?;
    let client_auth = tls.client_auth_type.unwrap_or(ClientAuth::None);
    let authorities = client_authorities(tls, client_auth, &mut source)?;
    check_allowed_sans(tls, client_auth).map_err(|what| wrong(what.to_owned()))?;
    let verifier = verifier::new(
        client_auth,
        authorities,
        tls.client_allowed_sans.clone(),
        &provider,
    )
    .map_err(|error| wrong(format!("client_ca: {}", causes(&error))))?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        FileError::content(
            &cert_path,
            format!(
                "cannot be used together with {}: {error}",
                key_path.display()
            ),
        )
    })?;
    // Prometheus cannot scrape through a proxy that has agreed on HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    // A resumed session would pass without another look at its certificate. Connections here live
    // long, so that there is little to gain.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Tls {
        config: Arc::new(config),
        verifies_clients: client_auth.verifies(),
        requires_clients: client_auth == ClientAuth::RequireAndVerify,
        verifier,
        allows_some: tls.client_allowed_sans.is_some(),
    }))
}

fn provider(tls: &TlsServer) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if let Some(suites) = tls
        .cipher_suites
        .as_ref()
        .filter(|suites| !suites.is_empty())
    {
        provider
            .cipher_suites
            .retain(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)));
        provider
            .cipher_suites
            .extend(suites.iter().filter_map(|suite| match suite {
                CipherSuite::Tls12(suite) => Some(*suite),
                CipherSuite::Tls13 => None,
            }));
    }
    if let Some(curves) = tls
        .curve_preferences
        .as_ref()
        .filter(|curves| !curves.is_empty())
    {
        provider.kx_groups = curves.iter().map(|curve| curve.0).collect();
    }
    provider
}

/// The CAs of clients, where these are verified: the file's, else the system's, as in Go.
fn client_authorities(
    tls: &TlsServer,
    client_auth: ClientAuth,
    source: &mut Source<'_>,
) -> Result<Authorities, FileError> {
    let file = source.file;
    let wrong = |what: String| FileError::content(file, format!("tls_server_config: {what}"));
    let given = (tls.client_ca.as_deref(), tls.client_ca_file.as_deref());
    let (pem, path) = source.pem("client_ca", given.0, given.1)?;
    match (pem, client_auth) {
        (Some(_), ClientAuth::None) => Err(wrong(
            "there are client CAs without a client_auth_type that uses them; \
                 write RequireAndVerifyClientCert"
                .to_owned(),
        )),
        (Some(pem), _) => match Trusted::read(&pem, &path) {
            Ok(trusted) => Ok(Authorities::of(trusted)),
            Err(TrustError::Unusable(error)) => {
                Err(FileError::content(&path, format!("is no CA: {error}")))
            }
            Err(TrustError::NotPem | TrustError::NoCertificate) => {
                Err(FileError::content(&path, NO_CERTIFICATE))
            }
        },
        (None, _) if client_auth.verifies() => {
            let system = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            let (taken, _) = roots.add_parsable_certificates(system.certs);
            if taken == 0 {
                return Err(wrong(
                    "client_ca_file is missing, and the system has no CAs to verify clients by"
                        .to_owned(),
                ));
            }
            Ok(Authorities::new(roots))
        }
        (None, _) => Ok(Authorities::new(RootCertStore::empty())),
    }
}

fn check_allowed_sans(tls: &TlsServer, client_auth: ClientAuth) -> Result<(), &'static str> {
    let asks_all = matches!(
        client_auth,
        ClientAuth::RequireAny | ClientAuth::RequireAndVerify
    );
    if tls.client_allowed_sans.is_some() && !asks_all {
        return Err(
            "client_allowed_sans has no effect on clients without a certificate: it needs the \
             client_auth_type RequireAndVerifyClientCert (or RequireAnyClientCert)",
        );
    }
    Ok(())
}

/// The certificates in a PEM file, of which there is one at least.
fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(FileError::content(path, NO_CERTIFICATE)),
    }
}

const NO_CERTIFICATE: &str = "there is no certificate in PEM format in it";

/// Where PEM comes from: a text in the file, or a file beside it.
struct Source<'a> {
    file: &'a Path,
    files: &'a mut Files,
}

impl Source<'_> {
    fn pem(
        &mut self,
        key: &str,
        text: Option<&str>,
        path: Option<&str>,
    ) -> Result<(Option<Vec<u8>>, PathBuf), FileError> {
        self.pem_bytes(key, text.map(str::as_bytes), path)
    }

    /// The PEM, and the file that it stands in.
    fn pem_bytes(
        &mut self,
        key: &str,
        text: Option<&[u8]>,
        path: Option<&str>,
    ) -> Result<(Option<Vec<u8>>, PathBuf), FileError> {
        let text = text.filter(|text| !text.is_empty());
        match (text, path.filter(|path| !path.is_empty())) {
            (Some(_), Some(_)) => Err(FileError::content(
                self.file,
                format!("tls_server_config: {key} and {key}_file are both there; leave one out"),
            )),
            (Some(text), None) => Ok((Some(text.to_vec()), self.file.to_owned())),
            (None, Some(path)) => {
                let path = beside(self.file, path);
                Ok((Some(self.files.read(&path)?), path))
            }
            (None, None) => Ok((None, self.file.to_owned())),
        }
    }
}
