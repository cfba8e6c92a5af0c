//! `clusters.<name>.reads`: from where, and how old it may be.

use super::listener::first;
use crate::{
    config::{
        Protocol, Reads, Shard,
        keys::{self, Kind},
        section::{Reader, Section},
        values, words,
    },
    policy::reads::ReadFrom,
    topology::{Consistency, Override},
};
use std::time::Duration;

/// The section of a cluster with these shards.
pub(super) fn reads(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    shards: &[Shard],
    protocol: Option<Protocol>,
) -> Reads {
    let section = reader.section(cluster, "reads");
    let consistency = reader.choice(&section, "consistency", words::CONSISTENCY);
    let reads = Reads {
        from: reader.choice(&section, "from", words::READ_FROM),
        balance: reader.choice(&section, "balance", words::STRATEGY),
        window: window(reader, &section, consistency),
        consistency,
        max_lag: reader.value(&section, "max_lag", values::duration),
        overrides: overrides(reader, &section),
        scripts_declare_keys: reader.switch(&section, "scripts_declare_keys"),
    };
    if protocol == Some(Protocol::Http) {
        only_for_redis(reader, &section);
    } else if cluster.has("shards") {
        without_effect(reader, &section, &reads);
    }
    replicas(reader, cluster, &section, &reads, shards);
    reads
}

fn window(
    reader: &mut Reader<'_, '_>,
    section: &Section<'_>,
    consistency: Consistency,
) -> Duration {
    let window = reader.value(section, "window", values::duration);
    match (consistency == Consistency::Window, section.field("window")) {
        (true, None) => {
            if let Some(field) = section.field("consistency") {
                let message =
                    "`window` is missing; write how old a read may be, such as window: 1s";
                reader.notes.error(&field.key_at, &field.path, message);
            }
        }
        (false, Some(field)) => {
            let message = "it says something of `consistency: window` alone";
            reader.notes.error(&field.key_at, &field.path, message);
        }
        _ => {}
    }
    window.unwrap_or_default()
}

fn overrides(reader: &mut Reader<'_, '_>, section: &Section<'_>) -> Vec<Override> {
    let items: Vec<_> = reader.items(section, "overrides").collect();
    let mut overrides = Vec::new();
    for (path, node) in items {
        let Some(one) = reader.open(node, &keys::OVERRIDE, &path, &first(node)) else { continue };
        let command = |text: &str, _: &Kind| values::command(text);
        let prefix = reader.text(&one, "prefix");
        let command = reader.value(&one, "command", command);
        let from = reader.choice(&one, "from", words::READ_FROM);
        if !one.has_or_meant("prefix") && !one.has_or_meant("command") {
            let message = "it needs `prefix` or `command`; with both, both must fit";
            reader.notes.error(&one.at, &path, message);
        }
        overrides.push(Override { prefix, command, from });
    }
    overrides
}

fn only_for_redis(reader: &mut Reader<'_, '_>, section: &Section<'_>) {
    for name in ["consistency", "window", "max_lag", "overrides", "scripts_declare_keys"] {
        if let Some(field) = section.field(name) {
            let message = "it is for a cluster of a redis listener";
            reader.notes.error(&field.key_at, &field.path, message);
        }
    }
}

/// What is written and changes nothing: who writes it expects something.
fn without_effect(reader: &mut Reader<'_, '_>, section: &Section<'_>, reads: &Reads) {
    let alone = "reads go to the primary alone, which misses nothing; it is for reads of replicas \
                 (reads.from)";
    let asked = reads.consistency != Consistency::Eventual;
    for (name, given) in [("consistency", asked), ("max_lag", reads.max_lag.is_some())] {
        if let (true, Some(field)) = (given && !reads.leaves_primary(), section.field(name)) {
            reader.notes.hint(&field.key_at, &field.path, alone);
        }
    }
    if let (false, Some(field)) =
        (reads.consistency == Consistency::Key, section.field("scripts_declare_keys"))
        && !reads.scripts_declare_keys
    {
        let message = "only `consistency: key` asks which keys a script has";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
}

fn replicas(
    reader: &mut Reader<'_, '_>,
    cluster: &Section<'_>,
    section: &Section<'_>,
    reads: &Reads,
    shards: &[Shard],
) {
    let Some(field) = cluster.field("shards") else { return };
    // Who writes `from: primary` knows.
    let unused = !section.has("from") && !reads.leaves_primary();
    if unused && shards.iter().any(|shard| !shard.replicas.is_empty()) {
        let message = "replicas stay unused; set reads.from: prefer_replica";
        reader.notes.hint(&field.key_at, &field.path, message);
    }
    if reads.from == ReadFrom::Replica
        && let Some(shard) = shards.iter().find(|shard| shard.replicas.is_empty())
    {
        let message = format!(
            "shard '{}' has no replica, so with reads.from: replica its reads fail; prefer_replica falls back to the primary",
            shard.name
        );
        reader.notes.hint(&field.key_at, &field.path, message);
    }
}
