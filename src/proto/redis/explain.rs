//! `SLUICE EXPLAIN command arg ...`: where that request would go and why, told from the same table,
//! hash and gates that route requests. Nothing is sent and nothing is counted.

use super::{
    args::Args,
    dispatch::Scene,
    keys, reply, route,
    table::{Command, Kind},
    wire,
};
use crate::{
    policy::{
        access::Access,
        reads::{ReadFrom, Source, order},
        slot::slot,
    },
    topology::{Backend, Shard},
};
use std::fmt::Write;

/// Writes names and values, or why there are none.
pub(super) fn explain(scene: &Scene<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let asked = Args { frame: args.frame, spans: args.spans.get(2..).unwrap_or_default() };
    let Some(command) = scene.commands.find(asked) else {
        return reply::unknown_command(out, asked.get(0).unwrap_or_default());
    };
    if !command.arity_ok(asked.len()) {
        return reply::wrong_arity(out, command.name);
    }
    let kind = scene.kind_of(command, asked);
    let mut lines = vec![
        ("command", command.name.to_owned()),
        ("access", command.access.as_str().to_owned()),
        ("what", what(command, kind, asked).to_owned()),
    ];
    let mut shards: Vec<usize> = Vec::new();
    if matches!(kind, Kind::Keyed | Kind::Split(_) | Kind::Watch | Kind::Script(_)) {
        let found = keys::keys(command, asked).unwrap_or_default();
        for key in found.filter_map(|at| asked.get(at)).take(MOST_KEYS) {
            let shard = route::shard_of(scene.cluster, key);
            let name = scene.cluster.shards.get(shard).map_or("", |shard| &*shard.name);
            let text = format!("{} slot {} shard {name}", reply::printable(key), slot(key));
            lines.push(("key", text));
            if !shards.contains(&shard) {
                shards.push(shard);
            }
        }
        if shards.is_empty() {
            shards.push(scene.cluster.keyless);
        }
        if !matches!(kind, Kind::Split(_)) && shards.len() > 1 {
            lines.push(("refused", "CROSSSLOT: its keys are in several shards".to_owned()));
            shards.clear();
        }
    } else if matches!(kind, Kind::FanOut(_)) {
        shards = (0..scene.cluster.shards.len()).collect();
    }
    let at_primary = matches!(kind, Kind::FanOut(_)) || !command.replica_ok;
    let from = match at_primary || command.access == Access::Write {
        true => ReadFrom::Primary,
        false => scene.cluster.reads,
    };
    for shard in shards.iter().filter_map(|shard| scene.cluster.shards.get(*shard)) {
        lines.extend(candidates(shard, command, from).map(|line| ("candidate", line)));
    }
    wire::array(out, lines.len());
    for (name, value) in lines {
        wire::bulk(out, format!("{name}: {value}").as_bytes());
    }
}

fn what(command: &Command, kind: Kind, args: Args<'_>) -> &'static str {
    match kind {
        Kind::Keyed if command.blocks(args) => "it may wait in the server",
        Kind::Keyed => "forwarded to the shard of its keys",
        Kind::Split(_) => "split over the shards of its keys",
        Kind::Watch => "the session gets a connection of its own to the shard of its keys",
        Kind::Transaction(_) => "a part of a transaction",
        Kind::Script(_) => "a script: sent to the shard of its keys, or to all that must know it",
        Kind::PubSub(_) => "published, or subscribed to, at the servers of its channels",
        Kind::Wait => "asked of every shard that the client has written to",
        Kind::Local(_) => "answered by Sluice",
        Kind::FanOut(_) => "asked of every shard",
        Kind::Container => "its subcommand is unknown",
        Kind::NotYet => "not supported yet",
        Kind::Disabled => "disabled: redis.allow may name it",
        Kind::CrossProtocol => "closes the connection",
    }
}

/// Each member of a shard: whether it may be picked, and why not.
fn candidates<'s>(
    shard: &'s Shard,
    command: &Command,
    from: ReadFrom,
) -> impl Iterator<Item = String> + use<'s> {
    let sources: Vec<Source> = order(from).into_iter().flatten().collect();
    let any_of = |source: &Source| shard.members.iter().any(|one| takes(one, *source));
    // The second source is for when nobody of the first is ready.
    let source = sources.iter().find(|source| any_of(source)).or_else(|| sources.first()).copied();
    let (is_read, replica_ok) = (command.access == Access::Read, command.replica_ok);
    shard.members.iter().map(move |member| {
        let mut line = format!(
            "{} shard {} {} {}: ",
            member.name,
            shard.name,
            member.role().as_str(),
            member.state().as_str()
        );
        let gate = member.gate();
        let fits = source.is_some_and(|source| fits(member, source));
        let why = match source {
            _ if !member.has_room() => "no, it is at limits.max_in_flight",
            Some(source) if takes(member, source) => "yes",
            _ if fits && gate.half_open() => "no, its one trial is under way",
            _ if fits || !(gate.open() || gate.half_open()) => "no, for its state",
            Some(Source::Primary) if is_read && !replica_ok => {
                "no, the answer belongs to the primary"
            }
            Some(Source::Primary) if is_read => "no, reads.from does not want it now",
            Some(Source::Primary) => "no, writes go to the primary",
            _ => "no, reads.from wants replicas",
        };
        let _ = write!(line, "{why}");
        line
    })
}

/// Whether its role is that of the source.
fn fits(member: &Backend, source: Source) -> bool {
    let gate = member.gate();
    match source {
        Source::Primary => gate.primary(),
        Source::Replicas => gate.replica(),
        Source::Any => gate.primary() || gate.replica(),
    }
}

/// Whether it may be picked now.
fn takes(member: &Backend, source: Source) -> bool {
    let gate = member.gate();
    let ready = gate.open() || (gate.half_open() && member.has_permit());
    fits(member, source) && ready && member.has_room()
}

/// Of a request with more keys these are told.
const MOST_KEYS: usize = 64;
