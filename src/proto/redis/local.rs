//! Commands that are answered here: what they ask for is ours (the connection, the time, the
//! table) or belongs to no shard.

use super::{
    args::Args,
    client::End,
    commands_reply,
    dispatch::{Flow, Scene},
    info,
    insight::slowlog,
    reply, sluice,
    table::Local,
    wire,
};
use crate::policy::{access::Access, slot::slot};
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers `local`.
pub(super) fn answer(scene: &mut Scene<'_>, local: Local, args: Args<'_>) -> Flow {
    match local {
        Local::Ping => match args.get(1) {
            _ if args.len() > 2 => scene.say(|out| reply::wrong_arity(out, "PING")),
            Some(text) => scene.say(|out| wire::bulk(out, text)),
            None => fixed(scene, reply::PONG),
        },
        Local::Echo => scene.say(|out| wire::bulk(out, args.get(1).unwrap_or_default())),
        Local::Quit => {
            scene.reply(reply::OK);
            Flow::Close(End::Quit)
        }
        Local::Select => select(scene, args),
        Local::Auth => auth(scene, args),
        Local::Hello => hello(scene, args),
        Local::Command => scene.say(|out| commands_reply::command(scene.commands, args, out)),
        // A configuration is one server's; the first shard's speaks for all.
        Local::ConfigGet => scene.send(0, Access::Read, true, args.frame),
        Local::Info => info::answer(scene, args),
        Local::Role => scene.say(|out| {
            wire::array(out, 3);
            wire::bulk(out, b"master");
            wire::integer(out, 0);
            wire::array(out, 0);
        }),
        Local::Slowlog => slowlog::answer(scene, args),
        Local::Sluice => sluice::answer(scene, args),
        Local::Time => time(scene),
        Local::ClientSetName => set_name(scene, args.get(2).unwrap_or_default()),
        Local::ClientGetName => scene.say(|out| match scene.state.name.as_slice() {
            [] => out.extend_from_slice(reply::NULL),
            name => wire::bulk(out, name),
        }),
        Local::ClientSetInfo => set_info(scene, args),
        Local::ClientId => {
            scene.say(|out| wire::integer(out, i64::try_from(scene.client.id).unwrap_or(i64::MAX)))
        }
        Local::ClientUnblock => scene.unblock(args),
        Local::ClusterKeySlot => {
            let slot = slot(args.get(2).unwrap_or_default());
            scene.say(|out| wire::integer(out, i64::from(slot)))
        }
        Local::Unwatch => scene.unwatch(args),
        Local::Accept => fixed(scene, reply::OK),
    }
}

fn fixed(scene: &Scene<'_>, bytes: &[u8]) -> Flow {
    scene.reply(bytes);
    Flow::Continue
}

/// Each database has its own upstream connections, so the choice stays the session's own.
fn select(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let text = args.get(1).unwrap_or_default();
    match database(text) {
        Some(db) => {
            if scene.state.class.db != db {
                scene.client.wait_for_all();
                scene.state.class.db = db;
                if let Some(own) = scene.move_own() {
                    return scene.send_over(own, Access::Read, true, args.frame);
                }
            }
            fixed(scene, reply::OK)
        }
        None if integer(text).is_some() => fixed(scene, reply::DB_RANGE),
        None => fixed(scene, reply::INVALID_DB),
    }
}

