//! A connection whose bytes are counted, and of which some may have been read already: they come
//! first. Not who read them.

use super::stream::Stream;
use crate::telemetry::metrics::Counter;
use bytes::{Buf, Bytes};
use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Such a connection.
#[derive(Debug)]
pub struct Early {
    early: Bytes,
    wire: Rc<Wire>,
}

/// The connection for whoever looks at it from beside.
#[derive(Debug)]
pub struct Wire {
    /// `None`: it was taken back.
    stream: RefCell<Option<Stream>>,
    counts: Counts,
    /// The newest write has to wait.
    blocked: Cell<bool>,
    last: Cell<Last>,
}

/// Whether the end of the connection is to leave with the bytes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    No,
    /// With what is written next.
    Next,
    /// Bytes wait for it.
    Waits,
}

/// Bytes that have passed since they were last taken, and how those that were read end.
#[derive(Debug, Default)]
struct Counts {
    read: Cell<u64>,
    written: Cell<u64>,
    /// The newest bytes, the last one lowest.
    tail: Cell<u32>,
}

impl Wire {
    /// Adds what was read and written since the last time to counters, and says how much it was.
    pub fn settle(&self, read: &Counter, written: &Counter) -> (u64, u64) {
        let (bytes_read, bytes_written) = (self.counts.read.take(), self.counts.written.take());
        read.add(bytes_read);
        written.add(bytes_written);
        (bytes_read, bytes_written)
    }

    /// Whether what was read ends with an empty line, as a head of HTTP/1.1 does.
    pub fn ends_with_empty_line(&self) -> bool {
        self.counts.end_with_empty_line()
    }

    /// Whether the newest write has to wait for the other side.
    pub fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// Resolves when the other side has ended or broken the connection and nothing of it is unread;
    /// for somebody who reads nothing now. Not under TLS.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => stream.poll_end(cx),
            None => Poll::Ready(()),
        }
    }

    /// Whether there are bytes that nobody has read, as far as the event loop has told. Not under
    /// TLS. Nobody is woken by reads afterwards.
    pub fn has_unread(&self) -> bool {
        self.stream.borrow_mut().as_mut().is_some_and(Stream::has_unread)
    }

    /// What is written next is the last: it may wait for the end, until [`Self::push`].
    pub fn end_with_next_write(&self) {
        self.last.set(Last::Next);
    }

    /// Lets go what waits for the end, with it when this is the end.
    pub fn push(&self, ends: bool) {
        if self.last.take() == Last::Waits
            && let Some(stream) = &*self.stream.borrow()
        {
            stream.push(ends);
        }
    }

    /// Does something with the stream, and counts nothing.
    fn with<T>(
        &self,
        work: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.stream.borrow_mut() {
            Some(stream) => work(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Writes, and counts that.
    fn write(
        &self,
        work: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let polled = self.with(work);
        self.blocked.set(polled.is_pending());
        if let Poll::Ready(Ok(written)) = polled {
            let counts = &self.counts.written;
            counts.set(counts.get() + written as u64);
        }
        polled
    }
}

impl Counts {
    fn end_with_empty_line(&self) -> bool {
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
        let stream = RefCell::new(Some(stream));
        let wire = Wire {
            stream,
            counts: Counts::default(),
            blocked: Cell::new(false),
            last: Cell::default(),
        };
        Self { early, wire: Rc::new(wire) }
    }

    /// The connection as it is to be looked at from beside.
    pub fn wire(&self) -> Rc<Wire> {
        Rc::clone(&self.wire)
    }

    /// The connection itself, if nobody took it, and the bytes that nobody has read since.
    pub fn into_parts(self) -> (Option<Stream>, Bytes) {
        (self.wire.stream.take(), self.early)
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
            std::task::ready!(self.wire.with(|stream| stream.poll_read(cx, buf)))?;
        } else {
            let fits = self.early.len().min(buf.remaining());
            buf.put_slice(self.early.get(..fits).unwrap_or_default());
            self.early.advance(fits);
            if self.early.is_empty() {
                // What is used up would be kept for as long as the connection lives.
                self.early = Bytes::new();
            }
        }
        self.wire.counts.read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.write(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.wire.last.get() != Last::No {
            self.wire.last.set(Last::Waits);
            return self.wire.write(|stream| stream.get_mut().poll_write_last(cx, slices));
        }
        self.wire.write(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(|stream| stream.poll_shutdown(cx))
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
                assert_eq!(counts.end_with_empty_line(), ends, "{text:?} by {step}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_read_already_comes_first_and_all_is_counted() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut early = Early::new(Stream::Unix(ours), Bytes::from_static(b"GET /"));
        let wire = early.wire();
        theirs.write_all(b" HTTP").await.unwrap();
        let mut read = [0; 10];
        early.read_exact(&mut read[..3]).await.unwrap();
        early.read_exact(&mut read[3..]).await.unwrap();
        assert_eq!(&read, b"GET / HTTP");
        early.write_all(b"ok").await.unwrap();
        let (read, written) = (Counter::default(), Counter::default());
        assert_eq!((wire.settle(&read, &written), wire.settle(&read, &written)), ((10, 2), (0, 0)));
        assert_eq!((read.get(), written.get()), (10, 2));
        let (stream, _) = early.into_parts();
        let mut early = Early::new(stream.unwrap(), Bytes::from_static(b"GET /"));
        early.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(early.into_parts().1, " /"[..]);
    }
}
