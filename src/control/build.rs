//! From a configuration to a first snapshot. It decides nothing that the configuration did not
//! say, and starts nothing: every backend begins unknown.

use crate::{
    config::{self, Protocol},
    net::tls,
    policy::{
        balance::{Balancer, Rules, Strategy},
        gate::{Admin, Axes, Health, Init, Role, derive},
        maglev::stable_id,
    },
    topology::{
        Backend, Cluster, Consistency, FailOpen, Freshness, Layout, Present, Queue, ReadRules,
        Room, Shard, Topology, admission::BackendLimits,
    },
};
use std::{sync::Arc, time::Instant};
use tokio::sync::Semaphore;

/// The snapshot that `config` describes. Backend ids count up from 0 in the order of the file, and
/// each backend gets one cell per worker. `tls` is what was loaded from `upstream.tls`, by cluster.
pub fn build(config: &config::Config, workers: usize, tls: &[Option<tls::Client>]) -> Topology {
    let mut ids = 0..u32::MAX;
    let clusters = config.clusters.iter().enumerate().map(|(id, written)| Cluster {
        tls: tls.get(id).cloned().flatten(),
        ..cluster(id, written, workers, &mut ids)
    });
    Topology { clusters: clusters.map(Arc::new).collect() }
}

fn cluster(
    id: usize,
    written: &config::Cluster,
    workers: usize,
    ids: &mut impl Iterator<Item = u32>,
) -> Cluster {
    let name: Arc<str> = written.name.as_str().into();
    let read_rules = read_rules(&written.reads);
    let balance = written.backends.as_ref().map_or(written.reads.balance, |group| group.balance);
    let queue = queue(written);
    let has_read_rules = read_rules.is_some();
    let mut member = |shard: &Arc<str>, member: &config::Member| {
        let id = ids.next().expect("fewer than 2^32 backends");
        let (cluster, shard) = (Arc::clone(&name), Arc::clone(shard));
        let address = member.address.clone();
        let mut backend = Backend::new(id, cluster, shard, address, member.weight, workers)
            .with_room(room(written, queue.as_ref()))
            .with_leases(written.dedicated.max_per_backend);
        backend.is_timed = balance == Strategy::PeakEwma;
        backend.tier = member.tier;
        backend.has_read_rules = has_read_rules;
        backend.publish_admin(member.admin);
        if member.admin != Admin::Ready {
            let (state, gate) = derive(Axes { admin: member.admin, ..Axes::default() });
            backend.publish(state, gate, Role::Unknown, 0);
        }
        backend
    };
    let (layout, shards) = match &written.backends {
        Some(backends) => group(backends, (written.protocol, written.fail_open), &mut member),
        None => {
            let shards = written.shards.iter();
            let shards = shards.map(|part| shard(part, written.reads.balance, &mut member));
            let shards: Vec<Shard> = shards.collect();
            if written.protocol == Protocol::Http {
                shards.iter().for_each(assign);
                (Layout::Fixed, shards)
            } else {
                (Layout::Shards, shards)
            }
        }
    };
    Cluster {
        id,
        layout,
        sharding: written.sharding.over(&written.shards),
        name: Arc::clone(&name),
        shards,
        reads: written.reads.from,
        read_rules,
        keyless: written.keyless,
        shebang_reads: written.shebang_reads,
        timeouts: written.timeouts,
        credentials: written.upstream.clone(),
        tls: None,
        queue: queue.clone(),
        dedicated: written.dedicated,
        outage: written.outage,
        heirs: Arc::new(Semaphore::new(written.outage.queue as usize)),
    }
}

/// `None` where `reads.from` says it all.
fn read_rules(written: &config::Reads) -> Option<Arc<ReadRules>> {
    let promised = written.consistency != Consistency::Eventual && written.leaves_primary();
    let rules = ReadRules {
        overrides: written.overrides.clone(),
        scripts_declare_keys: written.scripts_declare_keys,
        freshness: promised
            .then(|| Freshness::new(written.consistency, written.window, Instant::now())),
    };
    (promised || !rules.overrides.is_empty()).then(|| Arc::new(rules))
}

/// Where requests wait: not with Redis, which refuses at once.
fn queue(written: &config::Cluster) -> Option<Arc<Queue>> {
    let waits = written.backends.is_some() || written.protocol == Protocol::Http;
    let shards = written.shards.len().max(1);
    (waits && most(written).is_some()).then(|| Arc::new(Queue::new(written.limits.queue, shards)))
}

