//! From a group of backends or a shard to the one that takes a request or a connection. It decides
//! nothing itself: the policies do, over the gates.

use super::{Backend, FailOpen, Shard, admission::is_full};
use crate::policy::{
    access::Access,
    balance::{Balancer, Candidate},
    gate::Admin,
    latency::Pace,
    reads::{ReadFrom, Source, order},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What balancing remembers of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Picker {
    /// The round-robin cursor, started at a random place.
    pub cursor: u32,
    /// What `client_ip` and `maglev` pin: the hash of the client's address, or of the request's key.
    pub key: u64,
    /// When this is, in microseconds on the workers' clock; only `peak_ewma` looks.
    pub now_us: u64,
}

/// A backend as one round of picking sees it.
struct View<'a> {
    backend: &'a Arc<Backend>,
    round: Round,
    now_us: u64,
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
        self.backend.effective_weight()
    }

    fn pace(&self) -> Pace {
        self.backend.pace(self.now_us)
    }
}

/// The member of a group for one request or connection, or `None` when none is left. Bit i of
/// `tried` excludes member i. A member that is down is picked when no other is left and the group
/// fails open, but not when one that is ready is at its limit.
pub fn any(
    group: &Shard,
    picker: &mut Picker,
    tried: u64,
    draw: impl Fn() -> u64,
) -> Option<usize> {
    let open = (group.fail_open == FailOpen::AllDown).then_some(Round::FailOpen);
    let balance = |picker: &mut Picker| {
        std::iter::once(Round::Alike).chain(open).find_map(|round| {
            if matches!(round, Round::FailOpen) && is_full(group, tried, None) {
                return None;
            }
            balanced(&group.any, &group.members, round, picker, tried, &draw)
        })
    };
    if !group.any.shares_cursor() {
        return balance(picker);
    }
    let present = group.present.get();
    let mut shared = Picker { cursor: present, ..*picker };
    let index = balance(&mut shared);
    group.present.move_on(present, shared.cursor);
    index
}

