//! How far a replica is behind its primary, in bytes and in seconds, from the offsets that probes
//! brought. Not whether that is too far.

use std::collections::VecDeque;

/// The newest offsets of one shard's primary.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// Offsets of two replication streams do not compare (redis.md, T42).
    id: Option<String>,
    /// (before the probe was sent, offset), oldest first.
    samples: VecDeque<(u64, u64)>,
}

/// How far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lag {
    pub(super) bytes: u64,
    /// Age of the newest sample that was reached, 0 for the latest; `None` when it is older than
    /// what is kept.
    pub(super) ms: Option<u64>,
}

impl Offsets {
    /// What a probe of the primary, sent at `sent_ms`, said.
    pub(super) fn record(&mut self, id: Option<&str>, offset: u64, sent_ms: u64) {
        if self.id.as_deref() != id {
            self.id = id.map(str::to_owned);
            self.samples.clear();
        }
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back((sent_ms, offset));
    }

    /// How far a replica at `offset` is behind; `None` while nothing comparable is known.
    pub(super) fn lag(&self, id: Option<&str>, offset: u64, now_ms: u64) -> Option<Lag> {
        if self.id.as_deref() != id {
            return None;
        }
        let (_, newest) = self.samples.back()?;
        let reached = self.samples.iter().rev().find(|(_, sample)| *sample <= offset);
        let ms = reached.map(
            |(at, sample)| {
                if sample == newest { 0 } else { now_ms.saturating_sub(*at) }
            },
        );
        Some(Lag { bytes: newest.saturating_sub(offset), ms })
    }
}

/// Two minutes at the default interval of 2s.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_distance_to_the_newest_sample() {
        let mut offsets = Offsets::default();
        assert_eq!(offsets.lag(Some("a"), 5, 0), None);
        offsets.record(Some("a"), 100, 1_000);
        offsets.record(Some("a"), 200, 2_000);
        let lag = |offset| offsets.lag(Some("a"), offset, 2_500);
        assert_eq!(lag(200), Some(Lag { bytes: 0, ms: Some(0) }));
        assert_eq!(lag(250), Some(Lag { bytes: 0, ms: Some(0) }));
        assert_eq!(lag(150), Some(Lag { bytes: 50, ms: Some(1_500) }));
        assert_eq!(lag(50), Some(Lag { bytes: 150, ms: None }));
        assert_eq!(offsets.lag(Some("b"), 200, 2_500), None, "another stream");
    }

    #[test]
    fn a_new_stream_forgets_the_old_one() {
        let mut offsets = Offsets::default();
        offsets.record(Some("a"), 900, 0);
        offsets.record(Some("b"), 10, 1);
        assert_eq!(offsets.lag(Some("b"), 10, 2), Some(Lag { bytes: 0, ms: Some(0) }));
        (0..200).for_each(|n| offsets.record(Some("b"), n, n));
        assert_eq!(offsets.samples.len(), KEPT);
    }
}
