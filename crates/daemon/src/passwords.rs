//! Passwords against bcrypt hashes: off the event loop, one at a time, each verdict kept for a
//! while, and as slow for users that do not exist as for those that do.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;

use crate::config_file::from_text;
use crate::digest::{self, Digest};
use crate::recent::Recent;
use crate::secret::Secret;

/// A bcrypt hash, as `htpasswd -B` writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Box<str>);

/// Why a text is not a [`PasswordHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a bcrypt hash ($2a$, $2b$ or $2y$ and 60 characters in all); \
     htpasswd -nBC 10 \"\" makes one"
)]
pub struct NoHash;

impl PasswordHash {
    /// The hash as it is written in files.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn cost(&self) -> u32 {
        bcrypt::HashParts::from_str(&self.0).map_or(0, |parts| parts.get_cost())
    }
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = NoHash;

    fn try_from(text: String) -> Result<Self, NoHash> {
        let known = ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|version| text.starts_with(version));
        let parts = bcrypt::HashParts::from_str(&text).map_err(|_| NoHash)?;
        if !known || text.len() != 60 || !(4..=31).contains(&parts.get_cost()) {
            return Err(NoHash);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

/// Users with their hashes.
#[derive(Debug, Clone)]
pub struct Users {
    hashes: HashMap<String, PasswordHash>,
    /// What the password of an unknown user is compared with: as costly as the costliest.
    stand_in: PasswordHash,
}

impl Users {
    /// These users. A later one of the same name replaces an earlier one.
    #[must_use]
    pub fn new(users: impl IntoIterator<Item = (String, PasswordHash)>) -> Self {
        let hashes: HashMap<_, _> = users.into_iter().collect();
        let cost = hashes.values().map(PasswordHash::cost).max().unwrap_or(10);
        Self {
            hashes,
            stand_in: PasswordHash(format!("$2b${cost:02}${NOBODYS_HASH}").into()),
        }
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of a user's password, if there is a user of this name.
    #[must_use]
    pub fn hash(&self, user: &str) -> Option<&PasswordHash> {
        self.hashes.get(user)
    }
}

/// No verdict: more passwords wait to be looked at than will be in good time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub(crate) struct Busy;

/// Verifies passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    /// Made when the first password comes: many daemons never see one, and the library that makes
    /// it takes a megabyte for itself.
    key: OnceLock<hmac::Key>,
    verdicts: Arc<Verdicts>,
    one_at_a_time: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Passwords {
    /// Knows no verdict yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            key: OnceLock::new(),
            verdicts: Arc::new(Verdicts {
                right: Mutex::new(Recent::new(MAX_RIGHT)),
                wrong: Mutex::new(Recent::new(MAX_WRONG)),
            }),
            one_at_a_time: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether this is the password of that user.
    ///
    /// # Errors
    ///
    /// [`Busy`] when too many wait.
    pub(crate) async fn verify(
        &self,
        users: &Users,
        user: &str,
        password: &Secret,
    ) -> Result<bool, Busy> {
        let known = users.hashes.get(user);
        let hash = known.unwrap_or(&users.stand_in);
        let asked = self.digest(user, hash, password).ok_or(Busy)?;
        if let Some(verdict) = self.verdicts.of(&asked) {
            return Ok(verdict);
        }
        let _waiting = Waiting::enter(&self.waiting)?;
        let Ok(turn) = Arc::clone(&self.one_at_a_time).acquire_owned().await else {
            return Err(Busy);
        };
        // Whoever had the turn before may have shown the same, as a fleet with one password does.
        if let Some(verdict) = self.verdicts.of(&asked) {
            return Ok(verdict);
        }
        let (hash, password) = (hash.clone(), password.clone());
        let (is_known, verdicts) = (known.is_some(), Arc::clone(&self.verdicts));
        let checking = tokio::task::spawn_blocking(move || {
            // Even where nobody waits for it any more, the turn ends with the work, and the work is
            // not in vain.
            let _turn = turn;
            let is_right = bcrypt::verify(password.expose(), &hash.0).unwrap_or(false) && is_known;
            verdicts.add(asked, is_right);
            is_right
        });
        checking.await.map_err(|_| Busy)
    }

    /// What is asked. The user is part of it, since unknown ones share a hash: what one of them has
    /// shown would be known of the next, and tell that one from a user that there is.
    ///
    /// None where the system has no random numbers, without which nothing is secure.
    fn digest(&self, user: &str, hash: &PasswordHash, password: &Secret) -> Option<Digest> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let random = SystemRandom::new();
                let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).ok()?;
                self.key.get_or_init(|| key)
            }
        };
        let mut context = hmac::Context::with_key(key);
        context.update(hash.0.as_bytes());
        context.update(&user.len().to_ne_bytes());
        context.update(user.as_bytes());
        context.update(password.expose());
        Some(digest::array(context.sign().as_ref()))
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// What was found of late. What was asked is kept as its digest.
#[derive(Debug)]
struct Verdicts {
    right: Mutex<Recent<Digest>>,
    wrong: Mutex<Recent<Digest>>,
}

impl Verdicts {
    fn of(&self, asked: &Digest) -> Option<bool> {
        if self.right.lock().has(asked) {
            return Some(true);
        }
        self.wrong.lock().has(asked).then_some(false)
    }

    fn add(&self, asked: Digest, is_right: bool) {
        let recent = if is_right { &self.right } else { &self.wrong };
        recent.lock().add(asked);
    }
}

/// One of those that wait for their turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, Busy> {
        let waiting = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            true => Ok(waiting),
            false => Err(Busy),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of right passwords there are as many as users, and each of them is asked for again and again: one
/// that is pushed out costs a whole check.
const MAX_RIGHT: usize = 10_000;

/// Of wrong ones there is no end. They push no right ones out.
const MAX_WRONG: usize = 100;

/// At the usual cost, about five seconds of work.
const MAX_WAITING: usize = 64;

/// Salt and hash of a password that nobody knows.
const NOBODYS_HASH: &str = "abcdefghijklmnopqrstuuKy5D0sBaQWh2Xn1iVTqfUqyM3PJfW9a";

#[cfg(test)]
mod tests;
