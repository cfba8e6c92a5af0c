//! Every backend that control watches, shard by shard: takes what probes and workers bring, moves
//! the machines of policy, and publishes what follows. It does no I/O and reads no clock but for
//! the time of an event.

mod measure;
mod members;
mod operate;
mod weights;

use super::{
    events::{Event, Events, wall_clock_ms},
    health::{SUSPECT_PROBES, SUSPECT_TIMEOUT},
    lag::Offsets,
    numbered::Numbered,
    prober::Spec,
    watch::{PASSED, Probed, Watch, serves, totals},
};
use crate::{
    config::{Check, Config},
    net::{addr::Address, tls},
    policy::{
        gate::{Admin, Axes, Health, Passive, Role, State, derive},
        health::jitter,
        outlier::{self, Cause, may_eject},
        reads::ReadFrom,
        shard::SlotTable,
    },
    proto::redis::probe::{Code, ProbeError, Report},
    topology::{Backend, Layout, Outcome, Report as Told, Topology},
};
pub(super) use members::{News, Part};
pub(super) use operate::Wish;
use std::{
    fmt,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// All backends; the index of one is its id.
pub(super) struct Table {
    watches: Numbered<Watch>,
    groups: Numbered<Group>,
    /// By cluster.
    terms: Vec<Terms>,
    /// Who has which seat.
    seats: Vec<Weak<Backend>>,
    events: Events,
    /// Clusters whose balancers are older than the weights of their backends.
    reweighed: Vec<usize>,
    on_change: Arc<dyn Fn() + Send + Sync>,
}

/// How the backends of a cluster are watched.
#[derive(Debug)]
struct Terms {
    spec: Spec,
    tls: Option<tls::Client>,
    check: Check,
    slow_start: Duration,
    reads: ReadFrom,
    sampling: measure::Sampling,
    /// Its members are asked for their roles.
    has_roles: bool,
    /// Nobody has said yet who its members are.
    awaited: bool,
    /// Where requests look up who owns a slot; other tables of the cluster count the same turns.
    slots: Option<Arc<SlotTable>>,
    /// Counted up before another member of a shard gets its writes.
    turns: Option<Arc<AtomicU64>>,
}

/// One shard's members: whom ejection bounds count, and who is its primary.
#[derive(Debug)]
struct Group {
    name: Arc<str>,
    members: Vec<usize>,
    /// The configured or last known primary: while it says so itself, no other one gets writes.
    holder: usize,
    /// Whoever knows the shard has said who the holder is: nobody else is asked, and it gets writes
    /// only as long as it says the same of itself.
    told: bool,
    reads: ReadFrom,
    /// Index of the cluster.
    cluster: usize,
    offsets: Offsets,
    /// When all of it was probed last because a request was sent elsewhere.
    looked_ms: u64,
    sampling: measure::Sampling,
}

impl Terms {
    /// What requests go by is about to change.
    fn turn(&self) {
        self.slots.iter().for_each(|slots| slots.turn());
        self.turns.iter().for_each(|turns| {
            turns.fetch_add(1, Ordering::AcqRel);
        });
    }
}

/// What a task needs to probe a backend.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) spec: Spec,
    pub(super) tls: Option<tls::Client>,
    pub(super) check: Check,
    pub(super) wake: Rc<Notify>,
}

/// The result of one probe.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) result: Result<Report, ProbeError>,
    /// What a passed probe was told, where its report does not say it.
    pub(super) said: Option<String>,
    pub(super) sent_ms: u64,
    pub(super) took: Duration,
}

/// What the table wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Probe this backend twice with a short timeout, and say how that ended.
    Suspect(usize),
    /// Ask those who know the members of this cluster: a server is not what they said.
    Rediscover(usize),
}

/// Why a state is about to change.
struct Trigger {
    index: usize,
    cause: &'static str,
    detail: String,
    /// One more half-open permit, though no state changes.
    refill: bool,
}

