//! What an HTTP/2 client's frames cost that carry nothing: pings, settings, resets and the like are
//! paid from a purse that fills with time and with what the client gets from us. Not what frames say:
//! that is h2's, which has no limit on most of these.

use super::hub::Hub;
use crate::net::early::Early;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose frames are looked at as they are read.
#[derive(Debug)]
pub(super) struct Toll {
    io: Early,
    hub: Rc<Hub>,
    frames: Frames,
    purse: Purse,
    empty: Rc<Cell<bool>>,
}

impl Toll {
    pub(super) fn new(io: Early, hub: Rc<Hub>) -> Self {
        let purse = Purse { left: FULL, filled_us: hub.now_us() };
        Self { io, hub, frames: Frames::default(), purse, empty: Rc::default() }
    }

    /// Whether the client has spent all: nothing more is read from it then.
    pub(super) fn empty(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.empty)
    }
}

impl AsyncRead for Toll {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.purse.fill(this.hub.now_us());
        let read = buf.filled().get(before..).unwrap_or_default();
        this.frames.look(read, |cost| this.purse.pay(cost));
        if this.purse.left < 0 {
            this.empty.set(true);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Toll {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.purse.earn(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.purse.earn(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What a client may still spend.
#[derive(Debug)]
struct Purse {
    left: i64,
    filled_us: u64,
}

impl Purse {
    fn fill(&mut self, now_us: u64) {
        let earned = now_us.saturating_sub(self.filled_us) / EACH_US;
        if earned > 0 {
            self.filled_us = now_us;
            self.add(earned);
        }
    }

    /// A client that takes much says much about its windows.
    fn earn(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = written {
            self.add(*written as u64 / BYTES_EACH);
        }
    }

    fn pay(&mut self, cost: i64) {
        self.left = (self.left - cost).min(FULL);
    }

    fn add(&mut self, earned: u64) {
        let earned = i64::try_from(earned).unwrap_or(FULL).min(FULL);
        self.left = (self.left + earned).min(FULL);
    }
}

/// Where in the frames the next byte is: behind the preface, each is nine bytes and a payload
/// (RFC 9113, 4.1).
#[derive(Debug)]
struct Frames {
    head: [u8; 9],
    /// Bytes of `head` that have come.
    have: usize,
    /// Bytes of no interest that come first.
    skip: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { head: [0; 9], have: 0, skip: PREFACE_LEN }
    }
}

impl Frames {
    /// Says what each frame costs whose head ends within `read`.
    fn look(&mut self, mut read: &[u8], mut pay: impl FnMut(i64)) {
        loop {
            let skipped = self.skip.min(read.len());
            self.skip -= skipped;
            read = read.get(skipped..).unwrap_or_default();
            let Some((next, rest)) = read.split_first() else { return };
            if let Some(byte) = self.head.get_mut(self.have) {
                *byte = *next;
                self.have += 1;
                read = rest;
            }
            if self.have == self.head.len() {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                pay(cost(kind, flags, length));
            }
        }
    }
}

/// By RFC 9113, 6: requests and bodies cost nothing, a reset costs the connection to a backend that
/// its request may have taken, all else an answer or a look.
fn cost(kind: u8, flags: u8, length: u32) -> i64 {
    const END_STREAM: u8 = 1;
    match kind {
        0 if length > 0 || flags & END_STREAM != 0 => 0,
        1 => -1,
        3 => RESET,
        _ => 1,
    }
}

/// A client preface (RFC 9113, 3.4).
const PREFACE_LEN: usize = 24;
/// What a purse holds: nobody needs as many frames within moments. nginx lets 1 MiB of frames without
/// payload pass, which is 60,000 pings; 10,000 cost a worker some milliseconds.
const FULL: i64 = 10_000;
/// A thousand each second: more than one each time that a page's picture is stopped, or that gRPC
/// measures its round trip.
const EACH_US: u64 = 1_000;
/// h2, nghttp2 and Go tell of their windows at most twice for each frame that they get; frames
/// smaller than this are not told of one by one.
const BYTES_EACH: u64 = 256;
/// A thousand within moments, a hundred each second.
const RESET: i64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: u8) -> Vec<u8> {
        [&[0, 0, payload, kind, flags, 0, 0, 0, 1][..], &vec![0; usize::from(payload)]].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let frames = [frame(1, 4, 20), frame(0, 0, 255), frame(3, 0, 4), frame(6, 0, 8)].concat();
        let bytes = [vec![b'P'; PREFACE_LEN], frames, frame(0, 0, 0), frame(0, 1, 0)].concat();
        for step in 1..=bytes.len() {
            let (mut frames, mut costs) = (Frames::default(), Vec::new());
            bytes.chunks(step).for_each(|part| frames.look(part, |cost| costs.push(cost)));
            assert_eq!(costs, [-1, 0, RESET, 1, 1, 0], "{step}");
        }
    }

    #[test]
    fn a_purse_fills_with_time_and_with_bytes_to_its_brim() {
        let mut purse = Purse { left: 0, filled_us: 0 };
        for _ in 0..10 {
            purse.fill(purse.filled_us + EACH_US / 2);
        }
        assert_eq!(purse.left, 0, "half a coin is none");
        purse.fill(5 * EACH_US);
        purse.earn(&Poll::Ready(Ok(512)));
        assert_eq!(purse.left, 5 + 2);
        purse.fill(u64::MAX);
        assert_eq!(purse.left, FULL);
    }
}
