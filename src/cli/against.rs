//! `sluice check --against OLD`: how many keys would be looked for elsewhere than they are, and what
//! share of them each shard would own. Nothing is asked: two files are compared.

use super::{Keys, say};
use crate::{
    config::{Cluster, Config, Shard, ShardingBy},
    policy::shard::{Movement, movement},
};
use std::fmt::Write;

/// Prints what moves in every cluster that both have.
pub(super) fn compare(old: &Config, new: &Config, keys: &Keys) {
    for cluster in &new.clusters {
        match old.clusters.iter().find(|before| before.name == cluster.name) {
            Some(before) => say(&moved(before, cluster, keys)),
            None => say(&format_args!("cluster '{}' is new\n", cluster.name)),
        }
    }
    let gone =
        old.clusters.iter().filter(|before| new.clusters.iter().all(|now| now.name != before.name));
    gone.for_each(|before| say(&format_args!("cluster '{}' is gone\n", before.name)));
}

/// `cluster 'main': 4,096 of 16,384 slots move (25.0 %)`, and a line for each shard.
fn moved(old: &Cluster, new: &Cluster, keys: &Keys) -> String {
    if old.shards.is_empty() || new.shards.is_empty() {
        return format!("cluster '{}': without shards no keys are spread\n", new.name);
    }
    let sharding = (old.sharding.over(&old.shards), new.sharding.over(&new.shards));
    let is_listed =
        |one: &Cluster| matches!(one.sharding.by, ShardingBy::Range | ShardingBy::Directory);
    if (is_listed(old) || is_listed(new)) && matches!(keys, Keys::Made) {
        return format!(
            "cluster '{}': made up keys say nothing of ranges and directories; give real ones with --keys FILE\n",
            new.name
        );
    }
    let stays = |from: usize, to: usize| {
        old.shards.get(from).zip(new.shards.get(to)).is_some_and(|(from, to)| holds(from, to))
    };
    let sides = ((&sharding.0, old.shards.len()), (&sharding.1, new.shards.len()));
    let counts = movement(sides.0, sides.1, keys.iter(), stays);
    tell(old, new, &counts, if counts.of_slots { "slots" } else { keys.what() })
}

/// Whether what was in the old shard is where the new one looks: its primary was a member.
fn holds(old: &Shard, new: &Shard) -> bool {
    match &new.primary {
        Some(new) => old.members().any(|one| one.address == new.address),
        // Sentinel says where it is.
        None => old.primary.is_none() && old.name == new.name,
    }
}

/// Of its primary, as far as the file says it.
fn address(shard: &Shard) -> String {
    shard.primary.as_ref().map_or_else(|| "by Sentinel".to_owned(), |one| one.address.to_string())
}

fn tell(old: &Cluster, new: &Cluster, counts: &Movement, what: &str) -> String {
    let Movement { counted, moved, before, after, .. } = counts;
    let mut text = format!(
        "cluster '{}': {moved} of {counted} {what} move ({})\n",
        new.name,
        percent(*moved, *counted)
    );
    for (index, shard) in new.shards.iter().enumerate() {
        let had = old.shards.iter().zip(before).find(|(from, _)| holds(from, shard));
        let had =
            had.map_or_else(|| "new".to_owned(), |(_, n)| format!("was {}", percent(*n, *counted)));
        let has = after.get(index).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {} {}: {} of them, {had}",
            shard.name,
            address(shard),
            percent(has, *counted)
        );
    }
    let gone = old.shards.iter().zip(before);
    for (shard, had) in gone.filter(|(from, _)| !new.shards.iter().any(|to| holds(from, to))) {
        let _ = writeln!(
            text,
            "  {} {}: gone, had {}",
            shard.name,
            address(shard),
            percent(*had, *counted)
        );
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}
