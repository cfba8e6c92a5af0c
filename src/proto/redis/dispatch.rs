//! One request: look its command up, check that it may run, and forward it, split it, ask all
//! shards, answer it here, or say why not.

use super::{
    args::Args,
    client::{Client, End},
    client_reply::Replies,
    entry::{Entry, Owner, Reach},
    fan_out,
    flags::flag,
    flight, forms,
    frame::{Decoder, Frame, Limits},
    hub::Hub,
    inline, insight,
    keys::{self, KeyIndexes, Keys},
    local, mark,
    reading::Reading,
    reply, route, scripts,
    session::{Settings, State},
    split,
    stream::STREAMS,
    subscribe,
    table::{Command, Commands, Kind, Local, PubSub, Step},
    tally::requests,
    upstream::Upstream,
};
use crate::{policy::access::Access, topology::Cluster};
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// What a request meets: its session, its cluster and the time its batch was read.
pub(super) struct Scene<'a> {
    pub hub: &'a Rc<Hub>,
    pub client: &'a Rc<Client>,
    pub cluster: &'a Cluster,
    pub commands: &'a Commands,
    /// All clusters of the snapshot.
    pub clusters: &'a [Arc<Cluster>],
    /// The commands of each route's cluster.
    pub tables: &'a [Rc<Commands>],
    /// The user has changed, and with it the cluster or the connections: what follows needs a scene
    /// of its own.
    pub is_stale: bool,
    /// The user may do what this request says: its keys are not as it said them any more.
    pub is_checked: bool,
    pub settings: &'a Settings,
    pub state: &'a mut State,
    pub now_us: u64,
    pub out_of_memory: bool,
    pub reading: Reading,
    /// Equal GETs are asked once.
    pub coalesce: bool,
    /// The command's place in the table.
    pub command: u16,
    /// A big request on its way: the session hands its bytes over without copying them.
    pub big: Option<Big>,
    /// Our own answers go here while it is there.
    pub aside: Option<RefCell<Vec<u8>>>,
}

/// Where a big request goes.
pub(super) struct Big {
    upstream: Rc<Upstream>,
    entry: Entry,
}

impl Big {
    pub(super) fn send(self, hub: &Hub, bytes: Vec<u8>) {
        self.upstream.send_owned(hub, self.entry, bytes);
    }
}

/// One part of a gather: its place in the client's line, which part it is, and how it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub seq: u32,
    pub index: u16,
    pub reach: Reach,
}

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// The request is to be looked at again when nothing of the client is under way.
    Hold,
    Close(End),
}

impl<'a> Scene<'a> {
    /// A request as a person types it: converted, then as any other.
    pub(super) fn inline(&mut self, line: &[u8]) -> Flow {
        let Ok(args) = inline::parse(line) else {
            self.reply(reply::UNBALANCED_QUOTES);
            return Flow::Close(End::Protocol);
        };
        if args.is_empty() {
            return Flow::Continue;
        }
        let mut frame = Vec::new();
        inline::to_resp(&args, &mut frame);
        self.frame_as(frame, |scene, args| scene.request(args))
    }

    /// A request that we have written ourselves, for the cluster at hand.
    pub(super) fn frame(&mut self, frame: Vec<u8>) -> Flow {
        self.frame_as(frame, |scene, args| scene.in_cluster(args))
    }

