//! Buffers that connections borrow for as long as something is in them.

use bytes::BytesMut;
use parking_lot::Mutex;

/// A few buffers for many connections: what waits holds none.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    /// An empty buffer with room for [`SIZE`] bytes.
    pub(crate) fn take(&self) -> BytesMut {
        let mut free = self.free.lock();
        // The last one given back is the likeliest to be in the processor's cache. One whose bytes
        // are still on their way somewhere cannot be used again yet.
        for place in (0..free.len()).rev() {
            if free
                .get_mut(place)
                .is_some_and(|buffer| buffer.try_reclaim(SIZE))
            {
                return free.swap_remove(place);
            }
        }
        drop(free);
        BytesMut::with_capacity(SIZE)
    }

    /// Gives a buffer back. What was split off it may still be in use.
    pub(crate) fn give(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut free = self.free.lock();
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}

/// What one read takes at the most.
pub(crate) const SIZE: usize = 128 * 1024;

/// As many as are in use at once under a load that fills a machine. More are made, and freed again.
const KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_its_bytes_are_gone() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"abc");
        let first = buffer.as_ptr();
        let on_its_way = buffer.split().freeze();
        buffers.give(buffer);
        let other = buffers.take();
        assert_ne!(other.as_ptr(), first);
        drop(on_its_way);
        let again = buffers.take();
        assert_eq!(again.as_ptr(), first);
        assert!(again.is_empty() && again.capacity() >= SIZE);
    }
}
