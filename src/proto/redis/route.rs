//! Which cluster and which shard own a key, and why a shard takes no request. Not which of its members does: see
//! [`crate::topology::pick`].

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    flight,
    hub::Hub,
    keys::{self, KeyIndexes},
    reply,
    table::Commands,
    wire,
};
use crate::{
    policy::{access::Access, reads::ReadFrom},
    topology::{Cluster, Shard},
};
use std::rc::Rc;

/// Which keys a cluster has, by how they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub prefix: Vec<u8>,
    /// The servers get the key without it.
    pub strip: bool,
    /// The cluster's place in the snapshot.
    pub cluster: usize,
}

/// The commands of each route's cluster; empty when there is none, or one is gone.
pub(super) fn tables(hub: &Hub, routes: &[Route]) -> Vec<Rc<Commands>> {
    let tables: Option<Vec<_>> = routes.iter().map(|route| hub.commands(route.cluster)).collect();
    tables.unwrap_or_default()
}

impl Scene<'_> {
    /// A request that goes to the cluster of its keys; without keys to the listener's own.
    pub(super) fn routed(&mut self, args: Args<'_>) -> Flow {
        let user = self.state.who.user.as_ref();
        let Some(command) = self.commands.find(args).filter(|_| self.state.authenticated) else {
            return self.in_cluster(args);
        };
        let found = keys::keys(command, args).unwrap_or_default();
        let routes = &self.settings.routes;
        let of = |at| {
            let key = args.get(at).unwrap_or_default();
            routes.iter().position(|route| key.starts_with(&route.prefix))
        };
        let mut places = found.map(of);
        let first = places.next().flatten();
        let own = user.is_some_and(|user| user.cluster.is_some());
        let Some(place) = first.filter(|_| !own) else {
            if !own && places.any(|place| place.is_some()) {
                return self.spoil(|out| out.extend_from_slice(reply::SEVERAL_CLUSTERS));
            }
            return self.in_cluster(args);
        };
        // Two prefixes may lead to one cluster, but what is left out differs.
        if places.any(|other| other != Some(place)) {
            return self.spoil(|out| out.extend_from_slice(reply::SEVERAL_CLUSTERS));
        }
        if self.is_in_transaction() {
            return self.spoil(|out| out.extend_from_slice(reply::TRANSACTION_ROUTE));
        }
        let (Some(route), Some(commands)) = (routes.get(place), self.tables.get(place)) else {
            return self.in_cluster(args);
        };
        let Some(cluster) = self.clusters.get(route.cluster) else { return self.in_cluster(args) };
        let before = (self.cluster, self.commands, self.coalesce);
        let coalesce = flight::coalesces(self.hub, self.settings, cluster);
        (self.cluster, self.commands, self.coalesce) = (cluster, commands, coalesce);
        let flow = match route.strip {
            // Users have their keys as they say them.
            true => self.is_refused(command, args).unwrap_or_else(|| {
                self.is_checked = true;
                let flow = self.stripped(args, found, route.prefix.len());
                self.is_checked = false;
                flow
            }),
            false => self.in_cluster(args),
        };
        (self.cluster, self.commands, self.coalesce) = before;
        flow
    }

    /// The request with its keys as the servers have them.
    fn stripped(&mut self, args: Args<'_>, keys: KeyIndexes, prefix: usize) -> Flow {
        let mut is_key = vec![false; args.len()];
        for at in keys {
            if let Some(slot) = is_key.get_mut(at) {
                *slot = true;
            }
        }
        let mut frame = Vec::with_capacity(args.frame.len());
        wire::array(&mut frame, args.len());
        for (arg, is_key) in args.iter().zip(is_key) {
            wire::bulk(
                &mut frame,
                if is_key { arg.get(prefix..).unwrap_or_default() } else { arg },
            );
        }
        self.frame(frame)
    }
}

/// The index of the shard that owns `key`.
pub(super) fn shard_of(cluster: &Cluster, key: &[u8]) -> usize {
    cluster.sharding.owner(key)
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
    let states = match states.is_empty() {
        true => "it is not known who its members are".to_owned(),
        false => states.join(", "),
    };
    format!("shard {} has no {whom}: {states}", shard.name)
}

/// An error names at most so many members.
const MEMBERS_TOLD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{
            balance::{Balancer, Strategy},
            gate::{Axes, Health, Passive, Role, derive},
        },
        topology::Backend,
    };
    use std::sync::Arc;

    const PRIMARY: Axes = Axes::healthy(Role::Primary);
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
