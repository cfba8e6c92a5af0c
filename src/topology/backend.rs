//! One server process at one address, with its live atomics. Not its place among others: see
//! [`super::Shard`].

use super::{Dedicated, Leases, Room, Sampled};
use crate::{
    net::addr::Address,
    policy::{
        gate::{Admin, Gate, Role, State},
        latency::{Latency, Pace},
    },
    telemetry::metrics::BackendMetrics,
};
use arc_swap::ArcSwapOption;
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// One server process at one address, with its live state. Kept across snapshots by identity.
#[derive(Debug)]
pub struct Backend {
    /// Process-wide and never reused.
    pub id: u32,
    /// A place in tables of backends; another backend gets it when nobody has this one any more.
    pub seat: u32,
    pub cluster: Arc<str>,
    pub shard: Arc<str>,
    /// `host:port`, as configured; the label of metrics and logs.
    pub name: Arc<str>,
    pub address: Address,
    /// Its balancer asks how slow it is, so that workers tell [`Self::observe`].
    pub is_timed: bool,
    /// Its cluster has [`super::ReadRules`]: what is asked of it is remembered.
    pub has_read_rules: bool,
    /// How new it is.
    pub sampled: Sampled,
    /// As configured; the balancers have it in their rules.
    pub tier: u8,
    weight: AtomicU32,
    effective_weight: AtomicU32,
    /// What is usual in its cluster: microseconds as the bits of an `f64`, 0.0 when not known.
    usual_us: AtomicU64,
    gate: AtomicU8,
    state: AtomicU8,
    role: AtomicU8,
    admin: AtomicU8,
    /// How often the operator wanted its connections closed.
    kills: AtomicU32,
    /// How many requests a half-open gate still lets through.
    permits: AtomicU32,
    /// Bytes behind the primary; `u64::MAX` when not known.
    lag_bytes: AtomicU64,
    /// Which replication stream it writes or follows, as a number; 0 when not known.
    stream: AtomicU64,
    /// What it calls its version, once a probe has asked.
    version: ArcSwapOption<String>,
    /// Made only where a limit is configured.
    room: Option<Room>,
    /// The connections that one client at a time has for itself.
    pub leases: Leases,
    /// One cell per worker, written by that worker alone.
    pub cells: Box<[BackendMetrics]>,
}

impl Backend {
    /// A backend nobody has probed yet. `workers` is how many cells it gets.
    pub fn new(
        id: u32,
        cluster: Arc<str>,
        shard: Arc<str>,
        address: Address,
        weight: u32,
        workers: usize,
    ) -> Self {
        Self {
            id,
            seat: id,
            cluster,
            shard,
            name: address.to_string().into(),
            address,
            is_timed: false,
            has_read_rules: false,
            sampled: Sampled::default(),
            tier: 0,
            weight: AtomicU32::new(weight),
            effective_weight: AtomicU32::new(weight.saturating_mul(FULL_TENTHS)),
            usual_us: AtomicU64::new(0),
            gate: AtomicU8::new(0),
            state: AtomicU8::new(0),
            role: AtomicU8::new(0),
            admin: AtomicU8::new(0),
            kills: AtomicU32::new(0),
            permits: AtomicU32::new(0),
            lag_bytes: AtomicU64::new(u64::MAX),
            stream: AtomicU64::new(0),
            version: ArcSwapOption::empty(),
            room: None,
            leases: Leases::new(Dedicated::default().max_per_backend),
            cells: (0..workers).map(|_| BackendMetrics::default()).collect(),
        }
    }

    /// Holds it to a limit of requests under way.
    pub fn with_room(mut self, room: Option<Room>) -> Self {
        self.room = room;
        self
    }

    /// Holds it to so many connections that one client has for itself.
    pub fn with_leases(mut self, most: u32) -> Self {
        self.leases = Leases::new(most);
        self
    }

    /// Which replication stream it writes or follows, as the newest probe said; 0 when not known.
    pub fn stream(&self) -> u64 {
        self.stream.load(Ordering::Relaxed)
    }

    /// Publishes that. Control alone calls this.
    pub fn publish_stream(&self, stream: u64) {
        self.stream.store(stream, Ordering::Relaxed);
    }

    /// Whether one more request may be under way.
    pub fn has_room(&self) -> bool {
        self.room.as_ref().is_none_or(|room| room.is_left(|| self.in_flight()))
    }

    pub(super) fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// What a pick may do with it now.
    pub fn gate(&self) -> Gate {
        Gate::from_bits(self.gate.load(Ordering::Acquire))
    }

    /// What an operator sees.
    pub fn state(&self) -> State {
        State::from_u8(self.state.load(Ordering::Relaxed))
    }

    /// Its role as the newest probe said.
    pub fn role(&self) -> Role {
        Role::from_u8(self.role.load(Ordering::Relaxed))
    }

    /// What the operator wants of it, whatever else keeps it out.
    pub fn admin(&self) -> Admin {
        Admin::from_u8(self.admin.load(Ordering::Relaxed))
    }

    /// Publishes what the operator wants of it. Control alone calls this.
    pub fn publish_admin(&self, admin: Admin) {
        self.admin.store(admin as u8, Ordering::Relaxed);
    }