/// The database that SELECT names, if there is one of that number.
pub(super) fn database(text: &[u8]) -> Option<u8> {
    integer(text).and_then(|db| u8::try_from(db).ok()).filter(|db| *db < DATABASES)
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn auth(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let (user, password) = match (args.get(1), args.get(2), args.len()) {
        (Some(password), None, 2) => (&b"default"[..], password),
        (Some(user), Some(password), 3) => (user, password),
        _ => return fixed(scene, reply::SYNTAX),
    };
    if scene.settings.password.is_none() && args.len() == 2 {
        return fixed(scene, reply::AUTH_WITHOUT_PASSWORD);
    }
    if log_in(scene, user, password) {
        fixed(scene, reply::OK)
    } else {
        fixed(scene, reply::WRONG_PASS)
    }
}

/// True when that is the listener's user and password; without a password any will do, as for
/// Redis's `nopass` user.
pub(super) fn log_in(scene: &mut Scene<'_>, user: &[u8], password: &[u8]) -> bool {
    let right = user == b"default"
        && scene
            .settings
            .password
            .as_ref()
            .is_none_or(|expected| equal_in_constant_time(expected.as_bytes(), password));
    if right {
        scene.state.authenticated = true;
    } else if let Some(metrics) = scene.hub.metrics.listeners.get(scene.settings.listener) {
        metrics.rejected_auth.add(1);
    }
    right
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Version 3 is refused in words on which
/// clients fall back to RESP2.
fn hello(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    if let Some(version) = args.get(1) {
        match std::str::from_utf8(version).ok().and_then(|v| v.parse::<i64>().ok()) {
            None => return fixed(scene, reply::PROTO_NOT_INTEGER),
            Some(2) => {}
            Some(_) => return fixed(scene, reply::NO_PROTO),
        }
    }
    let mut at = 2;
    while let Some(word) = args.get(at) {
        if word.eq_ignore_ascii_case(b"AUTH")
            && let (Some(user), Some(password)) = (args.get(at + 1), args.get(at + 2))
        {
            if !log_in(scene, user, password) {
                return fixed(scene, reply::WRONG_PASS);
            }
            at += 3;
        } else if word.eq_ignore_ascii_case(b"SETNAME")
            && let Some(name) = args.get(at + 1)
        {
            if !is_name(name) {
                return fixed(scene, reply::BAD_NAME);
            }
            scene.state.name = name.to_vec();
            at += 2;
        } else {
            return scene.say(|out| reply::hello_option(out, word));
        }
    }
    if !scene.state.authenticated {
        return fixed(scene, reply::HELLO_NO_AUTH);
    }
    let version = version(scene);
    scene.say(|out| {
        wire::array(out, 14);
        for (field, value) in [("server", "redis"), ("version", version.as_str())] {
            wire::bulk(out, field.as_bytes());
            wire::bulk(out, value.as_bytes());
        }
        wire::bulk(out, b"proto");
        wire::integer(out, 2);
        wire::bulk(out, b"id");
        wire::integer(out, i64::try_from(scene.client.id).unwrap_or(i64::MAX));
        for (field, value) in [("mode", "standalone"), ("role", "master")] {
            wire::bulk(out, field.as_bytes());
            wire::bulk(out, value.as_bytes());
        }
        wire::bulk(out, b"modules");
        out.extend_from_slice(reply::EMPTY_ARRAY);
    })
}

/// The version of the servers behind us, as the first one probed told it.
fn version(scene: &Scene<'_>) -> String {
    let mut members = scene.cluster.shards.iter().flat_map(|shard| &shard.members);
    members.find_map(|backend| backend.version()).unwrap_or_else(|| "7.0.0".to_owned())
}

fn time(scene: &Scene<'_>) -> Flow {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    scene.say(|out| {
        wire::array(out, 2);
        wire::bulk(out, now.as_secs().to_string().as_bytes());
        wire::bulk(out, now.subsec_micros().to_string().as_bytes());
    })
}

fn set_name(scene: &mut Scene<'_>, name: &[u8]) -> Flow {
    if !is_name(name) {
        return fixed(scene, reply::BAD_NAME);
    }
    scene.state.name = name.to_vec();
    fixed(scene, reply::OK)
}

/// `CLIENT SETINFO lib-name|lib-ver value`: checked as Redis does, then of no use to us.
fn set_info(scene: &Scene<'_>, args: Args<'_>) -> Flow {
    let (field, value) = (args.get(2).unwrap_or_default(), args.get(3).unwrap_or_default());
    let known = [&b"lib-name"[..], b"lib-ver"].iter().any(|word| word.eq_ignore_ascii_case(field));
    if !known {
        return scene.say(|out| reply::unknown_option(out, field));
    }
    if !is_name(value) {
        return scene.say(|out| reply::bad_info(out, field));
    }
    fixed(scene, reply::OK)
}

/// networking.c, validateClientAttr: printable, without spaces; and of bounded length, for we keep it.
fn is_name(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && name.iter().all(u8::is_ascii_graphic)
}

/// Redis's default number of databases.
const DATABASES: u8 = 16;
const LONGEST_NAME: usize = 1024;