impl Table {
    pub(super) fn new(
        config: &Config,
        topology: &Topology,
        on_change: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let mut table = Self {
            watches: Numbered::default(),
            groups: Numbered::default(),
            terms: Vec::new(),
            seats: Vec::new(),
            events: Events::default(),
            reweighed: Vec::new(),
            on_change,
        };
        for (written, cluster) in config.clusters.iter().zip(&topology.clusters) {
            table.terms.push(Terms {
                spec: Spec::of(written, cluster),
                tls: cluster.tls.clone(),
                check: written.check,
                slow_start: config.slow_start(cluster.id),
                reads: cluster.reads,
                sampling: measure::Sampling::of(written, cluster),
                has_roles: matches!(cluster.layout, Layout::Shards),
                awaited: false,
                slots: cluster.sharding.live().map(Arc::clone),
                turns: cluster.turns.clone(),
            });
            for shard in &cluster.shards {
                let group = table.groups.push(table.group(cluster.id, &shard.name));
                for member in &shard.members {
                    let is_lone = shard.members.len() == 1;
                    table.watch(group, Arc::clone(member), is_lone);
                }
                if let Some(group) = table.groups.get_mut(group) {
                    group.holder = group.members.first().copied().unwrap_or(members::NOBODY);
                }
            }
        }
        let wishes = config.clusters.iter().flat_map(crate::config::Cluster::each_member);
        for (index, member) in wishes.enumerate().filter(|(_, m)| m.admin != Admin::Ready) {
            table.obey_configuration(index, member.admin);
        }
        table
    }

    pub(super) fn watches(&self) -> &Numbered<Watch> {
        &self.watches
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Whether every backend was probed at least once, but for those that are not to be. Not before
    /// it is known who they are.
    pub(super) fn all_probed(&self) -> bool {
        if self.terms.iter().any(|terms| terms.awaited) {
            return false;
        }
        let probed = |watch: &Watch| watch.probes().next().is_some();
        self.watches.iter().all(|watch| probed(watch) || watch.admin.admin() == Admin::Disabled)
    }

    pub(super) fn target(&self, index: usize) -> Option<Target> {
        let watch = self.watches.get(index)?;
        let group = self.groups.get(watch.group)?;
        let terms = self.terms.get(group.cluster)?;
        Some(Target {
            address: watch.backend.address.clone(),
            spec: terms.spec.clone(),
            tls: terms.tls.clone(),
            check: watch.check,
            wake: Rc::clone(&watch.wake),
        })
    }

    /// Takes the result of a scheduled probe; gives the pause before the next one.
    pub(super) fn probed(
        &mut self,
        index: usize,
        evidence: Evidence,
        now_ms: u64,
        draw: u64,
    ) -> Duration {
        let Some(watch) = self.watches.get_mut(index) else { return Duration::MAX };
        let Evidence { result, said, sent_ms, took } = evidence;
        let (passed, code, text) = match &result {
            Ok(report) => (true, PASSED, said.unwrap_or_else(|| report.to_string())),
            Err(error) => (false, error.code.as_str(), format!("{}: {}", error.phase, error.what)),
        };
        let detail = match (passed, watch.health.health()) {
            (true, Health::Unknown) => text.clone(),
            (true, _) => format!("{} probes passed: {text}", watch.check.rise.max(1)),
            (false, _) => format!("{} probes failed: {text}", watch.check.fall.max(1)),
        };
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        watch.keep(Probed { time_ms: wall_clock_ms(), code, duration_us, text });
        watch.health = watch.health.observe(passed).0;
        watch.returning &= watch.health.health() == Health::Unknown;
        let (group, speaks) = (watch.group, sent_ms >= watch.tripped_ms);
        if let Ok(report) = result {
            watch.report = Some(report);
        }
        let trigger = Trigger { index, cause: "probe", detail, refill: false };
        self.settle(group, Some(trigger), now_ms);
        if passed {
            self.measure(index, sent_ms, now_ms);
        }
        if speaks {
            self.passive(index, outlier::Event::Probe { passed }, now_ms, draw);
        }
        self.interval(index).map_or(Duration::MAX, |next| jitter(next / 11 * 10, draw))
    }

    /// From the end of one probe to the start of the next, at most: its jitter only shortens it, so
    /// that the printed worst case holds. Fast also while a role is about to change: when a replica
    /// is syncing, and when nobody of the shard takes writes.
    fn interval(&self, index: usize) -> Option<Duration> {
        let watch = self.watches.get(index)?;
        let Check { interval, fast_interval, down_interval, .. } = watch.check;
        let group = self.groups.get(watch.group)?;
        let next = watch.health.next_interval(interval, fast_interval, down_interval);
        // Who is sampled is asked more often, but not while it may not be there.
        let sampled = group.sampling.every.filter(|_| watch.health.health() == Health::Healthy);
        let next = sampled.map_or(next, |every| next.min(every));
        let holder = self.watches.get(group.holder);
        let fits = matches!(watch.role(), Role::Primary | Role::Replica);
        let settled = holder.is_some_and(|holder| {
            holder.backend.gate().primary() || holder.admin.admin() == Admin::Disabled
        });
        let calm = watch.role() == Role::None || fits && settled;
        Some(if calm { next } else { next.min(fast_interval) })
    }

    /// The cluster of a backend.
    pub(super) fn cluster_of(&self, backend: u32) -> Option<usize> {
        let watch = self.watches.get(usize::try_from(backend).ok()?)?;
        self.groups.get(watch.group).map(|group| group.cluster)
    }

    /// Takes what a worker reported.
    pub(super) fn reported(&mut self, told: Told, now_ms: u64, draw: u64) -> Option<Ask> {
        let index = usize::try_from(told.backend).ok()?;
        match told.outcome {
            Outcome::LocalFailure => {
                self.passive(index, outlier::Event::LocalFailure, now_ms, draw);
            }
            Outcome::Error => self.passive(index, outlier::Event::Error, now_ms, draw),
            Outcome::Moved => self.look_at_shard(index, now_ms),
            Outcome::RoleMismatch => {
                let watch = self.watches.get(index)?;
                watch.wake.notify_one();
                let group = self.groups.get(watch.group)?;
                return group.told.then_some(Ask::Rediscover(group.cluster));
            }
            Outcome::Suspect => return self.suspect(index),
        }
        None
    }

    /// Probes all members of the shard of `index`: one of them has said that another one serves.
    fn look_at_shard(&mut self, index: usize, now_ms: u64) {
        let Some(watch) = self.watches.get(index) else { return };
        let Some(group) = self.groups.get_mut(watch.group) else { return };
        if now_ms.saturating_sub(group.looked_ms) < LOOK_GAP_MS {
            return;
        }
        group.looked_ms = now_ms;
        let members = group.members.iter().filter_map(|member| self.watches.get(*member));
        members.for_each(|member| member.wake.notify_one());
    }

    /// How two probes on suspicion ended: the last failure, or `None` when one was answered.
    pub(super) fn suspicion_over(
        &mut self,
        index: usize,
        failure: Option<ProbeError>,
        now_ms: u64,
        draw: u64,
    ) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        watch.suspected = false;
        if let Some(error) = failure {
            let why = (error.code != Code::Timeout).then(|| error.what.clone());
            self.passive_with(index, outlier::Event::Trip(Cause::Hung), now_ms, draw, why);
        }
    }

