//! The commands of publish and subscribe: who may send them, and what they ask of
//! [`super::pubsub`] and of the servers. Not who listens, nor how messages come.
//!
//! A channel belongs to one shard, by its slot as if it were a key, so that PUBLISH and SUBSCRIBE
//! meet there. A session's (un)subscribing has its line for itself: confirmations and messages then
//! cannot overtake replies, nor be overtaken.

use super::{
    args::Args,
    audience::{Audience, Subject},
    class::Resp,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    gather::{Gather, Merge},
    pubsub, reply, route,
    table::{Command, Kind, Local, PubSub},
    tap, wire,
};
use crate::policy::access::Access;
use std::{rc::Rc, sync::Arc};

/// What the server says of a published message, and what is to be known to tell better.
#[derive(Debug)]
pub(super) struct Published {
    audience: Arc<Audience>,
    cluster: usize,
    shard: usize,
    subject: Subject,
    channel: Box<[u8]>,
}

impl Published {
    /// How many clients receive it, where the server says `told`.
    pub(super) fn receivers(&self, told: i64) -> i64 {
        let Self { cluster, shard, subject, .. } = *self;
        self.audience.receivers(cluster, shard, subject, &self.channel, told)
    }
}

/// Runs one of these commands.
pub(super) fn run(scene: &mut Scene<'_>, what: PubSub, command: &Command, args: Args<'_>) -> Flow {
    match what {
        PubSub::Subscribe(subject) => scene.aloud(|scene| subscribe(scene, subject, args)),
        PubSub::Unsubscribe(subject) => scene.aloud(|scene| unsubscribe(scene, subject, args)),
        PubSub::Publish(subject) => publish(scene, subject, command.name, args),
        PubSub::Names(subject) if args.len() <= 3 => names(scene, subject, args.get(2)),
        PubSub::Names(_) => scene.say(|out| reply::wrong_subcommand(out, args)),
        PubSub::Counts(subject) => counts(scene, subject, args),
        PubSub::NumPat => {
            let audience = &scene.hub.pubsub.audience;
            let patterns = audience.names(scene.cluster.id, Subject::Pattern, None).len();
            scene.say(|out| wire::integer(out, patterns))
        }
        PubSub::Help => scene.say(help),
    }
}

/// A request of a client that has subscribed. In RESP2 it could not tell most replies from messages,
/// so it may only ask for what looks like one; `None`: as of anybody.
pub(super) fn while_subscribed(
    scene: &mut Scene<'_>,
    command: &Command,
    args: Args<'_>,
) -> Option<Flow> {
    // HELLO may have changed it.
    scene.client.set_resp(scene.state.class.resp);
    if scene.state.class.resp == Resp::Three {
        return None;
    }
    match command.kind {
        Kind::Local(Local::Ping) if args.len() <= 2 => Some(scene.say(|out| {
            wire::array(out, 2);
            wire::bulk(out, b"pong");
            wire::bulk(out, args.get(1).unwrap_or_default());
        })),
        Kind::PubSub(PubSub::Subscribe(_) | PubSub::Unsubscribe(_))
        | Kind::Local(Local::Ping | Local::Quit) => None,
        _ if command.name == "RESET" => None,
        _ => Some(scene.say(|out| reply::only_subscriptions(out, command.name))),
    }
}

fn subscribe(scene: &mut Scene<'_>, subject: Subject, args: Args<'_>) -> Flow {
    if !scene.client.is_settled() {
        scene.client.wait_for_all();
        return Flow::Hold;
    }
    let names: Vec<&[u8]> = args.iter().skip(1).collect();
    let (hub, client, cluster) = (scene.hub, scene.client, scene.cluster);
    if client.subscriptions().iter().sum::<usize>() + names.len() > MOST_SUBSCRIPTIONS {
        scene.reply(reply::TOO_MANY_SUBSCRIPTIONS);
        return Flow::Continue;
    }
    let is_served =
        |shard: usize| cluster.shards.get(shard).is_some_and(|shard| tap::primary(shard).is_some());
    let lacks = hub.pubsub.missing_shard(cluster, subject, names.iter().copied(), is_served);
    if let Some(shard) = lacks {
        return scene.not_served(shard, Access::Write, true);
    }
    client.set_resp(scene.state.class.resp);
    if let Some(text) = pubsub::subscribe(hub, cluster, client, subject, &names, args.frame.len()) {
        scene.reply(&text);
    }
    Flow::Continue
}

