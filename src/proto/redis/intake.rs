//! What has been read from a server and not been taken: the bytes, and how far they are done with.
//! It knows no reply.

/// One read takes up to this much (measured: larger did not help, smaller costs reads at 4 KiB).
const READ_SIZE: usize = 64 * 1024;

/// Bytes of a connection; `bytes` up to `start` are done with.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub bytes: Vec<u8>,
    pub start: usize,
}

impl Intake {
    /// Bytes that came and are not taken.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Before a read: forgets what is done with, and gives back what one large reply needed.
    pub(super) fn make_room(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > 4 * READ_SIZE {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.capacity() - self.bytes.len() < READ_SIZE / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
            let room = READ_SIZE.max(self.bytes.len());
            self.bytes.reserve(room);
        }
    }
}
