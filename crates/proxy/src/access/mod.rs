//! Who may come in, and what for: listeners, the web configuration, and `--auth.config.file`.
//!
//! Everything that a peer asks for belongs to a role. [`Access`] looks at what the peer shows and
//! gives a grant: who it is, and which names it may reach or register.

mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod pattern;
mod peer;
mod policy;
mod registrant;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use pushprox_daemon::Shutdown;
use pushprox_daemon::config_file::FileError;
use pushprox_daemon::credentials::Credentials;
use pushprox_daemon::guard::{Denied, Guard, Place};
use pushprox_daemon::passwords::PasswordHash;
use pushprox_daemon::reload::Reloaded;
use pushprox_daemon::web::{ClientCertificate, Web};
use pushprox_protocol::Fqdn;
use tracing::{debug, warn};

use crate::http1::socket::Stream;

pub(crate) use peer::Peer;
pub use peer::{Door, DoorAddress, DoorError, Entrance, Roles};
pub(crate) use policy::{Grant, Identity, Proof, Role};
use policy::{List, Members, Policy, Who};
pub(crate) use registrant::Registrant;

/// What stands between peers and the proxy.
#[derive(Debug)]
pub struct Access {
    pub(crate) web: Web,
    policy: Option<Arc<Reloaded<Policy>>>,
    /// Nothing is asked of anybody, and nothing ever will be.
    is_open: bool,
}

impl Access {
    /// Open to everyone, plain HTTP, as the Go programs are.
    #[must_use]
    pub fn open() -> Self {
        Self {
            web: Web::open(),
            policy: None,
            is_open: true,
        }
    }

    /// As the files have it, `--web.config.file` and `--auth.config.file`.
    ///
    /// # Errors
    ///
    /// [`FileError`]: a file cannot be read, is no good, or does not go with the other.
    pub fn load(web: Option<PathBuf>, auth: Option<PathBuf>) -> Result<Self, FileError> {
        let is_open = web.is_none() && auth.is_none();
        let web = match &auth {
            Some(_) => Web::load_without_users(web, USERS_STAND_ELSEWHERE)?,
            None => Web::load(web)?,
        };
        let policy = match auth {
            Some(path) => {
                let policy = Reloaded::load("auth.config.file", move |files, before| {
                    let policy = file::parse(&path, &files.read(&path)?)?;
                    keep_closed(before, &policy, &path)?;
                    Ok(policy)
                })?;
                Some(Arc::new(policy))
            }
            None => None,
        };
        let config = web.config();
        if let (Some(policy), false) = (&policy, config.verifies_clients())
            && policy.current().needs_certificates()
        {
            warn!(
                "--auth.config.file knows members by the san of a certificate, which nobody can \
                 show: --web.config.file has no client_auth_type that verifies certificates"
            );
        }
        Ok(Self {
            web,
            policy,
            is_open,
        })
    }