    /// What time alone brings.
    pub(super) fn tick(&mut self, now_ms: u64, draw: u64) {
        for index in self.watches.numbers() {
            self.passive(index, outlier::Event::Tick, now_ms, draw);
            self.take_back(index, now_ms);
            self.warm(index, now_ms);
        }
        self.tell_what_is_usual();
    }

    fn suspect(&mut self, index: usize) -> Option<Ask> {
        let watch = self.watches.get_mut(index)?;
        let has_roles = watch.role() != Role::None;
        let holder = has_roles && self.groups.get(watch.group)?.holder == index;
        if holder || watch.role() == Role::Primary {
            // A long script looks the same: the ordinary probes decide about a primary.
            watch.hurry();
            return None;
        }
        let known = watch.health.health() == Health::Unhealthy
            || watch.passive.passive() == Passive::Ejected
            || watch.admin.admin() == Admin::Disabled;
        if watch.suspected || known {
            return None;
        }
        watch.suspected = true;
        Some(Ask::Suspect(index))
    }

    fn passive(&mut self, index: usize, event: outlier::Event, now_ms: u64, draw: u64) {
        self.passive_with(index, event, now_ms, draw, None);
    }

    /// Moves the passive machine by what the counters say and then by `event`.
    fn passive_with(
        &mut self,
        index: usize,
        event: outlier::Event,
        now_ms: u64,
        draw: u64,
        why: Option<String>,
    ) {
        let allowed = self.may_eject(index);
        let Some(watch) = self.watches.get_mut(index) else { return };
        let (ok_total, failed_total) = totals(&watch.backend);
        let sample = outlier::Event::Sample { ok_total, failed_total };
        let mut moved = None;
        for event in [sample, event] {
            let (next, transition) = watch.passive.observe(now_ms, event, allowed, draw);
            // What trips and may not be ejected is probed at least.
            if !allowed && transition.is_none() {
                let trip = watch.passive.observe(now_ms, event, true, draw).1;
                trip.into_iter().for_each(|_| watch.hurry());
            }
            watch.passive = next;
            moved = transition.or(moved);
        }
        let Some(outlier::Transition { to, cause, .. }) = moved else { return };
        let mut detail = why.unwrap_or_else(|| say(cause));
        if to == Passive::Ejected {
            watch.tripped_ms = now_ms;
            watch.count_ejection(cause.as_str());
            watch.wake.notify_one();
            let for_ms = watch.passive.until_ms().unwrap_or(now_ms).saturating_sub(now_ms);
            detail = format!("{detail}; out for {for_ms}ms");
        }
        let refill = to == Passive::HalfOpen;
        let group = watch.group;
        self.settle(group, Some(Trigger { index, cause: cause.as_str(), detail, refill }), now_ms);
    }

