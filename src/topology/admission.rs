//! How many requests a backend may have under way, and the bounded line of those that wait for one
//! that has room. Process-wide, made only where a limit is configured. Not how long somebody waits:
//! the caller brings the patience, and the protocol's words.

use super::{Backend, Lease, Shard};
use crate::policy::{
    access::Access,
    gate::Gate,
    reads::{ReadFrom, Source, order},
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, Semaphore};

/// What a cluster allows each of its backends; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendLimits {
    /// Connections of ours to one backend.
    pub max_connections: Option<u32>,
    /// Requests under way at one backend.
    pub max_in_flight: Option<u32>,
    /// Requests that may wait when all backends that are ready are at their limit; default 1,024.
    pub queue: usize,
}

/// What is left of a limit at one backend.
#[derive(Debug)]
pub struct Room {
    most: u32,
    used: AtomicU32,
    /// Who waits for room; `None` where nobody does, and requests are counted in the backend's cells
    /// alone (Redis, whose requests share connections).
    queue: Option<Arc<Queue>>,
}

/// The line of one cluster: first come, first served among those that wait for the same backends, so
/// that a write for a busy primary does not hold up reads of its replicas. The bound is on all together.
#[derive(Debug)]
pub struct Queue {
    most: usize,
    waiting: AtomicUsize,
    shards: usize,
    /// Reads and writes of each shard, then those that wait for one member.
    lines: Box<[Line]>,
    /// Room was given back, or a backend's gate changed.
    freed: Notify,
}

/// Whom a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The shard's place in the cluster.
    pub shard: usize,
    pub access: Access,
    /// The place of the one member that may take it, for a session that is there.
    pub home: Option<usize>,
}

#[derive(Debug)]
struct Line {
    waiting: AtomicUsize,
    /// Its one permit is the front of the line; it is fair.
    front: Semaphore,
}

/// What one try to get a lease gave.
#[derive(Debug)]
pub enum Attempt<T> {
    Got(T),
    /// Somebody would take it, but for the limit.
    Full,
    /// Nobody is ready.
    Nobody,
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The line is full, or the patience is over.
    Overloaded,
    /// Nobody is ready.
    Nobody,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self { max_connections: None, max_in_flight: None, queue: 1024 }
    }
}

impl Room {
    /// Room for `most` leases; those who find none wait in `queue`.
    pub fn new(most: u32, queue: Option<Arc<Queue>>) -> Self {
        Self { most, used: AtomicU32::new(0), queue }
    }

    pub(super) fn is_left(&self, in_flight: impl FnOnce() -> u64) -> bool {
        match self.queue {
            Some(_) => self.used.load(Ordering::SeqCst) < self.most,
            None => in_flight() < u64::from(self.most),
        }
    }