    /// Whether nothing is asked of anybody, and nothing ever will be.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Adds the headers that the operator wants on the proxy's own pages.
    pub(crate) fn dress(&self, headers: &mut HeaderMap) {
        if !self.is_open {
            let config = self.web.config();
            let more = config.headers().iter();
            headers.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// Says for each listener once what anyone on the network can do there.
    pub(crate) fn warn_if_open(&self, doors: &[Door]) {
        for door in doors {
            let scrape = self.is_open_to_anyone(door.roles, Role::Scraper);
            let answer = self.is_open_to_anyone(door.roles, Role::Client);
            let what = match (scrape, answer) {
                (true, true) => "scrape, and answer for any target",
                (true, false) => "scrape",
                (false, true) => "answer for any target",
                (false, false) => continue,
            };
            let address = door.listener.local_addr().ok();
            if let Some(address) = address.filter(|here| !here.ip().to_canonical().is_loopback()) {
                warn!(
                    %address,
                    "anyone who reaches this address can {what}: \
                     see --auth.config.file and --web.config.file"
                );
            }
        }
    }

    /// Reads the files again when they change, until the shutdown begins.
    pub(crate) fn watch(self: &Arc<Self>, shutdown: &Shutdown) {
        if let Some(policy) = &self.policy {
            shutdown.spawn(Arc::clone(policy).watch(shutdown.clone()));
        }
        let (this, until) = (Arc::clone(self), shutdown.clone());
        shutdown.spawn(async move { this.web.watch(until).await });
    }

    /// Whether anyone who reaches a listener with these roles may have that role.
    fn is_open_to_anyone(&self, roles: Roles, role: Role) -> bool {
        if !roles.has(role) || self.web.config().requires_clients() {
            return false;
        }
        match &self.policy {
            Some(policy) => matches!(policy.current().members(role), Members::Anyone),
            None => self.web.config().users().is_none(),
        }
    }

    /// How often what is in force has been replaced.
    pub(crate) fn generation(&self) -> u64 {
        let policy = self.policy.as_ref().map_or(0, |policy| policy.generation());
        policy + self.web.generation()
    }

    /// Whether a peer is let in without a look at what it shows.
    pub(crate) fn admits_anyone(&self, peer: &Peer, role: Role) -> bool {
        self.is_open && peer.roles.has(role)
    }

    /// Lets a peer in for one request, or says why not. Whoever is turned away is counted.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub(crate) async fn admit(
        &self,
        peer: &Peer,
        role: Role,
        headers: &HeaderMap,
        place: Place,
    ) -> Result<Grant, Denied> {
        if self.admits_anyone(peer, role) {
            return Ok(Grant::everything(Identity::Anyone, Proof::Nothing));
        }
        // In a box, so that open proxies do not carry its room with every request.
        let granted = Box::pin(self.check(peer, role, headers, place)).await;
        granted.inspect_err(|denied| self.turn_away(peer, denied))
    }

    /// Counts and tells that a peer was turned away.
    pub(crate) fn turn_away(&self, peer: &Peer, denied: &Denied) {
        debug!(peer = %peer.ip, error = %denied, "turned away");
        self.web.guard.count(denied);
    }

    /// Whether the certificate that a connection began with, if it did with one, is still good. What
    /// came in by it must not go on for as long as the connection happens to last.
    pub(crate) fn still_trusts(
        &self,
        certificate: Option<&ClientCertificate>,
        stream: &dyn Stream,
    ) -> bool {
        certificate.is_none_or(|certificate| {
            let chain = stream.certificates().unwrap_or_default();
            self.web.still_trusts(certificate, chain)
        })
    }

    /// Who a client is by now that was let in by this: none where it would not be let in by it
    /// again, or may not register that name any more.
    pub(crate) fn client_again(&self, proof: &Proof, name: &Fqdn) -> Option<Identity> {
        let grant = match &self.policy {
            Some(policy) => policy.current().client_again(proof)?,
            None => match (self.web.config().users(), proof) {
                (None, _) => Grant::everything(Identity::Anyone, proof.clone()),
                (Some(users), Proof::Password(user, hash)) if users.hash(user) == Some(hash) => {
                    user_of_all(user.clone(), hash.clone())
                }
                (Some(_), _) => return None,
            },
        };
        grant.may_register(name.as_ref()).then_some(grant.identity)
    }

    async fn check(
        &self,
        peer: &Peer,
        role: Role,
        headers: &HeaderMap,
        place: Place,
    ) -> Result<Grant, Denied> {
        if !peer.roles.has(role) {
            return Err(Denied::NotAllowed(format!(
                "this listener is not for {}",
                role.plural()
            )));
        }
        let web = &self.web;
        let config = web.config();
        web.check_rate(&config)?;
        let Some(policy) = &self.policy else {
            let user = web.check_user(&config, headers, place, peer.ip).await?;
            return Ok(match user {
                Some((user, hash)) => user_of_all(user, hash),
                None => Grant::everything(Identity::Anyone, Proof::Nothing),
            });
        };
        let policy = policy.current();
        match policy.members(role) {
            Members::Anyone => Ok(Grant::everything(Identity::Anyone, Proof::Nothing)),
            Members::Only(list) => self.check_member(list, peer, headers, place).await,
        }
    }

    async fn check_member(
        &self,
        list: &List,
        peer: &Peer,
        headers: &HeaderMap,
        place: Place,
    ) -> Result<Grant, Denied> {
        let guard = &self.web.guard;
        let address = peer.ip;
        match Guard::credentials(headers, place)? {
            Some(Credentials::Basic { user, password }) => {
                guard
                    .check_password(list.passwords(), &user, &password, address)
                    .await?;
                list.user(&user).ok_or(Denied::Wrong)
            }
            Some(Credentials::Bearer(token)) => {
                guard.check_token(&token, address, |digest| list.token(digest))
            }
            None => match &peer.certificate {
                Some(certificate) => list.certificate(certificate).ok_or_else(|| {
                    Denied::NotAllowed("no name in your certificate is a member here".to_owned())
                }),
                None => Err(Denied::Missing),
            },
        }
    }
}

impl Role {
    /// The word for it in files and flags.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Scraper => "scrapers",
            Self::Client => "clients",
            Self::Operator => "operators",
        }
    }
}

/// A user of the web configuration's, who may do everything.
fn user_of_all(user: String, hash: PasswordHash) -> Grant {
    let identity = Identity::Member(Arc::new(Who::User(user.clone())));
    Grant::everything(identity, Proof::Password(user, hash))
}

/// A file that is caught half written must not open what was closed.
fn keep_closed(before: Option<&Policy>, next: &Policy, path: &Path) -> Result<(), FileError> {
    match before.is_some_and(|before| before.is_opened_by(next)) {
        true => Err(FileError::content(
            path,
            "a role that was for members becomes one for anyone by a restart only",
        )),
        false => Ok(()),
    }
}

const USERS_STAND_ELSEWHERE: &str = "basic_auth_users cannot be used together with \
     --auth.config.file: list these users there, as scrapers, clients or operators";
