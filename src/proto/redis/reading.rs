//! Which member of a shard a request goes to, for reads as `reads` has it: from where, by which
//! exception, and whether a replica is new enough for what is promised (redis.md, T42 and T43). Not
//! the promise's arithmetic: that is [`crate::policy::fresh`].

use super::{
    allow::named,
    args::Args,
    class::Class,
    dispatch::Scene,
    entry::Entry,
    hub::Hub,
    keys::{self, Keys},
    mark::{Touch, Viewer},
    reply, route,
    session::CURSORS,
    table::{Command, Kind, Script, Step},
    upstream::Upstream,
};
use crate::{
    policy::{
        access::Access,
        fresh::{Line, is_fresh},
        reads::ReadFrom,
    },
    topology::{
        Backend, Cluster, Consistency, Freshness, Override, ReadRules, Shard,
        admission::is_full,
        pick::{self, Picker},
    },
};
use std::{rc::Rc, sync::Arc};

/// How the request at hand is read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Where it goes if it is a read.
    pub(super) from: ReadFrom,
    /// What the session has written and seen; `None` where that is all the same.
    pub(super) viewer: Option<Rc<Viewer>>,
    /// What it sees besides its keys nobody knows.
    sees_more: bool,
    /// What a replica must have, as of the newest pick.
    newer_than: u64,
    /// Members that were ready and not new enough then.
    barred: u64,
}

impl<'a> Scene<'a> {
    /// Finds out what a request has to do with, before it is looked at. `None`: a command that
    /// nobody knows.
    pub(super) fn reads(&mut self, command: Option<&Command>, args: Args<'_>) {
        self.reading.from = self.cluster.reads;
        if let Some(rules) = &self.cluster.read_rules {
            self.reads_by(rules, command, args);
        }
        // Who wants replicas alone does not want the primary to be read.
        if self.state.at_primary && self.reading.from != ReadFrom::Replica {
            self.reading.from = ReadFrom::Primary;
        }
    }

    fn reads_by(&mut self, rules: &Arc<ReadRules>, command: Option<&Command>, args: Args<'_>) {
        let viewer = self.viewer(rules);
        if let Some(command) = command {
            self.reading.from = from(self.cluster, command, args);
        }
        let promise = rules.freshness.as_ref().map(|fresh| fresh.promise);
        let Some(promise) = promise else { return };
        let Some(command) = command else { return viewer.touches(Touch::All) };
        self.reading.sees_more = sees_more(command, args);
        let touch = match command.kind {
            Kind::Transaction(Step::Exec) if self.state.transaction.is_none() => Touch::All,
            Kind::Transaction(Step::Exec) if promise == Consistency::Session => Touch::All,
            Kind::Transaction(Step::Exec) => viewer.queued(),
            _ if promise == Consistency::Key => {
                touch(command, args, rules.scripts_declare_keys, self.state.class.db)
            }
            kind if has_data(kind) => Touch::All,
            _ => Touch::Nothing,
        };
        if self.state.transaction.is_none() {
            viewer.begin_queue();
        } else if command.access == Access::Write && has_data(command.kind) {
            viewer.queues(&touch);
        } else if command.name == "SELECT" {
            // From there on the keys are another database's.
            viewer.queues(&Touch::All);
        }
        viewer.touches(touch);
    }

    /// What follows is another request's, or nobody's.
    pub(super) fn has_read(&mut self) {
        if let Some(viewer) = self.reading.viewer.take() {
            viewer.touches(Touch::All);
        }
        self.reading.sees_more = false;
    }

    /// The session's own of the cluster at hand.
    fn viewer(&mut self, rules: &Arc<ReadRules>) -> Rc<Viewer> {
        let viewer = self.client.card_mut().viewer_of(self.cluster, rules);
        self.reading.viewer = Some(Rc::clone(&viewer));
        viewer
    }

    /// Something of the session is about to be sent whose beginning alone has been looked at.
    pub(super) fn reads_unseen(&mut self) -> Option<Rc<Viewer>> {
        let rules = self.cluster.read_rules.as_ref()?;
        Some(self.client.card_mut().viewer_of(self.cluster, rules))
    }

