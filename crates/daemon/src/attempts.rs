//! Failed attempts to prove who one is: each address has so many, and no more.
//!
//! Behind one address there may be many, as behind a NAT or a reverse proxy, and one of them must
//! not lock the others out: what has been accepted from an address goes on being accepted from it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rate::{Bucket, Rate};

/// Who has failed lately, and what has been accepted lately.
#[derive(Debug, Default)]
pub struct Attempts {
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    failures: HashMap<IpAddr, Bucket>,
    accepted: HashSet<u64>,
    /// The same, the oldest first.
    order: VecDeque<u64>,
}

impl Attempts {
    /// Whether what this address shows may be looked at now.
    #[must_use]
    pub fn may_try(&self, address: IpAddr, shown: &[u8], now: Instant) -> bool {
        let address = network(address);
        let state = self.state.lock();
        let has_failed = state
            .failures
            .get(&address)
            .is_some_and(|bucket| bucket.is_empty(RATE, now));
        !has_failed
            || state
                .accepted
                .contains(&self.hasher.hash_one((address, shown)))
    }

    /// What this address has shown was right.
    pub fn succeeded(&self, address: IpAddr, shown: &[u8]) {
        let pair = self.hasher.hash_one((network(address), shown));
        let mut state = self.state.lock();
        if state.accepted.insert(pair) {
            state.order.push_back(pair);
            if state.order.len() > MAX_ACCEPTED
                && let Some(oldest) = state.order.pop_front()
            {
                state.accepted.remove(&oldest);
            }
        }
    }

    /// What this address has shown was wrong.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let address = network(address);
        let mut state = self.state.lock();
        let failures = &mut state.failures;
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&address) {
            failures.retain(|_, bucket| !bucket.is_full(now));
            // An attacker with so many addresses is not held up by this anyway.
            if failures.len() >= MAX_ADDRESSES
                && let Some(any) = failures.keys().next().copied()
            {
                failures.remove(&any);
            }
        }
        failures
            .entry(address)
            .or_insert_with(Bucket::full)
            .take(RATE, now);
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
        attempts.succeeded(address, b"right");
        for _ in 0..RATE.burst {
            assert!(attempts.may_try(address, b"wrong", now));
            attempts.failed(address, now);
        }
        assert!(!attempts.may_try(address, b"wrong", now));
        assert!(!attempts.may_try(ip("::ffff:192.0.2.1"), b"wrong", now));
        assert!(attempts.may_try(address, b"right", now));
        assert!(attempts.may_try(ip("192.0.2.2"), b"wrong", now));
        assert!(attempts.may_try(address, b"wrong", now + RATE.interval));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_address() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for last in 0..RATE.burst {
            attempts.failed(ip(&format!("2001:db8:0:1::{last:x}")), now);
        }
        assert!(!attempts.may_try(ip("2001:db8:0:1:ffff::1"), b"x", now));
        assert!(attempts.may_try(ip("2001:db8:0:2::1"), b"x", now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..MAX_ACCEPTED + 50 {
            attempts.succeeded(ip("192.0.2.1"), &number.to_ne_bytes());
        }
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            attempts.failed(IpAddr::V4(number.into()), now);
        }
        let state = attempts.state.lock();
        assert_eq!(state.accepted.len(), MAX_ACCEPTED);
        assert_eq!(state.order.len(), MAX_ACCEPTED);
        assert_eq!(state.failures.len(), MAX_ADDRESSES);
    }
}
