//! The last good answer of each proxy, and how long a proxy is too young to be believed when it
//! lists fewer clients than before: pure, takes the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::listing::Listing;

/// What proxies have answered.
#[derive(Debug, Default)]
pub struct Answers {
    proxies: BTreeMap<SocketAddr, Answer>,
}

#[derive(Debug)]
struct Answer {
    listing: Listing,
    /// Until then its clients may still be on their way back to it, and none is taken away.
    young_until: Instant,
    /// Whether the proxy's last answer, as it came, had no client.
    was_empty: bool,
    /// Whether it was asked since it appeared, with whatever success.
    is_asked: bool,
    /// Whether the last attempt failed.
    is_failing: bool,
    /// Whether its age has made it necessary to ask once more, out of turn.
    is_asked_again: bool,
}

impl Answers {
    /// What a proxy had answered in another run. It counts until the proxy answers.
    pub fn restore(&mut self, proxy: SocketAddr, listing: Listing, now: Instant) {
        self.proxies.insert(proxy, Answer::new(listing, now));
    }

    /// Forgets proxies that do not exist any more.
    pub fn keep(&mut self, known: &BTreeSet<SocketAddr>) {
        self.proxies.retain(|proxy, _| known.contains(proxy));
    }

    /// A proxy has become ready.
    pub fn appeared(&mut self, proxy: SocketAddr, now: Instant) {
        let answer = self.entry(proxy, now);
        answer.is_asked = false;
        answer.is_young_again(now);
    }

    /// A proxy has answered. Whether what is known of it has changed.
    pub fn answered(&mut self, proxy: SocketAddr, mut listing: Listing, now: Instant) -> bool {
        let answer = self.entry(proxy, now);
        let was_asked = std::mem::replace(&mut answer.is_asked, true);
        answer.is_failing = false;
        let is_empty = listing.is_empty();
        let was_empty = std::mem::replace(&mut answer.was_empty, is_empty);
        // All at once gone: more likely the proxy was restarted and nobody told.
        if is_empty && !was_empty && !answer.listing.is_empty() && now >= answer.young_until {
            answer.is_young_again(now);
        }
        if now < answer.young_until {
            listing.add_missing(&answer.listing);
        }
        // An equal one is dropped: what was placed shares its names with the one that stays.
        let is_equal = answer.listing == listing;
        if !is_equal {
            answer.listing = listing;
        }
        !is_equal || !was_asked
    }

    /// A proxy has not answered. Whether what is known of it has changed.
    pub fn failed(&mut self, proxy: SocketAddr, now: Instant) -> bool {
        let answer = self.entry(proxy, now);
        answer.is_failing = true;
        answer.is_young_again(now);
        !std::mem::replace(&mut answer.is_asked, true)
    }

    /// What is known of a proxy's clients. None if it has not been asked yet.
    #[must_use]
    pub fn listing(&self, proxy: &SocketAddr) -> Option<&Listing> {
        let answer = self.proxies.get(proxy)?;
        answer.is_asked.then_some(&answer.listing)
    }

    /// Whether a proxy did not answer when it was asked last.
    #[must_use]
    pub fn is_failing(&self, proxy: &SocketAddr) -> bool {
        self.proxies
            .get(proxy)
            .is_some_and(|answer| answer.is_failing)
    }

    /// How many proxies did not answer when they were asked last.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.proxies
            .values()
            .filter(|answer| answer.is_failing)
            .count()
    }

    /// When a proxy that was too young is to be asked out of turn, and which one.
    #[must_use]
    pub fn next_question(&self) -> Option<(Instant, SocketAddr)> {
        self.proxies
            .iter()
            .filter(|(_, answer)| answer.is_asked && !answer.is_asked_again)
            .map(|(proxy, answer)| (answer.young_until, *proxy))
            .min()
    }

    /// That question is being asked.
    pub fn asking_again(&mut self, proxy: SocketAddr) {
        if let Some(answer) = self.proxies.get_mut(&proxy) {
            answer.is_asked_again = true;
        }
    }

    fn entry(&mut self, proxy: SocketAddr, now: Instant) -> &mut Answer {
        self.proxies
            .entry(proxy)
            .or_insert_with(|| Answer::new(Listing::default(), now))
    }
}

impl Answer {
    fn new(listing: Listing, now: Instant) -> Self {
        Self {
            listing,
            young_until: now + YOUTH,
            was_empty: true,
            is_asked: false,
            is_failing: false,
            is_asked_again: false,
        }
    }

