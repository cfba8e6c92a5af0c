//! The table of the keys of a cluster's `sharding:`. Not which of them go together: see `check`.

use super::{Kind, MAX_SHARDS, Scope, choice, key};
use crate::config::words;

/// The most entries of a directory.
pub(in crate::config) const MAX_ENTRIES: usize = 100_000;

pub(in crate::config) static SHARDING: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "by",
            choice(words::SHARDING_WORDS),
            "slots",
            "slots: CRC16 over 16,384 slots, as Redis Cluster; ketama: the ring of twemproxy and libmemcached; maglev, jump: few keys move when shards come or go; modulo; range; directory.",
        ),
        key(
            "hash",
            choice(words::HASH_WORDS),
            "",
            "The function for ketama and modulo (default fnv1a_64), maglev and jump (default xxh3).",
        ),
        key(
            "hash_tag",
            Kind::Text,
            "",
            "Two characters: only the part of a key between them counts. For slots {}, which is Redis's own rule; for others when not given, the whole key.",
        ),
        key(
            "separator",
            Kind::Text,
            "",
            "For range: what comes after its first place in a key is compared; when not given, the whole key.",
        ),
        key(
            "bounds",
            Kind::List(&Kind::Text, MAX_SHARDS - 1),
            "",
            "For range: where one shard ends and the next begins, ascending, one fewer than shards; numbers when all are.",
        ),
        key(
            "keys",
            Kind::Texts,
            "",
            "For directory: keys, or their beginnings with a * at the end, each with the name of its shard.",
        ),
        key(
            "default",
            Kind::Name,
            "",
            "For range and directory: the shard of keys that nothing else is said of; when not given, the first.",
        ),
    ],
};
