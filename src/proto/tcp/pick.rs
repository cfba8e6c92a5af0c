//! From a group of backends that are all alike to the one that takes a connection. It decides
//! nothing itself: the balancer does, over the gates.

use crate::{
    policy::{balance::Candidate, gate::State},
    topology::{Backend, Shard},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// A backend as one round of picking sees it.
struct View<'a> {
    backend: &'a Arc<Backend>,
    round: Round,
}

#[derive(Clone, Copy)]
enum Round {
    /// Those that the gate lets through.
    Ready,
    /// All but those that the operator took out: core.md, `fail_open: all_down`.
    FailOpen,
}

impl Candidate for View<'_> {
    fn ready(&self) -> bool {
        let gate = self.backend.gate();
        match self.round {
            Round::Ready => gate.open() || (gate.half_open() && self.backend.has_permit()),
            Round::FailOpen => !matches!(self.backend.state(), State::Disabled | State::Drain),
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.backend.in_flight()).unwrap_or(u32::MAX)
    }

    fn weight(&self) -> u32 {
        self.backend.weight
    }
}

/// The place of the member for one connection, or `None` when none is left. Bit i of `tried`
/// excludes member i; `key` is what `client_ip` pins. A member that is down is picked when no other
/// is left: nothing was sent, so trying costs the client only time.
pub(super) fn pick(
    group: &Shard,
    key: u64,
    tried: u64,
    cursor: &mut u32,
    draw: impl Fn() -> u64,
) -> Option<usize> {
    for round in [Round::Ready, Round::FailOpen] {
        let mut out = tried;
        let views: SmallVec<[View<'_>; 8]> =
            group.members.iter().map(|backend| View { backend, round }).collect();
        while let Some(index) = group.any.pick(&views, key, out, cursor, draw()) {
            let backend = group.members.get(index)?;
            let needs_permit = matches!(round, Round::Ready) && backend.gate().half_open();
            if !needs_permit || backend.take_permit() {
                return Some(index);
            }
            out |= 1 << index;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        balance::{Balancer, Strategy},
        gate::{Admin, Axes, Health, Passive, Role, derive},
    };

    const UP: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::None,
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
        let mut cursor = 0;
        let mut one = || pick(&group, 0, tried, &mut cursor, || 7);
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
        assert_eq!(picked(&[DOWN, DOWN], 0b11), "----");
        assert_eq!(picked(&[TRIAL], 0), "0000", "the only one is not kept for the trial");
        assert_eq!(picked(&[], 0), "----");
    }

    #[test]
    fn a_client_keeps_its_backend_and_moves_alone_when_it_goes() {
        let at = |members: &[Axes], key| {
            pick(&group(members, Strategy::ClientIp), key, 0, &mut 0, || 7).unwrap()
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
}
