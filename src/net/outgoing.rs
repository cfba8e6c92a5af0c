//! Bytes on their way to a reader that may be slow: kept in segments, so that a long backlog is
//! never copied and what was written is given back. Not a limit: its owner looks at the length.

use super::{buffer::Buffers, stream::Stream};
use std::{collections::VecDeque, io};

/// What one connection still has to write.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Written before `last`.
    full: VecDeque<Vec<u8>>,
    last: Vec<u8>,
    /// Bytes of the first segment already written.
    sent: usize,
    /// Bytes of `full`.
    full_len: usize,
}

impl Outgoing {
    /// Bytes not written yet.
    pub fn len(&self) -> usize {
        self.full_len + self.last.len() - self.sent
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Borrows a buffer from the stock when it has none.
    pub fn prepare(&mut self, buffers: &Buffers) {
        if self.last.capacity() == 0 {
            self.last = buffers.take();
        }
    }

    /// Appends: fills the last segment, then as many new ones as it takes, so that nothing that
    /// waits is moved.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        loop {
            let room = self.last.capacity() - self.last.len();
            let Some((now, later)) = bytes.split_at_checked(room) else {
                return self.last.extend_from_slice(bytes);
            };
            self.last.extend_from_slice(now);
            if later.is_empty() {
                return;
            }
            self.next_last();
            bytes = later;
        }
    }

    /// The segment to append a reply to whose length is not known before.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.last.len() >= SEGMENT {
            self.next_last();
        }
        &mut self.last
    }

    fn next_last(&mut self) {
        let full = std::mem::replace(&mut self.last, Vec::with_capacity(SEGMENT));
        if !full.is_empty() {
            self.full_len += full.len();
            self.full.push_back(full);
        }
    }

    /// Writes until all is written or the socket takes no more; returns the bytes written.
    ///
    /// # Errors
    /// The socket is broken. `WouldBlock` is no error here.
    pub fn write(&mut self, buffers: &Buffers, stream: &mut Stream) -> io::Result<usize> {
        let mut written = 0;
        loop {
            let segment = self.full.front().unwrap_or(&self.last);
            let rest = segment.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                if !self.next_segment(buffers) {
                    return Ok(written);
                }
                continue;
            }
            match stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    written += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.full.iter().map(Vec::capacity).sum::<usize>() + self.last.capacity()
    }

    /// Everything not written yet, for tests.
    #[cfg(test)]
    pub fn bytes(&self) -> Vec<u8> {
        let all: Vec<u8> = self.full.iter().chain([&self.last]).flatten().copied().collect();
        all[self.sent..].to_vec()
    }

    /// Gives the first segment back, which is written whole; false when that was the last one.
    fn next_segment(&mut self, buffers: &Buffers) -> bool {
        self.sent = 0;
        match self.full.pop_front() {
            Some(segment) => {
                self.full_len -= segment.len();
                buffers.give(segment);
                true
            }
            None => {
                buffers.give(std::mem::take(&mut self.last));
                false
            }
        }
    }
}

/// The size of a segment, but of the first, which is a buffer from the stock.
const SEGMENT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_slow_reader_gets_every_byte_in_order() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        let buffers = Buffers::default();
        let mut out = Outgoing::default();
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[i as usize % 4]).collect();
        for piece in sent.chunks(7919) {
            out.prepare(&buffers);
            out.extend(piece);
        }
        assert_eq!(out.len(), sent.len());
        let mut read = vec![0; sent.len()];
        let mut at = 0;
        while at < read.len() {
            std::future::poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap();
            out.write(&buffers, &mut stream).unwrap();
            at += theirs.read(&mut read[at..]).await.unwrap();
        }
        assert!(out.is_empty() && out.held() == 0);
        assert!(read == sent);
    }
}
