//! TLS toward a peer that is trusted by certificates of one's own choice.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use pushprox_daemon::exit::causes;
use pushprox_daemon::pinned::{self, Usage};
use pushprox_daemon::trusted::{TrustError, Trusted};

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeerTlsError {
    /// There are no certificates to trust.
    #[error("{0}")]
    Trusted(TrustError),
    /// They, or what is shown, cannot be used.
    #[error("cannot use these files: {0}")]
    Unusable(String),
}

impl From<TrustError> for PeerTlsError {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::Unusable(error) => unusable(error),
            TrustError::NotPem | TrustError::NoCertificate => Self::Trusted(error),
        }
    }
}

/// A configuration that trusts the certificates in `trusted`, the content of `file`, as authorities or
/// as the peer's own, and shows the certificate in `shown`, which its key follows. Both are PEM. It
/// offers HTTP/1.1.
///
/// # Errors
///
/// [`PeerTlsError`].
pub fn config(
    trusted: &[u8],
    file: &Path,
    shown: Option<&[u8]>,
) -> Result<ClientConfig, PeerTlsError> {
    let trusted = Trusted::read(trusted, file)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let authorities = WebPkiServerVerifier::builder_with_provider(
        Arc::new(trusted.authorities),
        Arc::clone(&provider),
    )
    .build()
    .map_err(unusable)?;
    let verifier = Verifier {
        trusted: trusted.certificates,
        authorities,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(unusable)?;
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(unusable)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn unusable(error: impl std::error::Error + 'static) -> PeerTlsError {
    PeerTlsError::Unusable(causes(&error))
}

/// Takes what its authorities vouch for, and what is itself among the trusted certificates.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !pinned::is_among(certificate, &self.trusted) {
            return self.authorities.verify_server_cert(
                certificate,
                intermediates,
                name,
                ocsp_response,
                now,
            );
        }
        pinned::check(certificate, Usage::Server, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
