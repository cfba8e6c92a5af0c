//! `/api/v1/status`: the whole process as one JSON document. The shapes here are the API; they
//! gain fields and never lose one.

use super::{
    events::{Event, millis},
    numbered::Numbered,
    plane::Plane,
    sessions::Sessions,
    subscriptions::Subscriptions,
    watch::{Probed, Watch},
};
use crate::{
    policy::{admin::Source, slot::SLOTS},
    telemetry::metrics::{BackendMetrics, ListenerMetrics},
    topology::{Cluster, Layout, Topology, door::Reason},
};
use serde::Serialize;

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    state: &'static str,
    uptime_ms: u64,
    workers: Vec<Worker>,
    listeners: Vec<Listener<'a>>,
    clusters: Vec<ClusterStatus<'a>>,
    /// The newest 256, oldest first.
    events: Vec<&'a Event>,
}

#[derive(Serialize)]
struct Worker {
    clients: u64,
    buffered_bytes: u64,
    turns: u64,
}

#[derive(Serialize)]
struct Listener<'a> {
    name: &'a str,
    bind: &'a str,
    protocol: &'a str,
    cluster: &'a str,
    /// Whether its clients speak TLS.
    tls: bool,
    accepted: u64,
    active: u64,
    /// By a limit of the listener.
    refused: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct ClusterStatus<'a> {
    name: &'a str,
    requests: Requests,
    /// Of a cluster of Redis.
    subscriptions: Option<Subscriptions>,
    shards: Vec<ShardStatus<'a>>,
    /// Of Redis: the ten keys that are asked for most, the hottest first.
    hot_keys: Vec<HotKeyStatus>,
}

#[derive(Serialize)]
struct HotKeyStatus {
    /// Its first bytes, escaped where they are no text.
    key: String,
    /// Sampled: at most so many requests name it.
    per_second: u64,
    /// Of these so many may be another key's.
    error: u64,
}

#[derive(Default, Serialize)]
struct Requests {
    reads: u64,
    writes: u64,
    backend_errors: u64,
    proxy_errors: u64,
    retries: u64,
    overloaded: u64,
    /// Waiting now.
    queued: u64,
}

#[derive(Serialize)]
struct ShardStatus<'a> {
    name: &'a str,
    /// First and last slot of each run.
    slots: Vec<(u16, u16)>,
    /// The part of all slots that it owns, 0 to 1.
    slot_share: f64,
    backends: Vec<BackendStatus<'a>>,
}

#[derive(Serialize)]
struct BackendStatus<'a> {
    /// What paths may call it; another one after each start.
    id: u32,
    cluster: &'a str,
    shard: &'a str,
    name: &'a str,
    admin: AdminStatus,
    role: &'static str,
    state: &'static str,
    weight: u32,
    /// Less than `weight` while it is warming.
    effective_weight: f64,
    /// 0 to 63: the lowest tier with a ready backend is the one in use.
    tier: u8,
    in_flight: u64,
    reads: u64,
    writes: u64,
    failures: u64,
    connections: u64,
    lag_bytes: Option<u64>,
    lag_ms: Option<u64>,
    redis_version: Option<&'a str>,
    worst_case_detection_ms: u64,
    /// Of a cluster with a sticky cookie, once a request has come.
    sessions: Option<Sessions>,
    /// The newest ten, oldest first.
    probes: Vec<ProbeStatus<'a>>,
}

/// What the operator wants of a backend, by who says it.
#[derive(Serialize)]
struct AdminStatus {
    /// The strictest of them.
    in_force: &'static str,
    config: &'static str,
    api: &'static str,
    discovery: &'static str,
    /// After which `api` is ready again.
    ttl_left_ms: Option<u64>,
}

#[derive(Serialize)]
struct ProbeStatus<'a> {
    time_ms: u64,
    code: &'static str,
    duration_us: u64,
    text: &'a str,
}

/// The document.
pub(super) fn page(plane: &Plane) -> Vec<u8> {
    let (table, topology) = (plane.table.borrow(), plane.topology());
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        state: plane.state.stage().as_str(),
        uptime_ms: millis(plane.state.uptime()),
        workers: plane
            .workers
            .iter()
            .map(|worker| Worker {
                clients: worker.clients.get(),
                buffered_bytes: worker.buffered.get(),
                turns: worker.turns.get(),
            })
            .collect(),
        listeners: listeners(plane),
        clusters: all_clusters(plane, &topology, table.watches()),
        events: table.events().newest().collect(),
    };
    json(&status)
}

/// Every cluster, as in the whole document.
pub(super) fn clusters(plane: &Plane) -> Vec<u8> {
    json(&all_clusters(plane, &plane.topology(), plane.table.borrow().watches()))
}

/// One cluster, as in the whole document; `None` when there is none of that name.
pub(super) fn cluster_page(plane: &Plane, name: &str) -> Option<Vec<u8>> {
    let topology = plane.topology();
    let found = topology.clusters.iter().find(|cluster| &*cluster.name == name)?;
    Some(json(&cluster(plane, found, plane.table.borrow().watches())))
}

/// Every backend, as in the whole document.
pub(super) fn backends(plane: &Plane) -> Vec<u8> {
    let (table, now_ms) = (plane.table.borrow(), plane.now_ms());
    let all: Vec<_> = table.watches().iter().map(|watch| backend(plane, watch, now_ms)).collect();
    json(&all)
}

/// The backend of that index in the table, as in the whole document.
pub(super) fn backend_page(plane: &Plane, index: usize) -> Vec<u8> {
    let (table, now_ms) = (plane.table.borrow(), plane.now_ms());
    json(&table.watches().get(index).map(|watch| backend(plane, watch, now_ms)))
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings and numbers are always JSON")
}

