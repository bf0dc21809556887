//! Failed attempts to prove who one is: each address has so many, and no more.
//!
//! Behind one address there may be many, as behind a NAT or a reverse proxy, and one of them must
//! not lock the others out: what has been accepted from an address goes on being accepted from it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rate::{Bucket, Rate};
use crate::recent::Recent;

/// Who has failed lately, and what has been accepted lately.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Debug)]
struct State {
    failures: HashMap<IpAddr, Bucket>,
    /// Hashes of addresses and what they have shown.
    accepted: Recent<u64>,
}

/// What an address shows is being looked at. As long as nothing else is said it counts as wrong, so
/// that who asks for much at once gets no more looks than who waits for each.
#[derive(Debug)]
#[must_use]
pub(crate) struct Attempt {
    address: IpAddr,
    /// What the address has shown, together with the address.
    pair: u64,
    /// It has been accepted before, and has not been counted.
    is_known: bool,
}

impl Attempts {
    /// Begins to look at what this address shows. None where it may not be looked at now.
    pub(crate) fn begin(&self, address: IpAddr, shown: &[u8], now: Instant) -> Option<Attempt> {
        let address = network(address);
        let pair = self.hasher.hash_one((address, shown));
        let mut state = self.state.lock();
        let is_known = state.accepted.has(&pair);
        if !is_known && !state.bucket(address, now).take(RATE, now) {
            return None;
        }
        Some(Attempt {
            address,
            pair,
            is_known,
        })
    }

    /// It was right.
    pub(crate) fn succeeded(&self, attempt: &Attempt) {
        if attempt.is_known {
            return;
        }
        let mut state = self.state.lock();
        state.give_back(attempt);
        state.accepted.add(attempt.pair);
    }

    /// It was wrong.
    pub(crate) fn failed(&self, attempt: &Attempt, now: Instant) {
        // What was not known has been counted at its begin.
        if attempt.is_known {
            let mut state = self.state.lock();
            state.bucket(attempt.address, now).take(RATE, now);
        }
    }

    /// It was not looked at.
    pub(crate) fn withdraw(&self, attempt: &Attempt) {
        if !attempt.is_known {
            self.state.lock().give_back(attempt);
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            failures: HashMap::new(),
            accepted: Recent::new(MAX_ACCEPTED),
        }
    }
}

impl State {
    fn bucket(&mut self, address: IpAddr, now: Instant) -> &mut Bucket {
        let buckets = &mut self.failures;
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
            // An attacker with so many addresses is not held up by this anyway.
            if buckets.len() >= MAX_ADDRESSES
                && let Some(any) = buckets.keys().next().copied()
            {
                buckets.remove(&any);
            }
        }
        buckets.entry(address).or_insert_with(Bucket::full)
    }

    fn give_back(&mut self, attempt: &Attempt) {
        if let Some(bucket) = self.failures.get_mut(&attempt.address) {
            bucket.give_back(RATE);
        }
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// Twenty failures at once, and one each second.
const RATE: Rate = Rate {
    interval: Duration::from_secs(1),
    burst: 20,
};
const MAX_ADDRESSES: usize = 10_000;
const MAX_ACCEPTED: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_is_held_up_and_what_was_accepted_from_it_is_not() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let address = ip("192.0.2.1");
        let right = attempts.begin(address, b"right", now).unwrap();
        attempts.succeeded(&right);
        for _ in 0..RATE.burst {
            let wrong = attempts.begin(address, b"wrong", now).unwrap();
            attempts.failed(&wrong, now);
        }
        let may_try = |address, shown: &[u8], now| attempts.begin(address, shown, now).is_some();
        assert!(!may_try(address, b"wrong", now));
        assert!(!may_try(ip("::ffff:192.0.2.1"), b"wrong", now));
        assert!(may_try(address, b"right", now));
        assert!(may_try(ip("192.0.2.2"), b"wrong", now));
        assert!(may_try(address, b"wrong", now + RATE.interval));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_much_at_once_gets_no_more_looks() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let address = ip("192.0.2.1");
        let mut begun: Vec<_> = (0..RATE.burst)
            .map(|guess| attempts.begin(address, &guess.to_ne_bytes(), now).unwrap())
            .collect();
        assert!(attempts.begin(address, b"one more", now).is_none());
        attempts.withdraw(&begun.pop().unwrap());
        attempts.succeeded(&begun.pop().unwrap());
        for _ in 0..2 {
            assert!(attempts.begin(address, b"two more", now).is_some());
        }
        assert!(attempts.begin(address, b"three more", now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_right_once_and_is_wrong_by_now_counts() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let address = ip("192.0.2.1");
        attempts.succeeded(&attempts.begin(address, b"old", now).unwrap());
        for _ in 0..RATE.burst {
            let old = attempts.begin(address, b"old", now).unwrap();
            attempts.failed(&old, now);
        }
        assert!(attempts.begin(address, b"guess", now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_address() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let may_try = |address: &str| attempts.begin(ip(address), b"x", now).is_some();
        for last in 0..RATE.burst {
            assert!(may_try(&format!("2001:db8:0:1::{last:x}")));
        }
        assert!(!may_try("2001:db8:0:1:ffff::1"));
        assert!(may_try("2001:db8:0:2::1"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..MAX_ACCEPTED + 50 {
            let attempt = attempts.begin(ip("192.0.2.1"), &number.to_ne_bytes(), now);
            attempts.succeeded(&attempt.unwrap());
        }
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            let attempt = attempts.begin(IpAddr::V4(number.into()), b"x", now);
            attempts.failed(&attempt.unwrap(), now);
        }
        let state = attempts.state.lock();
        assert_eq!(state.accepted.len(), MAX_ACCEPTED);
        assert_eq!(state.failures.len(), MAX_ADDRESSES);
    }
}
