//! One client's connection as sessions and upstream connections share it: its line of places and
//! its socket. Whoever has a reply writes it here and now; the client's own task is woken only
//! when the socket takes no more.

use super::{
    card::Card,
    class::Resp,
    gather::Gather,
    hub::Hub,
    line::{Line, Progress},
};
use crate::net::stream::Stream;
pub use end::End;
use std::{
    cell::{Cell, OnceCell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// A client of this worker.
#[derive(Debug)]
pub struct Client {
    /// Process-wide; what `CLIENT ID` answers.
    pub id: u64,
    pub listener: usize,
    limits: Limits,
    /// How many channels, patterns and shard channels it has subscribed to.
    subscriptions: Cell<[usize; 3]>,
    resp: Cell<Resp>,
    inner: RefCell<Inner>,
    card: RefCell<Card>,
    peer: OnceCell<Arc<str>>,
    /// The command of its last request.
    pub(super) last: Cell<&'static str>,
}

#[derive(Debug)]
struct Inner {
    /// Gone once the session has ended; replies that come later are dropped.
    stream: Option<Stream>,
    line: Line,
    waker: Option<Waker>,
    /// The upstream that paused because this client reads too slowly.
    paused: Option<Waker>,
    /// In the list of an upstream's turn already.
    touched: bool,
    /// The session has requests that wait for places.
    stalled: bool,
    /// Not read because memory is scarce and it has much to be told.
    held_back: bool,
    /// CLIENT PAUSE: its next request waits.
    is_paused: bool,
    /// The session is to look around, whatever it waits for.
    resumed: bool,
    /// How to end when all replies are written.
    closing: Option<End>,
    /// How it ended.
    end: Option<End>,
    /// In the middle of a transaction, which a drain lets come to its end.
    unfinished: bool,
    /// Nothing more is sent before everything is answered.
    barrier: bool,
    /// So many of its requests wait for a server: its next ones must not overtake them.
    detours: usize,
    /// It is read only to see whether it leaves: its next requests wait.
    ahead: bool,
    /// Bytes of the requests sent since nothing was under way.
    asked: usize,
    window: usize,
    window_hit: bool,
    largest: usize,
    /// Input bytes that the session holds.
    input_held: usize,
    /// What its subscriptions take.
    subscribed_bytes: usize,
    charged: usize,
    active_us: u64,
}

/// What an answer did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub progress: Progress,
    /// The first one of this turn: the client is to be put into the list of touched ones.
    pub first: bool,
}

/// What a session waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were appended to the input.
    Bytes,
    /// There is room for requests read earlier.
    Room,
    /// The client sends no more.
    Eof,
    /// Over.
    End(End),
}

impl Client {
    pub fn new(id: u64, listener: usize, stream: Stream, limits: Limits) -> Rc<Self> {
        Rc::new(Self {
            id,
            listener,
            limits,
            subscriptions: Cell::default(),
            resp: Cell::default(),
            inner: RefCell::new(Inner {
                stream: Some(stream),
                line: Line::default(),
                waker: None,
                paused: None,
                touched: false,
                stalled: false,
                held_back: false,
                is_paused: false,
                resumed: false,
                closing: None,
                end: None,
                unfinished: false,
                barrier: false,
                detours: 0,
                ahead: false,
                asked: 0,
                window: FIRST_WINDOW.min(limits.pipeline),
                window_hit: false,
                largest: 0,
                input_held: 0,
                subscribed_bytes: 0,
                charged: 0,
                active_us: 0,
            }),
            card: RefCell::default(),
            peer: OnceCell::new(),
            last: Cell::new(""),
        })
    }

