//! The next snapshot after weights have changed: the same backends under balancers that know. Not
//! when that is: control decides it.

use super::{Backend, Cluster, Shard, Topology};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// A cursor that all workers share, and every snapshot of its shard. It is written when the present
/// backend changes, and only read otherwise.
#[derive(Clone, Debug)]
pub struct Present(Arc<AtomicU32>);

impl Present {
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves it unless another worker has done so since it was read as `from`.
    pub(super) fn move_on(&self, from: u32, to: u32) {
        if from != to {
            let _ = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Default for Present {
    /// At nobody.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(u32::MAX)))
    }
}

impl Topology {
    /// With new balancers for the weights that the backends of these clusters have now. Some
    /// milliseconds a shard at most.
    #[must_use]
    pub fn reweighed(&self, clusters: &[usize]) -> Self {
        let each = self.clusters.iter().map(|cluster| {
            if !clusters.contains(&cluster.id) {
                return Arc::clone(cluster);
            }
            let shards = cluster.shards.iter().map(Shard::reweighed).collect();
            Arc::new(Cluster { shards, ..Cluster::clone(cluster) })
        });
        Self { clusters: each.collect() }
    }
}

impl Shard {
    pub(super) fn reweighed(&self) -> Self {
        let weights: Vec<u32> =
            self.members.iter().map(|one| Backend::effective_weight(one)).collect();
        Self {
            replicas: self.replicas.reweighted(weights.get(1..).unwrap_or_default()),
            any: self.any.reweighted(&weights),
            pinned: self.pinned.as_ref().map(|pinned| pinned.reweighted(&weights)),
            ..self.clone()
        }
    }
}
