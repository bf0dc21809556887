//! What the log says while something goes wrong again and again: each trouble once, then once a
//! minute, and how long it all was when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// The failures since the last success, and what of them was told.
#[derive(Debug, Default)]
pub struct Trouble {
    /// When the first failure was, while there is trouble.
    since: Option<Instant>,
    /// Whether the log knows of it.
    is_told: bool,
    /// What was told within the last minute. It outlasts a success, so that a peer that is well
    /// every other second does not fill the log.
    told: Vec<(String, Instant)>,
}

impl Trouble {
    /// Counts a failure. Whether it is to be told, or is only more of the same.
    pub fn fails(&mut self, what: &str, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.told
            .retain(|(_, at)| now.duration_since(*at) < AGAIN_AFTER);
        // A peer that says something else each time is told as one that always says the same.
        if self.told.len() >= MOST_TOLD || self.told.iter().any(|(told, _)| told == what) {
            return false;
        }
        self.told.push((what.to_owned(), now));
        self.is_told = true;
        true
    }

    /// Whether the last thing that happened was a failure.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.since.is_some()
    }

    /// A success. How long there was trouble, if the log knows of it.
    pub fn ends(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        std::mem::take(&mut self.is_told).then(|| now.duration_since(since))
    }
}

const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Different troubles that are told in a minute: a proxy that goes down and comes back has a few.
const MOST_TOLD: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_trouble_is_told_once_and_then_once_a_minute() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        let told = (0..600).filter(|second| trouble.fails("refused", start + *second * S));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [0, 60, 120, 180, 240, 300, 360, 420, 480, 540]
        );
        assert_eq!(trouble.ends(start + 601 * S), Some(601 * S));
        assert_eq!(trouble.ends(start + 602 * S), None);
    }

    #[test]
    fn another_trouble_is_told_at_once_and_endless_novelty_is_not() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        assert!(trouble.fails("refused", start));
        assert!(trouble.fails("502", start + S));
        assert!(!trouble.fails("refused", start + 2 * S));
        let told = (0..600).filter(|second| {
            let what = format!("nonce {second}");
            trouble.fails(&what, start + *second * S)
        });
        assert!(told.count() <= 30);
    }

    #[test]
    fn trouble_that_comes_and_goes_is_told_once_a_minute_with_its_ends() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        let (mut failures, mut ends) = (0, 0);
        for second in (0..300).step_by(3) {
            failures += u32::from(trouble.fails("closed", start + second * S));
            assert!(trouble.lasts());
            ends += u32::from(trouble.ends(start + (second + 2) * S).is_some());
            assert!(!trouble.lasts());
        }
        assert_eq!((failures, ends), (5, 5));
    }
}
