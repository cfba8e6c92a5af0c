//! The shared connection of one worker to one backend and database: requests of all sessions go
//! out in one stream, replies come back in its order. Not where a request goes: that is
//! `route`; nor what becomes of one that fails: that is `failure`.
//!
//! A request under way is not a lease of its own, which would cost a counted pointer each: the
//! queue of places is the lease. What is pushed adds to the backend's `in_flight`, what is popped,
//! and the whole queue when the connection ends for whatever reason, takes off.

pub use super::broken::{Phase, UpstreamError};
use super::{
    class::{Class, Resp},
    client::Client,
    cluster::Detours,
    entry::{Entry, Owner},
    failover, failure,
    flight::Flights,
    handshake,
    hub::Hub,
    insight::slow::{Delays, Watch},
    lease::micros,
    mark,
    outbox::Outbox,
    raw::Raw,
    scripts::Told,
};
use crate::{
    net::{
        dial::{Opening, dial},
        listener::is_exhaustion,
        stream::Stream,
        tls,
    },
    policy::{access::Access, fresh::Line, suspicion::Recent},
    topology::{Backend, Cluster, Credentials, Standing, Timeouts},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::Waker,
};
use tokio::time::Instant;

/// One connection; its task runs until it ends.
#[derive(Debug)]
pub struct Upstream {
    pub backend: Arc<Backend>,
    pub cluster: usize,
    pub class: Class,
    pub(super) purpose: Purpose,
    /// Another server may become what its one is.
    has_heirs: bool,
    pub timeouts: Timeouts,
    pub(super) watch: Watch,
    /// Its server may say that another one owns the keys: requests are kept until they are answered.
    pub(super) follows: bool,
    inner: RefCell<Inner>,
    /// The flush is scheduled already.
    scheduled: Cell<bool>,
    /// Asked to end, with why.
    doomed: RefCell<Option<UpstreamError>>,
    /// The backend's count when it was opened.
    kills: u32,
    /// A session has it for itself now.
    leased: Cell<bool>,
    /// Who hears what the server says unasked.
    tenant: RefCell<Option<Rc<Client>>>,
    ended: Cell<bool>,
    /// What was said on it makes it of no use to others.
    spoilt: Cell<bool>,
    /// When the command that waits in the server must have been answered, on the worker's clock; 0:
    /// whenever.
    deadline_us: Cell<u64>,
    /// A session's silence on it ends it; 0: never.
    silence_us: Cell<u64>,
    /// MULTI is open on it: what is queued there is executed when EXEC comes.
    in_multi: Cell<bool>,
    /// Its tenant hears on it for others.
    pub(super) ear: Cell<bool>,
    /// The one client of it whose bytes pass as they are.
    relay: RefCell<Option<Rc<Client>>>,
    /// Its replies can no longer be counted.
    pub(super) raw: Raw,
    pub(super) opened_us: u64,
    /// When it was there; `None`: not yet.
    connected: Cell<Option<Instant>>,
    /// Its server, a node of a Redis Cluster, was told to answer reads as a replica.
    pub(super) reads_only: Cell<bool>,
    /// How others know it.
    pub(super) standing: Arc<Standing>,
    pub(super) asked_number: Cell<bool>,
    /// Scripts that the server was told here.
    pub(super) told: Told,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// All sessions of the worker.
    Shared,
    /// One session's at a time.
    Leased,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) fifo: VecDeque<Entry>,
    pub(super) outbox: Outbox,
    pub(super) waker: Option<Waker>,
    recent: Recent,
    pub(super) last_byte_us: u64,
    suspected_us: u64,
    /// Since when we do not read, for the client of the reply under way reads too slowly.
    pub(super) held_up: Option<u64>,
    /// Nothing new is sent on it.
    pub(super) retired: bool,
    /// The client that sends faster than is written here.
    pub(super) feeder: Option<Rc<Client>>,
    charged: usize,
    /// Bytes of a reply that is not complete.
    pub(super) partial: usize,
    /// What is appended has to wait.
    pub(super) blocked: bool,
    pub(super) delays: Delays,
    pub(super) flights: Flights,
    /// Requests that its server has sent elsewhere, and that wait for those behind them.
    pub(super) detours: Detours,
}

