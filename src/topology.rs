//! The immutable snapshot of clusters, shards and backends, and each backend's live atomics.
//! It does no I/O and knows no protocol; only control publishes a new snapshot.

use crate::{
    net::{addr::Address, prefix::Prefix, proxy_protocol::Version},
    policy::{
        balance::Balancer,
        gate::{Gate, Role, State},
        reads::ReadFrom,
    },
    telemetry::metrics::BackendMetrics,
};
use arc_swap::{ArcSwap, ArcSwapOption, Cache};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Everything a request needs to find its backend, swapped as a whole.
#[derive(Debug, Default)]
pub struct Topology {
    pub clusters: Vec<Arc<Cluster>>,
}

/// A named group of backends holding one data set.
#[derive(Debug)]
pub struct Cluster {
    /// Its place in [`Topology::clusters`] and in every per-cluster table.
    pub id: usize,
    pub name: Arc<str>,
    pub layout: Layout,
    pub shards: Vec<Shard>,
    /// `slots[slot]` is the index of the shard that owns it.
    pub slots: Vec<u16>,
    pub reads: ReadFrom,
    pub timeouts: Timeouts,
    pub credentials: Credentials,
}

/// How the members of a cluster stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Shards, each a primary and its replicas: roles are checked.
    #[default]
    Shards,
    /// All alike, without roles: one shard without a name, which owns no slot. Picks are made by
    /// [`Shard::any`] alone.
    Group {
        /// Whom `client_ip` takes for one client.
        client: Prefix,
        /// What each connection begins with.
        send_proxy: Option<Version>,
    },
}

/// A part of the key space with one primary and its replicas.
#[derive(Debug)]
pub struct Shard {
    pub name: Arc<str>,
    /// The configured primary first, then the replicas as configured; at most 64.
    pub members: Vec<Arc<Backend>>,
    /// Over `members[1..]`.
    pub replicas: Balancer,
    /// Over all members.
    pub any: Balancer,
}

/// Per-cluster time limits; zero means none where the field says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Default 1s.
    pub connect: Duration,
    /// Covers all tries; default 30s, zero: none.
    pub request: Duration,
    /// For requests that go to every shard; default 30s, zero: none.
    pub fan_out: Duration,
    /// A connection silent this long with requests outstanding is closed; default the larger of
    /// 5 x `request` and 10s.
    pub stall: Duration,
    /// A client silent this long is closed; default zero: never.
    pub client_idle: Duration,
    /// A relayed connection on which no byte moves for so long is closed; default zero: never.
    pub idle: Duration,
}

/// Who we are to the backends. `Debug` never prints the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
}

/// One server process at one address, with its live state. Kept across snapshots by identity.
#[derive(Debug)]
pub struct Backend {
    /// Process-wide and never reused.
    pub id: u32,
    pub cluster: Arc<str>,
    pub shard: Arc<str>,
    /// `host:port`, as configured; the label of metrics and logs.
    pub name: Arc<str>,
    pub address: Address,
    pub weight: u32,
    gate: AtomicU8,
    state: AtomicU8,
    role: AtomicU8,
    /// How many requests a half-open gate still lets through.
    permits: AtomicU32,
    /// Bytes behind the primary; `u64::MAX` when not known.
    lag_bytes: AtomicU64,
    /// What it calls its version, once a probe has asked.
    version: ArcSwapOption<String>,
    /// One cell per worker, written by that worker alone.
    pub cells: Box<[BackendMetrics]>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request: Duration::from_secs(30),
            fan_out: Duration::from_secs(30),
            stall: Duration::from_secs(150),
            client_idle: Duration::ZERO,
            idle: Duration::ZERO,
        }
    }
}

impl Credentials {
    /// `text` without the password: a server that does not know AUTH repeats it in its error, which
    /// the log and clients are told.
    pub fn conceal(&self, text: &str) -> String {
        match self.password.as_deref() {
            Some(password) if !password.is_empty() => text.replace(password, "***"),
            _ => text.to_owned(),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "(set)");
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &password)
            .finish()
    }
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
            cluster,
            shard,
            name: address.to_string().into(),
            address,
            weight,
            gate: AtomicU8::new(0),
            state: AtomicU8::new(0),
            role: AtomicU8::new(0),
            permits: AtomicU32::new(0),
            lag_bytes: AtomicU64::new(u64::MAX),
            version: ArcSwapOption::empty(),
            cells: (0..workers).map(|_| BackendMetrics::default()).collect(),
        }
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

    /// Bytes behind its primary, when known.
    pub fn lag_bytes(&self) -> Option<u64> {
        Some(self.lag_bytes.load(Ordering::Relaxed)).filter(|lag| *lag != u64::MAX)
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

    /// Publishes the derived state. Control alone calls this.
    pub fn publish(&self, state: State, gate: Gate, role: Role, permits: u32) {
        self.role.store(role as u8, Ordering::Relaxed);
        self.state.store(state as u8, Ordering::Relaxed);
        self.permits.store(permits, Ordering::Relaxed);
        self.gate.store(gate.bits(), Ordering::Release);
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

/// What a worker tells control about a backend. Successes are counted in the backend's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Connect, handshake, timeout, reset or protocol garbage.
    LocalFailure,
    /// The server said that it cannot serve now: LOADING, MASTERDOWN, CLUSTERDOWN.
    Error,
    /// The server said that its role is not what we thought: READONLY.
    RoleMismatch,
    /// Its oldest request waits too long and no byte has come since: probe it at once.
    Suspect,
}

/// One outcome of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub backend: u32,
    pub outcome: Outcome,
}

/// The workers' end of the bounded channel to control. A worker never waits: when the channel is
/// full the report is dropped, for control then has plenty of the same news.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    /// A channel with room for 1,024 reports.
    pub fn channel() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS);
        (Self(sender), receiver)
    }

    /// Tells control; never blocks.
    pub fn report(&self, backend: &Backend, outcome: Outcome) {
        let _ = self.0.try_send(Report { backend: backend.id, outcome });
    }
}

/// The writing end; control holds the only one.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwap<Topology>>);

/// The reading end of one worker: a cached pointer, one atomic load when nothing changed.
#[derive(Debug, Clone)]
pub struct Reader(Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>);

/// The two ends over a first snapshot.
pub fn channel(first: Topology) -> (Publisher, Reader) {
    let shared = Arc::new(ArcSwap::from_pointee(first));
    (Publisher(Arc::clone(&shared)), Reader(Cache::new(shared)))
}

impl Publisher {
    /// Makes `next` what every reader sees from its next batch on.
    pub fn publish(&self, next: Topology) {
        self.0.store(Arc::new(next));
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Topology> {
        self.0.load_full()
    }
}

impl Reader {
    /// The snapshot in force; take it once per batch.
    pub fn snapshot(&mut self) -> &Arc<Topology> {
        self.0.load()
    }
}

/// Reports that may wait for control: some for each backend of a large cluster.
const REPORTS: usize = 1024;
