//! Which shard owns a key, and why a shard takes no request. Not which of its members does: see
//! [`crate::topology::pick`].

use crate::{
    policy::{access::Access, reads::ReadFrom, slot::slot},
    topology::{Cluster, Shard},
};

/// The index of the shard that owns `key`.
pub(super) fn shard_of(cluster: &Cluster, key: &[u8]) -> usize {
    if cluster.shards.len() == 1 {
        return 0;
    }
    cluster.slots.get(usize::from(slot(key))).copied().map_or(0, usize::from)
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

/// An error names at most so many members.
const MEMBERS_TOLD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{
            balance::{Balancer, Strategy},
            gate::{Admin, Axes, Health, Init, Life, Passive, Role, derive},
        },
        topology::Backend,
    };
    use std::sync::Arc;

    const PRIMARY: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::Primary,
        init: Init::Down,
        life: Life::Steady,
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
            pinned: None,
            fail_open: Default::default(),
            present: Default::default(),
        }
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
