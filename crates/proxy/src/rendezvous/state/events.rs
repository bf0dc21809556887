//! What the rendezvous is told, and what it says.

use std::time::Duration;

use pushprox_protocol::{Fqdn, ScrapeId};
use tokio::time::Instant;

use super::PollKey;
use crate::error::Failure;
use crate::limits::Limits;

/// Bounds on what peers can make the state hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How long a name outlives its last poll.
    pub(crate) registration_timeout: Duration,
    /// How long a scrape waits for a name that nobody has registered.
    pub(crate) unregistered_wait: Duration,
    /// How many names and waiting scrapes there may be.
    pub(crate) limits: Limits,
}

/// A scrape on its way to the poll that was chosen for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandOut<S> {
    pub(crate) id: ScrapeId,
    pub(crate) turn: u32,
    pub(crate) scrape: S,
}

/// How a hand-out came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was not sent.
    Unsent,
    /// It was sent, and all signs are that the client has not seen it.
    Unseen,
}

/// What became of a poll that arrived.
#[derive(Debug)]
pub(crate) enum Parked<P, S> {
    /// It waits under this key.
    Waits(PollKey),
    /// A scrape was waiting for it.
    Meets(P, HandOut<S>),
    /// The limit of names is reached, or the proxy drains.
    Refused,
}

/// What became of a scrape that arrived or came back.
#[derive(Debug)]
pub(crate) enum Arrival<P, S> {
    /// It goes to this poll.
    Meets(P, HandOut<S>),
    /// It waits. Its state is to be asked again at this time.
    Waits(Instant),
    /// It is over already.
    Refused(Failure),
}

/// What became of a scrape whose time has come.
#[derive(Debug)]
pub(crate) enum Due<A> {
    /// It may wait until this time.
    Later(Instant),
    /// It is over, and to be told so.
    Over(A, Failure),
}

/// A pushed answer's way to its scrape.
#[derive(Debug)]
pub(crate) struct Completion<A, S> {
    pub(crate) name: Fqdn,
    pub(crate) scrape: S,
    pub(crate) answer: A,
}
