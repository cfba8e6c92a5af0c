//! The shared connection of one worker to one backend and database: requests of all sessions go
//! out in one stream, replies come back in its order. Not where a request goes: that is
//! [`super::route`]; nor what becomes of one that fails: that is [`super::failure`].

mod quiet;

use super::{
    client::Client,
    entry::{Entry, Owner, Reach},
    failure, handshake,
    hub::Hub,
    line::Progress,
    outbox::Outbox,
    scan::Scanner,
};
use crate::{
    net::stream::{self, Stream},
    policy::{
        access::Access,
        suspicion::{Recent, is_suspect},
    },
    telemetry::metrics::{ClusterMetrics, RequestMetrics},
    topology::{Backend, Cluster, Outcome, Timeouts},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// One connection; its task runs until it ends.
#[derive(Debug)]
pub struct Upstream {
    pub backend: Arc<Backend>,
    pub cluster: usize,
    pub db: u8,
    pub timeouts: Timeouts,
    inner: RefCell<Inner>,
    /// The flush is scheduled already.
    scheduled: Cell<bool>,
    /// Asked to end, with why.
    doomed: RefCell<Option<UpstreamError>>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) fifo: VecDeque<Entry>,
    pub(super) outbox: Outbox,
    waker: Option<Waker>,
    recent: Recent,
    last_byte_us: u64,
    suspected_us: u64,
    charged: usize,
    /// Bytes of a reply that is not complete.
    pub(super) partial: usize,
}

/// Why a connection ended, and in which phase.
#[derive(Debug, thiserror::Error)]
#[error("backend {backend}: {phase}: {reason}")]
pub struct UpstreamError {
    pub backend: Arc<str>,
    pub phase: Phase,
    pub reason: String,
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connect,
    Handshake,
    Write,
    Read,
    /// What the backend sent is not RESP, or answers nothing we asked.
    Protocol,
    /// Control took the backend out.
    Evicted,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Write => "write",
            Self::Read => "read",
            Self::Protocol => "protocol",
            Self::Evicted => "out of rotation",
        })
    }
}

impl Upstream {
    /// Starts connecting; requests may be sent at once and wait.
    pub fn open(hub: &Rc<Hub>, cluster: &Cluster, backend: Arc<Backend>, db: u8) -> Rc<Self> {
        let upstream = Rc::new(Self {
            backend,
            cluster: cluster.id,
            db,
            timeouts: cluster.timeouts,
            inner: RefCell::new(Inner { last_byte_us: hub.now_us(), ..Inner::default() }),
            scheduled: Cell::new(false),
            doomed: RefCell::new(None),
        });
        let credentials = cluster.credentials.clone();
        let (hub, this) = (Rc::clone(hub), Rc::clone(&upstream));
        hub.clone().start(async move {
            let guard = EndGuard { hub: &hub, upstream: &this };
            let error = match this.connect(&credentials).await {
                Ok(stream) => {
                    let cell = hub.cell(&this.backend);
                    cell.iter().for_each(|c| {
                        c.connects_ok.add(1);
                        c.connections.add(1);
                    });
                    let error = this.serve(&hub, stream).await;
                    cell.iter().for_each(|c| c.connections.sub(1));
                    error
                }
                Err(error) => {
                    hub.cell(&this.backend).iter().for_each(|c| c.connects_failed.add(1));
                    error
                }
            };
            failure::connection_ended(&hub, &this, &error);
            drop(guard);
        });
        upstream
    }

    /// Sends one request, written by `write`, whose reply goes to `entry`'s owner.
    pub fn send(&self, hub: &Hub, entry: Entry, write: impl FnOnce(&mut Vec<u8>)) {
        let keep = entry.access == Access::Read;
        self.push(hub, entry, |outbox| outbox.append(&hub.buffers, keep, write));
    }

    /// Sends one big request without copying it.
    pub fn send_owned(&self, hub: &Hub, entry: Entry, bytes: Vec<u8>) {
        let keep = entry.access == Access::Read;
        self.push(hub, entry, |outbox| outbox.append_owned(keep, bytes));
    }