    /// The word of the group of `index` (core.md, "Passive ejection").
    fn may_eject(&self, index: usize) -> bool {
        let Some(watch) = self.watches.get(index) else { return false };
        let Some(group) = self.groups.get(watch.group) else { return false };
        let members = || group.members.iter().filter_map(|member| self.watches.get(*member));
        let out = members().filter(|member| member.passive.passive() != Passive::Closed).count();
        // Ready to do what this one does: writes need the primary, and reads can go there too
        // unless the operator wants replicas only.
        let (primary, replicas_only) =
            (watch.role() == Role::Primary, group.reads == ReadFrom::Replica);
        let ready = members().map(|member| member.backend.gate()).filter(|gate| {
            let fits = if primary { gate.primary() } else { gate.replica() || !replicas_only };
            serves(*gate) && fits
        });
        may_eject(group.members.len(), out, ready.count())
    }

    /// Publishes what the machines of a shard's members say now, and tells what changed.
    fn settle(&mut self, group: usize, trigger: Option<Trigger>, now_ms: u64) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let terms = self.terms.get(group.cluster);
        let slots = terms.and_then(|terms| terms.slots.as_ref());
        // The nodes of a Redis Cluster agree among themselves, and each says so before we are told.
        if !group.told || slots.is_some() {
            group.follow(elect(group, &self.watches), &self.watches);
        }
        // Whatever it is now, nobody else can be asked: it says itself what it does not do.
        let alone = group.members.len() == 1 && group.reads != ReadFrom::Replica && !group.told;
        let (mut changed, mut reweighed) = (false, false);
        for index in &group.members {
            let Some(watch) = self.watches.get_mut(*index) else { continue };
            let why = trigger.as_ref().filter(|trigger| trigger.index == *index);
            let role = watch.role();
            let disputed = role == Role::Primary && *index != group.holder;
            let axes = Axes {
                admin: watch.admin.admin(),
                health: watch.health.health(),
                passive: watch.passive.passive(),
                role: match role {
                    Role::Primary if disputed => Role::Unknown,
                    Role::Replica | Role::ReplicaLinkDown | Role::Loading | Role::Syncing
                        if alone =>
                    {
                        Role::Primary
                    }
                    role => role,
                },
                init: watch.init(),
                ..Axes::default()
            };
            watch.warming.follow(derive(axes).0, now_ms);
            let (state, gate) = derive(Axes { life: watch.warming.life(), ..axes });
            let backend = &watch.backend;
            // Before the gate: its first requests find it with a small weight.
            reweighed |=
                backend.publish_weight(watch.warming.weight(), watch.warming.tenths(now_ms));
            let refill = why.is_some_and(|trigger| trigger.refill);
            let before = (backend.state(), backend.gate(), backend.role());
            if before != (state, gate, role) || refill {
                let moves = before.1.primary() != gate.primary();
                terms.filter(|_| moves).into_iter().for_each(Terms::turn);
                backend.publish(state, gate, role, u32::from(state == State::HalfOpen));
                changed |= before.1 != gate || refill;
            }
            let (old_state, _, old_role) = before;
            if old_state != state {
                let (cause, detail) = match why {
                    Some(trigger) => (trigger.cause, trigger.detail.clone()),
                    None => ("shard", "another member of its shard changed".to_owned()),
                };
                watch.count_change(state);
                let good = better(old_state, state);
                let words = [old_state.as_str(), state.as_str(), cause];
                self.events.push(event(watch, words, detail, good));
            } else if old_role != role && old_role != Role::Unknown {
                let good =
                    role == Role::Primary || (role == Role::Replica && old_role != Role::Primary);
                let words = [old_role.as_str(), role.as_str(), "role"];
                let late = [old_role, role].contains(&Role::ReplicaLagging);
                let detail = match late {
                    true => measure::told(watch),
                    false => "as its newest probe says".to_owned(),
                };
                self.events.push(event(watch, words, detail, good));
            }
            if disputed && !watch.disputed {
                let words = [role.as_str(), role.as_str(), "split_brain"];
                let detail = "another member of its shard is the primary; no writes go here";
                self.events.push(event(watch, words, detail.to_owned(), false));
            }
            watch.disputed = disputed;
        }
        if reweighed && !self.reweighed.contains(&group.cluster) {
            self.reweighed.push(group.cluster);
        }
        if changed {
            (self.on_change)();
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("watches", &self.watches).finish_non_exhaustive()
    }
}

