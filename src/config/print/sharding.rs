//! How `sharding:` is printed: as it would be written.

use super::{Entries, Out};
use crate::config::{
    Cluster, ShardingBy,
    check::sharding::default_hash,
    keys,
    words::{self, word},
};

pub(super) fn sharding(cluster: &Cluster, defaults: bool) -> Entries {
    use ShardingBy::{Directory, Range, Slots};
    let written = &cluster.sharding;
    let mut entries = Entries::new(&keys::SHARDING, defaults);
    entries.text("by", word(words::SHARDING, &written.by));
    let is_hashed = !matches!(written.by, Slots | Range | Directory);
    if is_hashed && (defaults || written.hash != default_hash(written.by)) {
        entries.push("hash", Out::Text(word(words::HASH, &written.hash).to_owned()));
    }
    match written.hash_tag {
        Some(tag) => entries.text("hash_tag", String::from_utf8_lossy(&tag)),
        None if written.by == Slots && defaults => entries.text("hash_tag", "{}"),
        None => entries.optional("hash_tag", None),
    };
    let shard = |at: usize| cluster.shards.get(at).map_or("", |shard| &shard.name);
    if written.by == Range {
        entries.optional("separator", written.separator.as_deref()).row("bounds", &written.bounds);
    }
    if written.by == Directory {
        let keys = written.keys.iter();
        let keys = keys.map(|(key, at)| (key.clone(), Out::Text(shard(*at).to_owned()))).collect();
        entries.push("keys", Out::Map(keys));
    }
    if matches!(written.by, Range | Directory) && (defaults || written.default > 0) {
        entries.text("default", shard(written.default));
    }
    entries
}
