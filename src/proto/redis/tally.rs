//! What one read of an upstream connection counts: replies by backend, completed requests and
//! their latency by cluster. Not where counters live: that is telemetry.

use super::{entry::UNTIMED, hub::Hub, line::Progress, upstream::Upstream};
use crate::{
    policy::access::Access,
    telemetry::metrics::{ClusterMetrics, RequestMetrics},
};

/// Whether a reply completed a client's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Settled {
    /// It did not: a part, a late reply, or a request that goes on elsewhere.
    #[default]
    No,
    Ok,
    Failed,
}

impl Settled {
    pub(super) fn of(progress: Progress) -> Self {
        match progress {
            Progress::Waiting => Self::No,
            Progress::Done => Self::Ok,
            Progress::Failed => Self::Failed,
        }
    }
}

/// Counts of one read, written to the shared counters at its end.
pub(super) struct Tally {
    now_us: u64,
    reads: u64,
    writes: u64,
    /// A run of requests alike, which have one latency: how many, and what they share.
    run: u64,
    alike: (Access, u64, Settled),
}

impl Tally {
    pub(super) fn new(now_us: u64) -> Self {
        Self { now_us, reads: 0, writes: 0, run: 0, alike: (Access::Read, 0, Settled::No) }
    }

    pub(super) fn count(
        &mut self,
        hub: &Hub,
        upstream: &Upstream,
        access: Access,
        start_us: u64,
        settled: Settled,
    ) {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
        }
        if self.alike != (access, start_us, settled) {
            self.end_run(hub, upstream);
            self.alike = (access, start_us, settled);
        }
        self.run += 1;
    }

    fn end_run(&mut self, hub: &Hub, upstream: &Upstream) {
        let n = std::mem::take(&mut self.run);
        let (access, start_us, settled) = self.alike;
        if n == 0 {
            return;
        }
        let us = self.now_us.saturating_sub(start_us);
        let timed = start_us != UNTIMED;
        if timed {
            upstream.observe(us);
            upstream.backend.observe(hub.worker(), self.now_us, us, false);
        }
        let Some(metrics) = hub.metrics.clusters.get(upstream.cluster) else { return };
        let metrics = requests(metrics, access);
        match settled {
            Settled::No => return,
            Settled::Ok => metrics.ok.add(n),
            Settled::Failed => metrics.backend_errors.add(n),
        }
        if timed {
            metrics.duration.observe(us, n);
        }
    }

    pub(super) fn write(&mut self, hub: &Hub, upstream: &Upstream) {
        self.end_run(hub, upstream);
        if let Some(cell) = hub.cell(&upstream.backend) {
            cell.reads.add(self.reads);
            cell.writes.add(self.writes);
        }
    }
}

/// A cluster's counters for one access.
pub(super) fn requests(metrics: &ClusterMetrics, access: Access) -> &RequestMetrics {
    match access {
        Access::Read => &metrics.reads,
        Access::Write => &metrics.writes,
    }
}