/// The member of a group that a key belongs to, as [`any`]; `None` too when no member is ready, or
/// keys say nothing in this group.
pub fn pinned(
    group: &Shard,
    picker: &mut Picker,
    tried: u64,
    draw: impl Fn() -> u64,
) -> Option<usize> {
    let balancer = group.pinned.as_ref()?;
    balanced(balancer, &group.members, Round::Alike, picker, tried, &draw)
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
        members.iter().map(|backend| View { backend, round, now_us: picker.now_us }).collect();
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
    use super::{super::Lease, *};
    use crate::policy::{
        balance::{Balancer, Failback, Rules, Strategy},
        dice::Dice,
        gate::{Axes, Health, Init, Life, Passive, Role, derive},
    };

    const UP: Axes = Axes {
        admin: Admin::Ready,
        health: Health::Healthy,
        passive: Passive::Closed,
        role: Role::None,
        init: Init::Up,
        life: Life::Steady,
    };
    const UNKNOWN: Axes = Axes { health: Health::Unknown, ..UP };
    const DOWN: Axes = Axes { health: Health::Unhealthy, ..UP };
    const EJECTED: Axes = Axes { passive: Passive::Ejected, ..UP };
    const TRIAL: Axes = Axes { passive: Passive::HalfOpen, ..UP };
    const DISABLED: Axes = Axes { admin: Admin::Disabled, ..UP };
    const DRAIN: Axes = Axes { admin: Admin::Drain, ..UP };

    fn group(members: &[Axes], strategy: Strategy) -> Shard {
        let rules = Rules { strategy, ..Rules::default() };
        group_by(members, rules, FailOpen::AllDown)
    }

    fn group_by(members: &[Axes], rules: Rules, fail_open: FailOpen) -> Shard {
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
            replicas: Balancer::new(rules.strategy, &[]),
            any: Balancer::with(rules, &vec![1; members.len()]),
            pinned: None,
            fail_open,
            present: Default::default(),
        }
    }

    /// Who gets four connections one after the other; `-` is nobody.
    fn picked(members: &[Axes], tried: u64) -> String {
        let group = group(members, Strategy::RoundRobin);
        let mut picker = Picker::default();
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
    fn a_group_that_never_fails_open_finds_nobody_when_all_are_down() {
        let rules = Rules { strategy: Strategy::RoundRobin, ..Rules::default() };
        let group = group_by(&[DOWN, EJECTED], rules, FailOpen::Never);
        assert_eq!(any(&group, &mut Picker::default(), 0, || 7), None);
    }

    /// Moves a member to where these axes put it.
    fn put(group: &Shard, index: usize, axes: Axes) {
        let (state, gate) = derive(axes);
        group.members[index].publish(state, gate, axes.role, u32::from(gate.half_open()));
    }

    #[test]
    fn failover_by_hand_is_where_it_is_for_all_workers_and_every_snapshot() {
        let rules =
            Rules { strategy: Strategy::Failover, failback: Failback::Manual, ..Rules::default() };
        let group = group_by(&[UP, UP, UP], rules, FailOpen::AllDown);
        // Each pick is another session's, with a cursor of its own.
        let pick = |group: &Shard, cursor, tried| {
            let mut picker = Picker { cursor, ..Picker::default() };
            let index = any(group, &mut picker, tried, || 7).unwrap();
            assert_eq!(picker.cursor, cursor, "a session's own cursor is left alone");
            index
        };
        assert_eq!((pick(&group, 5, 0), pick(&group, 1, 0)), (0, 0));
        assert_eq!((pick(&group, 5, 0b1), pick(&group, 1, 0)), (1, 0), "a retry moves nobody else");
        put(&group, 0, EJECTED);
        assert_eq!((pick(&group, 2, 0), pick(&group, 9, 0)), (1, 1));
        put(&group, 0, UP);
        assert_eq!(pick(&group, 0, 0), 1, "not back by itself");
        let next = group.reweighed();
        put(&group, 1, DRAIN);
        assert_eq!((pick(&next, 2, 0), pick(&group, 2, 0)), (0, 0));
        put(&group, 1, UP);
        for index in 0..3 {
            put(&group, index, DOWN);
        }
        assert_eq!(pick(&next, 2, 0), 0, "when all are down it stays");
    }

    #[test]
    fn peak_ewma_leaves_who_fails_fast_and_tries_it_again_later() {
        let mut group = group(&[UP, UP, UP], Strategy::PeakEwma);
        for member in &mut group.members {
            Arc::get_mut(member).unwrap().is_timed = true;
        }
        let dice = std::cell::Cell::new(Dice::new(3));
        let draw = || {
            let mut now = dice.get();
            let drawn = now.next();
            dice.set(now);
            drawn
        };
        let share = |now_us| {
            let mut picker = Picker { now_us, ..Picker::default() };
            (0..1_000).filter(|_| any(&group, &mut picker, 0, draw) == Some(1)).count()
        };
        group.members.iter().for_each(|member| member.publish_usual(1_000.0));
        for now_us in 1..20 {
            for (index, member) in group.members.iter().enumerate() {
                let took_us = if index == 1 { 10 } else { 1_000 };
                Lease::claim(0, Arc::clone(member)).unwrap().observe(now_us, took_us, index == 1);
            }
        }
        assert_eq!(share(20), 0);
        assert_eq!(share(4_000_000), 0, "20 times the usual are some seconds");
        for index in [0, 2] {
            group.members[index].observe(0, 20_000_000, 1_000, false);
        }
        let later = share(20_000_000);
        assert!(later > 300, "{later} of 1,000 after 20s");
    }

    #[test]
    fn nobody_is_timed_where_no_balancer_asks() {
        let group = group(&[UP], Strategy::P2c);
        group.members[0].observe(0, 5, 1_000, true);
        assert_eq!(group.members[0].good_us().sum::<f64>(), 0.0);
        assert_eq!(group.members[0].pace(5).us, 1.0);
    }

    #[test]
    fn a_client_keeps_its_backend_and_moves_alone_when_it_goes() {
        let at = |members: &[Axes], key| {
            any(
                &group(members, Strategy::ClientIp),
                &mut Picker { key, ..Picker::default() },
                0,
                || 7,
            )
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

    #[test]
    fn a_key_is_pinned_while_its_member_is_ready_and_to_one_other_after() {
        let at = |members: &[Axes], key, tried| {
            let group = Shard {
                pinned: Some(Balancer::new(Strategy::Maglev, &vec![1; members.len()])),
                ..group(members, Strategy::RoundRobin)
            };
            pinned(&group, &mut Picker { key, ..Picker::default() }, tried, || 7)
        };
        for key in 0..100 {
            let home = at(&[UP, UP, UP], key, 0).unwrap();
            let other = at(&[UP, UP, UP], key, 1 << home).unwrap();
            let mut one_out = [UP; 3];
            for axes in [DOWN, EJECTED, DISABLED, DRAIN] {
                one_out[home] = axes;
                assert_eq!(at(&one_out, key, 0), Some(other), "{axes:?}");
            }
        }
        assert_eq!(at(&[DOWN, DOWN], 7, 0), None, "then the strategy says who");
        let without = group(&[UP, UP], Strategy::RoundRobin);
        assert_eq!(pinned(&without, &mut Picker::default(), 0, || 7), None);
    }

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
            fail_open: FailOpen::Never,
            present: Default::default(),
        }
    }

    /// Who gets so many requests one after the other, as digits; `-` is nobody.
    fn selected(shard: &Shard, access: Access, from: ReadFrom, tried: u64) -> String {
        let mut picker = Picker::default();
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
