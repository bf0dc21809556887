//! The scrapes that are being carried out: so many at most, and each of them once.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

/// The ids of the scrapes in hand. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct InHand(Arc<Mutex<HashSet<HeaderValue>>>);

/// A scrape that is in hand until this is dropped.
#[derive(Debug)]
pub struct Held {
    all: InHand,
    id: HeaderValue,
}

/// Why a scrape is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// It is in hand already. The proxy hands out again what it cannot know to have arrived, and the
    /// target is pulled once all the same.
    InHand,
    /// There are too many.
    Full,
}

impl InHand {
    /// Takes the scrape with this id in hand.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub fn take(&self, id: &HeaderValue) -> Result<Held, NotTaken> {
        let mut ids = self.0.lock();
        if ids.contains(id) {
            return Err(NotTaken::InHand);
        }
        if ids.len() >= MOST {
            return Err(NotTaken::Full);
        }
        ids.insert(id.clone());
        Ok(Held {
            all: self.clone(),
            id: id.clone(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.id);
    }
}

/// Far more than one target has Prometheus servers, and few enough for the memory of a small
/// machine.
pub const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_in_hand_once_and_again_when_it_is_done() {
        let all = InHand::default();
        let id = |number: usize| HeaderValue::from(number);
        let first = all.take(&id(0)).unwrap();
        assert_eq!(all.take(&id(0)).err(), Some(NotTaken::InHand));
        let others: Vec<_> = (1..MOST)
            .map(|number| all.take(&id(number)).unwrap())
            .collect();
        assert_eq!(all.take(&id(MOST)).err(), Some(NotTaken::Full));
        drop(first);
        assert!(all.take(&id(0)).is_ok());
        drop(others);
        assert!(all.0.lock().is_empty());
    }
}
