//! Clients whose polls are parked: let in once, and looked at again before each scrape.

use std::sync::Arc;

use pushprox_daemon::web::ClientCertificate;
use pushprox_protocol::Fqdn;

use super::{Access, Grant, Identity, Peer, Proof};
use crate::http1::socket::Stream;

/// A client that has been let in, and may be struck off while its poll is parked.
#[derive(Debug)]
pub(crate) struct Registrant {
    identity: Identity,
    proof: Proof,
    certificate: Option<Arc<ClientCertificate>>,
    name: Fqdn,
    /// When it was let in.
    generation: u64,
}

impl Registrant {
    /// A client that was let in at this generation of the files.
    pub(crate) fn new(grant: Grant, peer: &Peer, name: &Fqdn, generation: u64) -> Self {
        Self {
            identity: grant.identity,
            proof: grant.proof,
            certificate: peer.certificate.clone(),
            name: name.clone(),
            generation,
        }
    }

    /// Who it is by the files as they are, if it may still register its name.
    pub(crate) fn identity_now(self, stream: &dyn Stream, access: &Access) -> Option<Identity> {
        if !access.still_trusts(self.certificate.as_deref(), stream) {
            return None;
        }
        match access.generation() == self.generation {
            true => Some(self.identity),
            false => access.client_again(&self.proof, &self.name),
        }
    }
}
