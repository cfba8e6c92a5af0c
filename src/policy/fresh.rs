//! Whether a replica has everything that a reader must see (redis.md, T43), and whether it is too
//! far behind to be read at all (T42). Not how far it is: that is measured by control; nor where
//! what is known of it is kept.
//!
//! All times are milliseconds, rounded down, on one clock for the whole process. They are compared
//! for more, never for the same: of two times whose roundings differ the larger one is later.

use std::time::Duration;

/// What was measured of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It has everything that its primary had then; 0: nothing is known.
    pub safe_ms: u64,
    /// When it was asked last and its primary too, the earlier of both: before the question left.
    pub sampled_ms: u64,
}

/// Whether a read that must see everything older than `newer_than_ms` may go to a replica over a
/// connection that was there at `opened_ms`.
///
/// A connection that is younger than the newest sample may lead to a server that has started again
/// with an old file; and what nobody has looked at for a while may follow another primary by now.
#[inline]
pub const fn is_fresh(known: Known, opened_ms: u64, newer_than_ms: u64, now_ms: u64) -> bool {
    known.safe_ms > newer_than_ms
        && known.sampled_ms > opened_ms
        && now_ms.saturating_sub(known.sampled_ms) <= SILENT_MS
}

/// The last write of something and how many are under way, in one word: while there is one, the
/// word is later than any time, so that one comparison answers both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// One more is under way.
    #[must_use]
    pub const fn begun(self) -> Self {
        Self(self.0.wrapping_add(BEGUN))
    }

    /// One less is, and was done by `at_ms`.
    #[must_use]
    pub const fn ended(self, at_ms: u64) -> Self {
        let (count, known) = (self.0 & !TIME, self.0 & TIME);
        let time = if at_ms > known { at_ms } else { known };
        Self(count.wrapping_sub(BEGUN) | if time < TIME { time } else { TIME })
    }
}

/// When a write counts as done of which no answer came at `now_ms`: the server may have it still,
/// and run it later.
pub fn unknown_until(now_ms: u64, request: Duration) -> u64 {
    let twice = u64::try_from(request.as_millis()).unwrap_or(TIME).saturating_mul(2);
    now_ms.saturating_add(twice)
}

/// What a session has seen of one shard, for reads that go neither behind its own writes nor back
/// in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Its writes, and its reads at the primary.
    pub word: Word,
    /// When a replica last answered it.
    heard_ms: u64,
    /// The connection over which it reads a replica.
    from: Option<Line>,
    /// Reads under way there.
    waiting: u32,
}

/// A connection to a replica: which server, and when it was opened.
pub type Line = (u32, u64);

impl Floor {
    /// What a replica must have to be read over `line`: the one that it reads already has shown
    /// what it has shown, any other one must have that too.
    pub fn newer_than(&self, line: Line) -> u64 {
        if self.from == Some(line) { self.word.0 } else { self.elsewhere() }
    }

    /// The same of any other connection.
    pub fn elsewhere(&self) -> u64 {
        if self.waiting > 0 { u64::MAX } else { self.word.0.max(self.heard_ms) }
    }

    /// A read leaves over `line`.
    #[must_use]
    pub const fn asked(self, line: Line) -> Self {
        Self { from: Some(line), waiting: self.waiting.saturating_add(1), ..self }
    }

    /// A replica has answered, or never will.
    #[must_use]
    pub fn answered(self, at_ms: u64) -> Self {
        let waiting = self.waiting.saturating_sub(1);
        Self { heard_ms: self.heard_ms.max(at_ms), waiting, ..self }
    }

    /// The word is another one.
    #[must_use]
    pub const fn with(self, word: Word) -> Self {
        Self { word, ..self }
    }
}

/// How far a replica may be behind and be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behind {
    /// Nothing is known yet: it is not read.
    #[default]
    Unknown,
    Within,
    Beyond,
}

impl Behind {
    /// After one more measurement; `None`: it cannot be told how far it is, so it is not read. It comes back at half the limit, so that one at the limit does not come
    /// and go.
    #[must_use]
    pub fn observe(self, lag_ms: Option<u64>, limit: Duration) -> Self {
        let Some(lag) = lag_ms else {
            return if self == Self::Unknown { self } else { Self::Beyond };
        };
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let bound = if self == Self::Beyond { limit / 2 } else { limit };
        if lag <= bound { Self::Within } else { Self::Beyond }
    }

    /// Whether it may be read.
    pub fn is_within(self) -> bool {
        self == Self::Within
    }
}

