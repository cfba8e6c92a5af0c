//! From a group of backends or a shard to the one that takes a request or a connection. It decides
//! nothing itself: the policies do, over the gates.

use super::{Backend, Shard, admission::is_full};
use crate::policy::{
    access::Access,
    balance::{Balancer, Candidate},
    gate::Admin,
    reads::{ReadFrom, Source, order},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What balancing remembers of a session.
#[derive(Clone, Copy, Debug)]
pub struct Picker {
    /// The round-robin cursor, started at a random place.
    pub cursor: u32,
    /// What `client_ip` and `maglev` pin: the hash of the client's address, or of the request's key.
    pub key: u64,
}

/// A backend as one round of picking sees it.
struct View<'a> {
    backend: &'a Arc<Backend>,
    round: Round,
}

#[derive(Clone, Copy)]
enum Round {
    /// Those that the gate lets through, whatever their role.
    Alike,
    /// Those that the gate lets through, in a role that fits.
    Role(Source),
    /// All but those that the operator took out: core.md, `fail_open: all_down`.
    FailOpen,
}

impl Candidate for View<'_> {
    fn ready(&self) -> bool {
        if !self.backend.has_room() {
            return false;
        }
        let gate = self.backend.gate();
        let fits = match self.round {
            Round::Alike => true,
            Round::Role(Source::Replicas) => gate.replica(),
            Round::Role(Source::Primary) => gate.primary(),
            Round::Role(Source::Any) => gate.replica() || gate.primary(),
            Round::FailOpen => return self.backend.admin() == Admin::Ready,
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

/// The member of a group for one request or connection, or `None` when none is left. Bit i of
/// `tried` excludes member i. A member that is down is picked when no other is left, but not when one
/// that is ready is at its limit.
pub fn any(
    group: &Shard,
    picker: &mut Picker,
    tried: u64,
    draw: impl Fn() -> u64,
) -> Option<usize> {
    [Round::Alike, Round::FailOpen].into_iter().find_map(|round| {
        if matches!(round, Round::FailOpen) && is_full(group, tried, None) {
            return None;
        }
        let balancer = &group.any;
        balanced(balancer, &group.members, round, picker, tried, &draw)
    })
}

/// The member of a shard for one request, or `None` when no fit one is ready. Bit i of `tried`
/// excludes member i. A write goes to the primary, a read where `from` says.
pub fn select(
    shard: &Shard,
    access: Access,
    from: ReadFrom,
    picker: &mut Picker,
    tried: u64,
    draw: impl Fn() -> u64,
) -> Option<usize> {
    let from = if access == Access::Write { ReadFrom::Primary } else { from };
    order(from).into_iter().flatten().find_map(|source| match source {
        Source::Primary => untried_primary(shard, tried),
        Source::Replicas | Source::Any => of_source(shard, source, picker, tried, &draw),
    })
}

/// The shard's primary, when it is ready: the member that control gave the writes.
pub fn primary(shard: &Shard) -> Option<&Arc<Backend>> {
    shard.members.get(untried_primary(shard, 0)?)
}

fn untried_primary(shard: &Shard, tried: u64) -> Option<usize> {
    let (index, backend) =
        shard.members.iter().enumerate().find(|(_, backend)| backend.gate().primary())?;
    let gate = backend.gate();
    let untried = tried & (1 << index) == 0 && backend.has_room();
    // Last: a permit that is taken must be used, or the backend waits for its outcome.
    let ready = untried && (gate.open() || (gate.half_open() && backend.take_permit()));
    ready.then_some(index)
}

fn of_source(
    shard: &Shard,
    source: Source,
    picker: &mut Picker,
    tried: u64,
    draw: &impl Fn() -> u64,
) -> Option<usize> {
    // As long as the configured primary is one, turns are taken by the others alone.
    let as_configured = shard.members.first().is_some_and(|first| !first.gate().replica());
    let (balancer, skipped) = match source {
        Source::Replicas if as_configured => (&shard.replicas, 1),
        Source::Replicas | Source::Any | Source::Primary => (&shard.any, 0),
    };
    let members = shard.members.get(skipped..).unwrap_or_default();
    let round = Round::Role(source);
    balanced(balancer, members, round, picker, tried >> skipped, draw).map(|index| index + skipped)
}

fn balanced(
    balancer: &Balancer,
    members: &[Arc<Backend>],
    round: Round,
    picker: &mut Picker,
    mut tried: u64,
    draw: &impl Fn() -> u64,
) -> Option<usize> {
    let views: SmallVec<[View<'_>; 8]> =
        members.iter().map(|backend| View { backend, round }).collect();
    loop {
        let index = balancer.pick(&views, picker.key, tried, &mut picker.cursor, draw())?;
        let backend = members.get(index)?;
        let needs_permit = !matches!(round, Round::FailOpen) && backend.gate().half_open();
        if !needs_permit || backend.take_permit() {
            return Some(index);
        }
        tried |= 1 << index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        balance::{Balancer, Strategy},
        gate::{Axes, Health, Init, Passive, Role, derive},
    };

    const UP: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::None,
        init: Init::Up,
    };
    const UNKNOWN: Axes = Axes { health: Health::Unknown, ..UP };
    const DOWN: Axes = Axes { health: Health::Unhealthy, ..UP };
    const EJECTED: Axes = Axes { passive: Passive::Ejected, ..UP };
    const TRIAL: Axes = Axes { passive: Passive::HalfOpen, ..UP };
    const DISABLED: Axes = Axes { admin: Admin::Disabled, ..UP };
    const DRAIN: Axes = Axes { admin: Admin::Drain, ..UP };

    fn group(members: &[Axes], strategy: Strategy) -> Shard {
        let backend = |(id, axes): (u32, &Axes)| {
            let address = format!("10.0.0.{id}:1").parse().unwrap();
            let backend = Backend::new(id, "c".into(), "".into(), address, 1, 1);
            let (state, gate) = derive(*axes);
            backend.publish(state, gate, axes.role, u32::from(gate.half_open()));
            backend.publish_admin(axes.admin);
            Arc::new(backend)
        };
        Shard {
            name: "".into(),
            members: (0..).zip(members).map(backend).collect(),
            replicas: Balancer::new(strategy, &[]),
            any: Balancer::new(strategy, &vec![1; members.len()]),
        }
    }

    /// Who gets four connections one after the other; `-` is nobody.
    fn picked(members: &[Axes], tried: u64) -> String {
        let group = group(members, Strategy::RoundRobin);
        let mut picker = Picker { cursor: 0, key: 0 };
        let mut one = || any(&group, &mut picker, tried, || 7);
        (0..4).map(|_| one().map_or_else(|| "-".to_owned(), |index| index.to_string())).collect()
    }

    #[test]
    fn the_ready_ones_share_and_one_nobody_has_probed_is_ready() {
        assert_eq!(picked(&[UP, UP], 0), "0101");
        assert_eq!(picked(&[UP, UNKNOWN], 0), "0101");
        assert_eq!(picked(&[UP, DOWN, EJECTED, UP], 0), "0303");
        assert_eq!(picked(&[UP, UP], 0b1), "1111");
        assert_eq!(picked(&[UP, TRIAL], 0), "0100", "a trial is for one");
    }

    #[test]
    fn when_all_are_down_all_but_those_taken_out_by_hand_are_tried() {
        assert_eq!(picked(&[DOWN, EJECTED], 0), "0101");
        assert_eq!(picked(&[UP, DOWN], 0b1), "1111");
        assert_eq!(picked(&[DOWN, DISABLED, DRAIN], 0), "0000");
        assert_eq!(picked(&[DISABLED, DRAIN], 0), "----");
        let down_too = Axes { admin: Admin::Drain, ..DOWN };
        assert_eq!(picked(&[down_too, DOWN], 0), "1111", "by hand, and down as well");
        assert_eq!(picked(&[DOWN, DOWN], 0b11), "----");
        assert_eq!(picked(&[TRIAL], 0), "0000", "the only one is not kept for the trial");
        assert_eq!(picked(&[], 0), "----");
    }

    #[test]
    fn a_client_keeps_its_backend_and_moves_alone_when_it_goes() {
        let at = |members: &[Axes], key| {
            any(&group(members, Strategy::ClientIp), &mut Picker { cursor: 0, key }, 0, || 7)
                .unwrap()
        };
        let mut moved = 0;
        for key in 0..300 {
            let before = at(&[UP, UP, UP], key);
            assert_eq!(at(&[UP, UP, UP], key), before);
            let after = at(&[DOWN, UP, UP], key);
            assert_ne!(after, 0);
            assert!(before == 0 || before == after);
            moved += u32::from(before != after);
        }
        assert!((60..140).contains(&moved), "{moved} of 300 were at the one of three that went");
    }

    const PRIMARY: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::Primary,
        init: Init::Down,
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
    fn selected(shard: &Shard, access: Access, from: ReadFrom, tried: u64) -> String {
        let mut picker = Picker { cursor: 0, key: 0 };
        let mut one = || select(shard, access, from, &mut picker, tried, || 7);
        (0..4).map(|_| one().map_or_else(|| "-".into(), |index| index.to_string())).collect()
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
            assert_eq!(selected(&shard, Access::Read, from, 0), all, "{from:?}");
            assert_eq!(selected(&shard, Access::Read, from, 0b10), without_1, "{from:?}");
            assert_eq!(selected(&shard, Access::Write, from, 0), "0000", "{from:?}");
            assert_eq!(selected(&shard, Access::Write, from, 0b1), "----", "{from:?}");
        }
    }

    #[test]
    fn a_write_goes_to_the_member_that_control_made_the_primary_and_to_no_other() {
        let shard_of = |first| shard(&[first, PRIMARY]);
        let unknown = Axes { role: Role::Unknown, ..PRIMARY };
        for first in [REPLICA, unknown] {
            let shard = shard_of(first);
            assert_eq!(selected(&shard, Access::Write, ReadFrom::Any, 0), "1111", "{first:?}");
        }
        let out = Axes { passive: Passive::Ejected, ..PRIMARY };
        let drained = Axes { admin: Admin::Drain, ..PRIMARY };
        for first in [out, drained, unknown] {
            let shard = shard(&[first, REPLICA]);
            assert_eq!(selected(&shard, Access::Write, ReadFrom::Any, 0), "----", "{first:?}");
        }
    }

    /// A retry that may not go there took the one permit, and the backend stayed half open.
    #[test]
    fn a_primary_that_was_tried_keeps_its_permit() {
        let shard = shard(&[Axes { passive: Passive::HalfOpen, ..PRIMARY }]);
        assert_eq!(selected(&shard, Access::Write, ReadFrom::Primary, 1), "----");
        assert_eq!(selected(&shard, Access::Write, ReadFrom::Primary, 0), "0---");
    }

    #[test]
    fn only_prefer_replica_falls_back_to_the_primary() {
        let out = Axes { health: Health::Unhealthy, ..REPLICA };
        let stale = Axes { role: Role::ReplicaLinkDown, ..REPLICA };
        let shard = shard(&[PRIMARY, out, stale]);
        assert_eq!(selected(&shard, Access::Read, ReadFrom::PreferReplica, 0), "0000");
        assert_eq!(selected(&shard, Access::Read, ReadFrom::Any, 0), "0000");
        assert_eq!(selected(&shard, Access::Read, ReadFrom::Replica, 0), "----");
    }

    #[test]
    fn a_permit_of_a_half_open_gate_is_for_one_request() {
        let trial = |axes| Axes { passive: Passive::HalfOpen, ..axes };
        let replicas = || shard(&[PRIMARY, trial(REPLICA), trial(REPLICA)]);
        assert_eq!(selected(&replicas(), Access::Read, ReadFrom::Replica, 0), "12--");
        assert_eq!(selected(&replicas(), Access::Read, ReadFrom::PreferReplica, 0), "1200");
        let primary = shard(&[trial(PRIMARY), REPLICA]);
        assert_eq!(selected(&primary, Access::Write, ReadFrom::Any, 0), "0---");
    }
}
