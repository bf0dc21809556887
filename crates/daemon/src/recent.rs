//! What was there of late: a bounded set that forgets the oldest first.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// The last so many that were added.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    all: HashSet<T>,
    /// The same, the oldest first.
    order: VecDeque<T>,
    max: usize,
}

impl<T: Copy + Eq + Hash> Recent<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            all: HashSet::new(),
            order: VecDeque::new(),
            max,
        }
    }

    pub(crate) fn has(&self, one: &T) -> bool {
        self.all.contains(one)
    }

    pub(crate) fn add(&mut self, one: T) {
        if !self.all.insert(one) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.all.len(), self.order.len());
        self.order.len()
    }
}