    /// The backend that takes a request for `shard` now.
    pub(super) fn pick(
        &mut self,
        shard: usize,
        access: Access,
        at_primary: bool,
    ) -> Option<&'a Arc<Backend>> {
        let from = if at_primary { ReadFrom::Primary } else { self.reading.from };
        let hub = self.hub;
        let (cluster, place) = (self.cluster, shard);
        let shard = cluster.shards.get(shard)?;
        let barred = match access {
            Access::Read => self.barred(shard, from),
            Access::Write => 0,
        };
        let cursor = self.state.cursors.get_mut(place % CURSORS)?;
        let mut picker = Picker { cursor: *cursor, key: self.state.pin, now_us: self.now_us };
        let index = pick::select(shard, access, from, &mut picker, barred, || hub.draw())?;
        *cursor = picker.cursor;
        shard.members.get(index)
    }

    /// The members of a shard that are not new enough for the request at hand, by bit.
    fn barred(&mut self, shard: &Shard, from: ReadFrom) -> u64 {
        (self.reading.newer_than, self.reading.barred) = (0, 0);
        let Some(viewer) = self.reading.viewer.clone() else { return 0 };
        let Some(fresh) = &viewer.rules.freshness else { return 0 };
        let now_ms = fresh.ms(self.hub.at(self.now_us));
        let newer_than = match self.reading.sees_more {
            true => u64::MAX,
            false => viewer.newer_than(fresh, &shard.name, now_ms),
        };
        self.reading.newer_than = newer_than;
        if from == ReadFrom::Primary {
            return 0;
        }
        let session = (fresh.promise == Consistency::Session && !self.reading.sees_more)
            .then(|| viewer.floor(&shard.name).get());
        let wanted = |line: Line| session.map_or(newer_than, |floor| floor.newer_than(line));
        let least = session.map_or(newer_than, |floor| floor.word.0);
        let mut barred = 0;
        for (index, member) in shard.members.iter().enumerate() {
            let gate = member.gate();
            if gate.primary() {
                continue;
            }
            // It may come back between here and the pick, and nobody has looked at it.
            if !gate.replica() {
                barred |= 1 << index;
                continue;
            }
            let known = member.sampled.known();
            let is_new = known.safe_ms > least
                && self.connection(member).is_some_and(|upstream| {
                    let opened = upstream.connected().map(|at| fresh.ms(at.into_std()));
                    let wanted = wanted(upstream.line());
                    opened.is_some_and(|opened| is_fresh(known, opened, wanted, now_ms))
                });
            if !is_new {
                barred |= 1 << index;
                self.reading.barred |= if gate.open() { 1 << index } else { 0 };
            }
        }
        barred
    }

    /// The connection over which a replica would be read; it is opened when there is none, for the
    /// reads that come when it has been there for a while.
    fn connection(&mut self, member: &Arc<Backend>) -> Option<Rc<Upstream>> {
        match self.cluster.dedicated.always {
            true => self.own_to(member),
            false => Some(self.hub.upstream(self.cluster, member, self.state.class, Rc::clone)),
        }
    }

    /// Whether the newest pick found replicas that are not new enough, and the primary would do.
    pub(super) fn lacks_fresh_replica(&self) -> bool {
        self.reading.barred != 0 && self.reading.from != ReadFrom::Replica
    }

    /// When a flight for the request at hand would begin, and before when one must not have begun
    /// that it joins.
    pub(super) fn flight_times(&self) -> (u64, u64) {
        let fresh = self.reading.viewer.as_ref().and_then(|viewer| viewer.rules.freshness.as_ref());
        fresh.map_or((1, 0), |fresh| (fresh.ms(self.hub.at(self.now_us)), self.reading.newer_than))
    }

    /// An entry of the request at hand, which another try reads as this one does.
    pub(super) fn as_read(&self, entry: Entry) -> Entry {
        let from = self.reading.viewer.is_some().then_some(self.reading.from);
        entry.read_from(from, self.reading.newer_than)
    }

    /// Tells why [`Self::pick`] found nobody: requests do not wait for room, they are refused.
    pub(super) fn unserved(
        &self,
        shard: usize,
        access: Access,
        at_primary: bool,
        out: &mut Vec<u8>,
    ) {
        let from = if at_primary { ReadFrom::Primary } else { self.reading.from };
        let Some(shard) = self.cluster.shards.get(shard) else { return self.unowned(out) };
        if access == Access::Read && from != ReadFrom::Primary && self.reading.barred != 0 {
            return reply::not_fresh(out, &shard.name);
        }
        if is_full(shard, 0, Some((access, from))) {
            if let Some(metrics) = self.hub.metrics.clusters.get(self.cluster.id) {
                metrics.overloaded.add(1);
            }
            return reply::overloaded(out, &self.cluster.name);
        }
        reply::cluster_down(out, &route::why_not(shard, access, from));
    }

    /// READWRITE: reads go to the primary from here on; READONLY: they go where they did.
    pub(super) fn prefer_primary(&mut self, at_primary: bool) {
        if at_primary && self.cluster.reads == ReadFrom::Replica {
            return self.reply(reply::REPLICAS_ALONE);
        }
        self.state.at_primary = at_primary;
        self.reply(reply::OK);
    }
}