fn unsubscribe(scene: &mut Scene<'_>, subject: Subject, args: Args<'_>) -> Flow {
    if !scene.client.is_settled() {
        scene.client.wait_for_all();
        return Flow::Hold;
    }
    let names: Vec<&[u8]> = args.iter().skip(1).collect();
    let names = (!names.is_empty()).then_some(names.as_slice());
    let (hub, client, cluster) = (scene.hub, scene.client, scene.cluster);
    client.set_resp(scene.state.class.resp);
    let asked = args.frame.len();
    if let Some(text) = pubsub::unsubscribe(hub, cluster, client, subject, names, asked) {
        scene.reply(&text);
    }
    Flow::Continue
}

fn publish(scene: &mut Scene<'_>, subject: Subject, name: &'static str, args: Args<'_>) -> Flow {
    let channel = args.get(1).unwrap_or_default();
    let (cluster, shard) = (scene.cluster.id, route::shard_of(scene.cluster, channel));
    let audience = &scene.hub.pubsub.audience;
    if audience.is_empty(cluster) {
        return scene.send(shard, Access::Write, true, args.frame);
    }
    let audience = Arc::clone(audience);
    let published = Published { audience, cluster, shard, subject, channel: channel.into() };
    let gather = Gather::new(name, Merge::Published(published), 1);
    let access = Access::Write;
    let Some(upstream) = scene.upstream(shard, access, true) else {
        return scene.not_served(shard, access, true);
    };
    if scene.is_turned_since(&upstream.backend) {
        return Flow::Hold;
    }
    let owner = Owner::Client(Rc::clone(scene.client));
    let seq = scene.client.open_gather(gather, args.frame.len());
    scene.send_on(upstream, Entry::new(owner, seq, access, scene.now_us), args.frame)
}

fn names(scene: &Scene<'_>, subject: Subject, pattern: Option<&[u8]>) -> Flow {
    let names = scene.hub.pubsub.audience.names(scene.cluster.id, subject, pattern);
    scene.say(|out| {
        wire::array(out, names.len());
        names.iter().for_each(|name| wire::bulk(out, name));
    })
}

fn counts(scene: &Scene<'_>, subject: Subject, args: Args<'_>) -> Flow {
    let audience = &scene.hub.pubsub.audience;
    scene.say(|out| {
        wire::array(out, 2 * args.len().saturating_sub(2));
        for name in args.iter().skip(2) {
            wire::bulk(out, name);
            wire::integer(out, audience.clients(scene.cluster.id, subject, name));
        }
    })
}

fn help(out: &mut Vec<u8>) {
    const LINES: [&str; 7] = [
        "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Of the clients of this proxy. Subcommands are:",
        "CHANNELS [<pattern>] -- the channels that have subscribers.",
        "NUMPAT -- how many patterns have subscribers.",
        "NUMSUB [<channel> ...] -- how many subscribers these channels have, without patterns.",
        "SHARDCHANNELS [<pattern>] -- the shard channels that have subscribers.",
        "SHARDNUMSUB [<shardchannel> ...] -- how many subscribers these shard channels have.",
        "HELP -- this text.",
    ];
    wire::array(out, LINES.len());
    for line in LINES {
        wire::simple(out, line);
    }
}

/// Of one client. Redis has no limit; a client of which we would have to remember more than this is
/// no application.
const MOST_SUBSCRIPTIONS: usize = 65_536;
