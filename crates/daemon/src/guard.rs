//! Who may pass: looks at credentials, slows down who guesses, counts who is turned away, and says
//! why.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::Instant;

use crate::attempts::{Attempt, Attempts};
use crate::credentials::{self, Credentials};
use crate::digest::{Digest, sha256};
use crate::metrics::Registry;
use crate::passwords::{Passwords, Users};
use crate::respond;
use crate::secret::Secret;

/// Whose credentials a request carries, and in which header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The daemon's own pages: `Authorization`, 401.
    Own,
    /// A proxied request, whose `Authorization` is the target's: `Proxy-Authorization`, 407.
    Proxied,
}

/// Why a request does not pass. The text is for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows nothing.
    #[error("credentials are required")]
    Missing,
    /// What it shows is no credentials.
    #[error(transparent)]
    Unreadable(#[from] credentials::Unreadable),
    /// What it shows is not known.
    #[error("these credentials are wrong")]
    Wrong,
    /// It is known, and may do other things than this.
    #[error("{0}")]
    NotAllowed(String),
    /// Its address has failed too often.
    #[error("too many failed attempts from this address, try again later")]
    TooManyAttempts,
    /// More requests than the operator wants.
    #[error("too many requests, the rate is limited here")]
    RateLimit,
    /// More passwords to be looked at than can be.
    #[error("too many passwords are being checked, try again later")]
    Busy,
}

/// What is remembered of attempts.
#[derive(Debug, Default)]
pub struct Guard {
    passwords: Passwords,
    attempts: Attempts,
    denied: Family<Reason, Counter>,
    handshakes: Family<Reason, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What `WWW-Authenticate` and `Proxy-Authenticate` say.
pub const CHALLENGE: &str = "Basic realm=\"PushProx\"";

/// The SHA-256 of a token, which is all that is kept of it.
pub type TokenDigest = Digest;

impl Guard {
    /// Has its counters shown by a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "pushprox_auth_failures",
            "Requests that were turned away, by reason",
            self.denied.clone(),
        );
        registry.register(
            "pushprox_tls_handshake_failures",
            "TLS handshakes that came to nothing, by reason",
            self.handshakes.clone(),
        );
    }

    /// The credentials of a request.
    ///
    /// # Errors
    ///
    /// [`Denied::Unreadable`].
    pub fn credentials(headers: &HeaderMap, place: Place) -> Result<Option<Credentials>, Denied> {
        Ok(credentials::read(headers, &place.header())?)
    }

    /// Passes if this is the password of that user.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub async fn check_password(
        &self,
        users: &Users,
        user: &str,
        password: &Secret,
        address: IpAddr,
    ) -> Result<(), Denied> {
        let shown = [user.as_bytes(), b"\0", password.expose()].concat();
        let attempt = self.begin(address, &shown)?;
        let Ok(is_right) = self.passwords.verify(users, user, password).await else {
            self.attempts.withdraw(&attempt);
            return Err(Denied::Busy);
        };
        self.note(is_right.then_some(()), &attempt)
    }

    /// Passes if `find` finds something for the digest of this token.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub fn check_token<T>(
        &self,
        token: &Secret,
        address: IpAddr,
        find: impl FnOnce(&TokenDigest) -> Option<T>,
    ) -> Result<T, Denied> {
        let attempt = self.begin(address, token.expose())?;
        self.note(find(&token_digest(token.expose())), &attempt)
    }

    fn begin(&self, address: IpAddr, shown: &[u8]) -> Result<Attempt, Denied> {
        let begun = self.attempts.begin(address, shown, Instant::now());
        begun.ok_or(Denied::TooManyAttempts)
    }

    fn note<T>(&self, found: Option<T>, attempt: &Attempt) -> Result<T, Denied> {
        match found {
            Some(_) => self.attempts.succeeded(attempt),
            None => self.attempts.failed(attempt, Instant::now()),
        }
        found.ok_or(Denied::Wrong)
    }

    /// Counts who is turned away.
    pub fn count(&self, denied: &Denied) {
        let reason = denied.label();
        self.denied.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a handshake that came to nothing.
    pub(crate) fn count_handshake(&self, reason: &'static str) {
        self.handshakes.get_or_create(&Reason { reason }).inc();
    }
}

/// What is kept of a token.
#[must_use]
pub fn token_digest(token: &[u8]) -> TokenDigest {
    sha256(token)
}

impl Place {
    fn header(self) -> HeaderName {
        match self {
            Self::Own => AUTHORIZATION,
            Self::Proxied => PROXY_AUTHORIZATION,
        }
    }
}

