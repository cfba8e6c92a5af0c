//! The end of a connection whose other side may still be sending: what it was told last must reach it
//! before the socket is closed. Not the relay that comes before.

use super::{
    buffer::{BUFFER_SIZE, Buffers},
    stream::Stream,
};
use crate::telemetry::metrics::Counter;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Ends our side, then reads and drops up to `most` bytes until the other side ends too. A socket that
/// is closed with bytes unread is reset, and what the other side has not got by then is lost to it
/// (RFC 9112, 9.6, tells it for HTTP). Takes at most 30s, and 5s without a byte; `held` is a gauge of
/// the bytes that buffers hold.
pub(super) async fn linger(stream: &mut Stream, most: usize, buffers: &Buffers, held: &Counter) {
    let _held = Held::new(held);
    let mut dropped = buffers.take();
    let drain = async {
        let mut left = most;
        if stream.shutdown().await.is_err() {
            return;
        }
        while let Ok(Ok(n @ 1..)) = timeout(SILENCE, stream.read_buf(&mut dropped)).await {
            dropped.clear();
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever goes on sending is cut off.
    let _ = timeout(LONGEST, drain).await;
    buffers.give(dropped);
}

/// A buffer in a gauge.
struct Held<'a>(&'a Counter);

impl<'a> Held<'a> {
    fn new(gauge: &'a Counter) -> Self {
        gauge.add(BUFFER_SIZE as u64);
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.sub(BUFFER_SIZE as u64);
    }
}

/// nginx's `lingering_time` and `lingering_timeout`.
const LONGEST: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{net::UnixStream, time::Instant};

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_waited_for_for_five_seconds_and_who_is_done_not_at_all() {
        let (held, buffers) = (Counter::default(), Buffers::default());
        for (silent, seconds) in [(true, 5), (false, 0)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(b"unread").await.unwrap();
            if !silent {
                theirs.shutdown().await.unwrap();
            }
            let start = Instant::now();
            linger(&mut Stream::Unix(ours), usize::MAX, &buffers, &held).await;
            assert_eq!(start.elapsed().as_secs(), seconds);
            assert_eq!((theirs.read(&mut [0]).await.unwrap(), held.get()), (0, 0));
        }
    }

    #[tokio::test]
    async fn who_never_stops_sending_is_cut_off() {
        let (held, buffers) = (Counter::default(), Buffers::default());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::Unix(ours);
        let (sent, ()) = tokio::join!(
            async {
                let mut sent = 0;
                while let Ok(n) = theirs.write(&[7; 4096]).await {
                    sent += n;
                }
                sent
            },
            async {
                linger(&mut ours, 1 << 20, &buffers, &held).await;
                drop(ours);
            }
        );
        assert!((1 << 20..4 << 20).contains(&sent), "{sent}");
    }
}
