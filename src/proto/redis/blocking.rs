//! Commands that wait in the server until there is something to give: each has a connection of the
//! session's own for as long as it waits, and takes it along when its client leaves, so that nothing
//! is popped for nobody (redis.md, T6 and T7). Not the connection: that is [`super::lease`].

use super::{
    args::Args,
    client::{Client, End},
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    keys,
    lease::{Lease, micros},
    options, reply,
    table::Command,
    waiting::Waiting,
    wire,
};
use crate::policy::access::Access;
use std::{rc::Rc, sync::Arc, time::Duration};

/// A session's connection on which it waits in the server.
#[derive(Debug)]
pub(super) struct Blocked {
    leases: Vec<Lease>,
    client: Rc<Client>,
}

impl Blocked {
    /// That client waits on these.
    pub(super) fn new(leases: Vec<Lease>, client: Rc<Client>) -> Self {
        client.card_mut().is_blocked = true;
        Self { leases, client }
    }

    /// Whether the server has answered, or never will.
    pub(super) fn is_done(&self) -> bool {
        let mut upstreams = self.leases.iter().map(Lease::upstream);
        upstreams.all(|upstream| upstream.is_quiet() || upstream.has_ended())
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.client.card_mut().is_blocked = false;
        // Before the leases: who aims at one from here on must not find it.
        for lease in &self.leases {
            lease.upstream().backend.leases.end_wait(self.client.id);
        }
    }
}

impl Scene<'_> {
    /// A command that may wait in the server; the session's later requests wait for its reply.
    pub(super) fn block(&mut self, command: &Command, args: Args<'_>) -> Flow {
        if self.state.eof {
            // A server reads the end of its client's requests while the command waits, and lets it go.
            return Flow::Close(End::Client);
        }
        let Some(shard) = self.shard_of_all(keys::keys(command, args).unwrap_or_default(), args)
        else {
            return self.cross_slot();
        };
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Flow::Hold;
        }
        let (access, at_primary) = (command.access, !command.replica_ok);
        let Some(backend) = self.pick(shard, access, at_primary) else {
            return self.not_served(shard, access, at_primary);
        };
        let lease = match self.lease(backend) {
            Ok(lease) => lease,
            Err(flow) => return flow,
        };
        let upstream = lease.upstream();
        upstream.ask_number(self.hub);
        let owner = Owner::Client(Rc::clone(self.client));
        let entry =
            Entry::new(owner, self.client.open(args.frame.len()), access, self.now_us).patient();
        upstream.send(self.hub, entry, |out| out.extend_from_slice(args.frame));
        if access == Access::Write {
            self.state.written.note(shard, backend);
        }
        self.begin_blocked(vec![lease], patience(command, args));
        Flow::Continue
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`, of a client of this cluster on whichever worker: the
    /// server is told its own number for the connection on which that client waits.
    pub(super) fn unblock(&mut self, args: Args<'_>) -> Flow {
        let reason = match args.get(3) {
            None => &b"TIMEOUT"[..],
            Some(word) if word.eq_ignore_ascii_case(b"TIMEOUT") => b"TIMEOUT",
            Some(word) if word.eq_ignore_ascii_case(b"ERROR") => b"ERROR",
            Some(_) => return self.answer_with(reply::UNBLOCK_REASON),
        };
        if args.len() > 4 {
            return self.say(|out| reply::unknown_subcommand(out, args));
        }
        let text = std::str::from_utf8(args.get(2).unwrap_or_default()).unwrap_or_default();
        let Ok(id) = text.parse::<i64>() else { return self.answer_with(reply::NOT_AN_INTEGER) };
        let Ok(id) = u64::try_from(id) else { return self.answer_with(reply::ZERO) };
        let members = self.cluster.shards.iter().flat_map(|shard| &shard.members);
        let found =
            members.filter_map(|backend| Some((backend, backend.leases.target(id)?))).next();
        let has_waited = matches!(std::mem::take(&mut self.state.waiting), Waiting::Over(..));
        let (backend, number) = match found {
            // The server has not told its number yet, or we have not read it.
            Some((_, 0)) if !has_waited => {
                self.state.waiting = Waiting::a_moment();
                self.client.look_ahead();
                return Flow::Hold;
            }
            None | Some((_, 0)) => return self.answer_with(reply::ZERO),
            Some(found) => found,
        };
        let mut request = Vec::new();
        wire::array(&mut request, 4);
        for word in [&b"CLIENT"[..], b"UNBLOCK", number.to_string().as_bytes(), reason] {
            wire::bulk(&mut request, word);
        }
        let owner = Owner::Client(Rc::clone(self.client));
        let seq = self.client.open(request.len());
        let entry = Entry::new(owner, seq, Access::Write, self.now_us);
        let (backend, class) = (Arc::clone(backend), self.state.class);
        self.hub.upstream(self.cluster, &backend, class, |upstream| {
            upstream.send(self.hub, entry, |out| out.extend_from_slice(&request));
        });
        Flow::Continue
    }

    fn answer_with(&self, bytes: &[u8]) -> Flow {
        self.reply(bytes);
        Flow::Continue
    }
}

/// When a server must have answered that says it waits so long, on the worker's clock; 0: it may
/// wait for ever, or the arguments are of no use and it answers at once in its own words.
pub(super) fn micros_after(now_us: u64, patience: Option<Duration>) -> u64 {
    match patience {
        Some(time) if !time.is_zero() => now_us.saturating_add(micros(time + GRACE)),
        _ => 0,
    }
}

/// How long the command says that it waits.
fn patience(command: &Command, args: Args<'_>) -> Option<Duration> {
    let at = match command.name {
        "BLMPOP" | "BZMPOP" => 1,
        "BLMOVEM" => 5,
        "XREAD" | "XREADGROUP" => {
            let at = options::block(args)? + 1;
            let text = std::str::from_utf8(args.get(at)?).ok()?;
            return text.parse().ok().map(Duration::from_millis);
        }
        "BLPOP" | "BRPOP" | "BLMOVE" | "BRPOPLPUSH" | "BZPOPMIN" | "BZPOPMAX" => {
            args.len().checked_sub(1)?
        }
        _ => return None,
    };
    let seconds = std::str::from_utf8(args.get(at)?).ok()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What a server may take beyond what the command says.
const GRACE: Duration = Duration::from_secs(5);
