//! The keys that are asked for most, by the space-saving algorithm (Metwally, Agrawal and El Abbadi,
//! "Efficient computation of frequent and top-k elements in data streams", 2005), with decay. Not
//! which requests are looked at: whoever samples tells what one of them weighs.

/// A bounded table of the heaviest keys; what it says of one is never too little.
#[derive(Clone, Debug)]
pub struct TopKeys {
    capacity: usize,
    /// The hashes of `rows`, apart: they are what is searched.
    hashes: Vec<u64>,
    rows: Vec<Row>,
    /// No row has less than this, and none before `cursor` has as little.
    floor: u64,
    cursor: usize,
}

#[derive(Clone, Debug)]
struct Row {
    count: u64,
    error: u64,
    shown: Box<[u8]>,
}

/// One of the heaviest keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKey {
    /// The key's first [`SHOWN`] bytes.
    pub key: Box<[u8]>,
    pub hash: u64,
    /// Its weight at most.
    pub count: u64,
    /// Of `count` so much may be another's.
    pub error: u64,
}

/// Bytes of a key that are kept; longer ones are told apart by their hash alone.
pub const SHOWN: usize = 128;

/// [`TopKeys::decay`] takes one part of so many.
const DECAY: u64 = 16;

impl TopKeys {
    /// A table of so many keys: any key with more than 1/`capacity` of the whole weight is in it.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            hashes: Vec::new(),
            rows: Vec::new(),
            floor: 0,
            cursor: 0,
        }
    }

    /// One key was asked for, with this weight. `hash` is of the whole key.
    pub fn add(&mut self, hash: u64, key: &[u8], weight: u64) {
        if let Some(row) =
            self.hashes.iter().position(|one| *one == hash).and_then(|at| self.rows.get_mut(at))
        {
            row.count = row.count.saturating_add(weight);
            return;
        }
        let shown = key.get(..SHOWN).unwrap_or(key).into();
        if self.rows.len() < self.capacity {
            self.hashes.push(hash);
            self.rows.push(Row { count: weight, error: 0, shown });
            return;
        }
        if let Some(at) = self.lightest()
            && let (Some(old), Some(row)) = (self.hashes.get_mut(at), self.rows.get_mut(at))
        {
            *old = hash;
            *row = Row { count: row.count.saturating_add(weight), error: row.count, shown };
        }
    }

    /// The row with the least count. Between two decays counts only grow: whoever was passed need not be
    /// looked at again before all were.
    fn lightest(&mut self) -> Option<usize> {
        let rest = self.rows.get(self.cursor..).unwrap_or_default();
        match rest.iter().position(|row| row.count == self.floor) {
            Some(on) => self.cursor += on,
            None => {
                let least = (0..).zip(&self.rows).min_by_key(|(_, row)| row.count);
                (self.cursor, self.floor) = least.map(|(at, row)| (at, row.count))?;
            }
        }
        Some(self.cursor)
    }

    /// Takes a sixteenth off every count. Called once a second, a key's count settles at about
    /// sixteen times its weight per second: see [`per_second`].
    pub fn decay(&mut self) {
        for row in &mut self.rows {
            row.count -= row.count.div_ceil(DECAY);
            row.error -= row.error.div_ceil(DECAY);
        }
        let mut rows = std::mem::take(&mut self.rows).into_iter();
        let mut kept = Vec::with_capacity(rows.len());
        self.hashes.retain(|_| {
            let row = rows.next().filter(|row| row.count > 0);
            let keeps = row.is_some();
            kept.extend(row);
            keeps
        });
        self.rows = kept;
        (self.floor, self.cursor) = (0, 0);
    }

    /// What a key that is not in the table may weigh.
    fn least(&self) -> u64 {
        let full = self.rows.len() >= self.capacity;
        self.rows.iter().map(|row| row.count).min().filter(|_| full).unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = TopKey> {
        self.hashes.iter().zip(&self.rows).map(|(hash, row)| TopKey {
            key: row.shown.clone(),
            hash: *hash,
            count: row.count,
            error: row.error,
        })
    }
}

