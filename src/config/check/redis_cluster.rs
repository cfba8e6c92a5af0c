//! `clusters.<name>.redis_cluster`: whom to ask for the rest. Not what they answer.

use super::shard;
use crate::{
    config::{
        Reads, Seeds,
        section::{Reader, Section},
        words,
    },
    net::addr::Address,
    topology::{Consistency, Spoof},
};

/// `None` when the cluster is of another kind.
pub(super) fn seeds(reader: &mut Reader<'_, '_>, cluster: &Section<'_>) -> Option<Seeds> {
    let section = reader.section(cluster, "redis_cluster");
    let seeds = addresses(reader, &section, "seeds");
    let announce = addresses(reader, &section, "announce");
    let spoof = reader.choice(&section, "spoof", words::SPOOF);
    if let Some(field) = section.field("announce") {
        let wrong = match spoof {
            Spoof::Off => Some("it says nothing without `spoof: self` or `spoof: list`"),
            Spoof::Myself if announce.len() > 1 => {
                Some("with `spoof: self` it has one address; several need `spoof: list`")
            }
            Spoof::Myself | Spoof::List => None,
        };
        if let Some(wrong) = wrong {
            reader.notes.error(&field.key_at, &field.path, wrong);
        }
    }
    if let (Spoof::List, Some(field), false) =
        (spoof, section.field("spoof"), section.has("announce"))
    {
        let message = "`spoof: list` needs `announce`, the addresses of the proxies";
        reader.notes.error(&field.key_at, &field.path, message);
    }
    let accept_unknown = reader.switch(&section, "accept_unknown");
    cluster.has("redis_cluster").then_some(Seeds { seeds, accept_unknown, spoof, announce })
}

/// A slot that moves brings writes to a shard that has not seen them, so its replicas would seem newer
/// than they are.
pub(super) fn promises_nothing(reader: &mut Reader<'_, '_>, cluster: &Section<'_>, reads: &Reads) {
    let section = reader.section(cluster, "reads");
    if let (true, Some(field)) =
        (reads.consistency != Consistency::Eventual, section.field("consistency"))
    {
        let message = "it is not supported yet with redis_cluster, whose slots move: take eventual, or `from: primary`";
        reader.notes.error(&field.node.at, &field.path, message);
    }
}

/// Each once.
fn addresses(reader: &mut Reader<'_, '_>, section: &Section<'_>, name: &str) -> Vec<Address> {
    let items: Vec<_> = reader.items(section, name).collect();
    if let (true, Some(field)) = (items.is_empty(), section.field(name)) {
        reader.notes.error(&field.key_at, &field.path, "it is empty; give it at least one address");
    }
    let mut found: Vec<Address> = Vec::new();
    for (path, node) in items {
        let Some((at, path, address)) = shard::plain(reader, node, path) else { continue };
        if matches!(address, Address::Unix(_)) {
            let message = format!("'{address}' is no address of a node; write host:port");
            reader.notes.error(&at, &path, message);
        } else if found.contains(&address) {
            reader.notes.error(&at, &path, format!("'{address}' is there already"));
        } else {
            found.push(address);
        }
    }
    found
}
