//! MGET, MSET, DEL, UNLINK, EXISTS and TOUCH over several shards: one request per shard, in which
//! order and duplicates are kept. Not the merging: that is [`super::gather`].

use super::{
    args::Args,
    dispatch::{Flow, Part, Scene},
    entry::Reach,
    gather::{self, Gather},
    keys::{self, Keys},
    reply, route,
    table::{Command, Merge},
    wire,
};
use crate::policy::access::Access;
use smallvec::SmallVec;

/// Forwards the request whole when one shard owns every key, else in parts.
pub(super) fn split(
    scene: &mut Scene<'_>,
    command: &Command,
    merge: Merge,
    args: Args<'_>,
) -> Flow {
    let step = match command.keys {
        Keys::Range { step, .. } => step as usize,
        _ => 1,
    };
    let keys = keys::keys(command, args).unwrap_or_default();
    if !(args.len() - 1).is_multiple_of(step) {
        return scene.say(|out| reply::wrong_arity(out, command.name));
    }
    // The shard of each key, in order; and the shards in order of appearance: the parts.
    let mut part_of: SmallVec<[u16; 32]> = SmallVec::new();
    let mut parts: SmallVec<[Bundle; 8]> = SmallVec::new();
    for key in keys.filter_map(|at| args.get(at)) {
        let shard = route::shard_of(scene.cluster, key);
        let part = parts.iter().position(|part| part.shard == shard).unwrap_or_else(|| {
            parts.push(Bundle { shard, keys: 0 });
            parts.len() - 1
        });
        if let Some(part) = parts.get_mut(part) {
            part.keys += 1;
        }
        part_of.push(u16::try_from(part).unwrap_or(u16::MAX));
    }
    if let [only] = parts.as_slice() {
        return scene.forward(only.shard, command, args.frame);
    }
    if command.access == Access::Write && !scene.settings.split_writes {
        return scene.cross_slot();
    }
    let shards = parts.iter().map(|part| part.shard);
    if scene.awaits_primary(shards, command.access, !command.replica_ok) {
        return Flow::Hold;
    }
    if let Some(metrics) = scene.hub.metrics.clusters.get(scene.cluster.id) {
        metrics.split.add(1);
    }
    let merge = match (merge, command.access) {
        (Merge::InOrder, _) => gather::Merge::ByPosition {
            order: part_of.to_vec(),
            embeds: scene.settings.mget_embeds,
        },
        (Merge::AllOk, _) => gather::Merge::AllOk,
        (Merge::Sum, Access::Read) => gather::Merge::Sum,
        (Merge::Sum, Access::Write) => gather::Merge::SumOfWrites,
    };
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let seq = scene.client.open_gather(Gather::new(command.name, merge, count), args.frame.len());
    let order = by_part(&part_of, &parts);
    let mut first = 0;
    for (index, part) in (0..count).zip(&parts) {
        let units = order.get(first..first + part.keys).unwrap_or_default();
        first += part.keys;
        send_part(scene, command, args, &Share { seq, index, shard: part.shard, units, step });
    }
    Flow::Continue
}

struct Bundle {
    shard: usize,
    keys: usize,
}

/// What one shard gets of a request.
struct Share<'a> {
    seq: u32,
    index: u16,
    shard: usize,
    /// Which keys, by their order in the request.
    units: &'a [u32],
    /// Arguments per key.
    step: usize,
}

fn send_part(scene: &mut Scene<'_>, command: &Command, args: Args<'_>, share: &Share<'_>) {
    let part = Part { seq: share.seq, index: share.index, reach: Reach::Part };
    scene.send_part(part, share.shard, command.access, !command.replica_ok, |out| {
        wire::array(out, 1 + share.units.len() * share.step);
        wire::bulk(out, args.get(0).unwrap_or_default());
        for unit in share.units {
            out.extend_from_slice(unit_bytes(args, *unit as usize, share.step));
        }
    });
}

/// The bytes of the `unit`-th key and what belongs to it, as the client sent them.
fn unit_bytes(args: Args<'_>, unit: usize, step: usize) -> &[u8] {
    let after = |index: usize| {
        let span = args.spans.get(index)?;
        Some(span.start as usize + span.len as usize + 2)
    };
    let bytes = || args.frame.get(after(unit * step)?..after((unit + 1) * step)?);
    bytes().unwrap_or_default()
}

/// The keys' numbers, ordered by part and then as they came.
fn by_part(part_of: &[u16], parts: &[Bundle]) -> Vec<u32> {
    let mut next: SmallVec<[usize; 8]> = parts
        .iter()
        .scan(0, |start, part| {
            let this = *start;
            *start += part.keys;
            Some(this)
        })
        .collect();
    let mut order = vec![0; part_of.len()];
    for (unit, part) in (0u32..).zip(part_of) {
        if let Some(next) = next.get_mut(usize::from(*part))
            && let Some(slot) = order.get_mut(*next)
        {
            *slot = unit;
            *next += 1;
        }
    }
    order
}
