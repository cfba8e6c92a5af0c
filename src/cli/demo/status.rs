//! What `/api/v1/status` says, as far as the demo shows it. Not the document itself: see
//! `control::status`.

use super::client::http_get;
use serde::Deserialize;
use std::io;

/// The document; fields that the demo does not show are left out.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) state: String,
    clusters: Vec<Cluster>,
    /// Oldest first.
    pub(super) events: Vec<Event>,
}

#[derive(Clone, Debug, Deserialize)]
struct Cluster {
    shards: Vec<Shard>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Shard {
    pub(super) name: String,
    /// First and last of each run.
    slots: Vec<(u16, u16)>,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) state: String,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) in_flight: u64,
    pub(super) lag_bytes: Option<u64>,
    pub(super) lag_ms: Option<u64>,
    #[serde(default)]
    pub(super) failures: u64,
    pub(super) sessions: Option<Sessions>,
}

/// Sticky sessions of a backend.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Sessions {
    pub(super) here: u64,
    /// Of all, 0 to 1.
    pub(super) share: f64,
    pub(super) came: u64,
    pub(super) left: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Event {
    /// Since 1970.
    pub(super) time_ms: u64,
    pub(super) shard: String,
    pub(super) backend: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cause: String,
    pub(super) detail: String,
}

impl Status {
    /// Asks the admin address.
    pub(super) async fn fetch(admin: u16) -> io::Result<Self> {
        let body = http_get(admin, "/api/v1/status").await?;
        serde_json::from_str(&body).map_err(io::Error::from)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.clusters.iter().flat_map(|cluster| &cluster.shards)
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.shards().flat_map(|shard| &shard.backends)
    }

    /// The shard that owns a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Shard> {
        self.shards()
            .find(|shard| shard.slots.iter().any(|(from, to)| (*from..=*to).contains(&slot)))
    }

    /// The events after `last`; all of them when it is so old that it was forgotten.
    pub(super) fn events_after(&self, last: Option<&Event>) -> &[Event] {
        let seen = self.events.iter().rposition(|event| Some(event) == last);
        self.events.get(seen.map_or(0, |at| at + 1)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> Event {
        let text = String::new;
        Event {
            time_ms: n,
            shard: text(),
            backend: text(),
            from: text(),
            to: text(),
            cause: text(),
            detail: text(),
        }
    }

    #[test]
    fn each_event_is_news_once() {
        let status = Status { events: (0..3).map(event).collect(), ..Status::default() };
        assert_eq!(status.events_after(None).len(), 3);
        assert_eq!(status.events_after(Some(&event(0))), [event(1), event(2)]);
        assert!(status.events_after(Some(&event(2))).is_empty());
        assert_eq!(status.events_after(Some(&event(9))).len(), 3);
    }
}
