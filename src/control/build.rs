//! From a configuration to a first snapshot. It decides nothing that the configuration did not
//! say, and starts nothing: every backend begins unknown.

use crate::{
    config::{self, Protocol},
    policy::{
        balance::{Balancer, Strategy},
        gate::{Admin, Axes, Init, Role, derive},
        maglev::stable_id,
        shard::even_slots,
    },
    topology::{Backend, Cluster, Layout, Shard, Topology},
};
use std::sync::Arc;

/// The snapshot that `config` describes. Backend ids count up from 0 in the order of the file, and
/// each backend gets one cell per worker.
pub fn build(config: &config::Config, workers: usize) -> Topology {
    let mut ids = 0..u32::MAX;
    let clusters = config.clusters.iter().enumerate();
    let clusters = clusters.map(|(id, written)| cluster(id, written, workers, &mut ids));
    Topology { clusters: clusters.map(Arc::new).collect() }
}

fn cluster(
    id: usize,
    written: &config::Cluster,
    workers: usize,
    ids: &mut impl Iterator<Item = u32>,
) -> Cluster {
    let name: Arc<str> = written.name.as_str().into();
    let mut member = |shard: &Arc<str>, member: &config::Member| {
        let id = ids.next().expect("fewer than 2^32 backends");
        let (cluster, shard) = (Arc::clone(&name), Arc::clone(shard));
        let address = member.address.clone();
        let backend = Backend::new(id, cluster, shard, address, member.weight, workers);
        backend.publish_admin(member.admin);
        if member.admin != Admin::Ready {
            let (state, gate) = derive(Axes { admin: member.admin, ..Axes::default() });
            backend.publish(state, gate, Role::Unknown, 0);
        }
        backend
    };
    let (layout, shards) = match &written.backends {
        Some(backends) => group(backends, written.protocol, &mut member),
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
        slots: match layout {
            Layout::Shards | Layout::Fixed => even_slots(shards.len()),
            Layout::Group { .. } => Vec::new(),
        },
        name: Arc::clone(&name),
        shards,
        reads: written.reads.from,
        timeouts: written.timeouts,
        credentials: written.upstream.clone(),
    }
}

fn shard(
    part: &config::Shard,
    balance: Strategy,
    member: &mut impl FnMut(&Arc<str>, &config::Member) -> Backend,
) -> Shard {
    let name: Arc<str> = part.name.as_str().into();
    let written = std::iter::once(&part.primary).chain(&part.replicas);
    let members: Vec<_> = written.map(|one| Arc::new(member(&name, one))).collect();
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let replicas = weights.get(1..).unwrap_or_default();
    Shard {
        name,
        replicas: Balancer::new(balance, replicas),
        any: Balancer::new(balance, &weights),
        members,
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
    protocol: Protocol,
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
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let ids: Vec<u64> = members.iter().map(|member| stable_id(member.name.as_bytes())).collect();
    let client_ip = written.sticky.as_ref().and_then(|sticky| sticky.client_ip);
    // Over HTTP what is sticky goes before the strategy, request by request.
    let pinned = client_ip.is_some() && protocol != Protocol::Http;
    let balance = if pinned { Strategy::ClientIp } else { written.balance };
    let shard = Shard {
        name: nameless,
        members,
        replicas: Balancer::new(balance, &[]),
        any: Balancer::with_ids(balance, &weights, &ids),
    };
    let client = client_ip.unwrap_or_default();
    (Layout::Group { client, send_proxy: written.send_proxy }, vec![shard])
}
