//! Bytes passed on both ways between two connections, each end of sending on its own. Not who they
//! are or how they were chosen, and no look at what is said.

use super::{
    buffer::{BUFFER_SIZE, Buffers},
    linger::linger,
    splice::{Pipe, Pipes},
    stream::Stream,
};
use crate::telemetry::metrics::Counter;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::AsyncWrite,
    time::{Instant, Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

pub use super::splice::MOST_PIPES;

/// What the relays of one worker share.
#[derive(Debug, Default)]
pub struct Stock {
    buffers: Buffers,
    pipes: Pipes,
}

impl Stock {
    /// An empty buffer, for bytes that a relay then gets as `early`, and gives back.
    pub fn buffer(&self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Takes one back that no relay gets.
    pub fn give(&self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }
}

/// What a relay counts while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'a> {
    /// Bytes passed from the client to the backend.
    pub up: &'a [&'a Counter],
    /// Bytes passed from the backend to the client.
    pub down: &'a [&'a Counter],
    /// A gauge of the bytes that buffers hold.
    pub held: &'a Counter,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides have finished sending, and got all of it.
    Finished,
    /// No byte moved for the idle time.
    Idle,
    /// The client's connection broke.
    Client(io::Error),
    /// The backend's connection broke.
    Backend(io::Error),
}

/// Relays until both sides have finished sending, one of them breaks, or nothing moved for `idle`
/// (zero: never). When one side finishes, the other is told and may go on sending. `early` has
/// come from the client already, in a buffer of the stock or one without capacity.
///
/// At most one buffer each way is under way; a connection on which nothing moves holds none. When one
/// side breaks, what came from it still reaches the other, however much that one is still sending.
pub async fn relay(
    client: &mut Stream,
    backend: &mut Stream,
    early: Vec<u8>,
    idle: Duration,
    stock: &Stock,
    tally: Tally<'_>,
) -> End {
    // How long a reader may pause is for the two ends, and `idle`, to say.
    if let Err(error) = client.wait_for_slow_reader() {
        return End::Client(error);
    }
    if let Err(error) = backend.wait_for_slow_reader() {
        return End::Backend(error);
    }
    let mut up = Way::new(stock, tally.up, tally.held, early);
    let mut down = Way::new(stock, tally.down, tally.held, Vec::new());
    let end = pass(client, backend, &mut up, &mut down, idle).await;
    let (client_sends, backend_sends) = (!up.ended, up.ended && !down.ended);
    drop((up, down));
    match &end {
        End::Backend(_) if client_sends => {
            linger(client, usize::MAX, &stock.buffers, tally.held).await;
        }
        // Who went away without reading wants what it sent to arrive, and nothing more to come.
        End::Client(_) if backend_sends => {
            linger(backend, UNWANTED, &stock.buffers, tally.held).await;
        }
        _ => {}
    }
    end
}

