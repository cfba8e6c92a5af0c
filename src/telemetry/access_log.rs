//! The access log: lines of JSON that each worker gathers and a thread of its own writes, so that a
//! full disk or a blocked pipe never holds up a request. Not what a request was: its protocol says.

mod line;
mod sink;

pub use line::{Ended, Line};
pub use sink::Place;

use sink::Sink;
use std::{
    cell::{Cell, RefCell},
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::SystemTime,
};

/// Where workers hand their lines over.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Chunk>,
    dropped: Dropped,
}

/// How many lines were not written, whoever dropped them.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

/// Writes what is handed over.
#[derive(Debug)]
pub struct Writer {
    queue: Receiver<Chunk>,
    sink: Sink,
    dropped: Dropped,
}

/// One worker's lines, until there are enough of them or [`Page::flush`] is called.
#[derive(Debug)]
pub struct Page {
    log: AccessLog,
    text: RefCell<Vec<u8>>,
    lines: Cell<u64>,
}

/// Whole lines.
#[derive(Debug)]
struct Chunk {
    text: Vec<u8>,
    lines: u64,
}

/// Opens the place; the writer is to be run on a thread of its own, and ends after the last handle.
///
/// # Errors
/// When the file cannot be opened for appending.
pub fn open(place: &Place) -> io::Result<(AccessLog, Writer)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let dropped = Dropped::default();
    let sink = Sink::open(place)?;
    let log = AccessLog { queue: sender, dropped: dropped.clone() };
    Ok((log, Writer { queue: receiver, sink, dropped }))
}

impl AccessLog {
    /// How many lines were not written, from now on.
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }
}

impl Dropped {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Relaxed);
    }
}

impl Writer {
    /// Writes until the last handle is gone and all is written.
    pub fn run(mut self) {
        while let Ok(chunk) = self.queue.recv() {
            if let Err(error) = self.sink.write(&chunk.text) {
                self.dropped.add(chunk.lines);
                self.sink.complain(&error);
            }
        }
    }
}

impl Page {
    /// An empty one.
    pub fn new(log: AccessLog) -> Self {
        Self { log, text: RefCell::default(), lines: Cell::new(0) }
    }

    /// Adds a line for a request that began at `began`.
    pub fn add(&self, began: SystemTime, line: &Line<'_>) {
        let full = {
            let mut text = self.text.borrow_mut();
            line.write(began, &mut text);
            text.len() >= CHUNK
        };
        self.lines.set(self.lines.get() + 1);
        if full {
            self.flush();
        }
    }

    /// Hands over what there is; when the writer cannot follow it is dropped and counted.
    pub fn flush(&self) {
        let lines = self.lines.replace(0);
        if lines == 0 {
            return;
        }
        let text = mem::take(&mut *self.text.borrow_mut());
        if self.log.queue.try_send(Chunk { text, lines }).is_err() {
            self.log.dropped.add(lines);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Bytes after which lines are handed over before their time; some hundred lines.
const CHUNK: usize = 32 * 1024;
/// Chunks that wait for the writer: 8 MiB, and what the last line of each is longer.
const QUEUE: usize = 256;

#[cfg(test)]
mod tests;