fn all_clusters<'a>(
    plane: &Plane,
    topology: &'a Topology,
    watches: &'a Numbered<Watch>,
) -> Vec<ClusterStatus<'a>> {
    topology.clusters.iter().map(|one| cluster(plane, one, watches)).collect()
}

fn listeners(plane: &Plane) -> Vec<Listener<'_>> {
    let each = plane.listeners.iter().enumerate().map(|(i, listener)| {
        let counted = || plane.workers.iter().filter_map(|worker| worker.listeners.get(i));
        Listener {
            name: &listener.name,
            bind: &listener.bind,
            protocol: listener.protocol,
            cluster: &listener.cluster,
            tls: plane.certificates.iter().any(|owner| owner.is_listener(&listener.name)),
            accepted: counted().map(|l| l.accepted.get()).sum(),
            active: counted().map(|l| l.active.get()).sum(),
            refused: counted().map(refused).sum(),
            bytes_in: counted().map(|l| l.bytes_in.get()).sum(),
            bytes_out: counted().map(|l| l.bytes_out.get()).sum(),
        }
    });
    each.collect()
}

fn refused(listener: &ListenerMetrics) -> u64 {
    Reason::ALL.iter().map(|reason| reason.counter(listener).get()).sum()
}

fn cluster<'a>(
    plane: &Plane,
    cluster: &'a Cluster,
    watches: &'a Numbered<Watch>,
) -> ClusterStatus<'a> {
    let mut requests = Requests::default();
    for counted in plane.workers.iter().filter_map(|worker| worker.clusters.get(cluster.id)) {
        for access in [&counted.reads, &counted.writes] {
            requests.backend_errors += access.backend_errors.get();
            requests.proxy_errors += access.proxy_errors.get();
            requests.retries += access.all_retries();
        }
        requests.overloaded += counted.overloaded.get();
        requests.reads += all(&counted.reads);
        requests.writes += all(&counted.writes);
    }
    let queued = cluster.queue.as_ref().map_or(0, |queue| queue.len());
    requests.queued = u64::try_from(queued).unwrap_or(u64::MAX);
    let now_ms = plane.now_ms();
    let has_slots = !matches!(cluster.layout, Layout::Group { .. });
    let shards = cluster.shards.iter().enumerate().map(|(index, shard)| {
        let slots = if has_slots { cluster.sharding.runs(index) } else { Vec::new() };
        let owned: u32 = slots.iter().map(|(first, last)| u32::from(last - first) + 1).sum();
        let members =
            shard.members.iter().filter_map(|member| watches.get(usize::try_from(member.id).ok()?));
        ShardStatus {
            name: &shard.name,
            slot_share: f64::from(owned) / f64::from(SLOTS),
            slots,
            backends: members.map(|watch| backend(plane, watch, now_ms)).collect(),
        }
    });
    let hot = plane.insight.hot_keys(cluster.id, HOT_KEYS).into_iter().map(|one| HotKeyStatus {
        key: String::from_utf8(one.key)
            .unwrap_or_else(|error| error.as_bytes().escape_ascii().to_string()),
        per_second: one.per_second,
        error: one.error,
    });
    let is_redis = matches!(cluster.layout, Layout::Shards);
    let subscriptions = is_redis.then(|| Subscriptions::of(plane, cluster.id));
    ClusterStatus {
        name: &cluster.name,
        requests,
        subscriptions,
        shards: shards.collect(),
        hot_keys: hot.collect(),
    }
}

/// As many as the metric has ranks.
pub(super) const HOT_KEYS: usize = 10;

fn all(counted: &crate::telemetry::metrics::RequestMetrics) -> u64 {
    counted.ok.get() + counted.backend_errors.get() + counted.proxy_errors.get()
}

fn backend<'a>(plane: &Plane, watch: &'a Watch, now_ms: u64) -> BackendStatus<'a> {
    let backend = watch.backend();
    let sum = |pick: fn(&BackendMetrics) -> u64| backend.cells.iter().map(pick).sum();
    let admin = watch.admin;
    let of = |source| admin.of(source).as_str();
    BackendStatus {
        id: backend.id,
        cluster: &backend.cluster,
        shard: &backend.shard,
        admin: AdminStatus {
            in_force: admin.admin().as_str(),
            config: of(Source::Config),
            api: of(Source::Api),
            discovery: of(Source::Discovery),
            ttl_left_ms: admin.until_ms().map(|until| until.saturating_sub(now_ms)),
        },
        name: &backend.name,
        role: backend.role().as_str(),
        state: backend.state().as_str(),
        weight: backend.weight(),
        effective_weight: f64::from(backend.effective_weight()) / 10.0,
        tier: backend.tier,
        in_flight: backend.in_flight(),
        reads: sum(|cell| cell.reads.get()),
        writes: sum(|cell| cell.writes.get()),
        failures: sum(|cell| cell.failures.get()),
        connections: sum(|cell| cell.connections.get()),
        lag_bytes: watch.lag().map(|lag| lag.bytes),
        lag_ms: watch.lag().and_then(|lag| lag.ms),
        redis_version: watch.redis_version(),
        worst_case_detection_ms: watch.worst_case_ms(),
        sessions: Sessions::of(plane, backend),
        probes: watch.probes().map(probe).collect(),
    }
}

fn probe(probed: &Probed) -> ProbeStatus<'_> {
    ProbeStatus {
        time_ms: probed.time_ms,
        code: probed.code,
        duration_us: probed.duration_us,
        text: &probed.text,
    }
}
