//! Commands that concern every shard: asked of every primary, answered as if there were one.
//! Not the merging: that is [`super::gather`].

use super::{
    args::Args,
    class::Resp,
    cursor::{self, Cursor},
    dispatch::{Flow, Part, Scene},
    entry::Reach,
    gather::{Gather, Merge},
    reply, route, scripts,
    table::{Command, FanOut},
    wire,
};
use crate::{policy::access::Access, topology::Outcome};
use std::rc::Rc;
use std::sync::Arc;

/// Asks all shards; with one shard the request passes unchanged.
pub(super) fn fan_out(
    scene: &mut Scene<'_>,
    command: &Command,
    how: FanOut,
    args: Args<'_>,
) -> Flow {
    if scene.must_settle(command.access) {
        return Flow::Hold;
    }
    if scene.cluster.shards.len() == 1 {
        if SETS_ROLE.contains(&command.name) {
            return set_role(scene, args);
        }
        return scene.forward(0, command, args.frame);
    }
    let merge = match how {
        FanOut::Sum => Merge::Sum,
        FanOut::AllOk => Merge::AllOk,
        FanOut::Concat => Merge::Concat { most: scene.settings.keys_max },
        FanOut::Min => Merge::Min,
        FanOut::Texts => {
            let names = scene.cluster.shards.iter().map(|shard| Arc::clone(&shard.name));
            Merge::Texts { shards: names.collect() }
        }
        FanOut::Tree(how) => {
            // Asked in RESP2, told in the client's: the tree that we read knows no other.
            let class = scene.state.class;
            let own = (scene.state.pinned.take(), std::mem::take(&mut scene.state.tracked));
            scene.state.class.resp = Resp::Two;
            let merge = Merge::Tree(how, class.resp);
            let flow = ask_all(scene, command.name, command.access, merge, args.frame);
            scene.state.class = class;
            (scene.state.pinned, scene.state.tracked) = own;
            return flow;
        }
        FanOut::Xor => Merge::Xor,
        FanOut::First => Merge::First,
        FanOut::AllSucceed => Merge::AllSucceed,
        FanOut::And => Merge::And,
        FanOut::Scan => return scan(scene, command, args),
        FanOut::RandomKey => return random_key(scene, command),
    };
    ask_all(scene, command.name, command.access, merge, args.frame)
}

/// What makes a server a primary again finds it although it is none.
fn set_role(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let (hub, cluster) = (scene.hub, scene.cluster);
    let Some(server) = cluster.shards.first().and_then(scripts::primary) else {
        return scene.refuse(Access::Write, |out| scene.unserved(0, Access::Write, true, out));
    };
    let upstream = hub.upstream(cluster, server, scene.state.class, Rc::clone);
    let flow = scene.send_over(upstream, Access::Write, true, args.frame);
    // A probe looks at what has become of it.
    hub.reporter.report(server, Outcome::Suspect);
    flow
}

/// Commands that an operator allows so that roles can be changed through us.
const SETS_ROLE: &[&str] = &["REPLICAOF", "SLAVEOF"];

/// Sends `frame` to every primary.
pub(super) fn ask_all(
    scene: &mut Scene<'_>,
    name: &'static str,
    access: Access,
    merge: Merge,
    frame: &[u8],
) -> Flow {
    let shards = scene.cluster.shards.len();
    // INFO says at once who is there.
    let asks_all = !matches!(merge, Merge::Texts { .. });
    if asks_all && scene.awaits_primary(0..shards, access, true) {
        return Flow::Hold;
    }
    let count = u16::try_from(shards).unwrap_or(u16::MAX);
    let seq = scene.client.open_gather(Gather::new(name, merge, count), frame.len());
    for (part, shard) in (0..count).zip(0..shards) {
        ask(scene, access, (seq, part), shard, frame);
    }
    Flow::Continue
}

fn ask(
    scene: &mut Scene<'_>,
    access: Access,
    (seq, index): (u32, u16),
    shard: usize,
    frame: &[u8],
) {
    let part = Part { seq, index, reach: Reach::All };
    scene.send_part(part, shard, access, true, |out| out.extend_from_slice(frame));
}

/// One shard is scanned after the other; the cursor says which.
fn scan(scene: &mut Scene<'_>, command: &Command, args: Args<'_>) -> Flow {
    let only = pattern(args)
        .and_then(cursor::fixed_tag)
        .map(|tag| route::shard_of(scene.cluster, tag))
        .and_then(|shard| u32::try_from(shard).ok());
    let shards = u32::try_from(scene.cluster.shards.len()).unwrap_or(u32::MAX);
    let Some(at) = Cursor::parse(args.get(1).unwrap_or_default(), shards, only) else {
        scene.reply(reply::INVALID_CURSOR);
        return Flow::Continue;
    };
    if scene.awaits_primary([at.shard as usize], Access::Read, true) {
        return Flow::Hold;
    }
    let mut frame = Vec::new();
    wire::array(&mut frame, args.len());
    wire::bulk(&mut frame, b"SCAN");
    wire::bulk(&mut frame, itoa::Buffer::new().format(at.node).as_bytes());
    args.iter().skip(2).for_each(|arg| wire::bulk(&mut frame, arg));
    let seq = scene.client.open_gather(Gather::new(command.name, Merge::Scan(at), 1), frame.len());
    ask(scene, Access::Read, (seq, 0), at.shard as usize, &frame);
    Flow::Continue
}

/// The argument of `MATCH`.
fn pattern(args: Args<'_>) -> Option<&[u8]> {
    let at = (2..args.len())
        .step_by(2)
        .find(|i| args.get(*i).is_some_and(|word| word.eq_ignore_ascii_case(b"MATCH")))?;
    args.get(at + 1)
}

/// A key of a shard drawn by size: every shard tells its size and one of its keys.
fn random_key(scene: &mut Scene<'_>, command: &Command) -> Flow {
    let shards = scene.cluster.shards.len();
    if scene.awaits_primary(0..shards, Access::Read, true) {
        return Flow::Hold;
    }
    let parts = u16::try_from(2 * shards).unwrap_or(u16::MAX);
    let merge = Merge::RandomKey { draw: scene.hub.draw() };
    let seq = scene.client.open_gather(Gather::new(command.name, merge, parts), 0);
    for (part, shard) in (0..parts).step_by(2).zip(0..shards) {
        ask(scene, Access::Read, (seq, part), shard, b"*1\r\n$6\r\nDBSIZE\r\n");
        ask(scene, Access::Read, (seq, part + 1), shard, b"*1\r\n$9\r\nRANDOMKEY\r\n");
    }
    Flow::Continue
}