impl Denied {
    /// The answer to whoever does not pass.
    #[must_use]
    pub fn respond(&self, place: Place) -> Response<Full<Bytes>> {
        let status = self.status(place);
        let mut response = respond::refusal(status, &self.told(place));
        let challenge = match status {
            StatusCode::UNAUTHORIZED => WWW_AUTHENTICATE,
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => PROXY_AUTHENTICATE,
            _ => return response,
        };
        let headers = response.headers_mut();
        headers.append(challenge, HeaderValue::from_static(CHALLENGE));
        response
    }

    /// The reason in that answer.
    #[must_use]
    pub fn told(&self, place: Place) -> String {
        match (self, place) {
            (Self::Missing, Place::Proxied) => {
                "the proxy wants credentials: give proxy_url a user \
                 and a password, or tls_config a client certificate"
                    .to_owned()
            }
            (_, Place::Proxied) => format!("the proxy says: {self}"),
            (_, Place::Own) => self.to_string(),
        }
    }

    /// The status of that answer.
    #[must_use]
    pub fn status(&self, place: Place) -> StatusCode {
        match (self, place) {
            (Self::Missing | Self::Unreadable(_) | Self::Wrong, Place::Own) => {
                StatusCode::UNAUTHORIZED
            }
            (Self::Missing | Self::Unreadable(_) | Self::Wrong, Place::Proxied) => {
                StatusCode::PROXY_AUTHENTICATION_REQUIRED
            }
            (Self::NotAllowed(_), _) => StatusCode::FORBIDDEN,
            (Self::TooManyAttempts | Self::RateLimit, _) => StatusCode::TOO_MANY_REQUESTS,
            (Self::Busy, _) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Missing => "no_credentials",
            Self::Unreadable(_) => "unreadable_credentials",
            Self::Wrong => "wrong_credentials",
            Self::NotAllowed(_) => "not_allowed",
            Self::TooManyAttempts => "too_many_attempts",
            Self::RateLimit => "rate_limit",
            Self::Busy => "busy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwords::PasswordHash;
    use std::sync::Arc;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn guesses_end_while_who_is_known_goes_on() {
        let guard = Guard::default();
        let hash = PasswordHash::try_from(bcrypt::hash("right", 4).unwrap()).unwrap();
        let users = Users::new([("user".to_owned(), hash)]);
        let check = async |password: &str| {
            let password = Secret::new(password.as_bytes());
            guard.check_password(&users, "user", &password, HERE).await
        };
        let token = |token: &str| {
            let good = token_digest(b"token");
            let find = |digest: &TokenDigest| (*digest == good).then_some(());
            guard.check_token(&Secret::new(token.as_bytes()), HERE, find)
        };
        assert_eq!(check("right").await, Ok(()));
        assert_eq!(token("token"), Ok(()));
        for guess in 0..20 {
            assert_eq!(check(&format!("guess {guess}")).await, Err(Denied::Wrong));
        }
        assert_eq!(check("another").await, Err(Denied::TooManyAttempts));
        assert_eq!(token("another"), Err(Denied::TooManyAttempts));
        assert_eq!(check("right").await, Ok(()));
        assert_eq!(token("token"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_made_together_are_no_more_than_one_after_the_other() {
        let guard = Arc::new(Guard::default());
        let hash = PasswordHash::try_from(bcrypt::hash("right", 4).unwrap()).unwrap();
        let users = Users::new([("user".to_owned(), hash)]);
        let mut guesses = tokio::task::JoinSet::new();
        for guess in 0..40 {
            let (guard, users) = (Arc::clone(&guard), users.clone());
            guesses.spawn(async move {
                let password = Secret::new(format!("guess {guess}").into_bytes());
                guard.check_password(&users, "user", &password, HERE).await
            });
        }
        let verdicts = guesses.join_all().await;
        let count = |denied: &Denied| {
            let of_this = |verdict: &&Result<(), Denied>| verdict.as_ref() == Err(denied);
            verdicts.iter().filter(of_this).count()
        };
        assert_eq!(count(&Denied::Wrong), 20, "{verdicts:?}");
        assert_eq!(count(&Denied::TooManyAttempts), 20, "{verdicts:?}");
    }

    #[test]
    fn answers_tell_the_header_and_the_reason() {
        let own = Denied::Wrong.respond(Place::Own);
        assert_eq!(own.status(), 401);
        assert!(own.headers().contains_key(WWW_AUTHENTICATE));
        let proxied = Denied::Missing.respond(Place::Proxied);
        assert_eq!(proxied.status(), 407);
        assert!(proxied.headers().contains_key(PROXY_AUTHENTICATE));
        let forbidden = Denied::NotAllowed("not yours".to_owned()).respond(Place::Proxied);
        assert_eq!(forbidden.status(), 403);
        assert!(!forbidden.headers().contains_key(PROXY_AUTHENTICATE));
        assert_eq!(Denied::TooManyAttempts.respond(Place::Own).status(), 429);
        assert_eq!(Denied::Busy.respond(Place::Own).status(), 503);
    }
}
