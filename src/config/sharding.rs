//! How a cluster's keys are spread over its shards, as it is written, and the same for the policies.

use super::Shard;
use crate::policy::{
    hash::Hash,
    shard::{self, Bounds, Directory, Known, Range, Spread, Tag, even},
};

/// `sharding:` of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sharding {
    pub by: ShardingBy,
    /// Of ketama, maglev, jump and modulo.
    pub hash: Hash,
    /// Of all but slots; default `None`: the whole key counts.
    pub hash_tag: Tag,
    /// Of range; default `None`: the whole key is compared.
    pub separator: Option<String>,
    /// Of range, ascending and one fewer than shards.
    pub bounds: Vec<String>,
    /// Of directory: a key, or a beginning with a `*` behind it, and the index of its shard.
    pub keys: Vec<(String, usize)>,
    /// Of range and directory: the index of a shard; default the first.
    pub default: usize,
}

/// What decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardingBy {
    #[default]
    Slots,
    Ketama,
    Maglev,
    Jump,
    Modulo,
    Range,
    Directory,
}

impl ShardingBy {
    /// Whether it goes by what a shard is known by, wherever that stands in the file.
    pub fn asks_identity(self) -> bool {
        matches!(self, Self::Ketama | Self::Maglev)
    }
}

impl Sharding {
    /// As the policies want it, over these shards.
    pub fn over(&self, shards: &[Shard]) -> shard::Sharding {
        let known = || shards.iter().map(|shard| -> Known<'_> { (&shard.identity, shard.weight) });
        let hashed = |spread| shard::Sharding::Hashed(self.hash, self.hash_tag, spread);
        match self.by {
            _ if shards.len() < 2 => shard::Sharding::One,
            ShardingBy::Slots => even(shards.len()),
            ShardingBy::Ketama => hashed(Spread::ketama(known())),
            ShardingBy::Maglev => hashed(Spread::maglev(known())),
            ShardingBy::Jump => {
                hashed(Spread::Jump(u16::try_from(shards.len()).unwrap_or(u16::MAX)))
            }
            ShardingBy::Modulo => hashed(Spread::modulo(known())),
            ShardingBy::Range => shard::Sharding::Range(
                self.hash_tag,
                Range {
                    separator: self.separator.clone().map(String::into_bytes),
                    bounds: bounds(&self.bounds),
                    default: self.default,
                },
            ),
            ShardingBy::Directory => {
                let entries = self.keys.iter().map(|(entry, shard)| (entry.as_str(), *shard));
                shard::Sharding::Directory(self.hash_tag, Directory::new(entries, self.default))
            }
        }
    }
}

/// Numbers when all are.
pub(super) fn bounds(written: &[String]) -> Bounds {
    match written.iter().map(|bound| bound.parse()).collect() {
        Ok(numbers) => Bounds::Numeric(numbers),
        Err(_) => Bounds::Lexical(written.iter().map(|bound| bound.clone().into_bytes()).collect()),
    }
}
