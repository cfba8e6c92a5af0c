//! Scripts and functions: where they run, that servers know the scripts that they are to run, and
//! how a running one is killed (redis.md T24, T25). Not the bodies: those are [`super::library`]'s.
//!
//! A server forgets its scripts when it restarts, and a replica never learns its primary's. So a
//! body that a client has shown goes ahead of the first EVALSHA of it on each connection, in the
//! same write; and where the server does not know the script all the same, for somebody flushed
//! it, the call is sent again as EVAL, unless that would put it behind a later request of its
//! session.

use super::{
    args::Args,
    dispatch::{Flow, Part, Scene},
    entry::{Entry, Owner, Patience, Reach},
    fan_out,
    frame::{Decoder, Frame, Limits},
    functions::Functions,
    gather::{Gather, Merge},
    hub::Hub,
    keys,
    library::{self, Library, Sha},
    reply,
    table::{Command, Kind, Script},
    upstream::Upstream,
    wire,
};
use crate::{
    policy::{access::Access, reads::ReadFrom},
    topology::{Backend, Shard},
};
use std::{
    cell::RefCell,
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::Arc,
};

/// What one worker knows of scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    library: Arc<Library>,
    heard: RefCell<Heard>,
    pub(super) functions: Functions,
}

/// Bodies that were put into the library already, by a hash that costs less than SHA1 and a lock.
#[derive(Debug, Default)]
struct Heard {
    state: RandomState,
    bodies: HashSet<u64>,
    losses: u64,
}

/// The scripts that a server was told over one connection, or that it will say it does not know.
#[derive(Debug, Default)]
pub(super) struct Told(RefCell<HashSet<Sha>>);

impl Scripts {
    pub(super) fn new(library: Arc<Library>) -> Self {
        Self { library, heard: RefCell::default(), functions: Functions::default() }
    }

    /// Remembers a body, unless it is too long to be worth it.
    pub(super) fn remember(&self, cluster: usize, body: &[u8]) {
        if body.len() > LONGEST {
            return;
        }
        let mut heard = self.heard.borrow_mut();
        let losses = self.library.losses();
        if heard.losses != losses || heard.bodies.len() >= MOST_HEARD {
            heard.bodies.clear();
            heard.losses = losses;
        }
        let hash = heard.state.hash_one((cluster, body));
        if heard.bodies.insert(hash) {
            self.library.remember(cluster, body);
        }
    }
}

impl Told {
    /// True the first time.
    fn insert(&self, sha: Sha) -> bool {
        let mut told = self.0.borrow_mut();
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(sha)
    }

    fn remove(&self, sha: Sha) {
        self.0.borrow_mut().remove(&sha);
    }
}

/// Does what `script` says.
pub(super) fn run(
    scene: &mut Scene<'_>,
    command: &Command,
    script: Script,
    args: Args<'_>,
) -> Flow {
    match script {
        Script::Eval | Script::EvalSha | Script::Function => call(scene, command, script, args),
        Script::Load => load(scene, command, args),
        Script::Flush => flush(scene, command, args),
        Script::Kill => kill(scene, command, args),
        Script::Stats => stats(scene, args),
        Script::Debug => debug(scene, command, args),
    }
}

/// Tells a server the script of an EVALSHA before it is asked to run it, once for each connection;
/// for a block of requests, before its MULTI.
pub(super) fn go_ahead(hub: &Hub, upstream: &Upstream, sha: Sha) {
    if !upstream.told.insert(sha) {
        return;
    }
    let Some(body) = hub.scripts.library.find(upstream.cluster, sha) else { return };
    let mut load = Vec::with_capacity(body.len() + 64);
    wire::array(&mut load, 3);
    [b"SCRIPT", &b"LOAD"[..], &body].iter().for_each(|word| wire::bulk(&mut load, word));
    upstream.send_unheard(hub, &load);
}

/// EVAL, EVALSHA, FCALL and their `_RO` forms: to the shard of their keys.
fn call(scene: &mut Scene<'_>, command: &Command, script: Script, args: Args<'_>) -> Flow {
    // Where the keys are not what they must be, the server says so in its own words.
    let found = keys::keys(command, args).unwrap_or_default();
    let Some(shard) = scene.shard_of_all(found, args) else { return scene.cross_slot() };
    let what = args.get(1).unwrap_or_default();
    let sha = if script == Script::EvalSha { library::parse(what) } else { None };
    if script == Script::Eval {
        scene.hub.scripts.remember(scene.cluster.id, what);
    }
    let reads = command.access == Access::Read
        || (scene.cluster.shebang_reads && only_reads(scene, script, what, sha));
    let access = if reads { Access::Read } else { Access::Write };
    let Some(upstream) = scene.upstream(shard, access, !reads) else {
        return scene.not_served(shard, access, !reads);
    };
    if scene.is_turned_since(&upstream.backend) {
        return Flow::Hold;
    }
    if let Some(sha) = sha {
        go_ahead(scene.hub, &upstream, sha);
    }
    let mut entry = scene.entry(access, !reads, args.frame.len()).script();
    // What CLIENT CACHING says of it would not be said again.
    entry.keeps = scene.state.caching.is_none()
        && (sha.is_some() || (script == Script::Eval && what.len() <= LONGEST));
    scene.send_on(upstream, entry, args.frame)
}

