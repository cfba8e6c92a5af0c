//! HELLO, SELECT and RESET: what a client makes of its connection, as if that were one to a server.
//! Not what a server is told of it: that is [`super::handshake`] and [`super::lease`].

use super::{
    args::Args,
    class::{Class, Resp},
    client_reply::Replies,
    dispatch::{Flow, Scene},
    local::is_name,
    pubsub, reply,
    users::{self, LogIn},
    wire,
};
use crate::topology::Spoof;

/// `HELLO [version [AUTH user password] [SETNAME name]]`, in the order in which Redis checks.
pub(super) fn hello(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let mut resp = scene.state.class.resp;
    if args.len() > 1 {
        resp = match args.number(1) {
            None => return fixed(scene, reply::PROTO_NOT_INTEGER),
            Some(2) => Resp::Two,
            Some(3) if speaks_three(scene) => Resp::Three,
            Some(_) => return fixed(scene, reply::NO_PROTO),
        };
    }
    // Messages come in the other version from its reply on, not before.
    if resp != scene.state.class.resp && scene.client.is_subscribed() && !scene.client.is_settled()
    {
        scene.client.wait_for_all();
        return Flow::Hold;
    }
    let mut at = 2;
    while let Some(word) = args.get(at) {
        if word.eq_ignore_ascii_case(b"AUTH")
            && let (Some(user), Some(password)) = (args.get(at + 1), args.get(at + 2))
        {
            match users::log_in(scene, user, password) {
                LogIn::Right => {}
                LogIn::Wrong => return fixed(scene, reply::WRONG_PASS),
                LogIn::Refused(words) => return fixed(scene, &words),
                LogIn::Later => return Flow::Hold,
            }
            at += 3;
        } else if word.eq_ignore_ascii_case(b"SETNAME")
            && let Some(wanted) = args.get(at + 1)
        {
            if !is_name(wanted) {
                return fixed(scene, reply::BAD_NAME);
            }
            scene.client.card_mut().name = wanted.to_vec();
            at += 2;
        } else {
            return scene.say(|out| reply::hello_option(out, word));
        }
    }
    if !scene.state.authenticated {
        return fixed(scene, reply::HELLO_NO_AUTH);
    }
    scene.change_class(Class { resp, ..scene.state.class });
    let version = version(scene);
    scene.say(|out| {
        wire::map(out, resp, 7);
        for (field, value) in [("server", "redis"), ("version", version.as_str())] {
            wire::bulk(out, field.as_bytes());
            wire::bulk(out, value.as_bytes());
        }
        wire::bulk(out, b"proto");
        wire::integer(out, if resp == Resp::Three { 3 } else { 2 });
        wire::bulk(out, b"id");
        wire::integer(out, i64::try_from(scene.client.id).unwrap_or(i64::MAX));
        let spoofs = scene.cluster.follows.as_ref().is_some_and(|one| one.spoof != Spoof::Off);
        let mode = if spoofs { "cluster" } else { "standalone" };
        for (field, value) in [("mode", mode), ("role", "master")] {
            wire::bulk(out, field.as_bytes());
            wire::bulk(out, value.as_bytes());
        }
        wire::bulk(out, b"modules");
        out.extend_from_slice(reply::EMPTY_ARRAY);
    })
}

/// Each database has its own upstream connections, so the choice stays the session's own.
pub(super) fn select(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    match (database(args), args.number(1).map(i32::try_from)) {
        (Some(db), _) => {
            if let Some(flow) = scene.refuses_database(db) {
                return flow;
            }
            scene.change_class(Class { db, ..scene.state.class });
            fixed(scene, reply::OK)
        }
        (None, None) => fixed(scene, reply::NOT_AN_INTEGER),
        (None, Some(Err(_))) => fixed(scene, reply::NOT_INT),
        (None, Some(Ok(_))) => fixed(scene, reply::DB_RANGE),
    }
}

/// The database that SELECT names, if there is one of that number.
pub(super) fn database(args: Args<'_>) -> Option<u8> {
    args.number(1).and_then(|db| u8::try_from(db).ok()).filter(|db| *db < DATABASES)
}

/// RESET: the session is as it began (redis.md, T11).
pub(super) fn reset(scene: &mut Scene<'_>) -> Flow {
    scene.abandon();
    if !scene.client.is_settled() {
        scene.client.wait_for_all();
        return Flow::Hold;
    }
    scene.state.pinned = None;
    scene.state.tracked.clear();
    scene.state.caching = None;
    scene.state.at_primary = false;
    pubsub::leave(scene.hub, scene.client);
    scene.state.class = Class::default();
    scene.client.set_resp(Resp::Two);
    users::leave(scene);
    scene.client.card_mut().reset();
    scene.hear(Replies::On);
    fixed(scene, reply::RESET)
}

impl Scene<'_> {
    /// From here on requests go over connections of that class. None of them may overtake those
    /// that went over others.
    fn change_class(&mut self, class: Class) {
        if class == self.state.class {
            return;
        }
        self.client.wait_for_all();
        self.state.change_class(class);
        self.client.set_resp(class.resp);
        self.client.card_mut().class = class;
    }
}

fn fixed(scene: &Scene<'_>, bytes: &[u8]) -> Flow {
    scene.reply(bytes);
    Flow::Continue
}

/// RESP3 came with Redis 6. A server that has not been probed yet is taken for a newer one.
fn speaks_three(scene: &Scene<'_>) -> bool {
    let major = version(scene).split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_none_or(|major| major >= 6)
}

/// The version of the servers behind us, as the first one probed told it.
fn version(scene: &Scene<'_>) -> String {
    let mut members = scene.cluster.shards.iter().flat_map(|shard| &shard.members);
    members.find_map(|backend| backend.version()).unwrap_or_else(|| "7.0.0".to_owned())
}

/// Redis's default number of databases.
const DATABASES: u8 = 16;
