//! Verdicts of late: a bounded set that forgets the oldest first.

use std::collections::{HashSet, VecDeque};

/// What was asked lately. What is kept is a digest under a key of this process's.
#[derive(Debug)]
pub(crate) struct Recent {
    asked: HashSet<[u8; 32]>,
    /// The same, the oldest first.
    order: VecDeque<[u8; 32]>,
    max: usize,
}

impl Recent {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            asked: HashSet::new(),
            order: VecDeque::new(),
            max,
        }
    }

    pub(crate) fn has(&self, asked: &[u8; 32]) -> bool {
        self.asked.contains(asked)
    }

    pub(crate) fn add(&mut self, asked: [u8; 32]) {
        if !self.asked.insert(asked) {
            return;
        }
        self.order.push_back(asked);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert_eq!(self.asked.len(), self.order.len());
        self.order.len()
    }
}
