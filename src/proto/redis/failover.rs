//! Requests that need the primary of a shard that has none for the moment: they wait with us, before
//! anything of them is sent, and their session's later ones behind them. Not which server is the next
//! primary: control finds that out.

use super::{
    dispatch::{Flow, Scene},
    hub::Hub,
    waiting::Waiting,
};
use crate::{
    policy::{access::Access, reads::ReadFrom},
    topology::{Cluster, Shard},
};
use foldhash::HashMap;
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::sync::{Notify, OwnedSemaphorePermit as Permit};

/// What a worker knows of shards without a primary.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    /// Since when a shard of a cluster has had none, as its requests found.
    since_us: RefCell<HashMap<(usize, Arc<str>), u64>>,
    /// A gate has changed: perhaps there is one.
    changed: Arc<Notify>,
}

/// A session whose next request waits for a primary.
#[derive(Debug)]
pub(super) struct Heir {
    since_us: u64,
    _place: Permit,
}

impl Failovers {
    /// A gate has changed.
    pub(super) fn gates_changed(&self) {
        self.changed.notify_waiters();
    }
}

impl Scene<'_> {
    /// Nobody takes a request for `shard` now: it is held for the next primary, or its client hears
    /// why not.
    pub(super) fn not_served(&mut self, shard: usize, access: Access, at_primary: bool) -> Flow {
        let needs_primary = at_primary || self.lacks_fresh_replica();
        if self.awaits_primary([shard], access, needs_primary) || self.awaits_owner(shard) {
            return Flow::Hold;
        }
        self.refuse(access, |out| self.unserved(shard, access, at_primary, out))
    }

    /// Whether a request for these shards has to be held, for one of them has no primary and is about
    /// to have another. Of what goes to several nothing is sent before all of them have one.
    pub(super) fn awaits_primary(
        &mut self,
        shards: impl IntoIterator<Item = usize>,
        access: Access,
        at_primary: bool,
    ) -> bool {
        let outage = self.cluster.outage;
        let from = if at_primary { ReadFrom::Primary } else { self.reading.from };
        if outage.wait.is_zero() || access == Access::Read && from != ReadFrom::Primary {
            return false;
        }
        let mut shards = shards.into_iter();
        let headless = shards.find(|index| {
            let shard = self.cluster.shards.get(*index);
            shard.is_some_and(|shard| is_headless(shard) && may_change(shard))
        });
        let shard = headless.and_then(|index| self.cluster.shards.get(index));
        let Some(name) = shard.map(|shard| Arc::clone(&shard.name)) else { return false };
        self.holds(name, outage.wait, outage.longest())
    }

    fn holds(&mut self, shard: Arc<str>, wait: Duration, longest: Duration) -> bool {
        let failovers = &self.hub.failovers;
        let since_us =
            *failovers.since_us.borrow_mut().entry((self.cluster.id, shard)).or_insert(self.now_us);
        let begun_us = self.state.heir.as_ref().map_or(self.now_us, |heir| heir.since_us);
        let left = wait.saturating_sub(Duration::from_micros(self.now_us.saturating_sub(begun_us)));
        let missing = Duration::from_micros(self.now_us.saturating_sub(since_us));
        if left.is_zero() || missing > longest {
            return false;
        }
        if self.state.heir.is_none() {
            let Ok(place) = Arc::clone(&self.cluster.heirs).try_acquire_owned() else {
                return false;
            };
            self.state.heir = Some(Box::new(Heir { since_us: self.now_us, _place: place }));
            if let Some(metrics) = self.hub.metrics.clusters.get(self.cluster.id) {
                metrics.failover_waits.add(1);
            }
        }
        let changed = Arc::clone(&failovers.changed).notified_owned();
        self.state.waiting = Waiting::until(async move {
            let _ = tokio::time::timeout(left, changed).await;
        });
        self.client.look_ahead();
        true
    }
}

/// Shards that have a primary again, or are no more, are forgotten; called once a second.
pub(super) fn sweep(hub: &Hub) {
    if hub.failovers.since_us.borrow().is_empty() {
        return;
    }
    let mut topology = hub.topology();
    let clusters = &topology.snapshot().clusters;
    hub.failovers.since_us.borrow_mut().retain(|(cluster, shard), _| {
        let shards = clusters.get(*cluster).into_iter().flat_map(|cluster| &cluster.shards);
        shards.filter(|one| one.name == *shard).any(is_headless)
    });
}

/// Whether that shard may have another primary, for which its requests wait.
pub(super) fn has_heirs(cluster: &Cluster, shard: &str) -> bool {
    let found = cluster.shards.iter().find(|one| *one.name == *shard);
    !cluster.outage.wait.is_zero() && found.is_some_and(may_change)
}

/// Whether another server may become the primary of a shard: a lone one has nobody beside it.
pub(super) fn may_change(shard: &Shard) -> bool {
    shard.members.len() != 1
}

/// Whether nobody is the primary of a shard, in whatever state.
fn is_headless(shard: &Shard) -> bool {
    !shard.members.iter().any(|member| {
        let gate = member.gate();
        gate.primary() && (gate.open() || gate.half_open())
    })
}

#[cfg(test)]
mod tests;
