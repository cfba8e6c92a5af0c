//! `upstream.mode: dedicated` in front of one shard: a client has one upstream connection for all it
//! does, and what it may send goes there as it is. Not how long it waits to have one: that is
//! [`super::waiting`].
//!
//! Requests are still found one by one, for the listener may refuse some. Replies are matched with
//! them as on a shared connection, for the metrics and for what must be in order, until the client
//! says something whose replies nobody can count (SUBSCRIBE, MONITOR, CLIENT REPLY, ...): from there
//! on the connection's bytes are passed on as they come.

use super::{
    allow::named,
    args::Args,
    card::Hears,
    client::End,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner, Reach},
    frame::Decoder,
    gather::{Gather, Merge},
    lease::Lease,
    mark::{self, Mark},
    reply,
    table::{Command, Kind, Local},
    upstream::Upstream,
    users::{self, LogIn},
    wire,
};
use crate::{policy::access::Access, topology::Backend};
use std::{rc::Rc, sync::Arc};

/// A session's own connections, for as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// By backend.
    leases: Vec<Lease>,
    /// Its one connection passes on what comes.
    raw: bool,
    /// RESET was sent, behind which replies are counted again.
    is_resetting: bool,
    /// The newest request waits in the server.
    pub(super) blocks: bool,
    /// It writes and nobody knows when that is answered.
    unheard: Option<Mark>,
}

impl Own {
    fn of(&self, backend: u32) -> Option<&Rc<Upstream>> {
        let mut upstreams = self.leases.iter().map(Lease::upstream);
        upstreams.find(|upstream| upstream.backend.id == backend && !upstream.has_ended())
    }

    /// The one connection of a client of one shard.
    fn only(&self) -> Option<&Rc<Upstream>> {
        self.leases.first().map(Lease::upstream)
    }

    /// Whether replies can no longer be counted.
    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }
}

