//! The weights of the table's backends as time and their servers change them, and what a request
//! usually takes. Not the balancers that follow: a new snapshot has those.

use super::{Table, Trigger};
use crate::policy::{gate::Life, latency::median};

impl Table {
    /// Gives a backend another weight, from now on and for as long as the process lives; 1 to 1,000,
    /// what is outside is taken for the nearer end. `cause` says who wants it.
    pub(in crate::control) fn set_weight(
        &mut self,
        index: usize,
        weight: u32,
        cause: &str,
        now_ms: u64,
    ) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        let before = watch.warming.weight();
        if watch.warming.set_weight(weight) {
            let weight = watch.warming.weight();
            tracing::debug!(backend = %watch.backend.name, cause, before, weight, "weight");
            self.weigh(index, now_ms);
        }
    }

    /// The clusters that need new balancers, for there are new weights.
    pub(in crate::control) fn take_reweighed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.reweighed)
    }

    /// One step of a backend that has come back.
    pub(super) fn warm(&mut self, index: usize, now_ms: u64) {
        let Some(watch) = self.watches.get_mut(index) else { return };
        if watch.warming.is_over(now_ms) {
            let group = watch.group;
            let detail = format!("all of its weight after {}ms", watch.warming.window_ms());
            let trigger = Trigger { index, cause: "slow_start", detail, refill: false };
            self.settle(group, Some(trigger), now_ms);
        } else if watch.warming.life() == Life::Warming {
            self.weigh(index, now_ms);
        }
    }

    fn weigh(&mut self, index: usize, now_ms: u64) {
        let Some(watch) = self.watches.get(index) else { return };
        let Some(group) = self.groups.get(watch.group) else { return };
        let tenths = watch.warming.tenths(now_ms);
        let changed = watch.backend.publish_weight(watch.warming.weight(), tenths);
        if changed && !self.reweighed.contains(&group.cluster) {
            self.reweighed.push(group.cluster);
        }
    }

    /// What a request usually takes in a cluster, for balancers that go by it.
    pub(super) fn tell_what_is_usual(&self) {
        for cluster in 0..self.terms.len() {
            let groups = || self.groups.iter().filter(move |group| group.cluster == cluster);
            let members = || groups().flat_map(|group| &group.members);
            let timed = || {
                let watches = members().filter_map(|member| self.watches.get(*member));
                watches.map(|watch| &watch.backend).filter(|backend| backend.is_timed)
            };
            let usual_us = median(&mut timed().flat_map(|backend| backend.good_us()).collect());
            timed().for_each(|backend| backend.publish_usual(usual_us));
        }
    }
}
