//! What the process knows of its Redis traffic beside counters: which keys are hot, which requests
//! were slow or big. Shared by all workers and read by control; on the path of a request there is one
//! countdown and one comparison, the locks are taken for samples and for what is slow.

mod big;
mod hot;
pub(super) mod slow;
pub(super) mod slowlog;

pub(super) use big::{request as big_request, upload as big_upload};
pub use hot::HotKey;
pub(super) use hot::{SAMPLED, sample};
pub(super) use slowlog::SlowLog;

use crate::policy::hot::TopKeys;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a cluster's configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A request that takes so long is kept in the slow log; zero: none.
    pub slow: Duration,
    /// How many the slow log keeps.
    pub slow_entries: usize,
    /// Bytes of a request or reply that counts as big; at least 64 KiB.
    pub big: usize,
    /// Keys and values are told to nobody.
    pub redact: bool,
    /// Equal GETs under way are asked once.
    pub coalesce: bool,
}

impl Default for Options {
    /// Nothing is watched.
    fn default() -> Self {
        Self {
            slow: Duration::ZERO,
            slow_entries: 0,
            big: usize::MAX,
            redact: false,
            coalesce: false,
        }
    }
}

/// By cluster.
#[derive(Debug, Default)]
pub struct Insight {
    clusters: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    options: Options,
    slowlog: Mutex<SlowLog>,
    /// By worker.
    hot: Vec<Mutex<TopKeys>>,
}

impl Insight {
    /// For clusters with these options, and so many workers.
    pub fn new(clusters: impl IntoIterator<Item = Options>, workers: usize) -> Self {
        let watched = |options: Options| Watched {
            options,
            slowlog: Mutex::new(SlowLog::new(options.slow_entries)),
            hot: (0..workers).map(|_| Mutex::new(TopKeys::new(hot::KEPT))).collect(),
        };
        Self { clusters: clusters.into_iter().map(watched).collect() }
    }

    /// What is watched of a cluster.
    pub(super) fn options(&self, cluster: usize) -> Options {
        self.clusters.get(cluster).map_or_else(Options::default, |watched| watched.options)
    }

    /// How many requests of a cluster were slow so far.
    pub fn slow_requests(&self, cluster: usize) -> u64 {
        self.slowlog(cluster).map_or(0, |log| log.total())
    }

    /// The slow log of a cluster.
    pub(super) fn slowlog(&self, cluster: usize) -> Option<MutexGuard<'_, SlowLog>> {
        Some(locked(&self.clusters.get(cluster)?.slowlog))
    }
}

/// A panic while it was held leaves it whole: nothing here is changed in two steps.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
