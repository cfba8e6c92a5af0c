//! Pipes through which the kernel passes bytes from socket to socket without copying them to us
//! (splice(2)), and a worker's stock of them. Not when that pays: [`super::relay`] decides.

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    rc::Rc,
};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe has room for, if the kernel grants it (pipe-max-size is 1 MiB by default).
pub(super) const PIPE_SIZE: usize = 256 * 1024;

/// Pipes of a worker, in use or kept: two descriptors each, which `server::limits` sets aside.
pub const MOST_PIPES: usize = 64;

/// A pipe of the stock.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    made: Rc<Cell<usize>>,
}

/// The stock of one worker.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    made: Rc<Cell<usize>>,
}

impl Pipes {
    /// An empty pipe; `None` when [`MOST_PIPES`] are in use or descriptors have run out.
    pub(super) fn take(&self) -> Option<Pipe> {
        if let Some(pipe) = self.free.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.made.get() >= MOST_PIPES {
            return None;
        }
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A smaller one does as well, only slower.
        let _ = fcntl_setpipe_size(&into, PIPE_SIZE);
        self.made.set(self.made.get() + 1);
        Some(Pipe { out, into, made: Rc::clone(&self.made) })
    }

    /// Takes back a pipe that is empty.
    pub(super) fn give(&self, pipe: Pipe) {
        self.free.borrow_mut().push(pipe);
    }
}

impl Pipe {
    /// Takes what `from` has, up to the size of the pipe, which must be empty; 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` when it has nothing now.
    pub(super) fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &self.into, None, PIPE_SIZE, FLAGS)?)
        })
    }

    /// Passes up to `len` bytes of the pipe on.
    ///
    /// # Errors
    /// `WouldBlock` when `to` takes nothing now.
    pub(super) fn drain(&self, to: &TcpStream, len: usize) -> io::Result<usize> {
        to.try_io(Interest::WRITABLE, || Ok(splice(&self.out, None, to, None, len, FLAGS)?))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.made.set(self.made.get().saturating_sub(1));
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_counted_and_used_again() {
        let pipes = Pipes::default();
        let mut held: Vec<_> = (0..MOST_PIPES).map(|_| pipes.take().unwrap()).collect();
        assert!(pipes.take().is_none());
        pipes.give(held.pop().unwrap());
        held.push(pipes.take().unwrap());
        assert!(pipes.take().is_none());
        drop(held.pop());
        assert!(pipes.take().is_some());
    }
}