/// Whether a request runs a script or function that says of itself that it does not write.
pub(super) fn is_read_only(scene: &Scene<'_>, command: &Command, args: Args<'_>) -> bool {
    let what = args.get(1).unwrap_or_default();
    match command.kind {
        Kind::Script(Script::EvalSha) => {
            only_reads(scene, Script::EvalSha, what, library::parse(what))
        }
        Kind::Script(Script::Eval) => only_reads(scene, Script::Eval, what, None),
        Kind::Script(Script::Function) => scene.writes_nothing(what),
        _ => false,
    }
}

/// Whether a script says of itself that it does not write (Redis 7: `#!lua flags=no-writes`).
fn only_reads(scene: &Scene<'_>, script: Script, what: &[u8], sha: Option<Sha>) -> bool {
    match (script, sha) {
        (Script::Eval, _) => says_no_writes(what),
        (_, Some(sha)) => {
            let body = scene.hub.scripts.library.find(scene.cluster.id, sha);
            body.is_some_and(|body| says_no_writes(&body))
        }
        _ => false,
    }
}

fn says_no_writes(body: &[u8]) -> bool {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(u8::is_ascii_whitespace);
    words.next().is_some_and(|first| first.eq_ignore_ascii_case(b"#!lua"))
        && words
            .filter_map(|word| word.strip_prefix(b"flags="))
            .any(|flags| flags.split(|byte| *byte == b',').any(|flag| flag == b"no-writes"))
}

/// SCRIPT LOAD: to every primary.
fn load(scene: &mut Scene<'_>, command: &Command, args: Args<'_>) -> Flow {
    let body = args.get(2).unwrap_or_default();
    scene.hub.scripts.library.remember(scene.cluster.id, body);
    if scene.awaits_primary(0..scene.cluster.shards.len(), Access::Write, true) {
        return Flow::Hold;
    }
    let shards = u16::try_from(scene.cluster.shards.len()).unwrap_or(u16::MAX);
    let gather = Gather::new(command.name, Merge::AllSucceed, shards);
    let seq = scene.client.open_gather(gather, args.frame.len());
    for index in 0..shards {
        let part = Part { seq, index, reach: Reach::All };
        let write = |out: &mut Vec<u8>| out.extend_from_slice(args.frame);
        let keeping = if body.len() <= LONGEST { Entry::keeping } else { std::convert::identity };
        scene.send_part_as(part, usize::from(index), Access::Write, true, keeping, write);
    }
    Flow::Continue
}

/// SCRIPT FLUSH: on every primary, and here. Replicas have scripts of their own.
fn flush(scene: &mut Scene<'_>, command: &Command, args: Args<'_>) -> Flow {
    scene.hub.scripts.library.clear(scene.cluster.id);
    if scene.cluster.reads != ReadFrom::Primary {
        for shard in &scene.cluster.shards {
            for replica in shard.members.iter().filter(|member| member.gate().replica()) {
                scene.hub.upstream(scene.cluster, replica, scene.state.class, |upstream| {
                    upstream.send_unheard(scene.hub, args.frame);
                });
            }
        }
    }
    fan_out::ask_all(scene, command.name, Access::Write, Merge::AllSucceed, args.frame)
}

/// SCRIPT KILL, FUNCTION KILL: everywhere, beside the connection on which a script runs, for of
/// that one the server reads nothing more.
fn kill(scene: &mut Scene<'_>, command: &Command, args: Args<'_>) -> Flow {
    let (hub, cluster) = (scene.hub, scene.cluster);
    let all = cluster.reads != ReadFrom::Primary;
    let targets = |shard: &'_ Shard| {
        let replicas = shard.members.iter().filter(|member| all && member.gate().replica());
        let targets = [primary(shard)].into_iter().flatten().chain(replicas);
        targets.map(Arc::clone).collect::<Vec<_>>()
    };
    let targets: Vec<Arc<Backend>> = cluster.shards.iter().flat_map(targets).collect();
    let parts = u16::try_from(targets.len()).unwrap_or(u16::MAX);
    let gather = Gather::new(command.name, Merge::OneSucceeds, parts);
    let seq = scene.client.open_gather(gather, args.frame.len());
    for (index, target) in (0..parts).zip(&targets) {
        let owner = Owner::Client(Rc::clone(scene.client));
        let entry = Entry::new(owner, seq, Access::Write, scene.now_us).part(index, Reach::All);
        hub.upstream(cluster, target, scene.state.class.aside(), |upstream| {
            upstream.send(hub, entry, |out| out.extend_from_slice(args.frame));
        });
    }
    Flow::Continue
}