    fn frame_as(&mut self, frame: Vec<u8>, run: impl Fn(&mut Self, Args<'_>) -> Flow) -> Flow {
        let mut decoder = Decoder::default();
        let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
        let flow = match decoder.decode(&frame, &limits) {
            Ok(Frame::Request(_)) => run(self, Args { frame: &frame, spans: decoder.spans() }),
            _ => Flow::Continue,
        };
        if let Some(big) = self.big.take() {
            big.send(self.hub, frame);
        }
        flow
    }

    /// A request in RESP.
    #[inline(always)]
    pub(super) fn request(&mut self, args: Args<'_>) -> Flow {
        let is_routed = !self.settings.routes.is_empty();
        let flow = if is_routed { self.routed(args) } else { self.in_cluster(args) };
        if flow != Flow::Hold {
            // What it has gathered while it was held is not for the next one.
            self.state.gathered.clear();
            self.state.search.clear();
            self.state.heir = None;
            self.state.ownerless_us = None;
        }
        flow
    }

    /// A request for the cluster at hand.
    pub(super) fn in_cluster(&mut self, args: Args<'_>) -> Flow {
        let command = self.commands.find(args);
        self.reads(command, args);
        let flow = self.known(command, args);
        self.has_read();
        flow
    }

    fn known(&mut self, command: Option<&Command>, args: Args<'_>) -> Flow {
        if (self.cluster.dedicated.always || self.state.own.is_raw()) && self.relays() {
            return self.relay(args);
        }
        let Some(command) = command else {
            let flow = self.unknown(args);
            self.request_is_over();
            return flow;
        };
        self.command = command.index;
        self.begin_turn();
        if command.blocking {
            self.state.sent = None;
        } else if self.coalesce && !flight::fits(command, args.frame) {
            self.sends();
        }
        self.client.last.set(command.name);
        let flow = self.run(command, args);
        if flow != Flow::Hold {
            self.count(usize::from(command.index));
            if self.state.caching.is_some() {
                self.caching_is_over(command);
            }
            if self.hub.is_sampled() {
                insight::sample(self, command, args);
            }
            if args.frame.len() >= BIG {
                insight::big_request(self, command, args);
            }
            if self.state.replies != Replies::On {
                self.request_is_over();
            }
        }
        flow
    }

    /// Does what the command says.
    pub(super) fn run(&mut self, command: &Command, args: Args<'_>) -> Flow {
        if self.is_in_transaction() {
            if self.must_pause(command, args) {
                return Flow::Hold;
            }
            return self.queue(command, args);
        }
        if !self.state.authenticated && !before_auth(command) {
            self.reply(reply::NO_AUTH);
            return self.cross_protocol(command);
        }
        if !command.arity_ok(args.len()) {
            return self.say(|out| match command.kind {
                Kind::Transaction(Step::Exec) => reply::exec_arity(out),
                _ => reply::wrong_arity(out, command.name),
            });
        }
        if self.state.who.user.is_some()
            && !self.is_checked
            && let Some(flow) = self.is_refused(command, args)
        {
            return flow;
        }
        if self.client.is_subscribed()
            && let Some(flow) = subscribe::while_subscribed(self, command, args)
        {
            return flow;
        }
        if self.out_of_memory {
            self.reply(reply::OUT_OF_MEMORY);
            return Flow::Continue;
        }
        if self.must_pause(command, args) {
            return Flow::Hold;
        }
        let kind = self.kind_of(command, args);
        if self.settings.strict_order && spans(kind) {
            if !self.client.is_settled() {
                self.client.wait_for_all();
                return Flow::Hold;
            }
            self.state.last_shard = None;
        }
        match kind {
            Kind::Keyed if command.blocking && command.blocks(args) => self.block(command, args),
            Kind::Keyed => self.keyed(command, args),
            Kind::Split(merge) => split::split(self, command, merge, args),
            Kind::Watch => {
                match self.shard_of_all(keys::keys(command, args).unwrap_or_default(), args) {
                    Some(shard) => self.watch(shard, args),
                    None => self.cross_slot(),
                }
            }
            Kind::Wait => self.wait(command, args),
            Kind::Transaction(step) => self.step(step, args),
            // Subscribers share connections, which are the cluster's own.
            Kind::PubSub(what)
                if self.state.class.identity != 0 && !matches!(what, PubSub::Publish(_)) =>
            {
                self.say(|out| reply::not_yet(out, command.name))
            }
            Kind::PubSub(what) => subscribe::run(self, what, command, args),
            Kind::Local(local) => local::answer(self, local, args),
            Kind::FanOut(how) => fan_out::fan_out(self, command, how, args),
            Kind::Script(script) => scripts::run(self, command, script, args),
            Kind::Container => self.say(|out| reply::unknown_subcommand(out, args)),
            Kind::NotYet if STREAMS.contains(&command.name) => self.become_stream(command, args),
            Kind::NotYet => self.say(|out| reply::not_yet(out, command.name)),
            Kind::Disabled => self.say(|out| reply::disabled(out, command.name)),
            Kind::CrossProtocol => self.cross_protocol(command),
        }
    }

    /// Forwards to the shard that owns all keys.
    #[inline(always)]
    fn keyed(&mut self, command: &Command, args: Args<'_>) -> Flow {
        if let Keys::First(at) = command.keys {
            let key = args.get(at as usize).unwrap_or_default();
            let shard = route::shard_of(self.cluster, key);
            if self.coalesce && !self.state.has_own() && flight::fits(command, args.frame) {
                return flight::get(self, shard, command, key, args.frame);
            }
            return self.forward(shard, command, args.frame);
        }
        if command.one_shard_only && self.cluster.shards.len() > 1 {
            return self.say(|out| reply::unknown_command(out, args.get(0).unwrap_or_default()));
        }
        // Where the keys are not what they must be, the server says so in its own words.
        let found = keys::keys(command, args).unwrap_or_default();
        match self.shard_of_all(found, args) {
            Some(shard) if self.has_foreign_pattern(shard, command, args) => {
                self.say(|out| reply::foreign_pattern(out, command.name))
            }
            Some(shard) if command.flags & flag::HAS_RO != 0 => {
                forms::forward(self, shard, command, args)
            }
            Some(shard) => self.forward(shard, command, args.frame),
            None => self.cross_slot(),
        }
    }

    /// Keys lie on several shards.
    pub(super) fn cross_slot(&self) -> Flow {
        self.reply(reply::CROSS_SLOT);
        Flow::Continue
    }

    /// The one shard of all keys; `redis.keyless_shard` when there are none.
    pub(super) fn shard_of_all(&self, found: KeyIndexes, args: Args<'_>) -> Option<usize> {
        let mut shards =
            found.filter_map(|at| args.get(at)).map(|key| route::shard_of(self.cluster, key));
        let Some(first) = shards.next() else { return Some(self.cluster.keyless) };
        shards.all(|shard| shard == first).then_some(first)
    }

    /// SORT with a BY or GET pattern reads keys that may lie on any shard, unless a hash tag
    /// without a wildcard says that they lie on this one.
    pub(super) fn has_foreign_pattern(
        &self,
        shard: usize,
        command: &Command,
        args: Args<'_>,
    ) -> bool {
        let here = |pattern: &[u8]| {
            self.cluster.sharding.tag(pattern).is_some_and(|tag| !tag.contains(&b'*'))
                && route::shard_of(self.cluster, pattern) == shard
        };
        self.cluster.shards.len() > 1
            && keys::pattern_keys(command, args).any(|pattern| !here(pattern))
    }

    /// Forwards a request unchanged to the backend of its shard that may take it.
    pub(super) fn forward(&mut self, shard: usize, command: &Command, frame: &[u8]) -> Flow {
        self.send(shard, command.access, !command.replica_ok, frame)
    }

    /// Forwards a request unchanged.
    pub(super) fn send(
        &mut self,
        shard: usize,
        access: Access,
        at_primary: bool,
        frame: &[u8],
    ) -> Flow {
        if self.settings.strict_order && !self.is_next(shard) {
            return Flow::Hold;
        }
        let Some(upstream) = self.upstream(shard, access, at_primary) else {
            return self.not_served(shard, access, at_primary);
        };
        if self.is_turned_since(&upstream.backend) {
            return Flow::Hold;
        }
        self.send_over(upstream, access, at_primary, frame)
    }

    /// Where order is strict: whether a request for `shard` may be sent before those under way are
    /// answered. If not, it is held.
    fn is_next(&mut self, shard: usize) -> bool {
        if self.state.last_shard != Some(shard) && !self.client.is_settled() {
            self.client.wait_for_all();
            return false;
        }
        self.state.last_shard = Some(shard);
        true
    }

    /// Forwards a request unchanged over that connection.
    #[inline(always)]
    pub(super) fn send_over(
        &mut self,
        upstream: Rc<Upstream>,
        access: Access,
        at_primary: bool,
        frame: &[u8],
    ) -> Flow {
        let entry = self.entry(access, at_primary, frame.len());
        self.send_on(upstream, entry, frame)
    }

    /// A request of the client's to one backend, in its place in the client's line.
    #[inline(always)]
    pub(super) fn entry(&self, access: Access, at_primary: bool, bytes: usize) -> Entry {
        let owner = Owner::Client(Rc::clone(self.client));
        let seq = self.client.open(bytes);
        let entry = Entry::new(owner, seq, access, self.now_us).at_primary(at_primary);
        self.as_read(entry).command(self.command)
    }

    /// Sends a request unchanged over that connection.
    pub(super) fn send_on(
        &mut self,
        upstream: Rc<Upstream>,
        mut entry: Entry,
        frame: &[u8],
    ) -> Flow {
        self.send_caching(&upstream);
        if frame.len() >= BIG {
            // It leaves when nobody knows any more what it is.
            mark::attach(&upstream, &mut entry);
            self.big = Some(Big { upstream, entry });
        } else {
            upstream.send(self.hub, entry, |out| out.extend_from_slice(frame));
        }
        Flow::Continue
    }

    /// The connection that takes a request for `shard` now: the session's own, when it has one to
    /// that shard, else the shared one to the backend that is picked.
    #[inline(always)]
    pub(super) fn upstream(
        &mut self,
        shard: usize,
        access: Access,
        at_primary: bool,
    ) -> Option<Rc<Upstream>> {
        self.sends();
        if self.state.has_own() {
            if let Some(own) = self.own(shard) {
                if access == Access::Write {
                    self.state.written.note(shard, &own.backend);
                }
                return Some(own);
            }
            if self.loses_track() {
                return None;
            }
        }
        let backend = self.pick(shard, access, at_primary)?;
        if access == Access::Write {
            self.state.written.note(shard, backend);
        }
        if self.cluster.dedicated.always
            && let Some(own) = self.own_to(backend)
        {
            return Some(own);
        }
        Some(self.hub.upstream(self.cluster, backend, self.state.class, Rc::clone))
    }

    /// Sends one part of a gather, written by `write`, to `shard`; when nobody there is ready, that
    /// is the part's reply.
    pub(super) fn send_part(
        &mut self,
        part: Part,
        shard: usize,
        access: Access,
        at_primary: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.send_part_as(part, shard, access, at_primary, |entry| entry, write);
    }

    /// [`Self::send_part`] of a request that is remembered as `shape` says.
    pub(super) fn send_part_as(
        &mut self,
        part: Part,
        shard: usize,
        access: Access,
        at_primary: bool,
        shape: impl FnOnce(Entry) -> Entry,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Part { seq, index, reach } = part;
        let Some(upstream) = self.upstream(shard, access, at_primary) else {
            let mut error = Vec::new();
            self.unserved(shard, access, at_primary, &mut error);
            let name = self.cluster.shards.get(shard).map_or("", |shard| &shard.name);
            self.client.answer_now(self.hub, seq, index, name, &error);
            return;
        };
        let owner = Owner::Client(Rc::clone(self.client));
        let entry =
            Entry::new(owner, seq, access, self.now_us).at_primary(at_primary).part(index, reach);
        self.send_caching(&upstream);
        let entry = self.as_read(entry).command(self.command);
        upstream.send(self.hub, shape(entry), write);
    }

    /// Something of this session leaves now: it joins no flight that began before.
    pub(super) fn sends(&mut self) {
        if self.coalesce {
            // Its own connection may be later than any flight.
            let shared = !self.state.has_own();
            self.state.sent = shared.then(|| self.hub.stamps.next());
        }
    }

    /// A command nobody told us about: with one shard a write with its key at argument 1.
    pub(super) fn unknown(&mut self, args: Args<'_>) -> Flow {
        self.count(usize::MAX);
        self.command = u16::MAX;
        let name = args.get(0).unwrap_or_default();
        if !self.state.authenticated {
            self.reply(reply::NO_AUTH);
            return Flow::Continue;
        }
        let denied = |word: &String| word.as_bytes().eq_ignore_ascii_case(name);
        let mut refused = Vec::new();
        if self.state.who.user.as_ref().is_some_and(|user| user.refuses_unknown(name)) {
            reply::may_not_run(&mut refused, &reply::printable(name));
        } else if self.settings.deny.iter().any(denied) {
            reply::disabled(&mut refused, &reply::printable(name));
        } else if self.cluster.shards.len() > 1 {
            reply::unknown_command(&mut refused, name);
        }
        let refused = Some(refused).filter(|text| !text.is_empty());
        if self.is_in_transaction() {
            return self.queue_unknown(refused, args);
        }
        match refused {
            Some(text) => self.say(|out| out.extend_from_slice(&text)),
            None => self.send(0, Access::Write, true, args.frame),
        }
    }

    /// Answers with an error of ours that counts as a failed request.
    pub(super) fn refuse(&self, access: Access, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        if let Some(metrics) = self.hub.metrics.clusters.get(self.cluster.id) {
            requests(metrics, access).proxy_errors.add(1);
        }
        let mut text = Vec::new();
        write(&mut text);
        self.client.reply(self.hub, &text);
        Flow::Continue
    }

    /// Answers here with what `write` writes.
    pub(super) fn say(&self, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        let mut text = Vec::new();
        write(&mut text);
        self.reply(&text);
        Flow::Continue
    }

    /// Answers here.
    pub(super) fn reply(&self, bytes: &[u8]) {
        if let Some(aside) = &self.aside {
            return aside.borrow_mut().extend_from_slice(bytes);
        }
        if let Some(metrics) = self.hub.metrics.clusters.get(self.cluster.id) {
            metrics.local.add(1);
        }
        self.client.reply(self.hub, bytes);
    }

    pub(super) fn count(&self, index: usize) {
        let commands = &self.hub.metrics.commands;
        if let Some(counter) = commands.get(index).or_else(|| commands.last()) {
            counter.add(1);
        }
    }
}

/// Whether it may concern several shards, or is sent by other ways than most: where order is strict
/// it has all before it answered.
fn spans(kind: Kind) -> bool {
    matches!(kind, Kind::Split(_) | Kind::FanOut(_) | Kind::Script(_) | Kind::Transaction(_))
}

fn before_auth(command: &Command) -> bool {
    matches!(command.kind, Kind::Local(Local::Auth | Local::Hello | Local::Quit | Local::Reset))
}

/// From here on a request's bytes are handed over, not copied.
const BIG: usize = 64 * 1024;
