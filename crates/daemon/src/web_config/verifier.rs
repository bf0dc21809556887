//! Which certificates of clients get through: Go's five ways, and the names that are allowed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::tls_names::ClientAuth;
use crate::pinned::{self, Usage};
use crate::san;
use crate::trusted::Trusted;

/// Whom a certificate of a client may be trusted by.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: RootCertStore,
    /// Those that may be shown themselves, authorities or not.
    trusted: Vec<CertificateDer<'static>>,
    /// What clients are told, which choose by it what they show.
    names: Vec<DistinguishedName>,
}

impl Authorities {
    /// Those that vouch for others and are not shown themselves.
    pub(super) fn new(roots: RootCertStore) -> Self {
        Self {
            names: roots.subjects(),
            roots,
            trusted: Vec::new(),
        }
    }

    /// Those that may be shown themselves, and vouch for others where they are authorities.
    pub(super) fn of(trusted: Trusted) -> Self {
        let mut all = RootCertStore::empty();
        all.add_parsable_certificates(trusted.certificates.iter().cloned());
        Self {
            roots: trusted.authorities,
            trusted: trusted.certificates,
            names: all.subjects(),
        }
    }
}

/// The verifier for a `client_auth_type`. None where clients are not asked for a certificate.
pub(super) fn new(
    client_auth: ClientAuth,
    authorities: Authorities,
    allowed_sans: Option<Vec<String>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, VerifierBuilderError> {
    let any = |is_mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate {
            is_mandatory,
            algorithms: provider.signature_verification_algorithms,
        })
    };
    let Authorities {
        roots,
        mut trusted,
        names,
    } = authorities;
    let signed = || {
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .clear_root_hint_subjects()
            .add_root_hint_subjects(names)
    };
    let verifier = match client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => any(false),
        ClientAuth::RequireAny => any(true),
        ClientAuth::VerifyIfGiven => signed().allow_unauthenticated().build()?,
        ClientAuth::RequireAndVerify => signed().build()?,
    };
    if !client_auth.verifies() {
        trusted.clear();
    }
    Ok(Some(Arc::new(Verifier {
        trusted,
        allowed_sans,
        verifier,
    })))
}

/// Takes any certificate whose key the client has, whoever signed it.
#[derive(Debug)]
struct AnyCertificate {
    is_mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes what is itself trusted and what another verifier takes, if one of its names is on the list.
#[derive(Debug)]
struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    allowed_sans: Option<Vec<String>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = if pinned::is_among(certificate, &self.trusted) {
            pinned::check(certificate, Usage::Client, now)?;
            ClientCertVerified::assertion()
        } else {
            self.verifier
                .verify_client_cert(certificate, intermediates, now)?
        };
        let Some(allowed) = &self.allowed_sans else {
            return Ok(verified);
        };
        let names = san::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let is_allowed = names.iter().any(|name| allowed.contains(&name.to_string()));
        match is_allowed {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
