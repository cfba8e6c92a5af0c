//! `clusters.<name>.shards` and `.backends`: who is in which shard, or in none. Not which keys a
//! shard owns.

use super::listener::first;
use crate::{
    config::{
        Member, Shard,
        file::{Node, Value},
        finding::Span,
        keys::{self, Kind},
        section::{Reader, Section},
        values::{self, Wrong},
        words,
    },
    net::addr::Address,
};
use std::collections::HashMap;

/// All shards of a cluster that have at least a primary.
pub(super) fn shards(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Vec<Shard> {
    let items: Vec<(String, &Node)> = reader.items(cluster, "shards").collect();
    if let (true, Some(field)) = (items.is_empty(), cluster.field("shards"))
        && matches!(field.node.value, Value::List(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; give it at least one shard");
    }
    let mut shards: Vec<Shard> = Vec::new();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut addresses: HashMap<Address, Place> = HashMap::new();
    for (index, (path, node)) in items.into_iter().enumerate() {
        if let Value::Scalar(_) = node.value {
            reader.wrong_type(node, &path, "a map such as { primary: 10.0.0.1:6379 }");
            continue;
        }
        let Some(section) = reader.open(node, &keys::SHARD, &path, &first(node)) else { continue };
        let given = reader.value(&section, "name", |text, _| values::name(text));
        let name = given.unwrap_or_else(|| format!("s{index}"));
        if let Some(other) = names.insert(name.clone(), path.clone()) {
            let at = section
                .field("name")
                .map_or_else(|| section.at.clone(), |field| field.node.at.clone());
            reader.notes.error(&at, &path, format!("'{name}' is the name of {other} already"));
        }
        let members = members(reader, &section);
        for (at, path, member) in &members {
            distinct(reader, &mut addresses, index, at, path, &member.address);
        }
        let mut members = members.into_iter().map(|(_, _, member)| member);
        // A wrong primary leaves a replica in its place, beside an error: nobody uses it.
        let Some(primary) = members.next() else { continue };
        let identity = match section.has("name") {
            true => name.clone(),
            false => identity(&primary.address),
        };
        let weight = reader.integer(&section, "weight").unwrap_or(1);
        let (primary, replicas) = (Some(primary), members.collect());
        shards.push(Shard { name, identity, weight, primary, replicas });
    }
    shards
}

/// What a ring knows a shard without a name by, as twemproxy and libmemcached do: memcached's own
/// port is left out.
fn identity(address: &Address) -> String {
    let text = address.to_string();
    text.strip_suffix(":11211").unwrap_or(&text).to_owned()
}

/// The members of a cluster without roles.
pub(super) fn backends(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Vec<Member> {
    let items: Vec<(String, &Node)> = reader.items(cluster, "backends").collect();
    if let (true, Some(field)) = (items.is_empty(), cluster.field("backends"))
        && matches!(field.node.value, Value::List(_))
    {
        reader.notes.error(&field.key_at, &field.path, "it is empty; give it at least one backend");
    }
    let mut members = Vec::new();
    let mut seen: HashMap<Address, String> = HashMap::new();
    for (path, node) in items {
        let Some((at, path, member)) = member(reader, node, path) else { continue };
        if let Some(first) = seen.get(&member.address) {
            let message = format!("'{}' is in this cluster already, as {first}", member.address);
            reader.notes.error(&at, &path, message);
        } else {
            seen.insert(member.address.clone(), path);
        }
        members.push(member);
    }
    members
}

/// Where an address was first seen.
struct Place {
    shard: usize,
    path: String,
}

fn distinct(
    reader: &mut Reader<'_, '_>,
    seen: &mut HashMap<Address, Place>,
    shard: usize,
    at: &Span,
    path: &str,
    address: &Address,
) {
    let Some(first) = seen.get(address) else {
        seen.insert(address.clone(), Place { shard, path: path.to_owned() });
        return;
    };
    if first.shard == shard {
        let message = format!("'{address}' is in this shard already, as {}", first.path);
        reader.notes.error(at, path, message);
    } else {
        let message = format!(
            "'{address}' is in another shard too, as {}; DBSIZE, KEYS and SCAN count its keys twice",
            first.path
        );
        reader.notes.hint(at, path, message);
    }
}

/// The primary, then the replicas.
fn members(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Vec<(Span, String, Member)> {
    let mut members = Vec::new();
    if let Some(field) = section.field("primary") {
        members.extend(member(reader, field.node, field.path));
    }
    for (path, node) in reader.items(section, "replicas") {
        members.extend(member(reader, node, path));
    }
    members
}

/// An address, or a map with one.
fn member(
    reader: &mut Reader<'_, '_>,
    node: &Node,
    path: String,
) -> Option<(Span, String, Member)> {
    if !matches!(node.value, Value::Map(_)) {
        let kind = &Kind::AddressOr(&keys::MEMBER);
        let address = reader.parse(node, &path, kind, |text, _| address(text))?;
        return Some((node.at.clone(), path, Member::new(address)));
    }
    let section = reader.open(node, &keys::MEMBER, &path, &first(node))?;
    let address = reader.value(&section, "address", |text, _| address(text));
    let weight = reader.integer(&section, "weight").unwrap_or(1);
    let admin = reader.choice(&section, "admin", words::ADMIN);
    let tier = reader.integer(&section, "tier").unwrap_or_default();
    let at = section.field("address").map_or_else(|| first(node), |field| field.node.at.clone());
    Some((at, path, Member { address: address?, weight, tier, admin }))
}

/// An address alone.
pub(super) fn plain(
    reader: &mut Reader<'_, '_>,
    node: &Node,
    path: String,
) -> Option<(Span, String, Address)> {
    let address = reader.parse(node, &path, &Kind::Address, |text, _| address(text))?;
    Some((node.at.clone(), path, address))
}

/// Somewhere that can be connected to.
pub(super) fn address(text: &str) -> Result<Address, Wrong> {
    match text.parse() {
        Ok(Address::Tcp { port: 0, .. }) => {
            Err(format!("'{text}' cannot be connected to: port 0 is no port").into())
        }
        Ok(address) => Ok(address),
        Err(error) => Err(format!("{error}").into()),
    }
}