    fn push(&self, hub: &Hub, mut entry: Entry, append: impl FnOnce(&mut Outbox) -> (u64, usize)) {
        let mut inner = self.inner.borrow_mut();
        let (offset, len) = append(&mut inner.outbox);
        entry.offset = offset;
        entry.len = u32::try_from(len).unwrap_or(u32::MAX);
        if inner.fifo.is_empty() {
            // Silence counts from when something is due here; a retry has waited elsewhere.
            let moved = entry.tried.is_some();
            inner.last_byte_us = if moved { hub.now_us() } else { entry.start_us };
        }
        inner.fifo.push_back(entry);
        if let Some(cell) = hub.cell(&self.backend) {
            cell.in_flight.add(1);
        }
        if !self.scheduled.replace(true)
            && let Some(waker) = &inner.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Ends the connection: what is under way fails as `reason` says.
    pub fn end(&self, phase: Phase, reason: &str) {
        *self.doomed.borrow_mut() = Some(self.error(phase, reason));
        if let Some(waker) = &self.inner.borrow().waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the connection if a reply of `client` is due on it: a session that panicked may have
    /// left half a request there.
    pub(super) fn end_if_owned_by(&self, client: &Rc<Client>) {
        let owned = self.inner.try_borrow().is_ok_and(|inner| {
            inner.fifo.iter().any(|entry| match &entry.owner {
                Owner::Client(owner) => Rc::ptr_eq(owner, client),
                Owner::Tombstone | Owner::Commands => false,
            })
        });
        if owned {
            self.end(Phase::Protocol, "a session panicked while it was using it");
        }
    }

    pub(super) fn error(&self, phase: Phase, reason: impl ToString) -> UpstreamError {
        let backend = Arc::clone(&self.backend.name);
        UpstreamError { backend, phase, reason: reason.to_string() }
    }

    pub(super) fn inner(&self) -> std::cell::RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// Looks at the clock: suspicion, stalls. Called some twenty times a second.
    pub fn tick(&self, hub: &Hub, now_us: u64) {
        let mut inner = self.inner.borrow_mut();
        let Some(oldest) = inner.fifo.front() else { return };
        let oldest_us = now_us.saturating_sub(oldest.start_us);
        let silent_us = now_us.saturating_sub(inner.last_byte_us);
        let due = now_us.saturating_sub(inner.suspected_us) >= SUSPECT_AGAIN_US;
        if due && is_suspect(oldest_us, silent_us, inner.recent.p99_us()) {
            inner.suspected_us = now_us;
            hub.reporter.report(&self.backend, Outcome::Suspect);
        }
        let stalled = u128::from(silent_us) >= self.timeouts.stall.as_micros();
        drop(inner);
        if stalled {
            self.end(Phase::Read, "no byte for stall_timeout with requests outstanding");
        }
    }

    /// Forgets half of what it knows of its own speed; called every ten seconds.
    pub fn decay(&self) {
        self.inner.borrow_mut().recent.decay();
    }

    async fn connect(
        &self,
        credentials: &crate::topology::Credentials,
    ) -> Result<Stream, UpstreamError> {
        let timeout = self.timeouts.connect;
        let mut stream = stream::connect(&self.backend.address, timeout)
            .await
            .map_err(|error| self.error(Phase::Connect, error))?;
        handshake::greet(&mut stream, credentials, self.db, timeout)
            .await
            .map_err(|error| self.error(Phase::Handshake, error))?;
        Ok(stream)
    }

    async fn serve(self: &Rc<Self>, hub: &Rc<Hub>, mut stream: Stream) -> UpstreamError {
        let mut turn = Turn::default();
        std::future::poll_fn(|cx| self.poll_turn(cx, hub, &mut stream, &mut turn)).await
    }

    /// One turn: write what sessions appended, read what came, hand it to the clients, and write to
    /// each of them once.
    fn poll_turn(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        hub: &Rc<Hub>,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<UpstreamError> {
        self.scheduled.set(false);
        if let Some(error) = self.doomed.borrow_mut().take() {
            return Poll::Ready(error);
        }
        if let Poll::Ready(error) = self.poll_quiet(cx, hub, stream) {
            return Poll::Ready(error);
        }
        if let Err(error) = self.flush(cx, hub, stream) {
            return Poll::Ready(self.error(Phase::Write, error));
        }
        loop {
            if self.is_held_up(cx) {
                return Poll::Pending;
            }
            turn.make_room();
            match tokio_util::io::poll_read_buf(Pin::new(&mut *stream), cx, &mut turn.input) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(self.error(Phase::Read, CLOSED));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(self.error(Phase::Read, error)),
                Poll::Ready(Ok(n)) => {
                    hub.cell(&self.backend).iter().for_each(|c| c.bytes_in.add(n as u64));
                    let result = self.take_replies(hub, turn);
                    for client in turn.touched.drain(..) {
                        client.flush(hub);
                    }
                    if let Err(error) = result {
                        return Poll::Ready(error);
                    }
                }
            }
        }
    }

    fn flush(&self, cx: &mut Context<'_>, hub: &Hub, stream: &Stream) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        while inner.outbox.is_pending() {
            let n = inner.outbox.write(&hub.buffers, stream)?;
            hub.cell(&self.backend).iter().for_each(|c| c.bytes_out.add(n));
            if !inner.outbox.is_pending() {
                break;
            }
            match stream.poll_write_ready(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
        }
        inner.charge(hub);
        Ok(())
    }

    /// Whether the only client that waits here reads too slowly: then its reply may take its time.
    fn is_held_up(&self, cx: &Context<'_>) -> bool {
        let inner = self.inner.borrow();
        match (inner.fifo.len(), inner.fifo.front()) {
            (1, Some(Entry { owner: Owner::Client(client), streamed: true, .. }))
                if client.backlog() > PAUSE_BACKLOG =>
            {
                client.wake_when_drained(cx.waker());
                true
            }
            _ => false,
        }
    }

    fn take_replies(self: &Rc<Self>, hub: &Rc<Hub>, turn: &mut Turn) -> Result<(), UpstreamError> {
        let now_us = hub.now_us();
        self.inner.borrow_mut().last_byte_us = now_us;
        let mut tally = Tally::new(now_us);
        let result = loop {
            let bytes = turn.input.get(turn.start..).unwrap_or_default();
            match turn.scanner.measure(bytes) {
                Err(error) => break Err(self.error(Phase::Protocol, error)),
                Ok(None) => break Ok(()),
                Ok(Some(len)) => {
                    let Some(entry) = self.pop(hub) else {
                        break Err(self.stray(hub, bytes));
                    };
                    let reply = bytes.get(..len).unwrap_or_default();
                    turn.start += len;
                    let (access, start_us) = (entry.access, entry.start_us);
                    let settled = self.settle(hub, entry, reply, &mut turn.touched);
                    tally.count(hub, self, access, start_us, settled);
                }
            }
        };
        tally.write(hub, self);
        result.and_then(|()| self.pass_on_piece(hub, turn))?;
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        inner.partial = turn.input.len() - turn.start;
        if inner.partial > 0 && inner.fifo.is_empty() {
            return Err(self.error(Phase::Protocol, "bytes that nobody asked for"));
        }
        let needed = inner.fifo.front().map_or(u64::MAX, |entry| entry.offset);
        inner.outbox.answered(&hub.buffers, needed);
        inner.charge(hub);
        Ok(())
    }

    /// The entry that the next reply belongs to. A reply to a request that was not written whole
    /// yet belongs to nobody.
    fn pop(&self, hub: &Hub) -> Option<Entry> {
        let mut inner = self.inner.borrow_mut();
        let front = inner.fifo.front()?;
        if front.offset + u64::from(front.len) > inner.outbox.written() {
            return None;
        }
        hub.cell(&self.backend).iter().for_each(|c| c.in_flight.sub(1));
        inner.fifo.pop_front()
    }

    fn settle(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        entry: Entry,
        reply: &[u8],
        touched: &mut Vec<Rc<Client>>,
    ) -> Settled {
        if reply.first() == Some(&b'-') && !entry.streamed {
            return failure::error_reply(hub, self, entry, reply, touched);
        }
        match entry.owner {
            Owner::Client(client) => {
                let shard = &self.backend.shard;
                match client.answer(hub, entry.seq, entry.part, shard, reply) {
                    Some(answered) => {
                        if answered.first {
                            touched.push(client);
                        }
                        Settled::of(answered.progress)
                    }
                    None => Settled::No,
                }
            }
            Owner::Tombstone => Settled::No,
            Owner::Commands => {
                hub.learn_commands(self.cluster, reply);
                Settled::No
            }
        }
    }

    /// A long reply at the head of its client's line is passed on while it arrives.
    fn pass_on_piece(&self, hub: &Hub, turn: &mut Turn) -> Result<(), UpstreamError> {
        let available = turn.input.len() - turn.start;
        if available < PIECE {
            return Ok(());
        }
        let client = {
            let mut inner = self.inner.borrow_mut();
            let Some(front) = inner.fifo.front_mut() else { return Ok(()) };
            match &front.owner {
                Owner::Client(client)
                    if front.reach == Reach::One && client.takes_pieces(front.seq) =>
                {
                    let client = Rc::clone(client);
                    front.streamed = true;
                    Some(client)
                }
                Owner::Tombstone => None,
                Owner::Client(_) | Owner::Commands => return Ok(()),
            }
        };
        let n = turn.scanner.passable(available);
        let piece = turn.input.get(turn.start..turn.start + n).unwrap_or_default();
        if let Some(client) = client {
            client.stream(hub, piece);
        }
        turn.start += n;
        turn.scanner.consumed(n);
        Ok(())
    }
}

/// What one connection's task keeps between reads.
#[derive(Debug, Default)]
struct Turn {
    input: Vec<u8>,
    /// Bytes of `input` already taken.
    start: usize,
    scanner: Scanner,
    touched: Vec<Rc<Client>>,
}

impl Turn {
    fn make_room(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
            if self.input.capacity() > 4 * READ_SIZE {
                self.input = Vec::new();
            }
        }
        if self.input.capacity() - self.input.len() < READ_SIZE / 4 {
            self.input.drain(..self.start);
            self.start = 0;
            let room = READ_SIZE.max(self.input.len());
            self.input.reserve(room);
        }
    }
}

impl Inner {
    pub(super) fn charge(&mut self, hub: &Hub) {
        let held = self.outbox.held() + self.partial;
        if held != self.charged {
            hub.charge(self.charged, held);
            self.charged = held;
        }
    }