/// The `n` heaviest keys of several tables, the heaviest first. A key that one of them does not
/// have may have been pushed out there: that is in its count and in its error.
pub fn heaviest<'t>(tables: impl Iterator<Item = &'t TopKeys> + Clone, n: usize) -> Vec<TopKey> {
    let unknown: u64 = tables.clone().map(TopKeys::least).sum();
    let mut merged: Vec<TopKey> = Vec::new();
    for table in tables {
        let least = table.least();
        for one in table.all() {
            match merged.iter_mut().find(|other| other.hash == one.hash) {
                Some(other) => {
                    other.count = other.count.saturating_add(one.count) - least;
                    other.error = other.error.saturating_add(one.error).saturating_sub(least);
                }
                None => merged.push(TopKey {
                    count: one.count.saturating_add(unknown) - least,
                    error: one.error.saturating_add(unknown) - least,
                    ..one
                }),
            }
        }
    }
    merged.sort_by_key(|one| std::cmp::Reverse(one.count));
    merged.truncate(n);
    merged
}

/// How much weight per second a count stands for that [`TopKeys::decay`] has shrunk every second.
pub fn per_second(count: u64) -> u64 {
    count / DECAY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Keys 0 to 39, small ones more often.
    fn stream() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec(
            ((0u64..40, 0u64..40).prop_map(|(a, b)| a.min(b)), 1u64..9),
            0..600,
        )
    }

    fn fill(table: &mut TopKeys, stream: &[(u64, u64)], truth: &mut HashMap<u64, u64>) {
        for (key, weight) in stream {
            table.add(*key, &key.to_be_bytes(), *weight);
            *truth.entry(*key).or_default() += weight;
        }
    }

    proptest! {
        #[test]
        fn no_heavy_key_is_missed_and_no_count_is_too_small(stream in stream()) {
            let (mut table, mut truth) = (TopKeys::new(8), HashMap::new());
            fill(&mut table, &stream, &mut truth);
            let total: u64 = truth.values().sum();
            let top = heaviest([&table].into_iter(), 8);
            prop_assert_eq!(top.iter().map(|one| one.count).sum::<u64>(), total);
            for one in &top {
                let real = truth[&one.hash];
                prop_assert!(one.count >= real && one.count - one.error <= real, "{one:?} {real}");
                prop_assert_eq!(&*one.key, &one.hash.to_be_bytes()[..]);
            }
            for (key, real) in truth {
                let heavy = real > total / 8;
                prop_assert!(!heavy || top.iter().any(|one| one.hash == key), "{key} of {real}");
            }
        }

        #[test]
        fn the_lightest_goes(stream in proptest::collection::vec((0u64..40, 0u64..4, 0u32..50), 0..600)) {
            let mut table = TopKeys::new(8);
            for (key, weight, fades) in stream {
                table.add(key, &key.to_be_bytes(), weight);
                if fades == 0 {
                    table.decay();
                }
                let least = table.rows.iter().map(|row| row.count).min();
                let mut full = table.clone();
                let lightest = full.lightest().and_then(|at| full.rows.get(at));
                prop_assert_eq!(lightest.map(|row| row.count), least);
            }
        }

        #[test]
        fn the_tables_of_several_workers_are_as_honest(streams in proptest::collection::vec(stream(), 1..4)) {
            let mut truth = HashMap::new();
            let mut tables = vec![TopKeys::new(8); streams.len()];
            for (table, stream) in tables.iter_mut().zip(&streams) {
                fill(table, stream, &mut truth);
            }
            let top = heaviest(tables.iter(), usize::MAX);
            prop_assert!(top.windows(2).all(|pair| pair[0].count >= pair[1].count));
            for one in &top {
                let real = truth[&one.hash];
                prop_assert!(one.count >= real, "{one:?} {real}");
                prop_assert!(one.count - one.error <= real, "{one:?} {real}");
            }
        }

        #[test]
        fn decay_forgets(stream in stream()) {
            let (mut table, mut truth) = (TopKeys::new(8), HashMap::new());
            fill(&mut table, &stream, &mut truth);
            for _ in 0..200 {
                table.decay();
            }
            prop_assert_eq!(heaviest([&table].into_iter(), 8), vec![]);
        }
    }

    #[test]
    fn a_steady_key_shows_its_rate() {
        let mut table = TopKeys::new(4);
        for _ in 0..200 {
            table.add(7, b"seven", 1_000);
            table.decay();
        }
        let [one] = heaviest([&table].into_iter(), 4).try_into().unwrap();
        assert!((900..=1_000).contains(&per_second(one.count)), "{one:?}");
    }

    #[test]
    fn long_keys_are_told_apart_and_shown_in_part() {
        let mut table = TopKeys::new(4);
        table.add(1, &[b'x'; 1_000], 1);
        table.add(2, &[b'x'; 1_001], 1);
        let top = heaviest([&table].into_iter(), 4);
        assert_eq!(top.iter().map(|one| one.key.len()).collect::<Vec<_>>(), [SHOWN, SHOWN]);
    }
}