/// FUNCTION STATS tells what runs, so it must not wait for it.
fn stats(scene: &mut Scene<'_>, args: Args<'_>) -> Flow {
    let (hub, cluster) = (scene.hub, scene.cluster);
    let shard = cluster.keyless;
    let Some(target) = cluster.shards.get(shard).and_then(primary) else {
        return scene.refuse(Access::Read, |out| scene.unserved(shard, Access::Read, true, out));
    };
    let entry = scene.entry(Access::Read, true, args.frame.len());
    let class = scene.state.class.aside();
    let upstream = hub.upstream(cluster, target, class, Rc::clone);
    scene.send_on(upstream, entry, args.frame)
}

/// The primary of a shard in whatever state: one that runs a script for long looks as if it hung.
pub(super) fn primary(shard: &Shard) -> Option<&Arc<Backend>> {
    shard.members.iter().find(|member| member.gate().primary()).or_else(|| shard.members.first())
}

/// A debugged script would hold a connection that others share.
fn debug(scene: &Scene<'_>, command: &Command, args: Args<'_>) -> Flow {
    let is = |word: &[u8]| args.get(2).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    if is(b"NO") {
        scene.reply(reply::OK);
    } else if is(b"YES") || is(b"SYNC") {
        return scene.say(|out| reply::disabled(out, command.name));
    } else {
        scene.reply(reply::SCRIPT_DEBUG);
    }
    Flow::Continue
}

/// A server answered a request that has a script's body or name with an error: it is sent again
/// when the server did not know the script and nothing would be overtaken, else given back.
pub(super) fn failed(
    hub: &Hub,
    upstream: &Rc<Upstream>,
    mut entry: Entry,
    error: &[u8],
) -> Option<Entry> {
    let unknown = error.starts_with(NO_SCRIPT) && entry.patience == Patience::Script;
    if !unknown && !error.starts_with(NOT_COMPILED) {
        return Some(entry);
    }
    let bytes =
        upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec);
    let Some(bytes) = bytes else { return Some(entry) };
    let mut decoder = Decoder::default();
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    let Ok(Frame::Request(_)) = decoder.decode(&bytes, &limits) else { return Some(entry) };
    let args = Args { frame: &bytes, spans: decoder.spans() };
    let name = args.get(0).unwrap_or_default();
    let library = &hub.scripts.library;
    if !unknown {
        let body = if name.eq_ignore_ascii_case(b"SCRIPT") { args.get(2) } else { args.get(1) };
        library.forget(upstream.cluster, library::sha(body.unwrap_or_default()));
        return Some(entry);
    }
    let Some(sha) = args.get(1).and_then(library::parse) else { return Some(entry) };
    upstream.told.remove(sha);
    let overtakes = match &entry.owner {
        Owner::Client(client) => upstream.has_more_of(client),
        Owner::Flight(_)
        | Owner::Tombstone
        | Owner::Commands
        | Owner::Number
        | Owner::Functions => true,
    };
    let Some(body) = library.find(upstream.cluster, sha).filter(|_| !overtakes) else {
        return Some(entry);
    };
    let read_only = name.len() == "EVALSHA_RO".len();
    // Once: what comes back now is the script's own.
    entry.keeps = false;
    let healed = |out: &mut Vec<u8>| {
        wire::array(out, args.len());
        wire::bulk(out, if read_only { b"EVAL_RO" } else { b"EVAL" });
        wire::bulk(out, &body);
        args.iter().skip(2).for_each(|arg| wire::bulk(out, arg));
    };
    upstream.send(hub, entry, healed);
    None
}

/// The whole reply of a server that does not know a script; one of a script's own begins otherwise,
/// unless it means to deceive.
const NO_SCRIPT: &[u8] = b"-NOSCRIPT No matching script";
const NOT_COMPILED: &[u8] = b"-ERR Error compiling script";
/// Bodies longer than this are remembered only where they are loaded (redis.md T25).
const LONGEST: usize = 64 * 1024;
/// Of one worker: 36 KiB.
const MOST_HEARD: usize = 4_096;
/// Of one connection: 96 KiB.
const MOST_TOLD: usize = 4_096;

#[cfg(test)]
mod tests;
