//! Who the members of the table's shards are, when whoever knows it says something new: who stays
//! keeps its health and its counters, who is new is watched, and who has left is told of and
//! forgotten. Not the snapshot that follows: that is `membership`.

use super::{Group, Table, event};
use crate::{
    config::Member,
    control::{build::Mould, lag::Offsets, watch::Watch},
    policy::gate::{Axes, Gate, Life, Role, State, derive},
    topology::{Backend, Shard},
};
use std::sync::{Arc, Weak};

/// One shard as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::control) struct Part {
    pub(in crate::control) name: Arc<str>,
    /// Who takes the writes, as soon as a probe has found that it says the same of itself; `None`:
    /// nobody does. Of members without roles too.
    pub(in crate::control) primary: Option<Member>,
    pub(in crate::control) replicas: Vec<Member>,
}

/// Why the members are others now, for the events.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct News<'a> {
    /// One word: who says so.
    pub(in crate::control) cause: &'static str,
    pub(in crate::control) detail: &'a str,
}

/// What has become of a cluster.
#[derive(Debug, Default)]
pub(in crate::control) struct Reshaped {
    /// Its shards now, each primary first.
    pub(in crate::control) shards: Vec<(Arc<str>, Vec<Arc<Backend>>)>,
    /// Whether these are others, or stand in another order.
    pub(in crate::control) changed: bool,
    /// The indexes of those that are new: nobody probes them yet.
    pub(in crate::control) born: Vec<usize>,
    /// Who was the primary of a shard and is not any more.
    pub(in crate::control) demoted: Vec<Arc<Backend>>,
    /// Who has left.
    pub(in crate::control) removed: Vec<Arc<Backend>>,
}

impl Table {
    /// A cluster whose members are not known yet: the first round of probes is not over before.
    pub(in crate::control) fn await_members(&mut self, cluster: usize) {
        if let Some(terms) = self.terms.get_mut(cluster) {
            terms.awaited = true;
        }
    }

    /// Takes `parts` for all shards of a cluster. A backend is who it was if its cluster, its shard's
    /// name and its address are the same; its weight and tier are those that it came with. Of one
    /// shard the first 64 addresses count.
    pub(in crate::control) fn reshape(
        &mut self,
        cluster: usize,
        parts: &[Part],
        mould: &Mould,
        news: News<'_>,
        now_ms: u64,
    ) -> Reshaped {
        let mut done = Reshaped::default();
        let Some(terms) = self.terms.get_mut(cluster) else { return done };
        terms.awaited = false;
        let of_cluster = self.groups.numbered().filter(|(_, group)| group.cluster == cluster);
        let before: Vec<usize> = of_cluster.map(|(number, _)| number).collect();
        let mut now: Vec<usize> = Vec::new();
        for part in parts {
            let named = |number: &&usize| {
                self.groups.get(**number).is_some_and(|group| group.name == part.name)
            };
            let number = match before.iter().find(named) {
                Some(known) if now.contains(known) => continue,
                Some(known) => *known,
                None => self.groups.push(self.group(cluster, &part.name)),
            };
            now.push(number);
            self.enlist(number, part, mould, news, &mut done);
            self.settle(number, None, now_ms);
        }
        for gone in before.iter().filter(|number| !now.contains(number)) {
            let Some(group) = self.groups.remove(*gone) else { continue };
            group.members.into_iter().for_each(|index| self.dismiss(index, news, &mut done));
        }
        done.changed |= before != now;
        done.shards = now.iter().filter_map(|number| self.members_of(*number)).collect();
        done
    }

    fn members_of(&self, group: usize) -> Option<(Arc<str>, Vec<Arc<Backend>>)> {
        let group = self.groups.get(group)?;
        let members = group.members.iter().filter_map(|index| self.watches.get(*index));
        let members = members.map(|watch| Arc::clone(&watch.backend)).collect();
        Some((Arc::clone(&group.name), members))
    }

    /// A shard without members.
    pub(super) fn group(&self, cluster: usize, name: &Arc<str>) -> Group {
        Group {
            name: Arc::clone(name),
            members: Vec::new(),
            holder: NOBODY,
            told: false,
            reads: self.terms.get(cluster).map(|terms| terms.reads).unwrap_or_default(),
            cluster,
            offsets: Offsets::default(),
            looked_ms: 0,
            sampling: self
                .terms
                .get(cluster)
                .map(|terms| terms.sampling.clone())
                .unwrap_or_default(),
        }
    }

    /// Watches a backend, as one more of its shard. `is_lone`: there is no other, so that nobody can
    /// say how far it is behind.
    pub(super) fn watch(&mut self, group: usize, backend: Arc<Backend>, is_lone: bool) -> usize {
        let cluster = self.groups.get(group).map_or(NOBODY, |group| group.cluster);
        let seat = usize::try_from(backend.seat).unwrap_or(usize::MAX);
        if self.seats.len() <= seat {
            self.seats.resize_with(seat.saturating_add(1), Weak::new);
        }
        if let Some(taken) = self.seats.get_mut(seat) {
            *taken = Arc::downgrade(&backend);
        }
        let terms = self.terms.get(cluster);
        let limited = !is_lone && terms.is_some_and(|terms| terms.sampling.is_limited());
        let terms = terms.map(|terms| (terms.check, terms.slow_start));
        let (check, slow_start) = terms.unwrap_or_default();
        let index = self.watches.push(Watch::new(backend, check, slow_start, group, limited));
        if let Some(group) = self.groups.get_mut(group) {
            group.members.push(index);
        }
        index
    }