/// Both ways until the end.
async fn pass(
    client: &mut Stream,
    backend: &mut Stream,
    up: &mut Way<'_>,
    down: &mut Way<'_>,
    idle: Duration,
) -> End {
    let mut broken = None;
    let mut watch = None;
    let mut timer = (!idle.is_zero()).then(|| Box::pin(sleep(idle)));
    let (mut newest, mut moved) = (Instant::now(), 0);
    poll_fn(|cx| {
        match up.poll(cx, client, backend) {
            Err(Fault::Read(error)) => return Poll::Ready(End::Client(error)),
            // What it said before may still be there, and then its end shows.
            Err(Fault::Write(error)) => broken = Some(End::Backend(error)),
            Ok(()) => {}
        }
        match down.poll(cx, backend, client) {
            Err(Fault::Read(error)) => return Poll::Ready(End::Backend(error)),
            Err(Fault::Write(error)) => broken = Some(End::Client(error)),
            Ok(()) => {}
        }
        if up.ended != down.ended && due(&mut watch, cx) {
            // Its end is all that a side's reader is told of; that it broke later shows only here.
            if up.ended && !down.done && client.is_broken() {
                down.give_up();
                broken = Some(End::Client(io::ErrorKind::ConnectionReset.into()));
            }
            if down.ended && !up.done && backend.is_broken() {
                up.give_up();
                broken = Some(End::Backend(io::ErrorKind::ConnectionReset.into()));
            }
        }
        if up.done && down.done {
            return Poll::Ready(broken.take().unwrap_or(End::Finished));
        }
        let Some(timer) = &mut timer else { return Poll::Pending };
        if moved != up.moved + down.moved {
            moved = up.moved + down.moved;
            newest = Instant::now();
        }
        while timer.as_mut().poll(cx).is_ready() {
            let due = newest + idle;
            if due <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

/// Whether it is time to look again whether a side is still there, each second.
fn due(watch: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    let watch = watch.get_or_insert_with(|| Box::pin(sleep(WATCH)));
    let mut due = false;
    while watch.as_mut().poll(cx).is_ready() {
        due = true;
        watch.as_mut().reset(Instant::now() + WATCH);
    }
    due
}

/// One direction.
struct Way<'a> {
    stock: &'a Stock,
    counts: &'a [&'a Counter],
    held: &'a Counter,
    /// Without capacity while none is borrowed.
    buffer: Vec<u8>,
    /// Bytes of the buffer already written.
    sent: usize,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    piped: usize,
    /// Bytes that came in large pieces, one after the other.
    run: usize,
    /// Bytes written in all.
    moved: u64,
    /// The reader has seen the end.
    ended: bool,
    /// Nothing more will be written.
    done: bool,
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl<'a> Way<'a> {
    fn new(stock: &'a Stock, counts: &'a [&'a Counter], held: &'a Counter, early: Vec<u8>) -> Self {
        if early.capacity() > 0 {
            held.add(SIZE);
        }
        Self {
            stock,
            counts,
            held,
            buffer: early,
            sent: 0,
            pipe: None,
            piped: 0,
            run: 0,
            moved: 0,
            ended: false,
            done: false,
        }
    }

    /// Passes on what can be passed on now. After a fault of writing it is done.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Result<(), Fault> {
        while !self.done {
            match self.flush(cx, to) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => {
                    self.give_up();
                    return Err(Fault::Write(error));
                }
                Poll::Ready(Ok(())) => {}
            }
            if self.ended {
                self.rest();
                // One that is gone already need not be told.
                let Poll::Ready(_) = Pin::new(&mut *to).poll_shutdown(cx) else { return Ok(()) };
                self.done = true;
                return Ok(());
            }
            match self.fill(cx, from, to) {
                Poll::Pending => {
                    self.rest();
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(Fault::Read(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
        Ok(())
    }

    /// Nobody is there to write to.
    fn give_up(&mut self) {
        self.done = true;
        self.rest();
    }

    /// Writes all that was read.
    fn flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            self.sent += n;
            self.count(n)?;
        }
        // What is encrypted may not have left yet.
        ready!(Pin::new(&mut *to).poll_flush(cx))?;
        while let (Some(pipe), Some(to), 1..) = (&self.pipe, to.tcp(), self.piped) {
            ready!(to.poll_write_ready(cx))?;
            match pipe.drain(to, self.piped) {
                Ok(n) => {
                    self.piped = self.piped.saturating_sub(n);
                    self.count(n)?;
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads some, into the pipe when much comes and both ends are plain TCP.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            if self.run >= BULK
                && let (Some(from), Some(_)) = (from.tcp(), to.tcp())
                && self.take_pipe()
                && let Some(pipe) = &self.pipe
            {
                match pipe.fill(from) {
                    Ok(n) => {
                        self.piped = n;
                        self.read(n);
                        return Poll::Ready(Ok(()));
                    }
                    Err(error) if is_transient(&error) => continue,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            self.give_pipe();
            if self.buffer.capacity() == 0 {
                self.buffer = self.stock.buffers.take();
                self.held.add(SIZE);
            }
            self.buffer.clear();
            self.sent = 0;
            let n = ready!(poll_read_buf(Pin::new(from), cx, &mut self.buffer))?;
            self.read(n);
            return Poll::Ready(Ok(()));
        }
    }

    fn read(&mut self, n: usize) {
        self.ended = n == 0;
        self.run = if n < LARGE { 0 } else { self.run.saturating_add(n) };
    }

    fn count(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let n = u64::try_from(n).unwrap_or_default();
        self.moved += n;
        self.counts.iter().for_each(|count| count.add(n));
        Ok(())
    }

    /// Whether it has a pipe now. One that has none left copies on, and asks again later.
    fn take_pipe(&mut self) -> bool {
        if self.pipe.is_none() {
            self.pipe = self.stock.pipes.take();
            match self.pipe {
                Some(_) => self.give_buffer(),
                None => self.run = 0,
            }
        }
        self.pipe.is_some()
    }

    /// Gives back all that is borrowed, when nothing is under way.
    fn rest(&mut self) {
        self.give_buffer();
        self.give_pipe();
    }

    fn give_buffer(&mut self) {
        if self.buffer.capacity() > 0 {
            self.stock.buffers.give(std::mem::take(&mut self.buffer));
            self.sent = 0;
            self.held.sub(SIZE);
        }
    }

    /// A pipe with bytes in it is closed: nobody wants them any more.
    fn give_pipe(&mut self) {
        if let Some(pipe) = self.pipe.take()
            && std::mem::take(&mut self.piped) == 0
        {
            self.stock.pipes.give(pipe);
        }
    }
}

impl Drop for Way<'_> {
    fn drop(&mut self) {
        self.rest();
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// How often a side that has finished sending is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How much a backend may still say to a client that is gone while it reads the rest.
const UNWANTED: usize = 1 << 20;
const SIZE: u64 = BUFFER_SIZE as u64;
/// From so many bytes in large pieces on, a pipe is used.
const BULK: usize = 256 * 1024;
/// A smaller piece is not worth the second call that a pipe costs.
const LARGE: usize = 4 * 1024;

#[cfg(test)]
mod tests;
