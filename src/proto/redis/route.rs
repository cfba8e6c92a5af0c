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
    use super::*;
    use crate::{
        policy::{
            balance::{Balancer, Strategy},
            gate::{Admin, Axes, Health, Passive, Role, derive},
        },
        topology::Backend,
    };

    const PRIMARY: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::Primary,
    };
    const REPLICA: Axes = Axes { role: Role::Replica, ..PRIMARY };

    /// A shard of members in these states; a half-open one has one permit.
    fn shard(members: &[Axes]) -> Shard {
        let backend = |(id, axes): (u32, &Axes)| {
            let address = format!("10.0.0.{id}:6379").parse().unwrap();
            let backend = Backend::new(id, "main".into(), "s0".into(), address, 1, 1);
            let (state, gate) = derive(*axes);
            backend.publish(state, gate, axes.role, u32::from(gate.half_open()));
            Arc::new(backend)
        };
        let weights = vec![1; members.len()];
        Shard {
            name: "s0".into(),
            members: (0..).zip(members).map(backend).collect(),
            replicas: Balancer::new(Strategy::RoundRobin, &weights[1..]),
            any: Balancer::new(Strategy::RoundRobin, &weights),
        }
    }

    /// Who gets so many requests one after the other, as digits; `-` is nobody.
    fn picked(shard: &Shard, access: Access, from: ReadFrom, tried: u64) -> String {
        let mut picker = Picker { cursor: 0, key: 0 };
        let mut one = || select(shard, access, from, &mut picker, tried, || 7);
        (0..4).map(|_| one().map_or_else(|| "-".into(), |b| b.id.to_string())).collect()
    }

    #[test]
    fn reads_go_where_the_policy_says() {
        let shard = shard(&[PRIMARY, REPLICA, REPLICA]);
        for (from, all, without_1) in [
            (ReadFrom::Primary, "0000", "0000"),
            (ReadFrom::Replica, "1212", "2222"),
            (ReadFrom::PreferReplica, "1212", "2222"),
            (ReadFrom::Any, "0120", "0202"),
        ] {
            assert_eq!(picked(&shard, Access::Read, from, 0), all, "{from:?}");
            assert_eq!(picked(&shard, Access::Read, from, 0b10), without_1, "{from:?}");
            assert_eq!(picked(&shard, Access::Write, from, 0), "0000", "{from:?}");
            assert_eq!(picked(&shard, Access::Write, from, 0b1), "----", "{from:?}");
        }
    }

    #[test]
    fn a_write_goes_to_the_member_that_control_made_the_primary_and_to_no_other() {
        let shard_of = |first| shard(&[first, PRIMARY]);
        let unknown = Axes { role: Role::Unknown, ..PRIMARY };
        for first in [REPLICA, unknown] {
            let shard = shard_of(first);
            assert_eq!(picked(&shard, Access::Write, ReadFrom::Any, 0), "1111", "{first:?}");
        }
        let out = Axes { passive: Passive::Ejected, ..PRIMARY };
        let drained = Axes { admin: Admin::Drain, ..PRIMARY };
        for first in [out, drained, unknown] {
            let shard = shard(&[first, REPLICA]);
            assert_eq!(picked(&shard, Access::Write, ReadFrom::Any, 0), "----", "{first:?}");
        }
    }

    /// A retry that may not go there took the one permit, and the backend stayed half open.
    #[test]
    fn a_primary_that_was_tried_keeps_its_permit() {
        let shard = shard(&[Axes { passive: Passive::HalfOpen, ..PRIMARY }]);
        assert_eq!(picked(&shard, Access::Write, ReadFrom::Primary, 1), "----");
        assert_eq!(picked(&shard, Access::Write, ReadFrom::Primary, 0), "0---");
    }

    #[test]
    fn only_prefer_replica_falls_back_to_the_primary() {
        let out = Axes { health: Health::Unhealthy, ..REPLICA };
        let stale = Axes { role: Role::ReplicaLinkDown, ..REPLICA };
        let shard = shard(&[PRIMARY, out, stale]);
        assert_eq!(picked(&shard, Access::Read, ReadFrom::PreferReplica, 0), "0000");
        assert_eq!(picked(&shard, Access::Read, ReadFrom::Any, 0), "0000");
        assert_eq!(picked(&shard, Access::Read, ReadFrom::Replica, 0), "----");
    }

    #[test]
    fn a_permit_of_a_half_open_gate_is_for_one_request() {
        let trial = |axes| Axes { passive: Passive::HalfOpen, ..axes };
        let replicas = || shard(&[PRIMARY, trial(REPLICA), trial(REPLICA)]);
        assert_eq!(picked(&replicas(), Access::Read, ReadFrom::Replica, 0), "12--");
        assert_eq!(picked(&replicas(), Access::Read, ReadFrom::PreferReplica, 0), "1200");
        let primary = shard(&[trial(PRIMARY), REPLICA]);
        assert_eq!(picked(&primary, Access::Write, ReadFrom::Any, 0), "0---");
    }

    #[test]
    fn a_client_hears_who_is_missing_and_how_each_one_is() {
        let out = Axes { health: Health::Unhealthy, ..REPLICA };
        let shard = shard(&[Axes { passive: Passive::Ejected, ..PRIMARY }, out]);
        assert_eq!(
            why_not(&shard, Access::Write, ReadFrom::Any),
            "shard s0 has no primary: 10.0.0.0:6379 is ejected (primary), \
             10.0.0.1:6379 is unhealthy (replica)"
        );
        assert_eq!(
            why_not(&shard, Access::Read, ReadFrom::Replica),
            "shard s0 has no replica: 10.0.0.0:6379 is ejected (primary), \
             10.0.0.1:6379 is unhealthy (replica)"
        );
    }
}
