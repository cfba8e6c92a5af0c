//! How far a replica is behind its primary, in bytes and in seconds, from the offsets that probes
//! brought, and since when it has everything. Not whether that is too far: that is
//! [`crate::policy::fresh`].

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
            self.thin_out();
        }
        self.samples.push_back((sent_ms, offset));
    }

    /// Leaves gaps between old samples that grow with their age: so they reach far back, and a
    /// replica is never taken for newer than it is.
    fn thin_out(&mut self) {
        let Some(newest_ms) = self.newest_ms() else { return };
        let mut kept: VecDeque<(u64, u64)> = VecDeque::with_capacity(KEPT);
        for (place, (at, offset)) in self.samples.iter().enumerate() {
            let next = self.samples.get(place + 1).map_or(u64::MAX, |(next, _)| *next);
            let before = kept.back().map_or(0, |(before, _)| *before);
            let gap = next.saturating_sub(before);
            if kept.is_empty() || gap > newest_ms.saturating_sub(next) / GAPS {
                kept.push_back((*at, *offset));
            }
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        self.samples = kept;
    }

    /// When the newest sample was asked for.
    pub(super) fn newest_ms(&self) -> Option<u64> {
        self.samples.back().map(|(at, _)| *at)
    }

    /// When the newest sample was asked for that a replica at `offset` has reached.
    pub(super) fn reached_ms(&self, id: Option<&str>, offset: u64) -> Option<u64> {
        if id.is_none() || self.id.as_deref() != id {
            return None;
        }
        let reached = self.samples.iter().rev().find(|(_, sample)| *sample <= offset);
        reached.map(|(at, _)| *at)
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

const KEPT: usize = 512;
/// A lag is told with an error of one part of so many at most, and half that usually.
const GAPS: u64 = 32;

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
    fn a_replica_has_all_that_was_there_when_the_sample_was_asked_for_that_it_has_reached() {
        let mut offsets = Offsets::default();
        offsets.record(Some("a"), 100, 1_000);
        offsets.record(Some("a"), 200, 2_000);
        assert_eq!(offsets.reached_ms(Some("a"), 99), None);
        assert_eq!(offsets.reached_ms(Some("a"), 199), Some(1_000));
        assert_eq!(offsets.reached_ms(Some("a"), 900), Some(2_000));
        assert_eq!(offsets.reached_ms(Some("b"), 900), None, "another stream");
        assert_eq!(offsets.reached_ms(None, 900), None);
        assert_eq!(offsets.newest_ms(), Some(2_000));
    }

    #[test]
    fn a_new_stream_forgets_the_old_one() {
        let mut offsets = Offsets::default();
        offsets.record(Some("a"), 900, 0);
        offsets.record(Some("b"), 10, 1);
        assert_eq!(offsets.lag(Some("b"), 10, 2), Some(Lag { bytes: 0, ms: Some(0) }));
        assert_eq!(offsets.reached_ms(Some("a"), 900), None);
    }

    #[test]
    fn old_samples_are_thinned_out_and_reach_far_back() {
        let mut offsets = Offsets::default();
        (0..100_000).for_each(|n| offsets.record(Some("a"), n, n));
        assert!(offsets.samples.len() <= KEPT);
        let lag = |offset| offsets.lag(Some("a"), offset, 99_999).and_then(|lag| lag.ms);
        assert_eq!(lag(99_990), Some(9), "the newest are all there");
        let late = lag(95_000).unwrap();
        assert!((4_999..5_200).contains(&late), "{late}: never less than it is");
        let late = lag(50_000).unwrap();
        assert!((49_999..52_000).contains(&late), "{late}");
    }
}
