//! `clusters.<name>.sharding`: which of its keys go together, and whether they fit the shards.

use crate::{
    config::{
        Shard,
        file::{Node, Value, join, short},
        keys::{self, Kind},
        nearest::nearest,
        section::{Field, Reader, Section},
        sharding::{Sharding, ShardingBy, bounds},
        values::Wrong,
        words::{self, word},
    },
    policy::{
        hash::Hash,
        shard::{Bounds, Tag},
    },
};
use std::collections::HashSet;

pub(super) fn sharding(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    shards: &mut [Shard],
) -> Sharding {
    let section = reader.section(cluster, "sharding");
    let by = reader.choice(&section, "by", words::SHARDING);
    if by.asks_identity() {
        identities(reader, cluster, shards);
    } else {
        // It would only make two files differ that say the same.
        shards.iter_mut().for_each(|shard| shard.identity.clone_from(&shard.name));
    }
    only_with_its_kind(reader, &section, by);
    weights(reader, cluster, by);
    let hash = match section.has("hash") {
        true => reader.choice(&section, "hash", words::HASH),
        false => default_hash(by),
    };
    let default = section.field("default").and_then(|field| {
        let name = reader.text(&section, "default")?;
        place(reader, field.node, &field.path, &name, shards)
    });
    Sharding {
        by,
        hash,
        hash_tag: hash_tag(reader, &section, by),
        separator: reader.text(&section, "separator"),
        bounds: range_bounds(reader, &section, by, shards.len()),
        keys: directory(reader, &section, by, shards),
        default: default.unwrap_or_default(),
    }
}

/// twemproxy's where keys may have come from there, else one that spreads better.
pub(in crate::config) fn default_hash(by: ShardingBy) -> Hash {
    match by {
        ShardingBy::Maglev | ShardingBy::Jump => Hash::Xxh3,
        _ => Hash::Fnv1a64,
    }
}

fn only_with_its_kind(reader: &mut Reader<'_, '_>, section: &Section<'_>, by: ShardingBy) {
    use ShardingBy::{Directory, Jump, Ketama, Maglev, Modulo, Range};
    let kind = word(words::SHARDING, &by);
    for (name, kinds) in [
        ("hash", &[Ketama, Maglev, Jump, Modulo][..]),
        ("separator", &[Range]),
        ("bounds", &[Range]),
        ("keys", &[Directory]),
        ("default", &[Range, Directory]),
    ] {
        if let Some(field) = section.field(name).filter(|_| !kinds.contains(&by)) {
            let kinds: Vec<&str> = kinds.iter().map(|kind| word(words::SHARDING, kind)).collect();
            let message = format!("it is for {}; this is by {kind}", kinds.join(", "));
            reader.notes.error(&field.key_at, &field.path, message);
        }
    }
}

/// Two of one identity would be one.
fn identities(reader: &mut Reader<'_, '_>, cluster: &Section<'_>, shards: &[Shard]) {
    let mut seen = HashSet::new();
    let twice = shards.iter().find(|shard| !seen.insert(shard.identity.as_str()));
    if let (Some(shard), Some(field)) = (twice, cluster.field("shards")) {
        let message = format!(
            "two shards are known as '{}', by name or by address; give them different names",
            shard.identity
        );
        reader.notes.error(&field.key_at, &field.path, message);
    }
}

/// A weight that changes nothing is no weight.
fn weights(reader: &mut Reader<'_, '_>, cluster: &Section<'_>, by: ShardingBy) {
    if matches!(by, ShardingBy::Ketama | ShardingBy::Maglev | ShardingBy::Modulo) {
        return;
    }
    let kind = word(words::SHARDING, &by);
    let Some(Field { node, path, .. }) = cluster.field("shards") else { return };
    let Value::List(shards) = &node.value else { return };
    for (index, node) in shards.iter().take(keys::MAX_SHARDS).enumerate() {
        let Value::Map(entries) = &node.value else { continue };
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.name == "weight") {
            let message = format!(
                "the weight of a shard is for ketama, maglev and modulo; this is by {kind}"
            );
            reader.notes.error(&key.at, &format!("{path}[{index}].weight"), message);
        }
    }
}

