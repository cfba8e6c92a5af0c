//! `clusters.<name>.sentinel`: where to ask for the members, and for which masters. Not the asking.

use super::{cluster, tls};
use crate::{
    config::{
        Sentinel, Shard,
        file::Value,
        keys::Kind,
        section::{Reader, Section},
        values,
    },
    net::addr::Address,
};
use std::collections::HashSet;

/// Who is asked, and a shard for each master; `None` when the cluster does not have it.
pub(super) fn sentinel(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
) -> Option<(Sentinel, Vec<Shard>)> {
    cluster.field("sentinel")?;
    let section = reader.section(cluster, "sentinel");
    let address = |text: &str, _: &Kind| super::shard::address(text);
    let addresses: Vec<Address> = distinct(reader, &section, "addresses", &Kind::Address, address);
    let name = |text: &str, _: &Kind| values::name(text);
    let names: Vec<String> = distinct(reader, &section, "masters", &Kind::Name, name);
    let shards = names.into_iter().map(|name| Shard {
        identity: name.clone(),
        name,
        weight: 1,
        primary: None,
        replicas: Vec::new(),
    });
    let shards = shards.collect();
    let credentials = cluster::upstream(reader, &section);
    Some((Sentinel { addresses, credentials, tls: tls::upstream(reader, &section) }, shards))
}

/// The items of a list that is not empty, each once.
fn distinct<T: Clone + Eq + std::hash::Hash + std::fmt::Display>(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    name: &str,
    kind: &Kind,
    parse: impl Fn(&str, &Kind) -> Result<T, values::Wrong>,
) -> Vec<T> {
    let items: Vec<_> = reader.items(section, name).collect();
    if let (true, Some(field)) = (items.is_empty(), section.field(name))
        && matches!(field.node.value, Value::List(_))
    {
        let message = format!("it is empty; give it at least one of the {name}");
        reader.notes.error(&field.key_at, &field.path, message);
    }
    let mut seen = HashSet::new();
    let mut parsed = Vec::new();
    for (path, node) in items {
        let Some(item) = reader.parse(node, &path, kind, &parse) else { continue };
        if seen.insert(item.clone()) {
            parsed.push(item);
        } else {
            reader.notes.error(&node.at, &path, format!("'{item}' is in this list already"));
        }
    }
    parsed
}

/// Keys that mean something else beside `sentinel`.
pub(super) fn hints(reader: &mut Reader<'_, '_>, cluster: &Section<'_>, sentinel: &Sentinel) {
    let upstream = reader.section(cluster, "upstream");
    let servers_have = upstream.has("password") || upstream.has("password_file");
    let field = cluster.field("sentinel");
    if let ([_], Some(field)) = (sentinel.addresses.as_slice(), &field) {
        let message = "while its one Sentinel is away nobody tells of a failover; name all of them";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
    if let (true, false, Some(field)) =
        (sentinel.credentials.password.is_some(), servers_have, field)
    {
        let message = "its password is for the Sentinels alone; the servers' is upstream.password";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
}