    pub(super) fn take(&self) -> bool {
        let one_more = |used: u32| (used < self.most).then_some(used + 1);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    pub(super) fn give(&self) {
        self.used.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    /// Has those at the fronts of their lines look again.
    pub(super) fn wake(&self) {
        // Whoever waits has said so before it looked for room: one of the two sees the other.
        if let Some(queue) = &self.queue
            && queue.waiting.load(Ordering::SeqCst) > 0
        {
            queue.freed.notify_waiters();
        }
    }
}

impl Queue {
    /// A line for a cluster of so many shards, in which `most` may wait.
    pub fn new(most: usize, shards: usize) -> Self {
        let line = |_| Line { waiting: AtomicUsize::new(0), front: Semaphore::new(1) };
        Self {
            most,
            waiting: AtomicUsize::new(0),
            shards,
            lines: (0..2 * shards + MEMBERS).map(line).collect(),
            freed: Notify::new(),
        }
    }

    /// How many wait now.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `attempt` gets, as soon as it gets something: now when nobody waits, else in turn, until
    /// `patience` is over. Dropping the future leaves the line.
    ///
    /// # Errors
    /// The line is full or the patience over, or there is nobody to wait for.
    pub async fn admit<T>(
        &self,
        turn: Turn,
        patience: impl Future<Output = ()>,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<T, NotAdmitted> {
        let index = match turn.home {
            Some(member) => 2 * self.shards + member,
            None => 2 * turn.shard + usize::from(turn.access == Access::Write),
        };
        let Some(line) = self.lines.get(index) else { return Err(NotAdmitted::Nobody) };
        if line.waiting.load(Ordering::SeqCst) == 0 {
            match attempt() {
                Attempt::Got(got) => return Ok(got),
                Attempt::Nobody => return Err(NotAdmitted::Nobody),
                Attempt::Full => {}
            }
        }
        let _waiting = Waiting::new(self, line).ok_or(NotAdmitted::Overloaded)?;
        tokio::select! {
            biased;
            got = self.in_turn(line, attempt) => got,
            () = patience => Err(NotAdmitted::Overloaded),
        }
    }

    async fn in_turn<T>(
        &self,
        line: &Line,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<T, NotAdmitted> {
        let Ok(_front) = line.front.acquire().await else { return Err(NotAdmitted::Nobody) };
        loop {
            // Before the look: what is given back in between must wake it.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            match attempt() {
                Attempt::Got(got) => return Ok(got),
                Attempt::Nobody => return Err(NotAdmitted::Nobody),
                Attempt::Full => freed.await,
            }
        }
    }
}

/// A place in a line, given up when it is dropped.
struct Waiting<'a> {
    queue: &'a Queue,
    line: &'a Line,
}

impl<'a> Waiting<'a> {
    fn new(queue: &'a Queue, line: &'a Line) -> Option<Self> {
        let one_more = |waiting: usize| (waiting < queue.most).then_some(waiting + 1);
        queue.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        line.waiting.fetch_add(1, Ordering::SeqCst);
        Some(Self { queue, line })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::SeqCst);
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A lease on the member that `pick` names: it is given the members that are out of question, those
/// of `tried` among them. `wanted` is whom the request may go to, `None`: to any member.
pub fn claim(
    worker: usize,
    shard: &Shard,
    tried: u64,
    wanted: Option<(Access, ReadFrom)>,
    mut pick: impl FnMut(u64) -> Option<usize>,
) -> Attempt<(usize, Lease)> {
    // Those whose last room somebody else took after they were picked.
    let mut lost = 0;
    while let Some(index) = pick(tried | lost) {
        let Some(backend) = shard.members.get(index) else { break };
        match Lease::claim(worker, Arc::clone(backend)) {
            Some(lease) => return Attempt::Got((index, lease)),
            None => {
                if backend.gate().half_open() {
                    backend.give_permit();
                }
                lost |= 1 << index;
            }
        }
    }
    if lost != 0 || is_full(shard, tried, wanted) { Attempt::Full } else { Attempt::Nobody }
}

/// Whether an untried member would take a request, but for its limit.
pub fn is_full(shard: &Shard, tried: u64, wanted: Option<(Access, ReadFrom)>) -> bool {
    shard.members.iter().enumerate().any(|(index, backend)| {
        tried & (1 << index) == 0 && !backend.has_room() && takes(backend, wanted)
    })
}

fn takes(backend: &Backend, wanted: Option<(Access, ReadFrom)>) -> bool {
    let gate = backend.gate();
    let fits = match wanted {
        None => true,
        Some((Access::Write, _)) => gate.primary(),
        Some((Access::Read, from)) => {
            order(from).into_iter().flatten().any(|source| fits(gate, source))
        }
    };
    fits && (gate.open() || gate.half_open() && backend.has_permit())
}

fn fits(gate: Gate, source: Source) -> bool {
    match source {
        Source::Primary => gate.primary(),
        Source::Replicas => gate.replica(),
        Source::Any => gate.primary() || gate.replica(),
    }
}

/// The most members of a shard: a pick keeps what it tried in 64 bits.
const MEMBERS: usize = 64;

#[cfg(test)]
mod tests;