/// Who gets a shard's writes: the last known primary while it may still be that, else the first
/// healthy one that says it is (redis.md, T44).
fn elect(group: &Group, watches: &Numbered<Watch>) -> usize {
    let claims = |index: usize, roles: &[Role]| {
        watches.get(index).is_some_and(|watch| {
            watch.health.health() != Health::Unhealthy && roles.contains(&watch.role())
        })
    };
    if claims(group.holder, &[Role::Primary, Role::Unknown]) {
        return group.holder;
    }
    let heir = group.members.iter().find(|index| claims(**index, &[Role::Primary]));
    heir.copied().unwrap_or(group.holder)
}

fn event(watch: &Watch, [from, to, cause]: [&'static str; 3], detail: String, good: bool) -> Event {
    let backend = &watch.backend;
    Event {
        time_ms: wall_clock_ms(),
        cluster: Arc::clone(&backend.cluster),
        shard: Arc::clone(&backend.shard),
        backend: Arc::clone(&backend.name),
        from,
        to,
        cause,
        detail,
        good,
    }
}

/// Whether a change of state is good news, or the operator's own wish.
const fn better(from: State, to: State) -> bool {
    match to {
        // An operator's wish, and the end of one.
        _ if matches!(from, State::Disabled) => true,
        State::Ready | State::Warming | State::HalfOpen | State::Drain | State::Disabled => true,
        State::Ejected => matches!(from, State::Unhealthy),
        State::Unknown | State::Unhealthy | State::Removed => false,
    }
}

fn say(cause: Cause) -> String {
    match cause {
        Cause::LocalFailures => format!(
            "{} requests in a row failed (connect, timeout, reset or garbage)",
            outlier::LOCAL_FAILURES
        ),
        Cause::Errors => {
            format!("{} errors in a row (5xx; LOADING, MASTERDOWN, CLUSTERDOWN)", outlier::ERRORS)
        }
        Cause::SuccessRatio => {
            format!("less than 1 of {} requests of 10s succeeded", outlier::RATIO_DIVISOR)
        }
        Cause::Hung => {
            format!("no answer to {SUSPECT_PROBES} probes of {}ms", SUSPECT_TIMEOUT.as_millis())
        }
        Cause::TrialFailed => "the trial request failed".to_owned(),
        Cause::TimeOver => "its time is over and a probe passed; one trial request".to_owned(),
        Cause::TrialLost => "the trial request was lost; one more".to_owned(),
        Cause::TrialPassed => "the trial request succeeded".to_owned(),
    }
}

/// While slots move many requests are sent elsewhere, and the roles stay.
const LOOK_GAP_MS: u64 = 50;

#[cfg(test)]
mod tests;
