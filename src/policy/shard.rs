//! Which shard owns a key. Whether that shard has anybody to answer is not asked here: a data shard
//! never falls over to its neighbour.

mod directory;
mod even;
mod live;
mod movement;
mod range;

pub use directory::Directory;
pub use even::even_slots;
pub use live::SlotTable;
pub use movement::{Movement, movement};
pub use range::{Bounds, Range};

use super::{
    dice::mix,
    hash::Hash,
    maglev::{Maglev, stable_id},
    ring::Ring,
    slot::{SLOTS, hash_tag, slot, tag_between},
};
use std::{fmt::Write, sync::Arc};

/// How the keys of a cluster are spread over its shards.
#[derive(Clone, Debug)]
pub enum Sharding {
    /// One shard owns them all, or there is none.
    One,
    /// `owners[slot]` is the index of the shard that owns a slot of Redis Cluster.
    Slots(Box<[u16]>),
    /// The servers say who owns a slot.
    Live(Arc<SlotTable>),
    Hashed(Hash, Tag, Spread),
    Range(Tag, Range),
    Directory(Tag, Directory),
}

/// The shard of a hash.
#[derive(Clone, Debug)]
pub enum Spread {
    Ketama(Ring),
    Maglev(Maglev),
    /// Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014: over so many.
    Jump(u16),
    /// The remainder picks an entry; a shard has as many as its weight.
    Modulo(Box<[u16]>),
}

/// The two bytes around the part of a key that counts; `None`: all of it does.
pub type Tag = Option<[u8; 2]>;

/// What a shard is known by, wherever it stands in the file, and its weight.
pub type Known<'n> = (&'n str, u32);

impl Spread {
    pub fn ketama<'n>(shards: impl Iterator<Item = Known<'n>> + Clone) -> Self {
        Self::Ketama(Ring::new(shards))
    }

    pub fn maglev<'n>(shards: impl Iterator<Item = Known<'n>>) -> Self {
        Self::Maglev(Maglev::new(shards.map(|(name, weight)| (stable_id(name.as_bytes()), weight))))
    }

    /// As twemproxy's `modula`.
    pub fn modulo<'n>(shards: impl Iterator<Item = Known<'n>>) -> Self {
        let entries = (0..=u16::MAX).zip(shards).flat_map(|(place, (_, weight))| {
            std::iter::repeat_n(place, usize::try_from(weight).unwrap_or(usize::MAX))
        });
        Self::Modulo(entries.collect())
    }

    fn get(&self, hash: u64) -> usize {
        match self {
            Self::Ketama(ring) => ring.get(low_half(hash)),
            // A hash of 32 bits or fewer, or a weak one, is no worse than others after this.
            Self::Maglev(table) => table.get(mix(hash)).unwrap_or_default(),
            Self::Jump(shards) => jump(mix(hash), *shards),
            Self::Modulo(entries) => {
                let len = u64::try_from(entries.len()).unwrap_or(u64::MAX).max(1);
                let entry = usize::try_from(hash % len).unwrap_or_default();
                entries.get(entry).copied().map_or(0, usize::from)
            }
        }
    }
}

impl Sharding {
    /// The index of the shard that owns a key; beyond all of them when nobody does.
    #[inline(always)]
    pub fn owner(&self, key: &[u8]) -> usize {
        match self {
            Self::One => 0,
            Self::Slots(owners) => {
                owners.get(usize::from(slot(key))).copied().map_or(0, usize::from)
            }
            Self::Live(table) => table.owner(slot(key)).unwrap_or(usize::MAX),
            Self::Hashed(hash, tag, spread) => spread.get(hash.of(tagged(*tag, key))),
            Self::Range(tag, range) => range.owner(tagged(*tag, key)),
            Self::Directory(tag, directory) => directory.owner(tagged(*tag, key)),
        }
    }

    /// Who owns which slot now, where the servers say so.
    pub fn live(&self) -> Option<&Arc<SlotTable>> {
        match self {
            Self::Live(table) => Some(table),
            _ => None,
        }
    }

    /// The part of a key that alone decides, where it is not the whole key.
    pub fn tag<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let part = match self {
            Self::One => key,
            Self::Slots(_) | Self::Live(_) => hash_tag(key),
            Self::Hashed(_, tag, _) | Self::Range(tag, _) | Self::Directory(tag, _) => {
                tagged(*tag, key)
            }
        };
        (part.len() < key.len()).then_some(part)
    }

    /// The first and last slot of each run that a shard owns; none when it is not slots that decide.
    pub fn runs(&self, shard: usize) -> Vec<(u16, u16)> {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        let owners = self.by_slot().into_iter().flatten();
        for (slot, _) in (0u16..).zip(owners).filter(|(_, owner)| *owner == shard) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => runs.push((slot, slot)),
            }
        }
        runs
    }

    /// The owner of every slot, where slots decide.
    fn by_slot(&self) -> Option<Box<dyn Iterator<Item = usize> + '_>> {
        match self {
            Self::One => Some(Box::new(std::iter::repeat_n(0, usize::from(SLOTS)))),
            Self::Slots(owners) => Some(Box::new(owners.iter().copied().map(usize::from))),
            Self::Live(table) => {
                Some(Box::new(table.owners().map(|one| one.unwrap_or(usize::MAX))))
            }
            _ => None,
        }
    }

    /// What about a key decides, in words: `slot 866`, `hash 2654435769`.
    pub fn reason(&self, key: &[u8]) -> String {
        let part = self.tag(key).unwrap_or(key);
        let mut text = match self {
            Self::One => "the only shard".to_owned(),
            Self::Slots(_) | Self::Live(_) => format!("slot {}", slot(key)),
            Self::Hashed(hash, ..) => format!("hash {}", hash.of(part)),
            Self::Range(_, range) => range.reason(part),
            Self::Directory(_, directory) => directory.reason(part),
        };
        if part.len() < key.len() {
            let _ = write!(text, " of {}", part.escape_ascii());
        }
        text
    }
}

fn tagged(tag: Tag, key: &[u8]) -> &[u8] {
    tag.map_or(key, |tag| tag_between(tag, key))
}

fn low_half(hash: u64) -> u32 {
    let [.., a, b, c, d] = hash.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in double precision as published; the loop ends below 65,536"
)]
fn jump(mut hash: u64, shards: u16) -> usize {
    let (mut found, mut next) = (0_u64, 0_u64);
    while next < u64::from(shards) {
        found = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((found + 1) as f64 * ((1_u64 << 31) as f64 / ((hash >> 33) + 1) as f64)) as u64;
    }
    usize::try_from(found).unwrap_or_default()
}

/// Where all slots of a cluster of so many shards belong; see [`even_slots`].
pub fn even(shards: usize) -> Sharding {
    match shards {
        0 | 1 => Sharding::One,
        _ => Sharding::Slots(even_slots(shards).into()),
    }
}

#[cfg(test)]
mod tests;