    /// Gives back everything the connection was charged for.
    pub(super) fn discharge(&mut self, hub: &Hub) {
        hub.charge(self.charged, 0);
        self.charged = 0;
    }
}

/// Whether a reply completed a client's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Settled {
    /// It did not: a part, a late reply, or a request that goes on elsewhere.
    #[default]
    No,
    Ok,
    Failed,
}

impl Settled {
    pub(super) fn of(progress: Progress) -> Self {
        match progress {
            Progress::Waiting => Self::No,
            Progress::Done => Self::Ok,
            Progress::Failed => Self::Failed,
        }
    }
}

/// Counts of one read, written to the shared counters at its end.
struct Tally {
    now_us: u64,
    reads: u64,
    writes: u64,
    /// A run of requests alike, which have one latency: how many, and what they share.
    run: u64,
    alike: (Access, u64, Settled),
}

impl Tally {
    fn new(now_us: u64) -> Self {
        Self { now_us, reads: 0, writes: 0, run: 0, alike: (Access::Read, 0, Settled::No) }
    }

    fn count(
        &mut self,
        hub: &Hub,
        upstream: &Upstream,
        access: Access,
        start_us: u64,
        settled: Settled,
    ) {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
        }
        if self.alike != (access, start_us, settled) {
            self.end_run(hub, upstream);
            self.alike = (access, start_us, settled);
        }
        self.run += 1;
    }

    fn end_run(&mut self, hub: &Hub, upstream: &Upstream) {
        let n = std::mem::take(&mut self.run);
        let (access, start_us, settled) = self.alike;
        if n == 0 {
            return;
        }
        let us = self.now_us.saturating_sub(start_us);
        upstream.inner.borrow_mut().recent.add(us);
        let Some(metrics) = hub.metrics.clusters.get(upstream.cluster) else { return };
        let metrics = requests(metrics, access);
        match settled {
            Settled::No => return,
            Settled::Ok => metrics.ok.add(n),
            Settled::Failed => metrics.backend_errors.add(n),
        }
        metrics.duration.observe(us, n);
    }

    fn write(&mut self, hub: &Hub, upstream: &Upstream) {
        self.end_run(hub, upstream);
        if let Some(cell) = hub.cell(&upstream.backend) {
            cell.reads.add(self.reads);
            cell.writes.add(self.writes);
        }
    }
}

/// A cluster's counters for one access.
pub(super) fn requests(metrics: &ClusterMetrics, access: Access) -> &RequestMetrics {
    match access {
        Access::Read => &metrics.reads,
        Access::Write => &metrics.writes,
    }
}

/// If the task panics, the connection's order can no longer be trusted: everything on it fails.
struct EndGuard<'a> {
    hub: &'a Rc<Hub>,
    upstream: &'a Rc<Upstream>,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.hub.metrics.panics.add(1);
        let error = self.upstream.error(Phase::Protocol, "internal error");
        failure::connection_ended(self.hub, self.upstream, &error);
    }
}

const CLOSED: &str = "connection closed by the server";
/// One read takes up to this much (measured: larger did not help, smaller costs reads at 4 KiB).
const READ_SIZE: usize = 64 * 1024;
/// redis.md, T33: a reply over 64 KiB is streamed.
const PIECE: usize = 64 * 1024;
/// redis.md, T33: while its client has more than 1 MiB unsent the upstream is not read.
const PAUSE_BACKLOG: usize = 1024 * 1024;
/// A backend that was suspected is suspected again at the earliest after this.
const SUSPECT_AGAIN_US: u64 = 500_000;

#[cfg(test)]
mod tests;
