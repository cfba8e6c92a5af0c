//! What keeps the order of a session's requests when a slot or a shard changes hands: those for its new owner wait
//! until those to its old one are answered, wherever they were sent on to.

use crate::{
    policy::access::Access,
    proto::redis::{
        dispatch::{Flow, Scene},
        reply,
        waiting::Waiting,
    },
    topology::{Backend, Outcome},
};
use smallvec::SmallVec;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// By cluster: where its table is, and the turns of that, before the owner of anything was looked up that is
/// under way.
pub(in crate::proto::redis) type Turns = SmallVec<[(usize, usize, u64); 1]>;

impl Scene<'_> {
    /// A request begins, whose owner is to be looked up.
    #[inline]
    pub(in crate::proto::redis) fn begin_turn(&mut self) {
        let Some((table, now)) = self.turns() else { return };
        let id = self.cluster.id;
        let turns = &mut self.state.turns;
        if !turns.is_empty() && self.client.is_settled() {
            turns.clear();
        }
        if turns.iter().all(|(cluster, ..)| *cluster != id) {
            turns.push((id, table, now));
        }
    }

    /// Where it is counted that something changes hands, and how often it has. Nothing where nobody
    /// can take anything over.
    #[inline]
    fn turns(&self) -> Option<(usize, u64)> {
        match self.cluster.sharding.live() {
            Some(table) => Some((Arc::as_ptr(table).addr(), table.turns())),
            None => self.cluster.turns.as_ref().map(|turns| (0, turns.load(Ordering::Acquire))),
        }
    }

    /// Whether a slot or a shard has changed hands since, while something is under way: then the request is
    /// held. Call it when the owner was looked up.
    #[inline]
    pub(in crate::proto::redis) fn is_turned(&mut self) -> bool {
        let Some((table, now)) = self.turns() else { return false };
        let old = |(cluster, known, turns): &(usize, usize, u64)| {
            *cluster == self.cluster.id && (*turns != now || *known != table)
        };
        if !self.state.turns.iter().any(old) || self.client.is_settled() {
            return false;
        }
        self.client.wait_for_all();
        true
    }

    /// The same of a request for which that backend was picked, by its gate.
    #[inline]
    pub(in crate::proto::redis) fn is_turned_since(&mut self, picked: &Backend) -> bool {
        let turned = self.is_turned();
        if turned {
            self.give_back(picked);
        }
        turned
    }

    /// Whether a request to all shards has to wait: one under way to a shard may have to go on to
    /// another.
    pub(in crate::proto::redis) fn must_settle(&self, access: Access) -> bool {
        let waits =
            self.cluster.follows.is_some() && access == Access::Write && !self.client.is_settled();
        if waits {
            self.client.wait_for_all();
        }
        waits
    }

    /// Whether a request that has found no shard is to be looked at again in a moment: a slot may
    /// have an owner soon. Not for ever.
    pub(in crate::proto::redis) fn awaits_owner(&mut self, shard: usize) -> bool {
        let wait = self.cluster.outage.wait;
        let is_known = shard < self.cluster.shards.len();
        if self.cluster.follows.is_none() || is_known || self.cluster.shards.is_empty() {
            return false;
        }
        let since = *self.state.ownerless_us.get_or_insert(self.now_us);
        if u128::from(self.now_us.saturating_sub(since)) >= wait.as_micros() {
            self.state.ownerless_us = None;
            return false;
        }
        self.state.waiting = Waiting::until(tokio::time::sleep(PAUSE));
        self.client.look_ahead();
        true
    }

    /// Where a transaction goes whose shard was that one when it was queued.
    pub(in crate::proto::redis) fn shard_now(&self, shard: Option<usize>) -> Option<usize> {
        let (Some(table), Some(open)) = (self.cluster.sharding.live(), &self.state.transaction)
        else {
            return shard;
        };
        shard?;
        let slot = super::way::slot_of(self.hub, self.cluster.id, &open.queue)?;
        Some(table.owner(slot).unwrap_or(usize::MAX))
    }

    /// Why there is no shard for a request.
    pub(in crate::proto::redis) fn unowned(&self, out: &mut Vec<u8>) {
        if self.cluster.follows.is_none() {
            return reply::cluster_down(out, "no such shard");
        }
        let mut members = self.cluster.shards.iter().flat_map(|shard| &shard.members);
        match members.next() {
            Some(member) => {
                self.hub.reporter.report(member, Outcome::Moved);
                reply::cluster_down(out, "no node serves the slot");
            }
            None => reply::cluster_down(out, "no node of the cluster has been reached yet"),
        }
    }

    /// Redis Cluster has one database.
    pub(in crate::proto::redis) fn refuses_database(&self, db: u8) -> Option<Flow> {
        (self.cluster.follows.is_some() && db > 0)
            .then(|| self.say(|out| out.extend_from_slice(reply::SELECT_IN_CLUSTER)))
    }
}

const PAUSE: Duration = Duration::from_millis(5);
