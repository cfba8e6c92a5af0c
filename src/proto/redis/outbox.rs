//! The bytes of an upstream connection on their way out, and those of reads that may have to be
//! sent again, until they are answered. It does no I/O beyond one write it is asked for.

use crate::net::{buffer::Buffers, stream::Stream};
use std::{collections::VecDeque, io};

/// The outgoing bytes of one connection, numbered from its beginning.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Answered or not needed again: dropped. Written and kept: in front. Then what is not written.
    chunks: VecDeque<Chunk>,
    /// How many chunks at the front are written whole.
    written_chunks: usize,
    written: u64,
    end: u64,
}

#[derive(Debug)]
struct Chunk {
    base: u64,
    bytes: Vec<u8>,
    /// Holds a read that may have to be sent again.
    keep: bool,
}

impl Outbox {
    /// Appends one request through `write`; returns where it begins and its length.
    pub(super) fn append(
        &mut self,
        buffers: &Buffers,
        keep: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> (u64, usize) {
        let fresh = match self.chunks.back() {
            Some(last) => {
                self.chunks.len() == self.written_chunks || last.bytes.len() >= FULL_CHUNK
            }
            None => true,
        };
        if fresh {
            let chunk = Chunk { base: self.end, bytes: buffers.take(), keep: false };
            self.chunks.push_back(chunk);
        }
        let Some(chunk) = self.chunks.back_mut() else { return (self.end, 0) };
        let before = chunk.bytes.len();
        write(&mut chunk.bytes);
        let len = chunk.bytes.len() - before;
        chunk.keep |= keep;
        let offset = self.end;
        self.end += len as u64;
        (offset, len)
    }

    /// Appends one big request without copying it.
    pub(super) fn append_owned(&mut self, keep: bool, bytes: Vec<u8>) -> (u64, usize) {
        let (offset, len) = (self.end, bytes.len());
        self.end += len as u64;
        self.chunks.push_back(Chunk { base: offset, bytes, keep });
        (offset, len)
    }

    /// Whether something is not written yet.
    pub(super) fn is_pending(&self) -> bool {
        self.written < self.end
    }

    /// Bytes that are not written yet.
    pub(super) fn pending(&self) -> usize {
        usize::try_from(self.end - self.written).unwrap_or(usize::MAX)
    }

    /// How many bytes have been written since the connection began.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes until all is written or the socket takes no more. Returns the bytes written.
    ///
    /// # Errors
    /// The socket is broken. `WouldBlock` is not an error here: [`Self::is_pending`] stays true.
    pub(super) fn write(&mut self, buffers: &Buffers, stream: &mut Stream) -> io::Result<u64> {
        let before = self.written;
        while let Some(chunk) = self.chunks.get(self.written_chunks) {
            let start = usize::try_from(self.written - chunk.base).unwrap_or(usize::MAX);
            let rest = chunk.bytes.get(start..).unwrap_or_default();
            if rest.is_empty() {
                self.chunk_written(buffers);
                continue;
            }
            match stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.written - before)
    }

    /// Drops what lies before `offset`, the first byte that may be needed again.
    pub(super) fn answered(&mut self, buffers: &Buffers, offset: u64) {
        while self.written_chunks > 0
            && let Some(first) = self.chunks.front()
            && first.base + first.bytes.len() as u64 <= offset
        {
            self.written_chunks -= 1;
            if let Some(chunk) = self.chunks.pop_front() {
                buffers.give(chunk.bytes);
            }
        }
    }

    /// The bytes of a request, if they are still here.
    pub(super) fn request(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let chunk = self.chunks.iter().rev().find(|chunk| chunk.base <= offset)?;
        let start = usize::try_from(offset - chunk.base).ok()?;
        chunk.bytes.get(start..start.checked_add(len)?)
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum()
    }

    fn chunk_written(&mut self, buffers: &Buffers) {
        if self.chunks.get(self.written_chunks).is_some_and(|chunk| chunk.keep) {
            self.written_chunks += 1;
        } else if let Some(chunk) = self.chunks.remove(self.written_chunks) {
            buffers.give(chunk.bytes);
        }
    }
}

/// A chunk is not added to beyond this, so that answered ones can be dropped soon.
const FULL_CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_kept_until_answered_and_writes_are_not() {
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        std::future::poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
        let buffers = Buffers::default();
        let mut outbox = Outbox::default();
        let (write, _) = outbox.append(&buffers, false, |out| out.extend_from_slice(b"SET"));
        assert_eq!(outbox.write(&buffers, &mut stream).unwrap(), 3);
        assert_eq!(outbox.request(write, 3), None);
        let (read, len) = outbox.append(&buffers, true, |out| out.extend_from_slice(b"GET"));
        assert_eq!(outbox.request(read, len), Some(&b"GET"[..]));
        assert!(outbox.is_pending());
        assert_eq!(outbox.write(&buffers, &mut stream).unwrap(), 3);
        assert_eq!(outbox.request(read, len), Some(&b"GET"[..]));
        let (next, _) = outbox.append_owned(true, b"MGET".to_vec());
        outbox.answered(&buffers, next);
        assert_eq!(outbox.request(read, len), None);
        assert_eq!(outbox.request(next, 4), Some(&b"MGET"[..]));
    }
}
