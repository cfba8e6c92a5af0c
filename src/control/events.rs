//! What happened to backends: each transition is one event, told once in the log, counted, and
//! kept in a ring for the status page. Not why it happened: the machines of policy decide.

use serde::Serialize;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// One transition of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    /// Milliseconds since 1970 by the wall clock.
    pub(super) time_ms: u64,
    pub(super) cluster: Arc<str>,
    pub(super) shard: Arc<str>,
    pub(super) backend: Arc<str>,
    /// A state, or for the cause `role` a role.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) cause: &'static str,
    pub(super) detail: String,
    /// Whether it made things better; the level of its log line.
    #[serde(skip)]
    pub(super) good: bool,
}

/// The newest events and how many there were.
#[derive(Debug, Default)]
pub(super) struct Events {
    ring: VecDeque<Event>,
    total: u64,
}

impl Events {
    /// Logs and keeps `event`.
    pub(super) fn push(&mut self, event: Event) {
        if event.good {
            tracing::info!("{}", event.line());
        } else {
            tracing::warn!("{}", event.line());
        }
        self.total += 1;
        if self.ring.len() == KEPT {
            self.ring.pop_front();
        }
        self.ring.push_back(event);
    }

    /// The newest events, oldest first; at most 256.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Event> {
        self.ring.iter()
    }

    /// How many there were since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

impl Event {
    /// `backend 10.0.0.3:6379 (cluster cache, shard s0): ready -> ejected: hung: no answer ...`
    fn line(&self) -> String {
        let Self { cluster, shard, backend, from, to, cause, detail, .. } = self;
        let shard = if shard.is_empty() { String::new() } else { format!(", shard {shard}") };
        format!("backend {backend} (cluster {cluster}{shard}): {from} -> {to}: {cause}: {detail}")
    }
}

/// Milliseconds since 1970; a clock before that counts as 1970.
pub(super) fn wall_clock_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A duration in whole milliseconds, saturating.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// core.md: a ring of the last 256 for the status page.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        Event {
            time_ms: 0,
            cluster: "cache".into(),
            shard: "s0".into(),
            backend: "10.0.0.3:6379".into(),
            from: "ready",
            to: "ejected",
            cause: "hung",
            detail: format!("no answer to {n} probes of 250ms"),
            good: false,
        }
    }

    #[test]
    fn a_line_says_who_what_and_why() {
        assert_eq!(
            event(2).line(),
            "backend 10.0.0.3:6379 (cluster cache, shard s0): ready -> ejected: hung: \
             no answer to 2 probes of 250ms"
        );
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let mut events = Events::default();
        (0..300).for_each(|n| events.push(event(n)));
        assert_eq!((events.total(), events.newest().count()), (300, 256));
        assert!(events.newest().last().unwrap().detail.contains("299"));
    }
}
