//! What the offsets that probes bring say of replicas: how far they are behind, whether that is too
//! far to be read, and since when each has everything. Not the arithmetic: that is
//! [`super::super::lag`].

use super::{Group, Table, Trigger};
use crate::{
    config,
    control::{
        lag::{Lag, Offsets},
        numbered::Numbered,
        watch::Watch,
    },
    policy::{
        fresh::{Behind, Known},
        gate::Role,
    },
    proto::redis::wait::stream_number,
    topology::{Cluster, ReadRules},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What a cluster's reads ask of the probes of its shards.
#[derive(Clone, Debug, Default)]
pub(super) struct Sampling {
    /// Probes come at least so often; `None`: as configured.
    pub(super) every: Option<Duration>,
    max_lag: Option<Duration>,
    rules: Option<Arc<ReadRules>>,
    /// What control's clock is behind the one that promises are kept by, or less: then a sample
    /// seems older than it is, which does no harm.
    pub(super) ahead_ms: u64,
}

impl Sampling {
    /// Control's clock starts after this.
    pub(super) fn of(written: &config::Cluster, cluster: &Cluster) -> Self {
        let rules = cluster.read_rules.clone();
        let freshness = rules.as_ref().and_then(|rules| rules.freshness.as_ref());
        let ahead_ms = freshness.map_or(0, |fresh| fresh.ms(Instant::now()));
        let asks = written.reads.leaves_primary();
        Self {
            every: written.reads.sampling().filter(|_| asks),
            max_lag: written.reads.max_lag,
            ahead_ms,
            rules,
        }
    }

    /// Whether `reads.max_lag` bounds how far a replica may be behind.
    pub(super) fn is_limited(&self) -> bool {
        self.max_lag.is_some()
    }

    fn publishes(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.freshness.is_some())
    }
}

impl Table {
    /// Takes the offset of a server that has answered a probe sent at `sent_ms`.
    pub(super) fn measure(&mut self, index: usize, sent_ms: u64, now_ms: u64) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        let number = watch.group;
        let Some(group) = self.groups.get_mut(number) else { return };
        watch.asked_ms = sent_ms;
        let report = watch.report.as_ref();
        let id = report.and_then(|report| report.replication_id.as_deref());
        if let Some(id) = id {
            watch.backend.publish_stream(stream_number(id));
        }
        if let Some(version) = watch.redis_version() {
            watch.backend.publish_version(version);
        }
        let mut measured = vec![index];
        if let (true, Some(offset)) = (group.holder == index, offset_of(watch, Role::Primary)) {
            let id = watch.report.as_ref().and_then(|report| report.replication_id.as_deref());
            group.offsets.record(id, offset, sent_ms);
            // Who was asked before its primary was is compared now.
            let members = group.members.iter().filter(|member| **member != index);
            measured = members.copied().collect();
            watch.set_lag(None);
        }
        for member in measured {
            let Some(watch) = self.watches.get_mut(member) else { continue };
            // Against a newer sample who was asked earlier seems late.
            if member == index || watch.lag().is_none() {
                watch.set_lag(lag(&group.offsets, watch, now_ms));
                let limit = group.sampling.max_lag.filter(|_| group.members.len() > 1);
                if let Some(limit) = limit.filter(|_| is_replica(watch)) {
                    watch.behind = watch.behind.observe(watch.lag().and_then(|lag| lag.ms), limit);
                }
            }
            publish(group, watch);
        }
        let trigger = Trigger { index, cause: "probe", detail: String::new(), refill: false };
        if group.sampling.max_lag.is_some() {
            self.settle(number, Some(trigger), now_ms);
        }
    }
}

impl Group {
    /// Its writes go to another member from now on: what was known of the old stream says nothing.
    pub(super) fn follow(&mut self, holder: usize, watches: &Numbered<Watch>) {
        if std::mem::replace(&mut self.holder, holder) == holder {
            return;
        }
        self.offsets = Offsets::default();
        for watch in self.members.iter().filter_map(|member| watches.get(*member)) {
            watch.backend.sampled.publish(Known::default());
        }
    }
}

/// What is told of a member whose lag has changed what it is read for.
pub(super) fn told(watch: &Watch) -> String {
    match watch.lag() {
        Some(Lag { bytes, ms: Some(ms) }) => {
            format!("it is {bytes} bytes and {ms}ms behind its primary (reads.max_lag)")
        }
        Some(Lag { bytes, ms: None }) => {
            format!("it is {bytes} bytes behind, for longer than is remembered (reads.max_lag)")
        }
        None => "it does not follow the shard's primary as far as is known (reads.max_lag)".into(),
    }
}

fn is_replica(watch: &Watch) -> bool {
    let role = watch.report.as_ref().map(|report| report.role);
    matches!(role, Some(Role::Replica | Role::ReplicaLinkDown))
}

fn offset_of(watch: &Watch, role: Role) -> Option<u64> {
    watch.report.as_ref().filter(|report| report.role == role)?.offset
}

fn lag(offsets: &Offsets, watch: &Watch, now_ms: u64) -> Option<Lag> {
    let report = watch.report.as_ref().filter(|_| is_replica(watch))?;
    offsets.lag(report.replication_id.as_deref(), report.offset?, now_ms)
}

/// Tells the workers how new a member is.
fn publish(group: &Group, watch: &Watch) {
    if !group.sampling.publishes() {
        return;
    }
    let known = || {
        let report = watch.report.as_ref().filter(|_| is_replica(watch))?;
        let safe = group.offsets.reached_ms(report.replication_id.as_deref(), report.offset?)?;
        let sampled = watch.asked_ms.min(group.offsets.newest_ms()?);
        let ahead = group.sampling.ahead_ms;
        Some(Known { safe_ms: safe + ahead, sampled_ms: sampled + ahead })
    };
    watch.backend.sampled.publish(known().unwrap_or_default());
}

impl Watch {
    fn set_lag(&mut self, lag: Option<Lag>) {
        self.lag = lag;
        self.backend.publish_lag(lag.map(|lag| lag.bytes));
    }

    /// A replica's role where some are too late to be read.
    pub(in crate::control) fn as_late(&self, role: Role, limited: bool) -> Role {
        match (role, self.behind) {
            (Role::Replica, Behind::Beyond) if limited => Role::ReplicaLagging,
            (Role::Replica, Behind::Unknown) if limited => Role::Unknown,
            _ => role,
        }
    }
}
