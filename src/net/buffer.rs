//! A worker's stock of byte buffers: a client holds one only while it has bytes under way, so an
//! idle client costs none. Not a limit on memory: who holds how much is counted by the holder.

use std::cell::RefCell;

/// What a fresh buffer has room for: one read takes all that a pipelining client usually sends.
pub const BUFFER_SIZE: usize = 16 * 1024;

/// How many buffers are kept for later (4 MiB a worker).
const KEPT: usize = 256;

/// Larger ones are returned to the allocator, so that one big request does not stay for ever.
const KEPT_SIZE: usize = 4 * BUFFER_SIZE;

/// The stock of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer with room for at least [`BUFFER_SIZE`] bytes.
    pub fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_SIZE))
    }

    /// Takes a buffer back; its content is gone.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < BUFFER_SIZE || buffer.capacity() > KEPT_SIZE {
            return;
        }
        let mut free = self.free.borrow_mut();
        if free.len() < KEPT {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_empty_and_a_huge_one_is_not_kept() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"secret");
        buffers.give(buffer);
        assert!(buffers.take().is_empty());
        buffers.give(Vec::with_capacity(1024 * 1024));
        assert_eq!(buffers.take().capacity(), BUFFER_SIZE);
    }
}