impl Scene<'_> {
    /// Whether its requests go on as they are.
    pub(super) fn relays(&self) -> bool {
        // What passes as it is, is not looked at: not where users have rules.
        let open = !self.has_users() && self.settings.routes.is_empty();
        self.state.own.raw
            || self.cluster.dedicated.always && self.cluster.shards.len() == 1 && open
    }

    /// The connection of a client that has just come, if one can be had at once.
    pub(super) fn open_relay(&mut self) {
        if !self.relays() || !self.state.authenticated || self.state.own.only().is_some() {
            return;
        }
        if let Some(backend) = self.pick(0, Access::Write, true)
            && let Some(permit) = backend.leases.try_permit()
        {
            let lease =
                Lease::take(self.hub, self.cluster, backend, self.state.class, permit).for_life();
            lease.upstream().relay_to(self.client);
            self.state.own.leases.push(lease);
        }
    }

    /// The connection over which all goes.
    ///
    /// # Errors
    /// How the request ends that wanted it.
    fn relay_upstream(&mut self) -> Result<Rc<Upstream>, Flow> {
        if let Some(only) = self.state.own.only() {
            // Its end ends the session, which hears of it in a moment.
            return Ok(Rc::clone(only));
        }
        let Some(backend) = self.pick(0, Access::Write, true) else {
            return Err(self.not_served(0, Access::Write, true));
        };
        let lease = self.lease(backend)?.for_life();
        let upstream = Rc::clone(lease.upstream());
        upstream.relay_to(self.client);
        self.state.own.leases.push(lease);
        Ok(upstream)
    }

    /// One request of a client whose requests go on as they are.
    pub(super) fn relay(&mut self, args: Args<'_>) -> Flow {
        if self.state.own.is_resetting && self.is_still_raw() {
            self.client.look_ahead();
            return Flow::Hold;
        }
        let name = args.get(0).unwrap_or_default();
        let command = self.commands.find(args);
        let index = command.map_or(usize::MAX, |command| usize::from(command.index));
        if !self.state.authenticated || self.logs_in(command, args) {
            return self.relay_login(command, args);
        }
        if command.is_some_and(|command| command.kind == Kind::CrossProtocol) {
            return self.hijacked();
        }
        let upstream = match self.relay_upstream() {
            Ok(upstream) => upstream,
            Err(flow) => return flow,
        };
        self.state.own.raw |= upstream.is_raw();
        if self.state.own.blocks && !self.client.is_settled() {
            self.client.wait_for_all();
            return Flow::Hold;
        }
        self.state.own.blocks = false;
        self.count(index);
        let refused = match command {
            Some(command) => self.refuses(command).then(|| command.name.into()),
            None => self.denies(name).then(|| reply::printable(name)),
        };
        if let Some(refused) = refused {
            let mut text = Vec::new();
            reply::disabled(&mut text, &refused);
            return self.relay_instead(&upstream, &text);
        }
        let ends = command.is_some_and(|command| ENDS.contains(&command.name));
        if self.out_of_memory && !ends {
            return self.relay_instead(&upstream, reply::OUT_OF_MEMORY);
        }
        let Some(command) = command else {
            return self.relay_frame(&upstream, Access::Write, args.frame, false);
        };
        if is_uncounted(command, args) {
            self.state.own.raw = true;
            upstream.go_raw();
            // It is at work although nothing of it is due.
            self.client.set_unfinished(true);
        }
        match command.name {
            "MONITOR" => self.client.card_mut().hears = Some(Hears::Monitor),
            "SYNC" | "PSYNC" => self.client.card_mut().hears = Some(Hears::Replica),
            "MULTI" => self.client.set_unfinished(true),
            "EXEC" | "DISCARD" if !self.state.own.raw => self.client.set_unfinished(false),
            _ => {}
        }
        let blocks = command.blocking && command.blocks(args);
        if blocks && self.state.eof && !self.state.own.raw {
            return Flow::Close(End::Client);
        }
        let flow = self.relay_frame(&upstream, command.access, args.frame, blocks);
        match command.name {
            "RESET" if args.len() == 1 => self.after_reset(&upstream),
            _ => flow,
        }
    }

    /// Begins to pass on a request of which not all has come, when no more of it need be known.
    pub(super) fn relay_front(&mut self, decoder: &Decoder, bytes: &[u8]) -> Option<Flow> {
        let args = Args { frame: bytes, spans: decoder.spans() };
        let (front, missing) = decoder.progress();
        let command = self.commands.find(args)?;
        let plain = matches!(command.kind, Kind::Keyed | Kind::Split(_)) && !command.blocking;
        let waits = self.state.own.blocks && !self.client.is_settled();
        if !plain || waits || self.state.own.raw || !self.state.authenticated {
            return None;
        }
        if self.refuses(command) || self.out_of_memory {
            return None;
        }
        let upstream = match self.relay_upstream() {
            Ok(upstream) => upstream,
            Err(Flow::Hold) => return Some(Flow::Hold),
            Err(_) => {
                self.begin_feed((front, missing), 0, command, true);
                return Some(Flow::Continue);
            }
        };
        upstream.append(self.hub, bytes.get(..front).unwrap_or_default());
        self.begin_feed((front, missing), 0, command, false);
        Some(Flow::Continue)
    }

    fn relay_frame(
        &mut self,
        upstream: &Rc<Upstream>,
        access: Access,
        frame: &[u8],
        blocks: bool,
    ) -> Flow {
        if self.state.own.raw {
            if access == Access::Write && self.state.own.unheard.is_none() {
                let viewer = self.reads_unseen();
                self.state.own.unheard = viewer.map(|viewer| mark::unheard(viewer, upstream));
            }
            upstream.append(self.hub, frame);
            return Flow::Continue;
        }
        let owner = Owner::Client(Rc::clone(self.client));
        let entry = Entry::new(owner, self.client.open(frame.len()), access, self.now_us);
        let entry = entry.at_primary(true);
        if blocks {
            upstream.set_deadline(0);
            upstream.send(self.hub, entry.patient(), |out| out.extend_from_slice(frame));
            self.state.own.blocks = true;
            self.client.wait_for_all();
            self.client.look_ahead();
        } else {
            upstream.send(self.hub, entry, |out| out.extend_from_slice(frame));
        }
        Flow::Continue
    }

    /// What is refused is a command to the server that it does not know: so a transaction is aborted
    /// by it too. Where replies are counted the client hears `error`, else those words from the
    /// server, which alone knows their place.
    fn relay_instead(&mut self, upstream: &Rc<Upstream>, error: &[u8]) -> Flow {
        let mut frame = Vec::new();
        wire::array(&mut frame, 1);
        wire::bulk(&mut frame, error.strip_prefix(b"-").unwrap_or(error).trim_ascii_end());
        if self.state.own.raw {
            upstream.append(self.hub, &frame);
            return Flow::Continue;
        }
        // Of two errors the first is told, and that is ours.
        let both = Gather::new("", Merge::First, 2);
        let seq = self.client.open_gather(both, frame.len());
        self.client.answer_now(self.hub, seq, 0, "", error);
        let owner = Owner::Client(Rc::clone(self.client));
        let entry = Entry::new(owner, seq, Access::Write, self.now_us);
        let entry = entry.at_primary(true).part(1, Reach::Part);
        upstream.send(self.hub, entry, |out| out.extend_from_slice(&frame));
        Flow::Continue
    }

    /// Whether the listener's password or users are asked for here.
    fn logs_in(&self, command: Option<&Command>, args: Args<'_>) -> bool {
        (self.settings.password.is_some() || self.has_users())
            && match command.map(|command| command.kind) {
                Some(Kind::Local(Local::Auth)) => true,
                Some(Kind::Local(Local::Hello)) => has_auth(args),
                _ => false,
            }
    }

    /// The listener's password is ours; what HELLO says beside it is the server's.
    fn relay_login(&mut self, command: Option<&Command>, args: Args<'_>) -> Flow {
        if !self.client.is_settled() && !self.state.own.raw {
            self.client.wait_for_all();
            return Flow::Hold;
        }
        let hello = matches!(command, Some(command) if command.kind == Kind::Local(Local::Hello));
        if !hello || !has_auth(args) {
            return match command {
                Some(command) => self.run(command, args),
                None => self.unknown(args),
            };
        }
        let (user, password) = (args.get(3).unwrap_or_default(), args.get(4).unwrap_or_default());
        match users::log_in(self, user, password) {
            LogIn::Right => {}
            LogIn::Wrong => return self.say(|out| out.extend_from_slice(reply::WRONG_PASS)),
            LogIn::Refused(words) => return self.say(|out| out.extend_from_slice(&words)),
            LogIn::Later => return Flow::Hold,
        }
        if self.is_stale {
            // Its connection is another one now; the same is said again there.
            return Flow::Hold;
        }
        let mut frame = Vec::new();
        wire::array(&mut frame, args.len() - 3);
        let kept = (0..args.len()).filter(|at| !(2..5).contains(at));
        kept.filter_map(|at| args.get(at)).for_each(|word| wire::bulk(&mut frame, word));
        let upstream = match self.relay_upstream() {
            Ok(upstream) => upstream,
            Err(flow) => return flow,
        };
        if args.get(1).is_some_and(|version| version != b"2") {
            self.state.own.raw = true;
            upstream.go_raw();
            self.client.set_unfinished(true);
        }
        self.relay_frame(&upstream, Access::Read, &frame, false)
    }

    /// The server has forgotten who we are, and the client must say again who it is.
    fn after_reset(&mut self, upstream: &Rc<Upstream>) -> Flow {
        (self.state.authenticated, self.state.who) = users::at_first(self.settings);
        self.client.card_mut().hears = None;
        if self.state.own.raw {
            if self.cluster.credentials.password.is_some() || !self.state.authenticated {
                self.end_raw(upstream);
            }
            return Flow::Continue;
        }
        if let Some(login) = self.login() {
            upstream.send_unheard(self.hub, &login);
        }
        Flow::Continue
    }

    /// What the server is to hear of us again.
    fn login(&self) -> Option<Vec<u8>> {
        let password = self.cluster.credentials.password.as_ref()?;
        let user = self.cluster.credentials.user.as_deref().unwrap_or("default");
        let mut frame = Vec::new();
        wire::array(&mut frame, 3);
        [&b"AUTH"[..], user.as_bytes(), password.as_bytes()]
            .iter()
            .for_each(|word| wire::bulk(&mut frame, word));
        Some(frame)
    }

    /// After RESET the server says nothing unasked. Who still hears what nobody can count hears all
    /// before a word that nobody else can know, and its next requests wait for that word.
    fn end_raw(&mut self, upstream: &Rc<Upstream>) {
        let word = format!("sluice:{:016x}{:016x}", self.hub.draw(), self.hub.draw());
        let (mut request, mut mark) = (Vec::new(), Vec::new());
        if let Some(login) = self.login() {
            request = login;
            mark.extend_from_slice(reply::OK);
        }
        wire::array(&mut request, 2);
        wire::bulk(&mut request, b"PING");
        wire::bulk(&mut request, word.as_bytes());
        wire::bulk(&mut mark, word.as_bytes());
        upstream.raw.until(mark);
        upstream.append(self.hub, &request);
        self.state.own.is_resetting = true;
    }

    /// Whether RESET is not answered yet; else replies are counted again.
    fn is_still_raw(&mut self) -> bool {
        let own = &mut self.state.own;
        let raw = own.only().is_some_and(|only| only.is_raw() && !only.has_ended());
        (own.is_resetting, own.raw) = (raw, raw);
        raw
    }

    /// Whether the listener has not allowed it, or denies it.
    fn refuses(&self, command: &Command) -> bool {
        if named(&self.settings.deny, command.name) {
            return true;
        }
        let allowed = |command: &Command| named(&self.settings.allow, command.name);
        let refused = |sub: &Command| sub.kind == Kind::Disabled && !allowed(sub);
        let by_default = command.kind == Kind::Disabled
            || AT_THE_SERVER.contains(&command.name)
            // A subcommand that we do not know may do as much as those that we do.
            || command.kind == Kind::Container && self.commands.subcommands(command).any(refused);
        by_default && !allowed(command)
    }

    fn denies(&self, name: &[u8]) -> bool {
        self.settings.deny.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The session's own connection to a backend, in a cluster of several shards whose clients have
    /// their own; `None` when it is not such a cluster, or no more can be had.
    pub(super) fn own_to(&mut self, backend: &Arc<Backend>) -> Option<Rc<Upstream>> {
        if let Some(own) = self.state.own.of(backend.id) {
            return Some(Rc::clone(own));
        }
        self.state.own.leases.retain(|lease| !lease.upstream().has_ended());
        let Some(permit) = backend.leases.try_permit() else {
            self.hub.cell(backend).iter().for_each(|cell| cell.lease_refusals.add(1));
            return None;
        };
        let lease =
            Lease::take(self.hub, self.cluster, backend, self.state.class, permit).for_life();
        let upstream = Rc::clone(lease.upstream());
        self.state.own.leases.push(lease);
        Some(upstream)
    }

    /// The connection of [`Self::relay_front`], for the rest of its request.
    pub(super) fn relayed(&self) -> Option<Rc<Upstream>> {
        self.state.own.only().filter(|only| !only.has_ended()).map(Rc::clone)
    }
}