fn room(written: &config::Cluster, queue: Option<&Arc<Queue>>) -> Option<Room> {
    most(written).map(|most| Room::new(most, queue.map(Arc::clone)))
}

/// How many requests one backend may have under way. A relayed connection is a request; Redis's shared
/// connections are not.
fn most(written: &config::Cluster) -> Option<u32> {
    let BackendLimits { max_connections, max_in_flight, .. } = written.limits;
    let connections = max_connections.filter(|_| written.backends.is_some());
    max_in_flight.into_iter().chain(connections).min()
}

fn shard(
    part: &config::Shard,
    balance: Strategy,
    member: &mut impl FnMut(&Arc<str>, &config::Member) -> Backend,
) -> Shard {
    let name: Arc<str> = part.name.as_str().into();
    let written = std::iter::once(&part.primary).chain(&part.replicas);
    let members: Vec<_> = written.map(|one| Arc::new(member(&name, one))).collect();
    let weights = shares(&members);
    let balancer = |from: usize| {
        let tiers = members.iter().skip(from).map(|member| member.tier).collect();
        let rules = Rules { strategy: balance, tiers, ..Rules::default() };
        Balancer::with(rules, weights.get(from..).unwrap_or_default())
    };
    Shard {
        name,
        replicas: balancer(1),
        any: balancer(0),
        pinned: None,
        members,
        fail_open: FailOpen::Never,
        present: Present::default(),
    }
}

/// As if every probe had passed and every server had the role that it is written in: for questions
/// about a configuration that nothing runs with.
pub fn assume_healthy(cluster: &Cluster) {
    for shard in &cluster.shards {
        for (index, member) in shard.members.iter().enumerate() {
            let role = match cluster.layout {
                Layout::Group { .. } => Role::None,
                _ if index == 0 => Role::Primary,
                _ => Role::Replica,
            };
            let axes =
                Axes { admin: member.admin(), role, health: Health::Healthy, ..Axes::default() };
            let (state, gate) = derive(axes);
            member.publish(state, gate, role, 0);
        }
    }
}

/// Gives the members the roles that they are written in: there is nobody to ask. They take requests
/// from the start, before any probe.
fn assign(shard: &Shard) {
    for (index, member) in shard.members.iter().enumerate() {
        let role = if index == 0 { Role::Primary } else { Role::Replica };
        let (admin, init) = (member.admin(), Init::Up);
        let (state, gate) = derive(Axes { admin, role, init, ..Axes::default() });
        member.publish(state, gate, role, 0);
    }
}

/// Its members take connections from the start, before any probe.
fn group(
    written: &config::Backends,
    (protocol, fail_open): (Protocol, FailOpen),
    member: &mut impl FnMut(&Arc<str>, &config::Member) -> Backend,
) -> (Layout, Vec<Shard>) {
    let nameless: Arc<str> = "".into();
    let role = Role::None;
    let members = written.members.iter().map(|one| {
        let backend = member(&nameless, one);
        let (admin, init) = (one.admin, Init::Up);
        let (state, gate) = derive(Axes { admin, role, init, ..Axes::default() });
        backend.publish(state, gate, role, 0);
        Arc::new(backend)
    });
    let members: Vec<_> = members.collect();
    let client_ip = written.sticky.as_ref().and_then(|sticky| sticky.client_ip);
    // Over HTTP what is sticky goes before the strategy, request by request.
    let http = protocol == Protocol::Http;
    let by_client = client_ip.is_some() && !http;
    let strategy = if by_client { Strategy::ClientIp } else { written.balance };
    let rules = Rules {
        strategy,
        failback: written.failback,
        ids: members.iter().map(|member| stable_id(member.name.as_bytes())).collect(),
        tiers: members.iter().map(|member| member.tier).collect(),
    };
    let pinned = (http && written.sticky.is_some())
        .then(|| Rules { strategy: Strategy::Maglev, ..rules.clone() });
    let shard = Shard {
        name: nameless,
        replicas: Balancer::new(strategy, &[]),
        any: Balancer::with(rules, &shares(&members)),
        pinned: pinned.map(|rules| Balancer::with(rules, &shares(&members))),
        members,
        fail_open,
        present: Present::default(),
    };
    let client = client_ip.unwrap_or_default();
    (Layout::Group { client, send_proxy: written.send_proxy }, vec![shard])
}

fn shares(members: &[Arc<Backend>]) -> Vec<u32> {
    members.iter().map(|member| member.effective_weight()).collect()
}
