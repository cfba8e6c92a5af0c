//! From a configuration to a first snapshot. It decides nothing that the configuration did not
//! say, and starts nothing: every backend begins unknown.

use crate::{
    config,
    policy::{balance::Balancer, shard::even_slots},
    topology::{Backend, Cluster, Shard, Topology},
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
    let shards = written.shards.iter().map(|part| {
        let shard: Arc<str> = part.name.as_str().into();
        let members: Vec<_> = std::iter::once(&part.primary)
            .chain(&part.replicas)
            .zip(&mut *ids)
            .map(|(member, id)| {
                Arc::new(Backend::new(
                    id,
                    Arc::clone(&name),
                    Arc::clone(&shard),
                    member.address.clone(),
                    member.weight,
                    workers,
                ))
            })
            .collect();
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let replicas = weights.get(1..).unwrap_or_default();
        Shard {
            name: shard,
            replicas: Balancer::new(written.reads.balance, replicas),
            any: Balancer::new(written.reads.balance, &weights),
            members,
        }
    });
    let shards: Vec<_> = shards.collect();
    Cluster {
        id,
        slots: even_slots(shards.len()),
        name: Arc::clone(&name),
        shards,
        reads: written.reads.from,
        timeouts: written.timeouts,
        credentials: written.upstream.clone(),
    }
}