    /// Makes the members of a shard those of `part`.
    fn enlist(
        &mut self,
        number: usize,
        part: &Part,
        mould: &Mould,
        news: News<'_>,
        done: &mut Reshaped,
    ) {
        let Some(group) = self.groups.get_mut(number) else { return };
        let has_roles = self.terms.get(group.cluster).is_some_and(|terms| terms.has_roles);
        let before = std::mem::take(&mut group.members);
        let mut members: Vec<usize> = Vec::new();
        for member in part.primary.iter().chain(&part.replicas) {
            let is_it = |index: &&usize| {
                self.watches.get(**index).is_some_and(|one| one.backend.address == member.address)
            };
            if members.len() == Shard::MOST_MEMBERS || members.iter().any(|index| is_it(&index)) {
                continue;
            }
            members.push(match before.iter().find(is_it) {
                Some(known) => *known,
                None => self.hire(number, &part.name, member, mould, news, done),
            });
        }
        for gone in before.iter().filter(|index| !members.contains(index)) {
            let was_holder = self.groups.get(number).is_some_and(|group| group.holder == *gone);
            if let Some(watch) = self.watches.get(*gone).filter(|_| has_roles && was_holder) {
                done.demoted.push(Arc::clone(&watch.backend));
            }
            self.dismiss(*gone, news, done);
        }
        done.changed |= before != members;
        let first = members.first().copied().filter(|_| part.primary.is_some());
        if let Some(group) = self.groups.get_mut(number) {
            group.members = members;
        }
        if has_roles {
            self.appoint(number, first.unwrap_or(NOBODY), news, done);
        }
    }

    /// Begins to watch somebody new. It gets nothing before it was probed.
    fn hire(
        &mut self,
        group: usize,
        shard: &Arc<str>,
        member: &Member,
        mould: &Mould,
        news: News<'_>,
        done: &mut Reshaped,
    ) -> usize {
        let id = u32::try_from(self.watches.next()).expect("fewer than 2^32 backends ever");
        let mut backend = mould.backend(id, shard, member);
        let free = self.seats.iter().position(|seat| seat.strong_count() == 0);
        backend.seat = u32::try_from(free.unwrap_or(self.seats.len())).unwrap_or(id);
        let cluster = self.groups.get(group).and_then(|group| self.terms.get(group.cluster));
        let role =
            if cluster.is_some_and(|terms| terms.has_roles) { Role::Unknown } else { Role::None };
        backend.publish(State::Unknown, Gate::default(), role, 0);
        let index = self.watch(group, Arc::new(backend), false);
        if let Some(watch) = self.watches.get_mut(index) {
            watch.returning = true;
            let words = ["new", State::Unknown.as_str(), news.cause];
            let told = event(watch, words, news.detail.to_owned(), true);
            self.events.push(told);
        }
        // Its place among the others is its shard's to say.
        if let Some(group) = self.groups.get_mut(group) {
            group.members.pop();
        }
        done.born.push(index);
        index
    }

    /// Forgets somebody who has left: nothing new goes there.
    fn dismiss(&mut self, index: usize, news: News<'_>, done: &mut Reshaped) {
        let Some(watch) = self.watches.remove(index) else { return };
        let backend = Arc::clone(&watch.backend);
        let from = backend.state();
        let (state, gate) = derive(Axes { life: Life::Removed, ..Axes::default() });
        let words = [from.as_str(), state.as_str(), news.cause];
        // Whoever says who the members are has said so: it is no fault.
        let told = event(&watch, words, news.detail.to_owned(), true);
        self.events.push(told);
        let group = self.groups.get(watch.group).map(|group| group.cluster);
        let terms = group.and_then(|cluster| self.terms.get(cluster));
        terms.into_iter().for_each(super::Terms::turn);
        backend.publish(state, gate, backend.role(), 0);
        // So that its task ends.
        watch.wake.notify_one();
        done.removed.push(backend);
        done.changed = true;
    }

    /// Gives the writes of a shard to that member, and to nobody else whatever they say.
    fn appoint(&mut self, number: usize, index: usize, news: News<'_>, done: &mut Reshaped) {
        let Some(group) = self.groups.get_mut(number) else { return };
        group.told = true;
        let before = group.holder;
        if before == index {
            return;
        }
        group.follow(index, &self.watches);
        if let Some(old) = self.watches.get_mut(before) {
            // That it may still say so itself for a while is no news.
            old.disputed = true;
            old.wake.notify_one();
            done.demoted.push(Arc::clone(&old.backend));
        }
        let Some(new) = self.watches.get_mut(index).filter(|_| !done.born.contains(&index)) else {
            return;
        };
        new.disputed = false;
        new.wake.notify_one();
        let words = [new.backend.role().as_str(), Role::Primary.as_str(), news.cause];
        let told = event(new, words, news.detail.to_owned(), false);
        self.events.push(told);
        done.changed = true;
    }

    /// Has every worker look at the gates and at the snapshot.
    pub(in crate::control) fn tell_workers(&self) {
        (self.on_change)();
    }
}

/// The index of no backend.
pub(super) const NOBODY: usize = usize::MAX;

#[cfg(test)]
mod tests;
