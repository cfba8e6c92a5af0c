//! Whether the workers' loops turn, from their heartbeats. Not the state of any backend.

use crate::telemetry::metrics::WorkerMetrics;
use std::sync::Arc;

/// When each worker's heartbeat was last seen to advance.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Turns, and when they were new.
    seen: Vec<(u64, u64)>,
}

impl Pulse {
    /// Every worker has until [`LIMIT_MS`] after `now_ms` for its first turn.
    pub(super) fn new(workers: usize, now_ms: u64) -> Self {
        Self { seen: vec![(0, now_ms); workers] }
    }

    /// Looks at the heartbeats.
    pub(super) fn sample(&mut self, workers: &[Arc<WorkerMetrics>], now_ms: u64) {
        for (seen, worker) in self.seen.iter_mut().zip(workers) {
            let turns = worker.turns.get();
            if turns != seen.0 {
                *seen = (turns, now_ms);
            }
        }
    }

    /// # Errors
    /// Which worker stands still, and since when.
    pub(super) fn alive(&self, now_ms: u64) -> Result<(), String> {
        let late = self.seen.iter().enumerate().find_map(|(worker, (_, at))| {
            let silent = now_ms.saturating_sub(*at);
            (silent > LIMIT_MS).then(|| format!("worker {worker} stands still for {silent}ms"))
        });
        late.map_or(Ok(()), Err)
    }
}

/// A worker's heartbeat turns about once a second; five missed ones are no accident.
const LIMIT_MS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_named() {
        let workers = vec![Arc::new(WorkerMetrics::default()), Arc::default()];
        let mut pulse = Pulse::new(2, 0);
        assert_eq!(pulse.alive(5_000), Ok(()));
        workers[0].turns.add(1);
        pulse.sample(&workers, 5_000);
        assert_eq!(pulse.alive(5_001).unwrap_err(), "worker 1 stands still for 5001ms");
        workers[1].turns.add(1);
        pulse.sample(&workers, 6_000);
        assert_eq!(pulse.alive(10_000), Ok(()));
    }
}
