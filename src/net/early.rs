//! A connection whose bytes are counted, and of which some may have been read already: they come
//! first. Not who read them.

use super::stream::Stream;
use crate::telemetry::metrics::Counter;
use bytes::{Buf, Bytes};
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Such a connection.
#[derive(Debug)]
pub struct Early {
    stream: Stream,
    early: Bytes,
    counts: Rc<Counts>,
}

/// Bytes that have passed since they were last taken, and how those that were read end.
#[derive(Debug, Default)]
pub struct Counts {
    read: Cell<u64>,
    written: Cell<u64>,
    /// The newest bytes, the last one lowest.
    tail: Cell<u32>,
}

impl Counts {
    /// Adds what was read and written to counters, and says how much it was.
    pub fn settle(&self, read: &Counter, written: &Counter) -> (u64, u64) {
        let (bytes_read, bytes_written) = (self.read.take(), self.written.take());
        read.add(bytes_read);
        written.add(bytes_written);
        (bytes_read, bytes_written)
    }

    /// Whether what was read ends with an empty line, as a head of HTTP/1.1 does.
    pub fn ends_with_empty_line(&self) -> bool {
        let tail = self.tail.get();
        tail & 0xff_ffff == 0x0a_0d_0a || tail & 0xffff == 0x0a0a
    }

    fn read(&self, bytes: &[u8]) {
        self.read.set(self.read.get() + bytes.len() as u64);
        let newest = bytes.iter().skip(bytes.len().saturating_sub(4));
        let tail = newest.fold(self.tail.get(), |tail, byte| tail << 8 | u32::from(*byte));
        self.tail.set(tail);
    }
}

impl Early {
    pub fn new(stream: Stream, early: Bytes) -> Self {
        Self { stream, early, counts: Rc::default() }
    }

    /// What has passed, for whoever keeps it beside the connection.
    pub fn counts(&self) -> Rc<Counts> {
        Rc::clone(&self.counts)
    }

    /// The connection itself, and the bytes that nobody has read since.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.early)
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.early.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let fits = self.early.len().min(buf.remaining());
            buf.put_slice(self.early.get(..fits).unwrap_or_default());
            self.early.advance(fits);
            if self.early.is_empty() {
                // What is used up would be kept for as long as the connection lives.
                self.early = Bytes::new();
            }
        }
        self.counts.read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.counted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.counted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Early {
    fn counted(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = polled {
            self.counts.written.set(self.counts.written.get() + written as u64);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn an_empty_line_at_the_end_is_seen_however_it_comes() {
        for (text, ends) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\n\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HT", false),
            ("GET / HTTP/1.1\r\n", false),
            ("GET / HTTP/1.1\r\n\r", false),
        ] {
            for step in 1..=text.len() {
                let counts = Counts::default();
                text.as_bytes().chunks(step).for_each(|part| counts.read(part));
                assert_eq!(counts.ends_with_empty_line(), ends, "{text:?} by {step}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_read_already_comes_first_and_all_is_counted() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut early = Early::new(Stream::Unix(ours), Bytes::from_static(b"GET /"));
        let counts = early.counts();
        theirs.write_all(b" HTTP").await.unwrap();
        let mut read = [0; 10];
        early.read_exact(&mut read[..3]).await.unwrap();
        early.read_exact(&mut read[3..]).await.unwrap();
        assert_eq!(&read, b"GET / HTTP");
        early.write_all(b"ok").await.unwrap();
        let (read, written) = (Counter::default(), Counter::default());
        assert_eq!(
            (counts.settle(&read, &written), counts.settle(&read, &written)),
            ((10, 2), (0, 0))
        );
        assert_eq!((read.get(), written.get()), (10, 2));
        let (stream, _) = early.into_parts();
        let mut early = Early::new(stream, Bytes::from_static(b"GET /"));
        early.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(early.into_parts().1, " /"[..]);
    }
}