    fn is_young_again(&mut self, now: Instant) {
        self.young_until = now + YOUTH;
        self.is_asked_again = false;
    }
}

/// How long a proxy's clients may need to come back: they wait 5 s between attempts at the most,
/// and our proxy itself refuses to list them for its first 15 s.
pub const YOUTH: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> SocketAddr {
        "10.0.0.1:8080".parse().unwrap()
    }

    fn listing(names: &[&str]) -> Listing {
        Listing::parse(
            serde_json::json!([{ "targets": names }])
                .to_string()
                .as_bytes(),
        )
        .unwrap()
    }

    fn old(names: &[&str], start: Instant) -> Answers {
        let mut answers = Answers::default();
        answers.appeared(proxy(), start);
        answers.answered(proxy(), listing(names), start + YOUTH);
        answers
    }

    fn names(answers: &Answers) -> usize {
        answers.listing(&proxy()).unwrap().len()
    }

    #[tokio::test]
    async fn a_proxy_that_fails_keeps_its_last_good_answer() {
        let start = Instant::now();
        let mut answers = old(&["a", "b"], start);
        for minute in 1..100 {
            assert!(!answers.failed(proxy(), start + YOUTH + minute * Duration::from_secs(60)));
        }
        assert_eq!(names(&answers), 2);
        assert_eq!(answers.failing(), 1);
        answers.keep(&BTreeSet::new());
        assert!(answers.listing(&proxy()).is_none());
        assert_eq!(answers.failing(), 0);
    }

    #[tokio::test]
    async fn a_young_proxy_takes_no_client_away() {
        let start = Instant::now();
        let mut answers = old(&["a", "b"], start);
        let later = start + YOUTH * 10;
        answers.failed(proxy(), later);
        answers.answered(proxy(), listing(&[]), later + YOUTH / 3);
        assert_eq!(names(&answers), 2);
        answers.answered(proxy(), listing(&["b", "c"]), later + YOUTH / 2);
        assert_eq!(names(&answers), 3);
        assert_eq!(answers.next_question(), Some((later + YOUTH, proxy())));
        answers.asking_again(proxy());
        assert_eq!(answers.next_question(), None);
        assert!(answers.answered(proxy(), listing(&["b", "c"]), later + YOUTH));
        assert_eq!(names(&answers), 2);
    }

    #[tokio::test]
    async fn an_old_proxy_is_believed_when_it_lists_fewer() {
        let start = Instant::now();
        let mut answers = old(&["a", "b"], start);
        assert!(answers.answered(proxy(), listing(&["a"]), start + YOUTH * 2));
        assert_eq!(names(&answers), 1);
    }

    #[tokio::test]
    async fn an_old_proxy_that_lists_nobody_must_say_so_for_a_while() {
        let start = Instant::now();
        let mut answers = old(&["a", "b"], start);
        let later = start + YOUTH * 10;
        assert!(!answers.answered(proxy(), listing(&[]), later));
        assert_eq!(names(&answers), 2);
        assert!(!answers.answered(proxy(), listing(&[]), later + YOUTH / 2));
        assert!(answers.answered(proxy(), listing(&[]), later + YOUTH));
        assert_eq!(names(&answers), 0);
        assert!(!answers.answered(proxy(), listing(&[]), later + YOUTH * 2));
    }

    #[tokio::test]
    async fn a_restart_keeps_what_another_run_knew_until_the_proxy_is_believed() {
        let start = Instant::now();
        let mut answers = Answers::default();
        answers.restore(proxy(), listing(&["a"]), start);
        assert!(
            answers.listing(&proxy()).is_none(),
            "not before it was asked"
        );
        answers.appeared(proxy(), start);
        assert!(answers.failed(proxy(), start));
        assert_eq!(names(&answers), 1);
        answers.answered(proxy(), listing(&[]), start + YOUTH / 2);
        assert_eq!(names(&answers), 1);
    }

    #[tokio::test]
    async fn the_first_answer_counts_as_a_change_even_if_it_is_empty() {
        let start = Instant::now();
        let mut answers = Answers::default();
        answers.appeared(proxy(), start);
        assert!(answers.answered(proxy(), listing(&[]), start));
        assert!(!answers.answered(proxy(), listing(&[]), start));
    }
}