/// Whether nobody can tell how many replies will come, or when.
fn is_uncounted(command: &Command, args: Args<'_>) -> bool {
    match command.name {
        // Version 3 pushes between the replies.
        "HELLO" => args.get(1).is_some_and(|version| version != b"2"),
        name => UNCOUNTED.contains(&name),
    }
}

fn has_auth(args: Args<'_>) -> bool {
    args.len() >= 5 && is_word(args, 2, b"AUTH")
}

fn is_word(args: Args<'_>, at: usize, word: &[u8]) -> bool {
    args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word))
}

/// Commands with any number of replies, or that change when there are any.
const UNCOUNTED: &[&str] = &[
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE",
    "SUNSUBSCRIBE",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "REPLCONF",
    "CLIENT|REPLY",
    "CLIENT|TRACKING",
];

/// What ends something, and takes no memory.
const ENDS: &[&str] = &["EXEC", "DISCARD", "RESET", "QUIT"];

/// What acts on the whole server and its other clients, beside what is disabled anyway.
const AT_THE_SERVER: &[&str] = &[
    "CONFIG|SET",
    "CONFIG|REWRITE",
    "CONFIG|RESETSTAT",
    "CLIENT|KILL",
    "CLIENT|LIST",
    "CLIENT|NO-EVICT",
    "CLIENT|PAUSE",
    "CLIENT|UNBLOCK",
    "CLIENT|UNPAUSE",
];

#[cfg(test)]
mod tests;
