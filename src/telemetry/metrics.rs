//! Counters with one writer each, cheap enough for the request path, and what a worker counts.
//! Not the text format: the admin page sums these at a scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that one thread writes and any thread reads: a plain add, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` off (for gauges). Only the owning thread may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Sets the value (for gauges). Only the owning thread may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the request duration buckets, in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// A duration histogram in microseconds with one writer.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one counts what exceeds every bound.
    pub buckets: [Counter; 18],
    pub sum_us: Counter,
}

impl Histogram {
    /// The index of the bucket that `us` falls into.
    pub fn bucket(us: u64) -> usize {
        BOUNDS_US.partition_point(|bound| *bound < us)
    }

    /// Counts `n` observations of `us` microseconds each.
    pub fn observe(&self, us: u64, n: u64) {
        if let Some(bucket) = self.buckets.get(Self::bucket(us)) {
            bucket.add(n);
        }
        self.sum_us.add(us.saturating_mul(n));
    }
}

/// What one worker counts of one cluster, for one access (read, write).
#[derive(Debug, Default)]
pub struct RequestMetrics {
    pub ok: Counter,
    /// Answered with an error of a backend.
    pub backend_errors: Counter,
    /// Answered with an error of ours.
    pub proxy_errors: Counter,
    /// By [`RetryReason`].
    pub retries: [Counter; RetryReason::ALL.len()],
    pub duration: Histogram,
}

/// Why a request was sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// The backend could not be connected to.
    Connect,
    /// It closed an idle connection just as that was taken.
    Closed,
    /// The connection broke, or nothing sensible came.
    Lost,
    /// It was taken out of rotation.
    Moved,
}

impl RetryReason {
    /// Each once, in the order of their values.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Closed, Self::Lost, Self::Moved];

    /// The word of the metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Moved => "moved",
        }
    }
}

impl RequestMetrics {
    /// Counts one retry.
    pub fn retried(&self, reason: RetryReason) {
        if let Some(retries) = self.retries.get(reason as usize) {
            retries.add(1);
        }
    }

    /// Retries for whatever reason.
    pub fn all_retries(&self) -> u64 {
        self.retries.iter().map(Counter::get).sum()
    }
}

/// What one worker counts of one cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    pub reads: RequestMetrics,
    pub writes: RequestMetrics,
    /// Answered by us without a backend.
    pub local: Counter,
    pub split: Counter,
    /// Of Redis: GETs that waited for the reply to another client's.
    pub coalesced: Counter,
    pub stray_replies: Counter,
    pub stray_pushes: Counter,
    /// Clients that have subscribed to something (a gauge).
    pub subscribers: Counter,
    /// What they have subscribed to, each client's counted (gauges).
    pub subscribed_channels: Counter,
    pub subscribed_patterns: Counter,
    pub subscribed_shard_channels: Counter,
    /// What this worker is subscribed to at the servers (a gauge).
    pub topics: Counter,
    /// Messages passed on, by client.
    pub messages: Counter,
    /// Subscribers closed because they read too slowly.
    pub subscribers_dropped: Counter,
    /// Topics subscribed to again after a connection was lost.
    pub resubscriptions: Counter,
    /// How long messages may have been missed.
    pub subscriber_gap_us: Counter,
    /// Held because their shard had no primary.
    pub failover_waits: Counter,
    /// Refused because every backend was at its limit.
    pub overloaded: Counter,
    /// How long requests waited for room, those that got none included.
    pub queue_wait: Histogram,
    /// Of HTTP: what clients were told, from 1xx to 5xx.
    pub responses: [Counter; 5],
}

