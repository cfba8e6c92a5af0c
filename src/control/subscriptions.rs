//! What clients have subscribed to, summed over the workers, for the metrics and the status page.
//! Not who they are.

use super::{plane::Plane, sheet::Sheet};
use crate::telemetry::{
    metrics::{ClusterMetrics, Counter},
    names,
};
use serde::Serialize;

/// Of one cluster.
#[derive(Serialize)]
pub(super) struct Subscriptions {
    subscribers: u64,
    channels: u64,
    patterns: u64,
    shard_channels: u64,
    /// What the workers are subscribed to at the servers.
    topics: u64,
    messages: u64,
    subscribers_dropped: u64,
    resubscriptions: u64,
    gap_ms: u64,
}

impl Subscriptions {
    pub(super) fn of(plane: &Plane, cluster: usize) -> Self {
        let sum = |pick: fn(&ClusterMetrics) -> &Counter| -> u64 {
            let counted = plane.workers.iter().filter_map(|worker| worker.clusters.get(cluster));
            counted.map(|metrics| pick(metrics).get()).sum()
        };
        Self {
            subscribers: sum(|c| &c.subscribers),
            channels: sum(|c| &c.subscribed_channels),
            patterns: sum(|c| &c.subscribed_patterns),
            shard_channels: sum(|c| &c.subscribed_shard_channels),
            topics: sum(|c| &c.topics),
            messages: sum(|c| &c.messages),
            subscribers_dropped: sum(|c| &c.subscribers_dropped),
            resubscriptions: sum(|c| &c.resubscriptions),
            gap_ms: sum(|c| &c.subscriber_gap_us) / 1000,
        }
    }

    /// Their rows on the page of metrics.
    pub(super) fn write(&self, sheet: &mut Sheet, cluster: (&str, &str)) {
        let kinds = [
            ("channel", self.channels),
            ("pattern", self.patterns),
            ("shard_channel", self.shard_channels),
        ];
        for (kind, count) in kinds {
            sheet.count(names::REDIS_SUBSCRIPTIONS, &[cluster, ("kind", kind)], count);
        }
        for (name, count) in [
            (names::REDIS_SUBSCRIBERS, self.subscribers),
            (names::REDIS_TOPICS, self.topics),
            (names::REDIS_MESSAGES, self.messages),
            (names::REDIS_SUBSCRIBERS_DROPPED, self.subscribers_dropped),
            (names::REDIS_RESUBSCRIPTIONS, self.resubscriptions),
        ] {
            sheet.count(name, &[cluster], count);
        }
        #[expect(clippy::cast_precision_loss, reason = "exact for 285 millennia")]
        let gap = self.gap_ms as f64 / 1000.0;
        sheet.add(names::REDIS_SUBSCRIBER_GAP, &[cluster], gap);
    }
}
