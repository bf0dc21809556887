//! Room for heads that have begun to come and not ended: thousands of peers may each be in the
//! middle of one.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What all unfinished heads may take up together.
#[derive(Debug)]
pub(crate) struct HeadRoom {
    limit: usize,
    taken: AtomicUsize,
}

/// What one unfinished head takes up, until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldHead<'a> {
    room: &'a HeadRoom,
    taken: usize,
}

/// There is no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for the head, which comes in pieces, beside others that have not ended")]
pub(crate) struct NoRoom;

impl HeadRoom {
    /// Room for `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: AtomicUsize::new(0),
        }
    }

    /// For a head of which nothing is there yet.
    pub(crate) fn hold(&self) -> HeldHead<'_> {
        HeldHead {
            room: self,
            taken: 0,
        }
    }
}

impl HeldHead<'_> {
    /// Takes up as much as a head needs of which `length` bytes are there.
    pub(crate) fn grow(&mut self, length: usize) -> Result<(), NoRoom> {
        let more = length.saturating_sub(FREE).saturating_sub(self.taken);
        let room = self.room;
        let fits = |taken: usize| taken.checked_add(more).filter(|all| *all <= room.limit);
        let order = Ordering::Relaxed;
        let grown = room.taken.fetch_update(order, order, fits);
        grown.map_err(|_| NoRoom)?;
        self.taken += more;
        Ok(())
    }
}

impl Drop for HeldHead<'_> {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// What each head may have without asking: heads of polls, pushes and scrapes are smaller, so that
/// nobody's large ones keep them out.
const FREE: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_the_room_and_small_ones_need_none() {
        let room = HeadRoom::new(1_000);
        let (mut a, mut b) = (room.hold(), room.hold());
        assert_eq!(a.grow(FREE + 600), Ok(()));
        assert_eq!(a.grow(FREE + 700), Ok(()));
        assert_eq!(b.grow(FREE + 301), Err(NoRoom));
        assert_eq!(b.grow(FREE + 300), Ok(()));
        assert_eq!(room.hold().grow(FREE), Ok(()));
        assert_eq!(room.hold().grow(FREE + 1), Err(NoRoom));
        drop(a);
        assert_eq!(b.grow(FREE + 1_000), Ok(()));
        drop(b);
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
