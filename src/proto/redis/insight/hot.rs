//! Hot keys: which requests are sampled, and what the samples of all workers say together. Not the
//! table of keys: that is [`crate::policy::hot`].

use super::{
    super::{
        args::Args,
        dispatch::Scene,
        keys,
        table::{Command, Kind},
    },
    Insight, locked,
};
use crate::policy::hot::{TopKeys, heaviest, per_second};
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// A key that is asked for often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Its first bytes, or the hash of it where keys are redacted.
    pub key: Vec<u8>,
    /// Requests per second that name it, at most.
    pub per_second: u64,
    /// Of these so many may be another key's.
    pub error: u64,
}

/// Looks at the keys of one request in [`SAMPLED`].
pub(in super::super) fn sample(scene: &Scene<'_>, command: &Command, args: Args<'_>) {
    let has_keys = matches!(command.kind, Kind::Keyed | Kind::Split(_) | Kind::Script(_));
    if !has_keys || !scene.state.authenticated || scene.kind_of(command, args) == Kind::Disabled {
        return;
    }
    let (cluster, worker) = (scene.cluster.id, scene.hub.worker());
    let Some(table) =
        scene.hub.insight.clusters.get(cluster).and_then(|watched| watched.hot.get(worker))
    else {
        return;
    };
    // Somebody reads it at this moment: one sample less.
    let Ok(mut table) = table.try_lock() else { return };
    let keys = keys::keys(command, args).unwrap_or_default();
    for key in keys.filter_map(|at| args.get(at)).take(MOST_KEYS) {
        table.add(FixedState::default().hash_one(key), key, SAMPLED);
    }
}

impl Insight {
    /// The `n` keys of a cluster that are asked for most, the hottest first.
    pub fn hot_keys(&self, cluster: usize, n: usize) -> Vec<HotKey> {
        let Some(watched) = self.clusters.get(cluster) else { return Vec::new() };
        let tables: Vec<TopKeys> =
            watched.hot.iter().map(|table| TopKeys::clone(&locked(table))).collect();
        let redact = watched.options.redact;
        let told = heaviest(tables.iter(), n).into_iter().map(|one| HotKey {
            key: if redact { format!("#{:016x}", one.hash).into() } else { one.key.into_vec() },
            per_second: per_second(one.count),
            error: per_second(one.error),
        });
        // Less than once a second is not hot.
        told.filter(|one| one.per_second > one.error).collect()
    }

    /// Lets this worker's counts fade; called once a second.
    pub(in super::super) fn decay(&self, worker: usize) {
        for table in self.clusters.iter().filter_map(|watched| watched.hot.get(worker)) {
            locked(table).decay();
        }
    }
}

/// One request in so many is looked at, on average.
pub(in super::super) const SAMPLED: u64 = 32;
/// Keys that a worker keeps of a cluster: what has more than 1/128 of its requests is found.
pub(super) const KEPT: usize = 128;
/// Of a request with more keys the first ones speak for it.
const MOST_KEYS: usize = 64;