/// Where a read goes by the first exception that it fits, else as all reads.
pub(super) fn from(cluster: &Cluster, command: &Command, args: Args<'_>) -> ReadFrom {
    let Some(rules) = &cluster.read_rules else { return cluster.reads };
    let fits = |one: &&Override| {
        let by_command = |name: &String| named(std::slice::from_ref(name), command.name);
        let by_key = |prefix: &String| {
            let mut keys = keys::keys(command, args).unwrap_or_default();
            keys.any(|at| args.get(at).is_some_and(|key| key.starts_with(prefix.as_bytes())))
        };
        one.command.as_ref().is_none_or(by_command) && one.prefix.as_ref().is_none_or(by_key)
    };
    rules.overrides.iter().find(fits).map_or(cluster.reads, |one| one.from)
}

/// The members of a shard that another try of a read must not go to, by bit.
pub(super) fn barred(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    shard: &Shard,
    class: Class,
    entry: &Entry,
) -> u64 {
    let fresh = cluster.read_rules.as_ref().and_then(|rules| rules.freshness.as_ref());
    let Some(fresh) = fresh.filter(|_| entry.access == Access::Read) else { return 0 };
    let now_ms = fresh.ms(hub.at(hub.now_us()));
    let is_new = |member: &Arc<Backend>| {
        let known = member.sampled.known();
        known.safe_ms > entry.newer_than
            && hub.upstream(cluster, member, class, |upstream| {
                let opened = upstream.connected().map(|at| fresh.ms(at.into_std()));
                opened.is_some_and(|opened| is_fresh(known, opened, entry.newer_than, now_ms))
            })
    };
    let members = shard.members.iter().enumerate();
    let old = members.filter(|(_, member)| {
        let gate = member.gate();
        !(gate.primary() || gate.replica() && is_new(member))
    });
    old.fold(0, |mask, (index, _)| mask | 1 << index)
}

/// Whether flights may be joined where that is promised: each session's reads have bounds of their
/// own, and a window's move on.
pub(super) fn may_coalesce(cluster: &Cluster) -> bool {
    let rules = cluster.read_rules.as_ref();
    let promise = |fresh: &Freshness| fresh.promise == Consistency::Key;
    rules.and_then(|rules| rules.freshness.as_ref()).is_none_or(promise)
}

/// What a request has to do with, by its keys.
fn touch(command: &Command, args: Args<'_>, declared: bool, db: u8) -> Touch {
    let place = |at| Freshness::place_of(db, args.get(at).unwrap_or_default());
    match (command.kind, command.keys) {
        (kind, _) if !has_data(kind) => Touch::Nothing,
        (Kind::Script(_), _) if !declared => Touch::All,
        // They write to another database too.
        _ if command.name == "MOVE" || command.name == "COPY" && args.len() > 3 => Touch::All,
        (_, Keys::First(at)) => Touch::One(place(at as usize)),
        _ => match keys::keys(command, args) {
            Ok(keys) if !keys.is_empty() => Touch::of(keys.map(place).collect()),
            _ => Touch::All,
        },
    }
}

/// Whether requests of that kind read or change what replicas copy.
const fn has_data(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Local(_)
            | Kind::PubSub(_)
            | Kind::Watch
            | Kind::Wait
            | Kind::Container
            | Kind::CrossProtocol
            | Kind::Transaction(Step::Multi | Step::Discard)
            | Kind::Script(
                Script::Load | Script::Flush | Script::Kill | Script::Stats | Script::Debug
            )
    )
}

/// Whether a request reads what its keys do not tell, or over a connection that is opened for it.
fn sees_more(command: &Command, args: Args<'_>) -> bool {
    let patterns = matches!(command.keys, Keys::Sort { .. })
        && keys::pattern_keys(command, args).next().is_some();
    patterns || command.blocking && command.blocks(args)
}

#[cfg(test)]
mod tests;