/// What one worker counts of one listener.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    pub accepted: Counter,
    pub active: Counter,
    pub rejected_protocol: Counter,
    /// Wrong passwords.
    pub rejected_auth: Counter,
    /// Heads larger than allowed, by their bytes or their fields.
    pub rejected_header_limit: Counter,
    /// Requests that did not come, and replies that were not taken, in time.
    pub rejected_slow: Counter,
    /// Frames of HTTP/2 that only cost.
    pub rejected_flood: Counter,
    /// TLS handshakes.
    pub tls_ok: Counter,
    pub tls_failed: Counter,
    /// By the limits of the listener, of a client's address, and of the process.
    pub rejected_max_connections: Counter,
    pub rejected_client_connections: Counter,
    pub rejected_client_rate: Counter,
    pub rejected_client_requests: Counter,
    pub rejected_memory: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    /// Requests of HTTP that we answered ourselves, by [`REFUSALS`].
    pub refusals: [Counter; REFUSALS.len()],
}

/// Why a request of HTTP is answered by us, in the words of `X-Sluice-Error`; the last one is for
/// whatever is not here.
pub const REFUSALS: [&str; 18] = [
    "malformed_request",
    "head_too_large",
    "uri_too_long",
    "no_tunnels",
    "no_route",
    "no_backend",
    "no_shard_key",
    "connect_failed",
    "reply_lost",
    "result_unknown",
    "backend_timeout",
    "client_timeout",
    "overloaded",
    "max_connections",
    "client_connections",
    "client_requests",
    "memory",
    "other",
];

impl ListenerMetrics {
    /// Counts a request that we answered ourselves.
    pub fn refused(&self, reason: &str) {
        let known = REFUSALS.iter().position(|known| *known == reason);
        if let Some(counter) = self.refusals.get(known.unwrap_or(REFUSALS.len() - 1)) {
            counter.add(1);
        }
    }
}

/// What one worker counts of one backend; `in_flight`, `connections` and
/// `idle` are gauges.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendMetrics {
    pub in_flight: Counter,
    pub reads: Counter,
    pub writes: Counter,
    /// Replies that were errors of the transient kind (LOADING, READONLY, ...), and requests lost.
    pub failures: Counter,
    pub connections: Counter,
    /// Of HTTP/1.1: those that nobody uses now, as of the newest tick.
    pub idle: Counter,
    /// Connections that one client has for itself now.
    pub leased: Counter,
    /// Clients that had to wait for one, and those that got none.
    pub lease_waits: Counter,
    pub lease_refusals: Counter,
    pub connects_ok: Counter,
    pub connects_failed: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub sessions: SessionMetrics,
    /// How slow it is, as policy has it; only where a balancer asks. The three are written one after
    /// the other, and who reads between two of them is a sample off.
    pub latency: LatencyMetrics,
}

/// What one worker counts of the sticky sessions of one backend.
#[derive(Debug, Default)]
pub struct SessionMetrics {
    /// Sessions that began here.
    pub new: Counter,
    /// Sessions that came from another backend.
    pub came: Counter,
    /// Sessions that went to another backend.
    pub left: Counter,
    /// Requests of sessions that were here already.
    pub kept: Counter,
}

/// A moving average of a backend's latency; the numbers are gauges.
#[derive(Debug, Default)]
pub struct LatencyMetrics {
    /// Microseconds as the bits of an `f64`: with peaks and penalties, and of successes alone.
    pub peak_us: Counter,
    pub good_us: Counter,
    /// When the newest sample came, in microseconds on the workers' clock.
    pub at_us: Counter,
}

/// Everything one worker counts. Index by listener, cluster and command as numbered at the start;
/// backends carry their own cells.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    pub clients: Counter,
    /// Those that wait until CLIENT PAUSE is over.
    pub paused: Counter,
    pub listeners: Vec<ListenerMetrics>,
    pub clusters: Vec<ClusterMetrics>,
    /// By the index of the command in the table; the last one counts unknown commands.
    pub commands: Vec<Counter>,
    /// Big requests and replies, by the same index.
    pub big_requests: Vec<Counter>,
    pub big_replies: Vec<Counter>,
    /// Bytes held in this worker's buffers.
    pub buffered: Counter,
    pub panics: Counter,
    /// Turns of the worker's own heartbeat, for liveness.
    pub turns: Counter,
}
