//! Commands that are answered here: what they ask for is ours (the connection, the time, the
//! table) or belongs to no shard.

use super::{
    args::Args,
    card::Card,
    client::End,
    cluster::spoof,
    commands_reply,
    dispatch::{Flow, Scene},
    hello, info,
    insight::slowlog,
    reply, sluice,
    table::{Local, OfClient},
    users::{self, LogIn},
    wire,
};
use crate::policy::{access::Access, slot::slot};
use std::{
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Answers `local`.
pub(super) fn answer(scene: &mut Scene<'_>, local: Local, args: Args<'_>) -> Flow {
    match local {
        Local::Ping if scene.hub.busy.borrow().is_some() => ping(scene, args),
        Local::Ping => pong(scene, args),
        Local::Echo => scene.say(|out| wire::bulk(out, args.get(1).unwrap_or_default())),
        Local::Quit => {
            scene.reply(reply::OK);
            Flow::Close(End::Quit)
        }
        Local::Select => hello::select(scene, args),
        Local::Auth => auth(scene, args),
        Local::Hello => hello::hello(scene, args),
        Local::Reset => hello::reset(scene),
        Local::Command => {
            let resp = scene.state.class.resp;
            scene.say(|out| commands_reply::command(scene.commands, args, resp, out))
        }
        Local::AskFirst => scene.send(0, Access::Read, true, args.frame),
        Local::Info => info::answer(scene, args),
        Local::Slowlog => slowlog::answer(scene, args),
        Local::Sluice => sluice::answer(scene, args),
        Local::Time => time(scene),
        Local::Client(what) => of_client(scene, what, args),
        Local::Role => fixed(scene, reply::ROLE),
        Local::ClientUnblock => scene.unblock(args),
        Local::ClusterNode | Local::ClusterOwner => of_cluster(scene, local, args),
        Local::ClusterKeySlot => {
            let slot = slot(args.get(2).unwrap_or_default());
            scene.say(|out| wire::integer(out, i64::from(slot)))
        }
        Local::Unwatch => scene.unwatch(args),
        Local::WhoAmI => {
            let name = scene.state.who.name.clone();
            scene.say(|out| wire::bulk(out, &name))
        }
        Local::Prefer { primary } => {
            scene.prefer_primary(primary);
            Flow::Continue
        }
        Local::Accept => fixed(scene, reply::OK),
    }
}

fn pong(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    match args.get(1) {
        _ if args.len() > 2 => scene.say(|out| reply::wrong_arity(out, "PING")),
        Some(text) => scene.say(|out| wire::bulk(out, text)),
        None => fixed(scene, reply::PONG),
    }
}

/// What a node of a Redis Cluster knows.
fn of_cluster(scene: &mut Scene<'_>, local: Local, args: Args<'_>) -> Flow {
    let commands = scene.commands;
    match (commands.find(args), local) {
        (Some(command), Local::ClusterOwner) => spoof::ask_owner(scene, command, args),
        (Some(command), _) => spoof::answer(scene, command, args),
        (None, _) => scene.say(|out| reply::unknown_subcommand(out, args)),
    }
}

/// PING where a script runs long: whoever asks is told, as by the server, that it is busy.
fn ping(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let busy = scene.hub.busy.borrow();
    let Some(busy) = busy.as_ref().filter(|busy| busy.cluster == scene.cluster.id) else {
        return pong(scene, args);
    };
    // Behind its own requests it is answered when they are.
    if !scene.client.is_settled() {
        return pong(scene, args);
    }
    let class = scene.state.class.aside();
    let upstream = scene.hub.upstream(scene.cluster, &busy.backend, class, Rc::clone);
    let entry = scene.entry(Access::Read, true, args.frame.len());
    upstream.send(scene.hub, entry, |out| out.extend_from_slice(args.frame));
    Flow::Continue
}

/// Answers a subcommand of CLIENT.
fn of_client(scene: &mut Scene<'_>, what: OfClient, args: Args<'_>) -> Flow {
    match what {
        OfClient::Id => {
            scene.say(|out| wire::integer(out, i64::try_from(scene.client.id).unwrap_or(i64::MAX)))
        }
        OfClient::GetName => scene.say(|out| match scene.client.card().name.as_slice() {
            [] => wire::null(out, scene.state.class.resp),
            name => wire::bulk(out, name),
        }),
        OfClient::SetName => set_name(scene, args.get(2).unwrap_or_default()),
        OfClient::SetInfo => set_info(scene, args),
        OfClient::NoEvict => set_flag(scene, args, |card, on| card.no_evict = on),
        OfClient::NoTouch => set_flag(scene, args, |card, on| card.no_touch = on),
        OfClient::Info => scene.client_info(args),
        OfClient::List => scene.client_list(args),
        OfClient::Kill => scene.client_kill(args),
        OfClient::Pause => scene.client_pause(args),
        OfClient::Unpause => scene.client_unpause(),
        OfClient::Reply => scene.client_reply(args),
        OfClient::Tracking => scene.client_tracking(args),
        OfClient::TrackingInfo => scene.client_tracking_info(args),
        OfClient::Caching => scene.client_caching(args),
        OfClient::GetRedirect => scene.client_get_redirect(),
    }
}

fn fixed(scene: &Scene<'_>, bytes: &[u8]) -> Flow {
    scene.reply(bytes);
    Flow::Continue
}

fn auth(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let (user, password) = match (args.get(1), args.get(2), args.len()) {
        (Some(password), None, 2) => (&b"default"[..], password),
        (Some(user), Some(password), 3) => (user, password),
        _ => return fixed(scene, reply::SYNTAX),
    };
    if users::is_open(scene.settings) && args.len() == 2 {
        return fixed(scene, reply::AUTH_WITHOUT_PASSWORD);
    }
    match users::log_in(scene, user, password) {
        LogIn::Right => fixed(scene, reply::OK),
        LogIn::Wrong => fixed(scene, reply::WRONG_PASS),
        LogIn::Refused(words) => fixed(scene, &words),
        LogIn::Later => Flow::Hold,
    }
}

fn time(scene: &Scene<'_>) -> Flow {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    scene.say(|out| {
        wire::array(out, 2);
        wire::bulk(out, now.as_secs().to_string().as_bytes());
        wire::bulk(out, now.subsec_micros().to_string().as_bytes());
    })
}