impl Upstream {
    /// Starts connecting; requests may be sent at once and wait.
    pub(super) fn open(
        hub: &Rc<Hub>,
        cluster: &Cluster,
        backend: Arc<Backend>,
        class: Class,
        purpose: Purpose,
    ) -> Rc<Self> {
        let (kills, now_us) = (backend.kills(), hub.now_us());
        let upstream = Rc::new(Self {
            cluster: cluster.id,
            class,
            purpose,
            timeouts: cluster.timeouts,
            watch: Watch::new(hub, cluster.id),
            follows: cluster.follows.is_some(),
            has_heirs: failover::has_heirs(cluster, &backend.shard),
            inner: RefCell::new(Inner { last_byte_us: now_us, blocked: true, ..Inner::default() }),
            scheduled: Cell::new(false),
            doomed: RefCell::new(None),
            kills,
            leased: Cell::new(false),
            tenant: RefCell::default(),
            ended: Cell::new(false),
            spoilt: Cell::new(false),
            deadline_us: Cell::new(0),
            silence_us: Cell::new(micros(cluster.dedicated.max_lease_idle)),
            in_multi: Cell::new(false),
            ear: Cell::new(false),
            relay: RefCell::new(None),
            raw: Raw::default(),
            opened_us: now_us,
            connected: Cell::new(None),
            reads_only: Cell::new(false),
            standing: Arc::default(),
            asked_number: Cell::new(false),
            told: Told::default(),
            backend,
        });
        let asks_role = cluster.asks_role;
        let credentials = hub.identities.credentials(class, &cluster.credentials);
        let tls = cluster.tls.clone();
        let (hub, this) = (Rc::clone(hub), Rc::clone(&upstream));
        hub.clone().start(async move {
            let guard = EndGuard { hub: &hub, upstream: &this };
            let error = match this.connect(credentials.as_ref(), tls.as_ref(), asks_role).await {
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
        // The slow log tells what was asked, and what a server refuses its successor is asked.
        let keep = self.keeps(&entry) || self.watch.is_on() || self.has_heirs;
        self.push(hub, entry, |outbox| outbox.append(&hub.buffers, keep, write));
    }

    /// Whether the bytes of a request may be wanted again.
    fn keeps(&self, entry: &Entry) -> bool {
        entry.access == Access::Read || entry.keeps || self.follows
    }

    /// Sends a request of our own whose reply nobody hears.
    pub(super) fn send_unheard(&self, hub: &Hub, bytes: &[u8]) {
        let entry = Entry::new(Owner::Tombstone, 0, Access::Write, hub.now_us());
        self.send(hub, entry, |out| out.extend_from_slice(bytes));
    }

    /// Its session may be silent for as long as it likes.
    pub(super) fn keep_for_life(&self) {
        self.silence_us.set(0);
    }

    /// All that comes is that client's, and its end is the client's end.
    pub(super) fn relay_to(&self, client: &Rc<Client>) {
        *self.relay.borrow_mut() = Some(Rc::clone(client));
    }

    /// The client that it relays to.
    pub(super) fn relayed_to(&self) -> Option<Rc<Client>> {
        self.relay.borrow().clone()
    }

    pub(super) fn end_relay(&self) -> Option<Rc<Client>> {
        self.relay.borrow_mut().take()
    }

    /// Whether it relays to one client.
    pub(super) fn is_relay(&self) -> bool {
        self.relay.borrow().is_some()
    }

    /// What comes when no reply is due is passed on as it is from here on.
    pub(super) fn go_raw(&self) {
        self.raw.begin();
    }

    /// Whether replies are no longer counted.
    pub(super) fn is_raw(&self) -> bool {
        self.raw.is_on()
    }

    /// How others know this connection.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// What is sent next waits in the server until then at the latest, on the worker's clock; 0: for
    /// as long as it likes.
    pub(super) fn set_deadline(&self, at_us: u64) {
        self.deadline_us.set(at_us);
    }

    /// What [`Self::set_deadline`] has set.
    pub(super) fn deadline(&self) -> u64 {
        self.deadline_us.get()
    }

    /// Its state is not known any more, or somebody may still aim at its number.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt.get() || self.standing.is_targeted()
    }

    /// Keeps it from others.
    pub(super) fn spoil(&self) {
        self.spoilt.set(true);
    }

    /// When it was there; `None`: not yet, or it is over.
    pub(super) fn connected(&self) -> Option<Instant> {
        self.connected.get().filter(|_| !self.has_ended())
    }

    /// What tells it from every other connection of its worker.
    pub(super) fn line(&self) -> Line {
        (self.backend.id, self.opened_us)
    }

    /// Whether it was asked to end.
    pub(super) fn is_doomed(&self) -> bool {
        self.doomed.borrow().is_some()
    }

    /// Silence counts from now.
    pub(super) fn heard_now(&self, now_us: u64) {
        self.inner.borrow_mut().last_byte_us = now_us;
    }

    /// Passes on a piece of a request that is neither its first nor its last.
    pub(super) fn append(&self, hub: &Hub, bytes: &[u8]) {
        self.inner
            .borrow_mut()
            .outbox
            .append(&hub.buffers, false, |out| out.extend_from_slice(bytes));
        // Its client is not silent.
        self.heard_now(hub.now_us());
        self.schedule();
    }

    /// Whether so much waits to be written that `feeder` is to wait too; it is woken when less does.
    pub(super) fn is_full(&self, feeder: &Rc<Client>) -> bool {
        let mut inner = self.inner.borrow_mut();
        let full = inner.outbox.pending() > MOST_FED;
        if full {
            inner.feeder = Some(Rc::clone(feeder));
        }
        full
    }

    /// Sends one big request without copying it.
    pub fn send_owned(&self, hub: &Hub, entry: Entry, bytes: Vec<u8>) {
        let keep = self.keeps(&entry);
        self.push(hub, entry, |outbox| outbox.append_owned(keep, bytes));
    }

    pub(super) fn push(
        &self,
        hub: &Hub,
        mut entry: Entry,
        append: impl FnOnce(&mut Outbox) -> (u64, usize),
    ) {
        if self.backend.has_read_rules {
            mark::attach(self, &mut entry);
        }
        let mut inner = self.inner.borrow_mut();
        let (offset, len) = append(&mut inner.outbox);
        entry.offset = offset;
        entry.len = u32::try_from(len).unwrap_or(u32::MAX);
        if inner.fifo.is_empty() {
            // Silence counts from when something is due here; a retry has waited elsewhere.
            let moved = entry.tried.is_some();
            inner.last_byte_us = if moved { hub.now_us() } else { entry.start_us };
        }
        let is_work = entry.is_work();
        inner.fifo.push_back(entry);
        if is_work && let Some(cell) = hub.cell(&self.backend) {
            cell.in_flight.add(1);
        }
        drop(inner);
        self.schedule();
    }

    /// Has its task write what was appended.
    fn schedule(&self) {
        if !self.scheduled.replace(true)
            && let Some(waker) = &self.inner.borrow().waker
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

    /// Whether the operator wants it closed, with all that is under way on it.
    pub(super) fn is_killed(&self) -> bool {
        self.backend.kills() != self.kills
    }

    /// A session has it for itself from now on, or no longer.
    pub(super) fn set_leased(&self, leased: bool) {
        self.leased.set(leased);
    }

    /// Whether a session has it for itself.
    pub(super) fn is_leased(&self) -> bool {
        self.leased.get()
    }

    /// Who hears what the server says unasked.
    pub(super) fn tenant(&self) -> Option<Rc<Client>> {
        self.tenant.borrow().clone()
    }

    /// From now on `client` hears what the server says unasked; `None`: nobody.
    pub(super) fn set_tenant(&self, client: Option<&Rc<Client>>) {
        *self.tenant.borrow_mut() = client.map(Rc::clone);
    }

    /// Whether the server may speak unasked: in RESP3, or because the session whose own it is may
    /// say so.
    pub(super) fn hears_pushes(&self) -> bool {
        self.class.resp == Resp::Three || self.purpose != Purpose::Shared
    }

    /// Whether the connection is over, and whatever is sent is lost.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The connection is over.
    pub(super) fn set_ended(&self) {
        self.ended.set(true);
    }

    /// Whether another request of `client` is under way on it.
    pub(super) fn has_more_of(&self, client: &Rc<Client>) -> bool {
        self.inner.borrow().fifo.iter().any(|entry| entry.owner.is_of(client))
    }

    /// Whether nothing is under way on it, and nothing was for so long.
    pub(super) fn is_idle(&self, now_us: u64, us: u64) -> bool {
        let inner = self.inner.borrow();
        inner.fifo.is_empty() && now_us.saturating_sub(inner.last_byte_us) >= us
    }

    /// MULTI is open on it from now on, or no longer.
    pub(super) fn set_in_multi(&self, in_multi: bool) {
        self.in_multi.set(in_multi);
    }

    /// Whether EXEC or DISCARD of a transaction on it is still to come.
    pub(super) fn is_in_multi(&self) -> bool {
        self.in_multi.get()
    }

    /// Whether nothing is under way on it.
    pub(super) fn is_quiet(&self) -> bool {
        self.inner.borrow().fifo.is_empty()
    }

    /// Ends the connection if a reply of `client` is due on it: a session that panicked may have
    /// left half a request there.
    pub(super) fn end_if_owned_by(&self, client: &Rc<Client>) {
        let owned = self
            .inner
            .try_borrow()
            .is_ok_and(|inner| inner.fifo.iter().any(|entry| entry.owner.is_of(client)));
        if owned {
            self.end(Phase::Protocol, "a session panicked while it was using it");
        }
    }

    pub(super) fn error(&self, phase: Phase, reason: impl ToString) -> UpstreamError {
        let backend = Arc::clone(&self.backend.name);
        UpstreamError { backend, phase, reason: reason.to_string(), ours: false, busy: None }
    }

    /// Counts one latency for what counts as usual here.
    pub(super) fn observe(&self, us: u64) {
        self.inner.borrow_mut().recent.add(us);
    }

    /// The task begins a turn; the error with which the connection is to end, if it is.
    pub(super) fn begin_turn(&self) -> Option<UpstreamError> {
        self.scheduled.set(false);
        self.doomed.borrow_mut().take()
    }

    pub(super) fn inner(&self) -> std::cell::RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    async fn connect(
        &self,
        credentials: Option<&Credentials>,
        tls: Option<&tls::Client>,
        asks_role: bool,
    ) -> Result<Stream, UpstreamError> {
        let Some(credentials) = credentials else {
            return Err(self.error(Phase::Released, "its user has left"));
        };
        let timeout = self.timeouts.connect;
        let dialled = dial(&self.backend.address, Opening::tls(tls), timeout).await;
        let mut stream = dialled.map_err(|error| UpstreamError {
            ours: is_exhaustion(&error),
            ..self.error(Phase::Connect, error)
        })?;
        let greeted = async {
            handshake::greet(&mut stream, credentials, self.class, timeout).await?;
            if self.follows && self.backend.gate().replica() {
                handshake::read_only(&mut stream, timeout).await?;
                self.reads_only.set(true);
            }
            Ok(())
        };
        greeted.await.map_err(|error| {
            UpstreamError {
                // A user whose password is wrong by now says nothing of the server.
                ours: self.class.identity != 0,
                busy: handshake::busy(&error),
                ..self.error(Phase::Handshake, error)
            }
        })?;
        if asks_role && self.backend.gate().primary() {
            let asked = handshake::is_primary(&mut stream, timeout).await;
            asked.map_err(|error| self.error(Phase::Role, error))?;
        }
        self.connected.set(Some(Instant::now()));
        Ok(stream)
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
        // Those that the turn had answered and not written to yet.
        self.hub.clients().iter().for_each(|client| client.flush(self.hub));
    }
}

/// Of a request that is passed on while it comes, as much may wait to be written.
pub(super) const MOST_FED: usize = 512 * 1024;

mod clock;

#[cfg(test)]
mod tests;
