//! Who may do what: the members of each role, and what a member may reach.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use pushprox_daemon::guard::TokenDigest;
use pushprox_daemon::passwords::{PasswordHash, Users};
use pushprox_daemon::san::San;
use pushprox_daemon::web::ClientCertificate;
use pushprox_protocol::Target;
use pushprox_protocol::fqdn::FqdnRef;

use super::pattern::{NamePattern, SanPattern};

/// What a peer may be here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To scrape through the proxy, and to see who is registered.
    Scraper,
    /// To poll and to push.
    Client,
    /// To see how the proxy does.
    Operator,
}

/// Who has shown what. Two that are equal are the same to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Nobody had to show anything.
    Anyone,
    /// A member.
    Member(Arc<Who>),
}

/// What a member is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// The `name` of its entry, which several credentials may share.
    Name(String),
    User(String),
    Token(TokenDigest),
    San(San),
}

/// What somebody was let in by, to be looked at again when the files have changed.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// Nobody had to show anything.
    Nothing,
    /// A password, by the hash that it met.
    Password(String, PasswordHash),
    Token(TokenDigest),
    Certificate(Arc<ClientCertificate>),
}

/// The members of all roles.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(super) scrapers: Members,
    pub(super) clients: Members,
    pub(super) operators: Members,
}

#[derive(Debug, Clone)]
pub(crate) enum Members {
    Anyone,
    Only(Box<List>),
}

/// The members of a role by what they show.
#[derive(Debug, Clone)]
pub(crate) struct List {
    entries: Vec<Member>,
    users: HashMap<String, usize>,
    passwords: Users,
    /// By digest: how long a look-up takes tells nothing about a token.
    tokens: HashMap<TokenDigest, usize>,
    sans: Vec<(SanPattern, usize)>,
}

#[derive(Debug, Clone)]
struct Member {
    name: Option<String>,
    names: Vec<NamePattern>,
}

/// What somebody may do who has been let in.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) identity: Identity,
    pub(crate) proof: Proof,
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Reach {
    Everything,
    /// What these patterns say, each with the name that stands for `{san}` in it.
    Patterns(Vec<(NamePattern, Option<San>)>),
}

impl Policy {
    pub(crate) fn members(&self, role: Role) -> &Members {
        match role {
            Role::Scraper => &self.scrapers,
            Role::Client => &self.clients,
            Role::Operator => &self.operators,
        }
    }

    /// Whether a role that is for members here is for anyone there.
    pub(super) fn is_opened_by(&self, next: &Self) -> bool {
        [Role::Scraper, Role::Client, Role::Operator]
            .into_iter()
            .any(|role| {
                matches!(self.members(role), Members::Only(_))
                    && matches!(next.members(role), Members::Anyone)
            })
    }

    /// Whether anybody is known by a certificate.
    pub(super) fn needs_certificates(&self) -> bool {
        [Role::Scraper, Role::Client, Role::Operator]
            .into_iter()
            .any(|role| match self.members(role) {
                Members::Anyone => false,
                Members::Only(list) => !list.sans.is_empty(),
            })
    }

    /// What a client may do that was let in by this, if it would be let in by it again.
    pub(super) fn client_again(&self, proof: &Proof) -> Option<Grant> {
        match &self.clients {
            Members::Anyone => Some(Grant::everything(Identity::Anyone, proof.clone())),
            Members::Only(list) => list.again(proof),
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            users: HashMap::new(),
            passwords: Users::new([]),
            tokens: HashMap::new(),
            sans: Vec::new(),
        }
    }
}

impl List {
    pub(super) fn add(&mut self, name: Option<String>, names: Vec<NamePattern>) -> usize {
        self.entries.push(Member { name, names });
        self.entries.len() - 1
    }

    /// Whether the user is new.
    pub(super) fn add_user(&mut self, user: String, at: usize) -> bool {
        self.users.insert(user, at).is_none()
    }

    pub(super) fn set_passwords(&mut self, hashes: Vec<(String, PasswordHash)>) {
        self.passwords = Users::new(hashes);
    }

    /// Whether the token is new.
    pub(super) fn add_token(&mut self, token: TokenDigest, at: usize) -> bool {
        self.tokens.insert(token, at).is_none()
    }