/// One write under way. Above it 24 bits count: as many requests would take gigabytes; below it 40
/// bits tell milliseconds of 34 years.
const BEGUN: u64 = 1 << 40;
const TIME: u64 = BEGUN - 1;
/// A replica that nobody has heard of for so long, or whose primary nobody has, is not read.
pub const SILENT_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRESH: Known = Known { safe_ms: 100, sampled_ms: 110 };

    #[test]
    fn each_condition_alone_keeps_a_replica_from_being_read() {
        assert!(is_fresh(FRESH, 109, 99, 200));
        assert!(!is_fresh(FRESH, 109, 100, 200), "it may lack the write");
        assert!(!is_fresh(FRESH, 110, 99, 200), "its connection may lead to another process");
        assert!(!is_fresh(FRESH, 109, 99, 110 + SILENT_MS + 1), "nobody has looked for too long");
        assert!(!is_fresh(Known::default(), 0, 0, 0), "nothing is known of it");
    }

    #[test]
    fn while_a_write_is_under_way_no_replica_is_new_enough() {
        let word = Word::default().begun();
        assert!(!is_fresh(Known { safe_ms: TIME, sampled_ms: TIME }, 0, word.0, TIME));
        let both = word.begun().ended(7);
        assert!(both.0 > TIME, "one of two is left");
        assert_eq!(both.ended(5).0, 7, "the later of both counts");
        assert_eq!(Word(9).begun().ended(8).0, 9);
    }

    #[test]
    fn a_write_without_an_answer_counts_as_later_than_it_was() {
        assert_eq!(unknown_until(1_000, Duration::from_secs(30)), 61_000);
        assert_eq!(Word::default().begun().ended(unknown_until(5, Duration::MAX)).0, TIME);
    }

    #[test]
    fn a_session_stays_where_it_reads_and_moves_on_to_what_is_newer_only() {
        let (here, there) = ((1, 10), (2, 10));
        let floor = Floor::default().asked(here);
        assert_eq!(floor.newer_than(here), 0);
        assert_eq!(floor.newer_than(there), u64::MAX, "an answer is under way");
        let floor = floor.answered(50);
        assert_eq!((floor.newer_than(here), floor.newer_than(there)), (0, 50));
        assert_eq!(floor.newer_than((1, 11)), 50, "the same server over another connection");
        let wrote = floor.with(floor.word.begun().ended(70));
        assert_eq!((wrote.newer_than(here), wrote.newer_than(there)), (70, 70));
    }

    #[test]
    fn a_replica_at_its_limit_does_not_come_and_go() {
        let limit = Duration::from_millis(1_000);
        let mut behind = Behind::default().observe(None, limit);
        assert_eq!(behind, Behind::Unknown);
        let mut seen = String::new();
        for lag in [Some(0), Some(1_000), Some(1_001), Some(900), Some(501), Some(500), None] {
            behind = behind.observe(lag, limit);
            seen.push(if behind.is_within() { '+' } else { '-' });
        }
        assert_eq!(seen, "++---+-");
    }

    /// A primary that writes, a replica that follows late, and a sampler: whatever the order, a
    /// replica that may be read has every write that was answered before.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        /// Sent, run and answered, with the time in between.
        Write(u64, u64),
        Apply(u64),
        /// The replica starts again with what it had so much earlier.
        Restart(u64),
        SamplePrimary(u64),
        SampleReplica,
        Connect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..5u64).prop_map(Step::Wait),
            (0..3u64, 0..3u64).prop_map(|(run, answer)| Step::Write(run, answer)),
            (0..4u64).prop_map(Step::Apply),
            (1..5u64).prop_map(Step::Restart),
            (0..3u64).prop_map(Step::SamplePrimary),
            Just(Step::SampleReplica),
            Just(Step::Connect),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn who_may_be_read_has_every_answered_write(steps in steps()) {
            let (mut now, mut primary, mut replica, mut answered) = (1, 0u64, 0u64, 0u64);
            let mut word = Word::default();
            let mut samples: Vec<(u64, u64)> = Vec::new();
            let mut known = Known::default();
            let (mut at_replica, mut opened, mut alive) = (0u64, u64::MAX, false);
            let mut asked = 0;
            for step in steps {
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::Write(run, answer) => {
                        word = word.begun();
                        now += run;
                        primary += 1;
                        now += answer;
                        word = word.ended(now);
                        answered = primary;
                    }
                    Step::Apply(most) => replica = primary.min(replica + most),
                    Step::Restart(back) => {
                        replica = replica.saturating_sub(back);
                        alive = false;
                    }
                    Step::SamplePrimary(late) => {
                        let sent = now;
                        now += late;
                        samples.push((sent, primary));
                    }
                    Step::SampleReplica => {
                        asked = now;
                        at_replica = replica;
                        now += 1;
                    }
                    Step::Connect => (opened, alive) = (now, true),
                }
                // As control publishes it.
                let reached = samples.iter().rev().find(|(_, offset)| *offset <= at_replica);
                if let (Some((at, _)), Some((newest, _))) = (reached, samples.last()) {
                    known = Known { safe_ms: *at, sampled_ms: asked.min(*newest) };
                }
                if alive && is_fresh(known, opened, word.0, now) {
                    prop_assert!(replica >= answered, "{replica} of {answered} at {now}");
                }
            }
        }
    }
}
