//! How many keys another sharding would move, and what share of them each shard owns.

use super::Sharding;

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// Slots, each once, and not keys.
    pub of_slots: bool,
    pub counted: u64,
    /// Those whose shard now is not the one that held them.
    pub moved: u64,
    /// What each shard had.
    pub before: Vec<u64>,
    /// What each shard would have.
    pub after: Vec<u64>,
}

/// Counts slots, each once, when both are by slots; else the keys of `sample`. `stays` says whether a
/// shard of the new list, the second, is the place where those of a shard of the old list are.
pub fn movement<K: AsRef<[u8]>>(
    (old, old_shards): (&Sharding, usize),
    (new, new_shards): (&Sharding, usize),
    sample: impl Iterator<Item = K>,
    stays: impl Fn(usize, usize) -> bool,
) -> Movement {
    let mut counts =
        Movement { before: vec![0; old_shards], after: vec![0; new_shards], ..Movement::default() };
    let slots = old.by_slot().zip(new.by_slot());
    counts.of_slots = slots.is_some();
    let mut count = |from: usize, to: usize| {
        counts.counted += 1;
        counts.moved += u64::from(!stays(from, to));
        for (list, at) in [(&mut counts.before, from), (&mut counts.after, to)] {
            if let Some(n) = list.get_mut(at) {
                *n += 1;
            }
        }
    };
    match slots {
        Some((old, new)) => old.zip(new).for_each(|(from, to)| count(from, to)),
        None => sample.for_each(|key| count(old.owner(key.as_ref()), new.owner(key.as_ref()))),
    }
    counts
}
