//! From a key or a shard to the backend that takes the request. It decides nothing itself: the
//! policies do, over the gates of the snapshot.

use crate::{
    policy::{
        access::Access,
        balance::Candidate,
        reads::{ReadFrom, Source, order},
        slot::slot,
    },
    topology::{Backend, Cluster, Shard},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What balancing remembers of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picker {
    /// The round-robin cursor, started at a random place.
    pub cursor: u32,
    /// The hash of the client's address.
    pub key: u64,
}

/// A backend as one source of reads sees it.
struct View<'a> {
    backend: &'a Arc<Backend>,
    source: Source,
}

impl Candidate for View<'_> {
    fn ready(&self) -> bool {
        let gate = self.backend.gate();
        let fits = match self.source {
            Source::Replicas => gate.replica(),
            Source::Primary => gate.primary(),
            Source::Any => gate.replica() || gate.primary(),
        };
        fits && (gate.open() || (gate.half_open() && self.backend.has_permit()))
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.backend.in_flight()).unwrap_or(u32::MAX)
    }

    fn weight(&self) -> u32 {
        self.backend.weight
    }
}

/// The index of the shard that owns `key`.
pub(super) fn shard_of(cluster: &Cluster, key: &[u8]) -> usize {
    if cluster.shards.len() == 1 {
        return 0;
    }
    cluster.slots.get(usize::from(slot(key))).copied().map_or(0, usize::from)
}

/// The backend for one request, or `None` when no fit one is ready. Bit i of `tried` excludes
/// member i. `replica_ok`: a read that a replica may answer.
pub(super) fn select<'s>(
    shard: &'s Shard,
    access: Access,
    from: ReadFrom,
    picker: &mut Picker,
    tried: u64,
    draw: impl Fn() -> u64,
) -> Option<&'s Arc<Backend>> {
    let from = if access == Access::Write { ReadFrom::Primary } else { from };
    order(from).into_iter().flatten().find_map(|source| match source {
        Source::Primary => untried_primary(shard, tried),
        Source::Replicas | Source::Any => pick(shard, source, picker, tried, &draw),
    })
}

/// The shard's primary, when it is ready: the member that control gave the writes.
pub(super) fn primary(shard: &Shard) -> Option<&Arc<Backend>> {
    untried_primary(shard, 0)
}

fn untried_primary(shard: &Shard, tried: u64) -> Option<&Arc<Backend>> {
    let (index, backend) =
        shard.members.iter().enumerate().find(|(_, backend)| backend.gate().primary())?;
    let gate = backend.gate();
    let untried = tried & (1 << index) == 0;
    // Last: a permit that is taken must be used, or the backend waits for its outcome.
    let ready = untried && (gate.open() || (gate.half_open() && backend.take_permit()));
    ready.then_some(backend)
}

/// Why a shard took no request, for the client.
pub(super) fn why_not(shard: &Shard, access: Access, from: ReadFrom) -> String {
    let whom = match (access, from) {
        (Access::Read, ReadFrom::Replica) => "replica",
        (Access::Read, ReadFrom::PreferReplica | ReadFrom::Any) => "server for reads",
        (Access::Write, _) | (Access::Read, ReadFrom::Primary) => "primary",
    };
    let states: Vec<String> = shard
        .members
        .iter()
        .take(MEMBERS_TOLD)
        .map(|b| format!("{} is {} ({})", b.name, b.state().as_str(), b.role().as_str()))
        .collect();
    format!("shard {} has no {whom}: {}", shard.name, states.join(", "))
}

fn pick<'s>(
    shard: &'s Shard,
    source: Source,
    picker: &mut Picker,
    mut tried: u64,
    draw: &impl Fn() -> u64,
) -> Option<&'s Arc<Backend>> {
    // As long as the configured primary is one, turns are taken by the others alone.
    let as_configured = shard.members.first().is_some_and(|first| !first.gate().replica());
    let (balancer, skipped) = match source {
        Source::Replicas if as_configured => (&shard.replicas, 1),
        Source::Replicas | Source::Any | Source::Primary => (&shard.any, 0),
    };
    let members = shard.members.get(skipped..).unwrap_or_default();
    let views: SmallVec<[View<'_>; 8]> =
        members.iter().map(|backend| View { backend, source }).collect();
    loop {
        let index =
            balancer.pick(&views, picker.key, tried >> skipped, &mut picker.cursor, draw())?;
        let backend = members.get(index)?;
        if !backend.gate().half_open() || backend.take_permit() {
            return Some(backend);
        }
        tried |= 1 << (index + skipped);
    }
}

/// An error names at most so many members.
const MEMBERS_TOLD: usize = 8;

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::policy::gate::{Axes, Health, Passive, Role, derive};

    /// A retry that may not go there took the one permit, and the backend stayed half open.
    #[test]
    fn a_primary_tried_before_keeps_its_permit() {
        let cluster = testing::cluster();
        let [shard] = &cluster.shards[..] else { unreachable!() };
        let (state, gate) = derive(Axes {
            health: Health::Healthy,
            passive: Passive::HalfOpen,
            role: Role::Primary,
            ..Axes::default()
        });
        shard.members[0].publish(state, gate, Role::Primary, 1);
        let mut picker = Picker { cursor: 0, key: 0 };
        let mut chosen =
            |tried| select(shard, Access::Write, ReadFrom::Any, &mut picker, tried, || 0);
        assert!(chosen(1).is_none());
        assert!(chosen(0).is_some());
        assert!(chosen(0).is_none());
    }
}
