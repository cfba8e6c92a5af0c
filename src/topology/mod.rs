//! The immutable snapshot of clusters, shards and backends, and each backend's live atomics.
//! It does no I/O and knows no protocol; only control publishes a new snapshot.

pub mod admission;
mod backend;
mod chooser;
mod dedicated;
pub mod door;
mod fresh;
mod http_check;
mod kill;
mod lease;
mod outage;
pub mod pick;
mod report;
mod reweigh;
mod spoof;

pub use admission::{Queue, Room};
pub use backend::Backend;
pub use chooser::Chooser;
pub use dedicated::{Dedicated, Leases, Standing};
pub use fresh::{Consistency, Freshness, Override, ReadRules, Sampled, Written};
pub use http_check::HttpCheck;
pub use kill::{Killable, Kills};
pub use lease::{Connected, Lease};
pub use outage::Outage;
pub use report::{Outcome, Report, Reporter};
pub use reweigh::Present;
pub use spoof::{Follows, Spoof};

use crate::{
    net::{prefix::Prefix, proxy_protocol::Version, tls},
    policy::{balance::Balancer, reads::ReadFrom, shard::Sharding},
};
use arc_swap::{ArcSwap, Cache};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Everything a request needs to find its backend, swapped as a whole.
#[derive(Debug, Default)]
pub struct Topology {
    pub clusters: Vec<Arc<Cluster>>,
}

/// A named group of backends holding one data set.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its place in [`Topology::clusters`] and in every per-cluster table.
    pub id: usize,
    pub name: Arc<str>,
    pub layout: Layout,
    pub shards: Vec<Shard>,
    /// Their names; the same list as long as they are the same ones in the same order.
    pub order: Arc<[Arc<str>]>,
    /// Which of `shards` owns a key.
    pub sharding: Sharding,
    pub reads: ReadFrom,
    /// What else there is to say of reads; `None`: nothing.
    pub read_rules: Option<Arc<ReadRules>>,
    /// The shard that takes requests without a key.
    pub keyless: usize,
    /// Scripts that say `#!lua flags=no-writes` are reads.
    pub shebang_reads: bool,
    pub timeouts: Timeouts,
    pub credentials: Credentials,
    /// How its backends are spoken to; `None`: in clear.
    pub tls: Option<tls::Client>,
    /// Where requests wait when all backends are at their limit; `None` without one.
    pub queue: Option<Arc<Queue>>,
    /// A server is asked which part it plays on each new connection, before it gets writes.
    pub asks_role: bool,
    /// Connections that one client has for itself.
    pub dedicated: Dedicated,
    /// It is a Redis Cluster: its servers say who owns what, and may say it anew at any time.
    pub follows: Option<Arc<Follows>>,
    pub outage: Outage,
    /// Counted up before another member of a shard gets its writes; `None`: of no shard that can be,
    /// or the sharding counts it.
    pub turns: Option<Arc<AtomicU64>>,
    /// Places of those who wait for a primary.
    pub heirs: Arc<Semaphore>,
}

/// How the members of a cluster stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Shards, each a primary and its replicas: roles are checked.
    #[default]
    Shards,
    /// Shards whose roles are as configured: there is nobody to ask (HTTP).
    Fixed,
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
#[derive(Clone, Debug)]
pub struct Shard {
    pub name: Arc<str>,
    /// The primary as configured or discovered first, then the replicas; at most
    /// [`Shard::MOST_MEMBERS`].
    pub members: Vec<Arc<Backend>>,
    /// Over `members[1..]`.
    pub replicas: Balancer,
    /// Over all members.
    pub any: Balancer,
    /// Over all members by key: for requests that say to whom they belong, before `any`.
    pub pinned: Option<Balancer>,
    /// What [`pick::any`] does when no member is ready.
    pub fail_open: FailOpen,
    /// The cursor of `any` where it is one for all: the present one of `failover`.
    pub present: Present,
}

impl Shard {
    /// As many as a mask of those that were tried has bits.
    pub const MOST_MEMBERS: usize = 64;
}

/// What a pick from a group does when no member is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailOpen {
    /// It finds nobody.
    #[default]
    Never,
    /// It takes them all for ready but those that the operator took out: a probe may be wrong.
    AllDown,
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
    /// For a script or function; default zero: none.
    pub script: Duration,
    /// A connection silent this long with requests outstanding is closed; default the larger of
    /// 5 x `request` and 10s.
    pub stall: Duration,
    /// A client silent this long is closed; default zero: never.
    pub client_idle: Duration,
    /// A relayed connection on which no byte moves for so long is closed; default zero: never.
    pub idle: Duration,
    /// How long a request waits for a backend that has room; default 1s.
    pub queue: Duration,
}

/// Who we are to the backends. `Debug` never prints the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request: Duration::from_secs(30),
            fan_out: Duration::from_secs(30),
            script: Duration::ZERO,
            stall: Duration::from_secs(150),
            client_idle: Duration::ZERO,
            idle: Duration::ZERO,
            queue: Duration::from_secs(1),
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

impl Topology {
    /// With `next` in the place of the cluster that has its id.
    #[must_use]
    pub fn with(&self, next: Cluster) -> Self {
        let mut clusters = self.clusters.clone();
        if let Some(place) = clusters.get_mut(next.id) {
            *place = Arc::new(next);
        }
        Self { clusters }
    }
}

impl Cluster {
    /// [`Cluster::order`] of these shards.
    pub fn order(shards: &[Shard]) -> Arc<[Arc<str>]> {
        shards.iter().map(|shard| Arc::clone(&shard.name)).collect()
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