    pub(super) fn add_san(&mut self, san: SanPattern, at: usize) {
        self.sans.push((san, at));
    }

    /// The passwords of the users.
    pub(super) fn passwords(&self) -> &Users {
        &self.passwords
    }

    /// What a user may do whose password has been verified.
    pub(super) fn user(&self, user: &str) -> Option<Grant> {
        let at = *self.users.get(user)?;
        let hash = self.passwords.hash(user)?.clone();
        let proof = Proof::Password(user.to_owned(), hash);
        self.grant(at, Who::User(user.to_owned()), proof)
    }

    /// What who shows this token may do.
    pub(super) fn token(&self, token: &TokenDigest) -> Option<Grant> {
        let at = *self.tokens.get(token)?;
        self.grant(at, Who::Token(*token), Proof::Token(*token))
    }

    /// What who shows a certificate with these names may do. The first that is on the list is who
    /// it is.
    pub(super) fn certificate(&self, shown: &Arc<ClientCertificate>) -> Option<Grant> {
        let mut patterns = Vec::new();
        let mut first = None;
        for san in &shown.names {
            for (_, at) in self.sans.iter().filter(|(pattern, _)| pattern.meets(san)) {
                first.get_or_insert(san);
                let member = self.entries.get(*at)?;
                let own = member.names.iter().cloned();
                patterns.extend(own.map(|pattern| (pattern, Some(san.clone()))));
            }
        }
        Some(Grant {
            identity: Identity::Member(Arc::new(Who::San(first?.clone()))),
            proof: Proof::Certificate(Arc::clone(shown)),
            reach: Reach::Patterns(patterns),
        })
    }

    fn grant(&self, at: usize, shown: Who, proof: Proof) -> Option<Grant> {
        let member = self.entries.get(at)?;
        Some(Grant {
            identity: Identity::Member(Arc::new(match &member.name {
                Some(name) => Who::Name(name.clone()),
                None => shown,
            })),
            proof,
            reach: Reach::Patterns(member.patterns()),
        })
    }

    fn again(&self, proof: &Proof) -> Option<Grant> {
        match proof {
            Proof::Nothing => None,
            Proof::Password(user, hash) if self.passwords.hash(user) == Some(hash) => {
                self.user(user)
            }
            Proof::Password(..) => None,
            Proof::Token(token) => self.token(token),
            Proof::Certificate(shown) => self.certificate(shown),
        }
    }
}

impl Member {
    fn patterns(&self) -> Vec<(NamePattern, Option<San>)> {
        self.names.iter().map(|name| (name.clone(), None)).collect()
    }
}

impl Grant {
    /// All that a role may do, for this one.
    pub(super) fn everything(identity: Identity, proof: Proof) -> Self {
        Self {
            identity,
            proof,
            reach: Reach::Everything,
        }
    }

    /// Whether a client may register this name.
    pub(crate) fn may_register(&self, name: FqdnRef<'_>) -> bool {
        self.any(|pattern, san| pattern.allows(name, san))
    }

    /// Whether a scraper may reach this target.
    pub(crate) fn may_reach(&self, target: &Target) -> bool {
        self.any(|pattern, san| pattern.allows(target.exact(), san))
    }

    /// Whether a scraper may know that this name is registered.
    pub(crate) fn may_see(&self, name: FqdnRef<'_>) -> bool {
        self.any(|pattern, san| pattern.shows(name, san))
    }

    /// Whether that is all of them.
    pub(crate) fn is_for_everything(&self) -> bool {
        self.any(|pattern, _| pattern.is_for_everything())
    }

    fn any(&self, test: impl Fn(&NamePattern, Option<&San>) -> bool) -> bool {
        match &self.reach {
            Reach::Everything => true,
            Reach::Patterns(patterns) => patterns
                .iter()
                .any(|(pattern, san)| test(pattern, san.as_ref())),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Member(who) = self else {
            return f.write_str("anyone");
        };
        match &**who {
            Who::Name(name) => f.write_str(name),
            Who::User(user) => f.write_str(user),
            Who::San(san) => fmt::Display::fmt(san, f),
            // Enough to find it in the file.
            Who::Token([a, b, c, d, ..]) => write!(f, "token {a:02x}{b:02x}{c:02x}{d:02x}"),
        }
    }
}
