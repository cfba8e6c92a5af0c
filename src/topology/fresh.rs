//! What workers and control share so that reads of replicas keep their promise: when what was
//! written last, and how new each replica is (redis.md, T43). Not what follows from it: that is
//! [`crate::policy::fresh`].

use crate::policy::{
    fresh::{Known, Word},
    reads::ReadFrom,
};
use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How a cluster's reads go where `reads.from` alone does not say it.
#[derive(Debug, Default)]
pub struct ReadRules {
    /// The first that a request fits decides.
    pub overrides: Vec<Override>,
    /// Scripts name every key that they touch.
    pub scripts_declare_keys: bool,
    /// `None`: a replica is read however old it is.
    pub freshness: Option<Freshness>,
}

/// Where some reads go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Reads of keys that begin so.
    pub prefix: Option<String>,
    /// Reads by this command, in upper case, `OBJECT|ENCODING` for a subcommand.
    pub command: Option<String>,
    pub from: ReadFrom,
}

/// What a read of a replica promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing.
    #[default]
    Eventual,
    /// A connection reads what it wrote, and never goes back in time.
    Session,
    /// Who reads a key reads what was written to it through this process.
    Key,
    /// Nothing that is older than the window is missing, whoever wrote it.
    Window,
}

/// The times that a promise is kept by.
#[derive(Debug)]
pub struct Freshness {
    /// Never [`Consistency::Eventual`].
    pub promise: Consistency,
    /// Of [`Consistency::Window`].
    pub window: Duration,
    born: Instant,
    /// The last writes by a hash over database and key; of [`Consistency::Key`].
    keys: Box<[AtomicU64]>,
    /// The last writes of which nobody knows the keys, by a hash over the shard's name.
    shards: Box<[AtomicU64]>,
}

impl Freshness {
    /// Nothing was written yet; time begins at `born`.
    pub fn new(promise: Consistency, window: Duration, born: Instant) -> Self {
        let words = |n: usize| (0..n).map(|_| AtomicU64::new(0)).collect();
        let keys = words(if promise == Consistency::Key { KEYS } else { 0 });
        Self { promise, window, born, keys, shards: words(SHARDS) }
    }

    /// That moment in milliseconds, rounded down.
    #[inline]
    pub fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    /// Which word a key's writes are in.
    #[inline]
    pub fn place_of(db: u8, key: &[u8]) -> u16 {
        let hash = hash((db, key));
        u16::from_le_bytes([hash.to_le_bytes()[0], hash.to_le_bytes()[1]])
    }

    /// The last write of a key.
    #[inline]
    pub fn key(&self, place: u16) -> Word {
        Word(self.keys.get(usize::from(place)).map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// The last write to a shard of which nobody knows the keys.
    #[inline]
    pub fn shard(&self, name: &str) -> Word {
        Word(self.shard_word(name).map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// A write leaves: to one key, or to who knows which of a shard.
    pub fn begin(&self, what: Written<'_>) {
        change(self.word(what), Word::begun);
    }

    /// It was answered at `at_ms`.
    pub fn end(&self, what: Written<'_>, at_ms: u64) {
        change(self.word(what), |word| word.ended(at_ms));
    }

    fn word(&self, what: Written<'_>) -> Option<&AtomicU64> {
        match what {
            Written::Key(place) => self.keys.get(usize::from(place)),
            Written::Shard(name) => self.shard_word(name),
        }
    }

    fn shard_word(&self, name: &str) -> Option<&AtomicU64> {
        let [low, ..] = hash(name).to_le_bytes();
        self.shards.get(usize::from(low))
    }
}

/// What a write may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    Key(u16),
    /// Anything of that shard.
    Shard(&'a str),
}

fn change(word: Option<&AtomicU64>, next: impl Fn(Word) -> Word) {
    if let Some(word) = word {
        let next = |word| Some(next(Word(word)).0);
        // It never fails, for there is always a next one.
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

#[inline]
fn hash(what: impl Hash) -> u64 {
    foldhash::fast::FixedState::default().hash_one(what)
}

/// How new a replica is, as control has measured it.
#[derive(Debug, Default)]
pub struct Sampled {
    safe_ms: AtomicU64,
    sampled_ms: AtomicU64,
}

impl Sampled {
    /// What is known now. The time of the sample is read first: then what it is safe by is of that
    /// sample or of a later one, never of one before it.
    #[inline]
    pub fn known(&self) -> Known {
        let sampled_ms = self.sampled_ms.load(Ordering::Acquire);
        Known { safe_ms: self.safe_ms.load(Ordering::Acquire), sampled_ms }
    }

    /// Publishes that. Control alone calls this.
    pub fn publish(&self, known: Known) {
        self.safe_ms.store(known.safe_ms, Ordering::Release);
        self.sampled_ms.store(known.sampled_ms, Ordering::Release);
    }
}

/// redis.md, T43: 512 KiB.
const KEYS: usize = 1 << 16;
const SHARDS: usize = 1 << 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Freshness {
        Freshness::new(Consistency::Key, Duration::ZERO, Instant::now())
    }

    #[test]
    fn a_key_has_a_word_of_its_own_in_each_database() {
        let fresh = fresh();
        let [zero, one] = [0, 1].map(|db| Freshness::place_of(db, b"user:1"));
        assert_ne!(zero, one);
        fresh.begin(Written::Key(zero));
        assert!(fresh.key(zero).0 > u64::from(u32::MAX));
        assert_eq!(fresh.key(one).0, 0);
        fresh.end(Written::Key(zero), 7);
        assert_eq!((fresh.key(zero).0, fresh.shard("s0").0), (7, 0));
    }

    #[test]
    fn a_write_of_unknown_keys_counts_for_its_shard() {
        let fresh = fresh();
        fresh.begin(Written::Shard("s0"));
        fresh.end(Written::Shard("s0"), 9);
        assert_eq!((fresh.shard("s0").0, fresh.shard("s1").0), (9, 0));
    }

    /// Counted up by many and down by as many, no word is left later than any time.
    #[test]
    fn writes_of_many_threads_all_come_to_an_end() {
        let fresh = fresh();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let fresh = &fresh;
                scope.spawn(move || {
                    for at in 0..1_000 {
                        fresh.begin(Written::Key(3));
                        fresh.end(Written::Key(3), thread * 1_000 + at);
                    }
                });
            }
        });
        assert_eq!(fresh.key(3).0, 3_999);
    }

    #[test]
    fn a_time_is_rounded_down() {
        let born = Instant::now();
        let fresh = Freshness::new(Consistency::Session, Duration::ZERO, born);
        assert_eq!(fresh.ms(born + Duration::from_micros(2_999)), 2);
        assert_eq!(fresh.ms(born.checked_sub(Duration::from_secs(1)).unwrap_or(born)), 0);
    }
}