fn set_name(scene: &Scene<'_>, name: &[u8]) -> Flow {
    if !is_name(name) {
        return fixed(scene, reply::BAD_NAME);
    }
    scene.client.card_mut().name = name.to_vec();
    fixed(scene, reply::OK)
}

/// `CLIENT SETINFO lib-name|lib-ver value`: checked as Redis does, then told by CLIENT LIST.
fn set_info(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    let value = args.get(3).unwrap_or_default();
    if !args.is(2, "lib-name") && !args.is(2, "lib-ver") {
        return scene.say(|out| reply::unknown_option(out, args.get(2).unwrap_or_default()));
    }
    if !is_name(value) {
        return scene.say(|out| reply::bad_info(out, args.get(2).unwrap_or_default()));
    }
    let mut card = scene.client.card_mut();
    let field = if args.is(2, "lib-name") { &mut card.library } else { &mut card.library_version };
    *field = value.to_vec();
    drop(card);
    fixed(scene, reply::OK)
}

/// `CLIENT NO-EVICT ON | OFF` and the like.
fn set_flag(scene: &Scene<'_>, args: Args<'_>, set: impl FnOnce(&mut Card, bool)) -> Flow {
    let on = args.is(2, "ON");
    if !on && !args.is(2, "OFF") {
        return fixed(scene, reply::SYNTAX);
    }
    set(&mut scene.client.card_mut(), on);
    fixed(scene, reply::OK)
}

/// networking.c, validateClientAttr: printable, without spaces; and of bounded length, for we keep it.
pub(super) fn is_name(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && name.iter().all(u8::is_ascii_graphic)
}

const LONGEST_NAME: usize = 1024;