    /// Waits for the next event. With `read` false no bytes are taken from the socket.
    pub fn poll(
        &self,
        cx: &mut Context<'_>,
        hub: &Hub,
        input: &mut Vec<u8>,
        read: bool,
    ) -> Poll<Event> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if let Some(end) = inner.end {
            return Poll::Ready(Event::End(end));
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        while inner.backlog() > 0 {
            inner.write(hub, self);
            // Now: while memory is scarce no batch may come that would.
            inner.charge(hub);
            if let Some(end) = inner.end {
                return Poll::Ready(Event::End(end));
            }
            if inner.backlog() == 0 {
                break;
            }
            let Some(stream) = &mut inner.stream else { break };
            match stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Event::End(End::Client)),
                Poll::Pending => break,
            }
        }
        let resumed = std::mem::take(&mut inner.resumed);
        if resumed || inner.stalled && inner.has_room(self.limits.pipeline) {
            inner.stalled = false;
            return Poll::Ready(Event::Room);
        }
        let settled = inner.line.is_empty() && inner.backlog() == 0;
        if settled {
            if let Some(end) = inner.closing {
                return Poll::Ready(Event::End(end));
            }
            let kept = inner.unfinished || self.is_subscribed();
            if hub.is_draining() && read && input.is_empty() && !kept {
                return Poll::Ready(Event::End(End::Shutdown));
            }
        }
        if !read || inner.closing.is_some() {
            return Poll::Pending;
        }
        if inner.ahead {
            return inner.poll_ahead(cx, hub, self, input);
        }
        if inner.stalled || inner.held_back {
            return Poll::Pending;
        }
        let Some(stream) = &mut inner.stream else {
            return Poll::Ready(Event::End(End::Client));
        };
        if input.capacity() == 0 {
            *input = hub.buffers.take();
        } else if input.capacity() - input.len() < MIN_READ {
            input.reserve(MIN_READ);
        }
        let result = tokio_util::io::poll_read_buf(Pin::new(stream), cx, input);
        match result {
            Poll::Ready(Ok(0)) => Poll::Ready(Event::Eof),
            Poll::Ready(Ok(n)) => {
                if let Some(listener) = hub.metrics.listeners.get(self.listener) {
                    listener.bytes_in.add(n as u64);
                }
                Poll::Ready(Event::Bytes)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Event::End(End::Client)),
            Poll::Pending => {
                if input.is_empty() {
                    hub.buffers.give(std::mem::take(input));
                    inner.line.shrink();
                }
                Poll::Pending
            }
        }
    }

    /// Whether one more request may be under way; else the session is woken when there is.
    pub fn has_room(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let room = inner.has_room(self.limits.pipeline);
        if !room {
            inner.stalled = true;
            inner.window_hit = true;
        }
        room
    }

    /// Opens a place for the reply to a request of `bytes`.
    #[inline(always)]
    pub(super) fn open(&self, bytes: usize) -> u32 {
        let mut inner = self.inner.borrow_mut();
        inner.asked += bytes;
        inner.line.open()
    }

    /// Opens a place for a reply put together from several, to a request of `bytes`.
    pub(super) fn open_gather(&self, gather: Gather, bytes: usize) -> u32 {
        let mut inner = self.inner.borrow_mut();
        inner.asked += bytes;
        inner.line.open_gather(gather)
    }

    /// A reply of our own, behind all that wait.
    pub fn reply(&self, hub: &Hub, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        inner.borrow_out(hub);
        inner.line.reply(bytes);
    }

    /// Answers a place. The caller puts the client into its turn's list of touched ones when told
    /// to, and calls [`Self::flush`] at the end of its turn. `None`: the client is gone.
    pub(super) fn answer(
        &self,
        hub: &Hub,
        seq: u32,
        part: u16,
        from: &str,
        bytes: &[u8],
    ) -> Option<Answered> {
        let mut inner = self.inner.borrow_mut();
        if inner.is_gone() {
            return None;
        }
        inner.borrow_out(hub);
        let progress = inner.line.answer(seq, part, from, bytes);
        inner.largest = inner.largest.max(bytes.len());
        let first = !std::mem::replace(&mut inner.touched, true);
        Some(Answered { progress, first })
    }

    /// Answers a place from the client's own batch, which flushes at its end.
    pub fn answer_now(&self, hub: &Hub, seq: u32, part: u16, from: &str, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        inner.borrow_out(hub);
        inner.line.answer(seq, part, from, bytes);
    }

    /// Whether the reply of `seq` may be passed on piece by piece.
    pub fn takes_pieces(&self, seq: u32) -> bool {
        let inner = self.inner.borrow();
        inner.is_gone() || inner.line.is_plain_head(seq)
    }

    /// Passes on a piece of the reply at the front of the line, and writes it.
    pub fn stream(&self, hub: &Hub, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        if !inner.is_gone() {
            inner.borrow_out(hub);
            inner.line.stream(bytes);
            inner.flush(hub, self);
        }
    }

    /// Writes what is ready, after an upstream's turn.
    pub fn flush(&self, hub: &Hub) {
        let mut inner = self.inner.borrow_mut();
        inner.touched = false;
        inner.flush(hub, self);
    }

    /// The same after a batch. `input` is what its session holds, `now_us` when it last did something.
    pub fn flush_batch(&self, hub: &Hub, input: usize, now_us: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.input_held = input;
        inner.active_us = now_us;
        inner.touched = false;
        inner.flush(hub, self);
    }

    /// Bytes that the client has not taken yet.
    pub fn backlog(&self) -> usize {
        self.inner.borrow().backlog()
    }

    /// Has `waker` woken when the client has taken most of its backlog.
    pub fn wake_when_drained(&self, waker: &Waker) {
        self.inner.borrow_mut().paused = Some(waker.clone());
    }

    /// Whether none of its requests is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.inner.borrow().line.is_empty()
    }

    /// Holds the client's next requests until those under way are answered: they go over another
    /// connection and must not overtake.
    pub(super) fn wait_for_all(&self) {
        self.inner.borrow_mut().barrier = true;
    }

    /// From here on it is read only to see whether it leaves, and no further than [`AHEAD`].
    pub(super) fn look_ahead(&self) {
        self.inner.borrow_mut().ahead = true;
    }

    /// Its requests are taken again.
    pub(super) fn look_up(&self) {
        self.inner.borrow_mut().ahead = false;
    }

    /// Whether it sends no more, whatever lies unread.
    pub(super) fn has_finished(&self) -> bool {
        self.inner.borrow().stream.as_ref().is_none_or(Stream::is_finished)
    }

    /// Lets its session go on, which waited for room elsewhere.
    pub(super) fn resume(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.resumed = true;
        inner.wake();
    }

    /// Something of it is under way that neither its input nor its line shows, a transaction or a
    /// request that is passed on while it comes; or no longer.
    pub(super) fn set_unfinished(&self, unfinished: bool) {
        self.inner.borrow_mut().unfinished = unfinished;
    }

    /// Ends the session once every reply is written; nothing more is read.
    pub fn close_after_replies(&self, end: End) {
        self.inner.borrow_mut().closing.get_or_insert(end);
    }

    /// Ends the session now.
    pub fn kill(&self, end: End) {
        let mut inner = self.inner.borrow_mut();
        inner.end.get_or_insert(end);
        inner.wake();
    }

    /// Makes the session look around.
    pub fn wake(&self) {
        self.inner.borrow().wake();
    }

    /// Microseconds of silence after which it is closed; 0: never.
    pub fn idle_limit_us(&self) -> u64 {
        u64::try_from(self.limits.idle.as_micros()).unwrap_or(u64::MAX)
    }

    /// When it last sent something, if nothing of it is under way and it waits for no messages.
    pub fn idle_since(&self) -> Option<u64> {
        let inner = self.inner.borrow();
        let settled = inner.line.is_empty() && inner.backlog() == 0 && !self.is_subscribed();
        settled.then_some(inner.active_us)
    }

    /// The session is over: the socket is closed now, replies still under way are dropped.
    pub fn close(&self, hub: &Hub) {
        self.go_on(hub);
        let mut inner = self.inner.borrow_mut();
        if let Some(mut stream) = inner.stream.take()
            && inner.line.is_empty()
            && inner.line.out.is_empty()
        {
            stream.say_goodbye();
        }
        inner.line = Line::default();
        inner.input_held = 0;
        inner.waker = None;
        inner.charge(hub);
        if let Some(paused) = inner.paused.take() {
            paused.wake();
        }
    }
}

