//! `SLUICE EXPLAIN command arg ...` and `sluice explain`: where that request would go and why, told from the same table,
//! hash and gates that route requests. Nothing is sent and nothing is counted.

use super::{
    allow::kind_of,
    args::Args,
    dispatch::Scene,
    frame::{Decoder, Limits},
    keys, reading, reply, route,
    session::Settings,
    table::{Command, Commands, Kind},
    wire,
};
use crate::{
    policy::{
        access::Access,
        reads::{ReadFrom, Source, order},
    },
    topology::{Backend, Cluster, Shard},
};
use std::{fmt::Write, sync::Arc};

/// Writes names and values, or why there are none.
pub(super) fn explain(scene: &Scene<'_>, args: Args<'_>, out: &mut Vec<u8>) {
    let asked = Args { frame: args.frame, spans: args.spans.get(2..).unwrap_or_default() };
    let Some(command) = scene.commands.find(asked) else {
        return reply::unknown_command(out, asked.get(0).unwrap_or_default());
    };
    if !command.arity_ok(asked.len()) {
        return reply::wrong_arity(out, command.name);
    }
    let lines = lines(scene.cluster, command, scene.kind_of(command, asked), asked);
    wire::array(out, lines.len());
    for (name, value) in lines {
        wire::bulk(out, format!("{name}: {value}").as_bytes());
    }
}

/// The same of a request that nobody has sent: `words` are its arguments, and `tables` the commands of
/// each cluster.
///
/// # Errors
/// What its client would be told: the command is unknown, or lacks arguments, or its keys belong to
/// several clusters.
pub fn explain_offline(
    settings: &Settings,
    clusters: &[Arc<Cluster>],
    tables: &[Commands],
    words: &[Vec<u8>],
) -> Result<Vec<(&'static str, String)>, String> {
    let mut frame = Vec::new();
    wire::array(&mut frame, words.len());
    words.iter().for_each(|word| wire::bulk(&mut frame, word));
    let mut decoder = Decoder::default();
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    let decoded = decoder.decode(&frame, &limits);
    decoded.map_err(|error| format!("that is no request: {error:?}"))?;
    let asked = Args { frame: &frame, spans: decoder.spans() };
    let told = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).trim_start_matches("-ERR ").trim_end().to_owned()
    };
    let table = |cluster: usize| tables.get(cluster).zip(clusters.get(cluster));
    let missing = || "the listener has no such cluster".to_owned();
    let (commands, cluster) = table(settings.cluster).ok_or_else(missing)?;
    let unknown = || told(&|out| reply::unknown_command(out, asked.get(0).unwrap_or_default()));
    let command = commands.find(asked).ok_or_else(unknown)?;
    if !command.arity_ok(asked.len()) {
        return Err(told(&|out| reply::wrong_arity(out, command.name)));
    }
    let routes = &settings.routes;
    let places = keys::keys(command, asked).unwrap_or_default().map(|at| {
        let key = asked.get(at).unwrap_or_default();
        routes.iter().position(|route| key.starts_with(&route.prefix))
    });
    let mut places: Vec<Option<usize>> = places.collect();
    places.dedup();
    let (cluster, command) = match places.as_slice() {
        [] | [None] => (cluster, command),
        [Some(place)] => {
            let at = routes.get(*place).map_or(settings.cluster, |route| route.cluster);
            let (commands, cluster) = table(at).ok_or_else(missing)?;
            (cluster, commands.find(asked).ok_or_else(unknown)?)
        }
        _ => return Err(told(&|out| out.extend_from_slice(reply::SEVERAL_CLUSTERS))),
    };
    let mut told = vec![("cluster", cluster.name.to_string())];
    told.extend(lines(cluster, command, kind_of(settings, None, command, asked), asked));
    Ok(told)
}

fn lines(
    cluster: &Cluster,
    command: &Command,
    kind: Kind,
    asked: Args<'_>,
) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("command", command.name.to_owned()),
        ("access", command.access.as_str().to_owned()),
        ("what", what(command, kind, asked).to_owned()),
    ];
    let mut shards: Vec<usize> = Vec::new();
    if matches!(kind, Kind::Keyed | Kind::Split(_) | Kind::Watch | Kind::Script(_)) {
        let found = keys::keys(command, asked).unwrap_or_default();
        for key in found.filter_map(|at| asked.get(at)).take(MOST_KEYS) {
            let shard = route::shard_of(cluster, key);
            let name = cluster.shards.get(shard).map_or("", |shard| &*shard.name);
            let why = cluster.sharding.reason(key);
            lines.push(("key", format!("{} {why} shard {name}", reply::printable(key))));
            if !shards.contains(&shard) {
                shards.push(shard);
            }
        }
        if shards.is_empty() {
            shards.push(cluster.keyless);
        }
        if !matches!(kind, Kind::Split(_)) && shards.len() > 1 {
            lines.push(("refused", "CROSSSLOT: its keys are in several shards".to_owned()));
            shards.clear();
        }
    } else if matches!(kind, Kind::FanOut(_)) {
        shards = (0..cluster.shards.len()).collect();
    }
    let at_primary = matches!(kind, Kind::FanOut(_)) || !command.replica_ok;
    let from = match at_primary || command.access == Access::Write {
        true => ReadFrom::Primary,
        false => reading::from(cluster, command, asked),
    };
    for shard in shards.iter().filter_map(|shard| cluster.shards.get(*shard)) {
        lines.extend(candidates(shard, command, from).map(|line| ("candidate", line)));
    }
    lines
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
