//! From a configuration to a first snapshot. It decides nothing that the configuration did not
//! say, and starts nothing: every backend begins unknown.

use crate::{
    config::{self, Protocol, Seeds},
    net::tls,
    policy::{
        balance::{Balancer, Rules, Strategy},
        gate::{Admin, Axes, Health, Init, Role, derive},
        maglev::stable_id,
        shard::{Sharding, SlotTable},
    },
    topology::{
        Backend, Cluster, Consistency, FailOpen, Follows, Freshness, Layout, Present, Queue,
        ReadRules, Room, Shard, Topology, admission::BackendLimits,
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
    let read_rules = read_rules(&written.reads);
    let queue = queue(written);
    let mould = Mould::new(written, queue.clone(), workers);
    let mut member = |shard: &Arc<str>, member: &config::Member| {
        let id = ids.next().expect("fewer than 2^32 backends");
        let backend = mould.backend(id, shard, member);
        backend.publish_admin(member.admin);
        if member.admin != Admin::Ready {
            let (state, gate) = derive(Axes { admin: member.admin, ..Axes::default() });
            backend.publish(state, gate, Role::Unknown, 0);
        }
        backend
    };
    let (layout, shards) = match &written.backends {
        Some(backends) => {
            let nameless: Arc<str> = "".into();
            let members = backends.members.iter().map(|one| {
                let backend = member(&nameless, one);
                let (admin, init, role) = (one.admin, Init::Up, Role::None);
                let (state, gate) = derive(Axes { admin, role, init, ..Axes::default() });
                backend.publish(state, gate, role, 0);
                Arc::new(backend)
            });
            let members = members.collect();
            let client_ip = backends.sticky.as_ref().and_then(|sticky| sticky.client_ip);
            let client = client_ip.unwrap_or_default();
            let layout = Layout::Group { client, send_proxy: backends.send_proxy };
            (layout, vec![mould.shard(nameless, members)])
        }
        None => {
            let shards = written.shards.iter().map(|part| {
                let name: Arc<str> = part.name.as_str().into();
                let members = part.members().map(|one| Arc::new(member(&name, one))).collect();
                mould.shard(name, members)
            });
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
        sharding: match written.redis_cluster {
            Some(_) => Sharding::Live(Arc::new(SlotTable::default())),
            None => written.sharding.over(&written.shards),
        },
        name: Arc::clone(&mould.name),
        order: Cluster::order(&shards),
        shards,
        reads: written.reads.from,
        read_rules,
        keyless: written.keyless,
        shebang_reads: written.shebang_reads,
        timeouts: written.timeouts,
        credentials: written.upstream.clone(),
        tls: None,
        queue,
        asks_role: written.sentinel.is_some(),
        dedicated: written.dedicated,
        follows: written.redis_cluster.as_ref().map(|seeds| {
            let Seeds { accept_unknown, spoof, ref announce, .. } = *seeds;
            Arc::new(Follows { accept_unknown, spoof, announce: announce.clone() })
        }),
        outage: written.outage,
        turns: may_change(written).then(Arc::default),
        heirs: Arc::new(Semaphore::new(written.outage.queue as usize)),
    }
}

/// Whether `reads.from` does not say it all.
fn has_read_rules(written: &config::Reads) -> bool {
    promises(written) || !written.overrides.is_empty()
}

fn promises(written: &config::Reads) -> bool {
    written.consistency != Consistency::Eventual && written.leaves_primary()
}

fn read_rules(written: &config::Reads) -> Option<Arc<ReadRules>> {
    let rules = ReadRules {
        overrides: written.overrides.clone(),
        scripts_declare_keys: written.scripts_declare_keys,
        freshness: promises(written)
            .then(|| Freshness::new(written.consistency, written.window, Instant::now())),
    };
    has_read_rules(written).then(|| Arc::new(rules))
}

/// What the backends and shards of one cluster are made with, whenever that is.
#[derive(Debug)]
pub struct Mould {
    name: Arc<str>,
    written: config::Cluster,
    queue: Option<Arc<Queue>>,
    workers: usize,
}

impl Mould {
    /// `queue` is the cluster's; each backend gets a cell per worker.
    pub fn new(written: &config::Cluster, queue: Option<Arc<Queue>>, workers: usize) -> Self {
        Self { name: written.name.as_str().into(), written: written.clone(), queue, workers }
    }

    fn strategy(&self) -> Strategy {
        let reads = self.written.reads.balance;
        self.written.backends.as_ref().map_or(reads, |group| group.balance)
    }

    /// A backend that nobody knows anything of yet.
    pub fn backend(&self, id: u32, shard: &Arc<str>, member: &config::Member) -> Backend {
        let (cluster, shard) = (Arc::clone(&self.name), Arc::clone(shard));
        let address = member.address.clone();
        let mut backend = Backend::new(id, cluster, shard, address, member.weight, self.workers)
            .with_room(room(&self.written, self.queue.as_ref()))
            .with_leases(self.written.dedicated.max_per_backend);
        backend.is_timed = self.strategy() == Strategy::PeakEwma;
        backend.tier = member.tier;
        backend.has_read_rules = has_read_rules(&self.written.reads);
        backend
    }

    /// A shard of these members, of which the first is the one that is the primary as far as is
    /// known.
    pub fn shard(&self, name: Arc<str>, members: Vec<Arc<Backend>>) -> Shard {
        match &self.written.backends {
            Some(group) => self.group(group, name, members),
            None => self.with_roles(name, members),
        }
    }

    fn with_roles(&self, name: Arc<str>, members: Vec<Arc<Backend>>) -> Shard {
        let weights = shares(&members);
        let balancer = |from: usize| {
            let tiers = members.iter().skip(from).map(|member| member.tier).collect();
            let rules = Rules { strategy: self.strategy(), tiers, ..Rules::default() };
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

    fn group(&self, group: &config::Backends, name: Arc<str>, members: Vec<Arc<Backend>>) -> Shard {
        let client_ip = group.sticky.as_ref().and_then(|sticky| sticky.client_ip);
        // Over HTTP what is sticky goes before the strategy, request by request.
        let http = self.written.protocol == Protocol::Http;
        let by_client = client_ip.is_some() && !http;
        let strategy = if by_client { Strategy::ClientIp } else { group.balance };
        let rules = Rules {
            strategy,
            failback: group.failback,
            ids: members.iter().map(|member| stable_id(member.name.as_bytes())).collect(),
            tiers: members.iter().map(|member| member.tier).collect(),
        };
        let pinned = (http && group.sticky.is_some())
            .then(|| Rules { strategy: Strategy::Maglev, ..rules.clone() });
        Shard {
            name,
            replicas: Balancer::new(strategy, &[]),
            any: Balancer::with(rules, &shares(&members)),
            pinned: pinned.map(|rules| Balancer::with(rules, &shares(&members))),
            members,
            fail_open: self.written.fail_open,
            present: Present::default(),
        }
    }
}

/// Whether another member of a shard may become its primary, which nothing else counts.
fn may_change(written: &config::Cluster) -> bool {
    let has_replicas = written.shards.iter().any(|shard| !shard.replicas.is_empty());
    written.protocol == Protocol::Redis
        && written.redis_cluster.is_none()
        && (written.sentinel.is_some() || has_replicas)
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

fn shares(members: &[Arc<Backend>]) -> Vec<u32> {
    members.iter().map(|member| member.effective_weight()).collect()
}