/// What a listener allows each of its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes a client may leave unread.
    pub output: usize,
    /// Requests under way.
    pub pipeline: usize,
    /// Silence after which it is closed; zero: never.
    pub idle: Duration,
    /// How long others may wait behind its reply while it does not read.
    pub grace: Duration,
}

impl Inner {
    /// Whether nobody will read what comes: the session has ended, or is about to.
    fn is_gone(&self) -> bool {
        self.stream.is_none() || self.end.is_some()
    }

    fn backlog(&self) -> usize {
        self.line.out.len() + self.unsent()
    }

    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        hub: &Hub,
        client: &Client,
        input: &mut Vec<u8>,
    ) -> Poll<Event> {
        while input.len() < AHEAD {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(Event::End(End::Client));
            };
            input.reserve(MIN_READ);
            match tokio_util::io::poll_read_buf(Pin::new(stream), cx, input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Event::Eof),
                Poll::Ready(Ok(n)) => {
                    let listener = hub.metrics.listeners.get(client.listener);
                    listener.iter().for_each(|metrics| metrics.bytes_in.add(n as u64));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Event::End(End::Client)),
            }
        }
        self.input_held = input.capacity();
        self.charge(hub);
        Poll::Pending
    }

    /// Bytes that are encrypted and have not left.
    fn unsent(&self) -> usize {
        self.stream.as_ref().map_or(0, Stream::unsent)
    }

    /// The window starts small and doubles with every round that fills it, as long as what is
    /// under way stays within 1 MiB by the largest reply seen (redis.md, T33).
    fn has_room(&mut self, pipeline: usize) -> bool {
        let waiting = self.line.len();
        if waiting <= self.window / 2 && std::mem::take(&mut self.window_hit) {
            self.window = pipeline.min(2 * self.window);
        }
        if waiting == 0 {
            self.largest /= 2;
            self.asked = 0;
            self.barrier = false;
        }
        let fits = waiting == 0 || (waiting + 1).saturating_mul(self.largest) <= ROUND_BYTES;
        let small = self.line.pending() < SOFT_BACKLOG && self.asked < MOST_ASKED;
        let held = self.barrier || self.is_paused || self.detours > 0;
        let goes_on = self.closing.is_none() && !held;
        waiting < self.window && fits && small && goes_on
    }

    fn borrow_out(&mut self, hub: &Hub) {
        self.line.out.prepare(&hub.buffers);
    }

    fn flush(&mut self, hub: &Hub, client: &Client) {
        if self.backlog() > 0 {
            self.write(hub, client);
        }
        if self.line.pending() > client.limits.output {
            self.end.get_or_insert(End::OutputLimit);
        }
        if self.backlog() > 0 || self.end.is_some() {
            self.wake();
        } else {
            let resumes = self.stalled && self.line.len() <= self.window / 2;
            if resumes || self.closing.is_some() || hub.is_draining() {
                self.wake();
            }
        }
        self.charge(hub);
    }

    /// Writes until all is written or the socket takes no more.
    fn write(&mut self, hub: &Hub, client: &Client) {
        let Some(stream) = &mut self.stream else { return };
        match self.line.out.write(&hub.buffers, stream) {
            Ok(n) => {
                if let Some(listener) = hub.metrics.listeners.get(client.listener) {
                    listener.bytes_out.add(n as u64);
                }
            }
            Err(_) => {
                self.end = Some(End::Client);
                return;
            }
        }
        if self.backlog() < RESUME_BACKLOG
            && let Some(paused) = self.paused.take()
        {
            paused.wake();
        }
    }

    fn charge(&mut self, hub: &Hub) {
        let held = self.line.held() + self.unsent() + self.input_held + self.subscribed_bytes;
        if held != self.charged {
            hub.charge(self.charged, held);
            self.charged = held;
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// redis.md, T32/T33: a session starts with 64 requests in flight ...
const FIRST_WINDOW: usize = 64;
/// ... and may grow while in flight x largest recent reply stays within 1 MiB.
const ROUND_BYTES: usize = 1024 * 1024;
/// redis.md, T33: stop reading a client that has more than 8 MiB pending.
const SOFT_BACKLOG: usize = 8 * 1024 * 1024;
/// Requests of a client that a slow backend may leave with us; then it waits until all of them
/// are answered.
const MOST_ASKED: usize = 8 * 1024 * 1024;
/// A paused upstream goes on below this.
const RESUME_BACKLOG: usize = 512 * 1024;
/// What is read of a client whose next requests wait: beyond it the kernel is asked now and then
/// whether the client is still there.
pub(super) const AHEAD: usize = 1024 * 1024;
/// Room for a read: what is left of a buffer below this is not worth a system call.
const MIN_READ: usize = 4 * 1024;

pub(super) mod aside;
mod end;
mod subscriber;

#[cfg(test)]
mod tests;