    /// Whether it has left its cluster: nothing new is sent there, and what is under way is answered.
    pub fn is_removed(&self) -> bool {
        self.state() == State::Removed
    }

    /// How often its connections were to be closed; a connection that began at another count is one
    /// of them. It may wrap.
    pub fn kills(&self) -> u32 {
        self.kills.load(Ordering::Acquire)
    }

    /// From now on every connection to it is to be closed; the workers are told as of a changed
    /// gate. Control alone calls this.
    pub fn kill(&self) {
        self.kills.fetch_add(1, Ordering::Release);
    }

    /// Bytes behind its primary, when known.
    pub fn lag_bytes(&self) -> Option<u64> {
        Some(self.lag_bytes.load(Ordering::Relaxed)).filter(|lag| *lag != u64::MAX)
    }

    /// Its share beside the others', as configured or set since; 1 to 1,000.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Its share now, in tenths: ten times its weight, less while it is warming.
    pub fn effective_weight(&self) -> u32 {
        self.effective_weight.load(Ordering::Relaxed)
    }

    /// Publishes its weight and the tenths of it that count now, 1 to 10. True when its share is
    /// another one. Control alone calls this, and sees to it that the balancers follow.
    pub fn publish_weight(&self, weight: u32, tenths: u32) -> bool {
        self.weight.store(weight, Ordering::Relaxed);
        let share = weight.saturating_mul(tenths);
        self.effective_weight.swap(share, Ordering::Relaxed) != share
    }

    /// Tells how long `worker` waited for an answer, or that none came, at `now_us` on the workers'
    /// clock. Cheap enough for every answer, and nothing at all where no balancer asks.
    #[inline]
    pub fn observe(&self, worker: usize, now_us: u64, took_us: u64, failed: bool) {
        if self.is_timed
            && let Some(cell) = self.cells.get(worker)
        {
            let next = latency(cell).after(now_us, took_us, failed, self.usual_us());
            cell.latency.peak_us.set(next.peak_us.to_bits());
            cell.latency.good_us.set(next.good_us.to_bits());
            cell.latency.at_us.set(next.at_us);
        }
    }

    /// How slow it is at `now_us`: what the worst treated worker knows.
    #[inline]
    pub fn pace(&self, now_us: u64) -> Pace {
        let usual_us = self.usual_us();
        let known = self.cells.iter().map(latency).fold(0.0, |worst: f64, one| {
            // Time only takes off, and its exponential is the dearest part.
            if one.peak_us > worst { worst.max(one.as_of(now_us, usual_us)) } else { worst }
        });
        Pace::new(known, usual_us)
    }

    /// What each worker's successes took on average, in microseconds; 0 for none yet.
    pub fn good_us(&self) -> impl Iterator<Item = f64> {
        self.cells.iter().map(|cell| latency(cell).good_us)
    }

    /// Publishes what is usual in its cluster, in microseconds. Control alone calls this.
    pub fn publish_usual(&self, us: f64) {
        self.usual_us.store(us.to_bits(), Ordering::Relaxed);
    }

    fn usual_us(&self) -> f64 {
        f64::from_bits(self.usual_us.load(Ordering::Relaxed))
    }

    /// Requests under way over all workers.
    pub fn in_flight(&self) -> u64 {
        self.cells.iter().map(|cell| cell.in_flight.get()).sum()
    }

    /// Whether a half-open gate still lets a request through.
    pub fn has_permit(&self) -> bool {
        self.permits.load(Ordering::Relaxed) > 0
    }

    /// Takes one permit of a half-open gate; false when none is left.
    pub fn take_permit(&self) -> bool {
        self.permits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }

    /// Gives a permit back that was not used.
    pub fn give_permit(&self) {
        self.permits.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishes the derived state. Control alone calls this.
    pub fn publish(&self, state: State, gate: Gate, role: Role, permits: u32) {
        self.role.store(role as u8, Ordering::Relaxed);
        self.state.store(state as u8, Ordering::Relaxed);
        self.permits.store(permits, Ordering::Relaxed);
        self.gate.store(gate.bits(), Ordering::Release);
        if let Some(room) = &self.room {
            room.wake();
        }
    }

    /// The server's own version, when a probe has asked.
    pub fn version(&self) -> Option<String> {
        self.version.load().as_deref().cloned()
    }

    /// Publishes the server's version. Control alone calls this.
    pub fn publish_version(&self, version: &str) {
        if self.version.load().as_deref().is_none_or(|known| known != version) {
            self.version.store(Some(Arc::new(version.to_owned())));
        }
    }

    /// Publishes how far behind it is; `None` when not known. Control alone calls this.
    pub fn publish_lag(&self, bytes: Option<u64>) {
        self.lag_bytes.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[inline]
fn latency(cell: &BackendMetrics) -> Latency {
    Latency {
        peak_us: f64::from_bits(cell.latency.peak_us.get()),
        good_us: f64::from_bits(cell.latency.good_us.get()),
        at_us: cell.latency.at_us.get(),
    }
}

/// The tenths of its weight that a backend has which is not warming.
const FULL_TENTHS: u32 = 10;