fn hash_tag(reader: &mut Reader<'_, '_>, section: &Section<'_>, by: ShardingBy) -> Tag {
    let tag = reader.value(section, "hash_tag", |text, _| match *text.as_bytes() {
        _ if by == ShardingBy::Slots && text != "{}" => Err(Wrong::Value(
            format!("'{}' is not {{}}, which is Redis's own rule for slots", short(text)),
            None,
        )),
        [open, close] => Ok([open, close]),
        _ => {
            Err(Wrong::Value(format!("'{}' is not two characters such as {{}}", short(text)), None))
        }
    });
    tag.filter(|_| by != ShardingBy::Slots)
}

fn range_bounds(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    by: ShardingBy,
    shards: usize,
) -> Vec<String> {
    let mut written = Vec::new();
    for (path, node) in reader.items(section, "bounds") {
        written.extend(reader.parse(node, &path, &Kind::Text, |text, _| Ok(text.to_owned())));
    }
    if by != ShardingBy::Range {
        return written;
    }
    let field = section.field("bounds");
    let (at, path) = match &field {
        Some(Field { key_at, path, .. }) => (key_at.clone(), path.clone()),
        None => (section.at.clone(), section.path.clone()),
    };
    let wanted = shards.saturating_sub(1);
    if written.len() != wanted && shards > 0 {
        let message =
            format!("{shards} shards have {wanted} `bounds` between them, found {}", written.len());
        reader.notes.error(&at, &path, message);
    } else if written.iter().all(|bound| starts_as_number(bound))
        && matches!(bounds(&written), Bounds::Lexical(_))
        && !written.is_empty()
    {
        let message = "these look like numbers but are not all whole ones of 64 bits, so they would be compared as text";
        reader.notes.error(&at, &path, message);
    } else if !ascends(&bounds(&written)) {
        reader.notes.error(&at, &path, "the bounds do not ascend; each begins another shard");
    }
    written
}

fn starts_as_number(bound: &str) -> bool {
    bound.strip_prefix('-').unwrap_or(bound).starts_with(|first: char| first.is_ascii_digit())
}

fn ascends(bounds: &Bounds) -> bool {
    match bounds {
        Bounds::Numeric(bounds) => bounds.is_sorted_by(|a, b| a < b),
        Bounds::Lexical(bounds) => bounds.is_sorted_by(|a, b| a < b),
    }
}

fn directory(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    by: ShardingBy,
    shards: &[Shard],
) -> Vec<(String, usize)> {
    let entries = reader.named(section, "keys");
    if let (true, Some(field)) = (entries.len() > keys::MAX_ENTRIES, section.field("keys")) {
        let message =
            format!("it has {} entries; the most is {}", entries.len(), keys::MAX_ENTRIES);
        reader.notes.error(&field.key_at, &field.path, message);
        return Vec::new();
    }
    if by == ShardingBy::Directory && !section.has("keys") {
        reader.notes.error(&section.at, &section.path, "`keys` is missing; by directory needs it");
    }
    let mut found = Vec::new();
    for (key, node) in entries {
        let path = join(&join(&section.path, "keys"), &key.name);
        let Some(name) = reader.parse(node, &path, &Kind::Name, |text, _| Ok(text.to_owned()))
        else {
            continue;
        };
        found.extend(place(reader, node, &path, &name, shards).map(|at| (key.name.clone(), at)));
    }
    found
}

/// The index of the shard of that name.
fn place(
    reader: &mut Reader<'_, '_>,
    node: &Node,
    path: &str,
    name: &str,
    shards: &[Shard],
) -> Option<usize> {
    let found = shards.iter().position(|shard| shard.name == name);
    if found.is_none() {
        let message = format!("'{}' is no shard of this cluster", short(name));
        let meant = nearest(name, shards.iter().map(|shard| shard.name.as_str()));
        reader.notes.mistaken(&node.at, path, message, meant);
    }
    found
}
