//! How much of `limits.memory` the buffers of all workers hold. Not what is done about it: each
//! protocol decides that for its clients.

use crate::telemetry::metrics::WorkerMetrics;
use std::sync::Arc;

/// The process-wide bound on buffered bytes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub limit: Option<u64>,
    pub workers: Arc<[Arc<WorkerMetrics>]>,
}

impl Memory {
    /// Bytes buffered by all workers.
    pub fn used(&self) -> u64 {
        self.workers.iter().map(|worker| worker.buffered.get()).sum()
    }

    /// Whether `percent` of the limit is in use; false without a limit.
    pub fn above(&self, percent: u64) -> bool {
        self.limit.is_some_and(|limit| self.used() >= limit / 100 * percent)
    }

    /// Whether clients that have most under way are not to be read (core.md, Admission 5).
    pub fn is_scarce(&self) -> bool {
        self.above(90)
    }

    /// Whether nothing new is to be taken on.
    pub fn is_used_up(&self) -> bool {
        self.above(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_above_a_share_of_its_limit_and_never_without_one() {
        let workers: Arc<[Arc<WorkerMetrics>]> = Arc::new([Arc::default(), Arc::default()]);
        workers.iter().for_each(|worker| worker.buffered.add(450));
        let memory = |limit| Memory { limit, workers: Arc::clone(&workers) };
        assert_eq!(memory(None).used(), 900);
        assert!(!memory(None).above(0));
        assert!(memory(Some(1000)).is_scarce() && !memory(Some(1000)).above(91));
        assert!(memory(Some(900)).is_used_up() && !memory(Some(1000)).is_used_up());
    }
}
