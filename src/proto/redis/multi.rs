//! A client's transaction from MULTI to EXEC or DISCARD: what is queued, what is refused, and the
//! connection it is executed on. Not its way over that connection: that is [`super::block`].
//!
//! Usually everything is kept here until EXEC and leaves in one piece on the shared connection. A
//! session that watches keys, and each one where `multi: pinned` is set, has a connection of its own
//! in MULTI: there every request goes to the server as it comes (redis.md, T4).

use super::{
    args::Args,
    block::{Block, Ends},
    class::Resp,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    flags::flag,
    frame::{Decoder, Frame, Limits},
    keys, local, reply, route,
    table::{Command, Kind, Local, PubSub, Script, Step},
    upstream::Upstream,
};
use crate::policy::access::Access;
use std::{cell::RefCell, rc::Rc};

/// What a listener lets its clients do in transactions.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Each transaction has a connection of its own, so that errors while queueing are the server's
    /// and come at once.
    pub pinned: bool,
    /// Requests in one.
    pub max_commands: u32,
    /// Bytes of requests in one.
    pub max_bytes: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { pinned: false, max_commands: MAX_COMMANDS, max_bytes: MAX_BYTES }
    }
}

/// A transaction that is open.
#[derive(Debug)]
pub(super) struct Transaction {
    way: Way,
    /// MULTI and what is queued, as it will be sent.
    queue: Vec<u8>,
    /// How many are queued, here or in the server.
    requests: u32,
    /// The shard of all keys so far.
    shard: Option<usize>,
    /// Something was refused: EXEC will be too.
    dirty: bool,
    /// Requests that we answer ourselves, by their place.
    locals: Vec<(usize, Vec<u8>)>,
    selects: Vec<(usize, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Kept here until EXEC.
    Buffered,
    /// In the server, over the session's own connection.
    Verbatim,
    /// That connection is lost, and what was watched with it.
    Lost,
}

/// What is queued for a request.
enum Queued {
    AsItIs,
    /// We answer it; the server gets a PING.
    Here,
    Select(u8),
}

impl Transaction {
    fn new(way: Way, shard: Option<usize>) -> Self {
        let queue = if way == Way::Buffered { MULTI.to_vec() } else { Vec::new() };
        Self {
            way,
            queue,
            requests: 0,
            shard,
            dirty: false,
            locals: Vec::new(),
            selects: Vec::new(),
        }
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        let locals = self.locals.iter().map(|(_, frame)| frame.capacity() + LOCAL);
        self.queue.capacity() + locals.sum::<usize>()
    }

    fn place(&self) -> usize {
        self.requests as usize
    }
}

impl Scene<'_> {
    /// MULTI, EXEC or DISCARD of a session without an open transaction.
    pub(super) fn step(&mut self, step: Step, args: Args<'_>) -> Flow {
        match step {
            Step::Multi => self.begin(args),
            Step::Exec => self.answer(reply::EXEC_WITHOUT_MULTI),
            Step::Discard => self.answer(reply::DISCARD_WITHOUT_MULTI),
        }
    }

    fn begin(&mut self, args: Args<'_>) -> Flow {
        let watches = self.state.pinned.as_ref().filter(|pinned| pinned.lease.watches);
        let watched = watches.map(|pinned| pinned.shard);
        let shard = match watched {
            None if self.settings.multi.pinned && self.cluster.shards.len() == 1 => Some(0),
            watched => watched,
        };
        let Some(shard) = shard else {
            self.open(Transaction::new(Way::Buffered, None));
            return self.answer(reply::OK);
        };
        if let Err(flow) = self.pin(shard) {
            return flow;
        }
        let Some(own) = self.own(shard) else {
            self.open(Transaction::new(Way::Lost, Some(shard)));
            return self.answer(reply::OK);
        };
        self.open(Transaction::new(Way::Verbatim, Some(shard)));
        self.set_in_multi(true);
        self.send_over(own, Access::Write, true, args.frame)
    }

    /// A request of a session with an open transaction.
    pub(super) fn queue(&mut self, command: &Command, args: Args<'_>) -> Flow {
        if !command.arity_ok(args.len()) {
            if command.kind == Kind::Transaction(Step::Exec) {
                self.abandon();
                return self.say(reply::exec_arity);
            }
            return self.spoil(|out| reply::wrong_arity(out, command.name));
        }
        match command.kind {
            Kind::Transaction(Step::Exec) => return self.exec(args),
            Kind::Transaction(Step::Discard) => return self.discard(args),
            Kind::Transaction(Step::Multi) => return self.answer(reply::NESTED_MULTI),
            Kind::Watch => return self.answer(reply::WATCH_IN_MULTI),
            Kind::Local(Local::Quit) => return local::answer(self, Local::Quit, args),
            Kind::CrossProtocol => return self.cross_protocol(command),
            _ => {}
        }
        if command.flags & flag::NO_MULTI != 0 {
            return self.spoil(|out| out.extend_from_slice(reply::NO_MULTI));
        }
        if self.out_of_memory {
            return self.spoil(|out| out.extend_from_slice(reply::OUT_OF_MEMORY));
        }
        match self.admit(command, args) {
            Ok((shard, queued)) => self.enqueue(shard, queued, args),
            Err(text) => self.spoil(|out| out.extend_from_slice(&text)),
        }
    }

    /// The same for a command that nobody told us about.
    pub(super) fn queue_unknown(&mut self, refused: Option<Vec<u8>>, args: Args<'_>) -> Flow {
        if let Some(text) = refused {
            return self.spoil(|out| out.extend_from_slice(&text));
        }
        // The server has told all it knows.
        if self.hub.has_asked_commands(self.cluster.id) {
            return self.spoil(|out| reply::no_such_command(out, args));
        }
        self.enqueue(Some(0), Queued::AsItIs, args)
    }

    /// What is to be queued for a request and the shard of its keys, if it has any; or why not.
    fn admit(&self, command: &Command, args: Args<'_>) -> Result<(Option<usize>, Queued), Vec<u8>> {
        let refuse = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut text = Vec::new();
            write(&mut text);
            Err(text)
        };
        if UNFRAMED.contains(&command.name) {
            return refuse(&|out| reply::not_in_multi(out, command.name));
        }
        let one_shard = self.cluster.shards.len() == 1;
        match self.kind_of(command, args) {
            // In a transaction nothing waits.
            Kind::NotYet if !command.blocking => refuse(&|out| reply::not_yet(out, command.name)),
            Kind::Keyed
            | Kind::Split(_)
            | Kind::NotYet
            | Kind::Wait
            | Kind::Script(Script::Eval | Script::EvalSha | Script::Function) => {
                if command.one_shard_only && !one_shard {
                    let name = args.get(0).unwrap_or_default();
                    return refuse(&|out| reply::unknown_command(out, name));
                }
                let found = keys::keys(command, args).unwrap_or_default();
                let mut shards = found
                    .filter_map(|at| args.get(at))
                    .map(|key| route::shard_of(self.cluster, key));
                let shard = shards.next();
                if !shards.all(|other| Some(other) == shard) {
                    return Err(reply::CROSS_SLOT.to_vec());
                }
                if shard.is_some_and(|shard| self.has_foreign_pattern(shard, command, args)) {
                    return refuse(&|out| reply::foreign_pattern(out, command.name));
                }
                Ok((shard, Queued::AsItIs))
            }
            Kind::FanOut(_) | Kind::Script(_) if one_shard => Ok((None, Queued::AsItIs)),
            Kind::FanOut(_) | Kind::Script(_) => {
                refuse(&|out| reply::spans_shards(out, command.name))
            }
            Kind::PubSub(PubSub::Publish(_)) => {
                let channel = args.get(1).unwrap_or_default();
                Ok((Some(route::shard_of(self.cluster, channel)), Queued::AsItIs))
            }
            Kind::PubSub(_) => Ok((None, Queued::Here)),
            Kind::Local(local) => Ok((None, queued(local, args))),
            Kind::Container => refuse(&|out| reply::unknown_subcommand(out, args)),
            Kind::Disabled => refuse(&|out| reply::disabled(out, command.name)),
            Kind::Watch | Kind::Transaction(_) | Kind::CrossProtocol => {
                refuse(&|out| reply::not_in_multi(out, command.name))
            }
        }
    }

    fn enqueue(&mut self, shard: Option<usize>, queued: Queued, args: Args<'_>) -> Flow {
        let rules = self.settings.multi;
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        if open.shard.is_some_and(|open| shard.is_some_and(|shard| open != shard)) {
            return self.spoil(|out| out.extend_from_slice(reply::CROSS_SLOT));
        }
        if open.requests >= rules.max_commands {
            let limit = u64::from(rules.max_commands);
            return self.spoil(|out| reply::multi_limit(out, "multi_max_commands", limit));
        }
        if (open.queue.len() + args.frame.len()) as u64 > rules.max_bytes {
            return self.spoil(|out| reply::multi_limit(out, "multi_max_bytes", rules.max_bytes));
        }
        if let (Way::Buffered, true, Some(shard), false) =
            (open.way, rules.pinned, shard, open.dirty)
            && let Err(flow) = self.go_over(shard)
        {
            return flow;
        }
        let Some(open) = &mut self.state.transaction else { return Flow::Continue };
        open.shard = open.shard.or(shard);
        let place = open.place();
        let mut frame = args.frame;
        match queued {
            Queued::AsItIs => {}
            Queued::Here => {
                open.locals.push((place, frame.to_vec()));
                frame = PING;
            }
            Queued::Select(db) => open.selects.push((place, db)),
        }
        open.requests += 1;
        if open.way == Way::Buffered && !open.dirty {
            open.queue.extend_from_slice(frame);
        }
        match (open.way, open.shard.and_then(|shard| self.own(shard))) {
            (Way::Verbatim, Some(own)) => self.send_over(own, Access::Write, true, frame),
            _ => self.answer(reply::QUEUED),
        }
    }

    /// `multi: pinned` over several shards: the first key says where MULTI is to be opened.
    fn go_over(&mut self, shard: usize) -> Result<(), Flow> {
        self.pin(shard)?;
        let (Some(own), Some(open)) = (self.own(shard), &mut self.state.transaction) else {
            return Ok(());
        };
        open.way = Way::Verbatim;
        let replies = open.requests + 1;
        let queue = std::mem::take(&mut open.queue);
        let entry = Entry::new(Owner::Tombstone, 0, Access::Write, self.now_us);
        own.send_block(self.hub, entry, Block::opening(replies), queue);
        self.set_in_multi(true);
        Ok(())
    }

    fn exec(&mut self, args: Args<'_>) -> Flow {
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        if open.dirty {
            self.abandon();
            return self.answer(reply::EXEC_ABORT);
        }
        match (open.way, open.shard) {
            (Way::Buffered, _) if open.requests == 0 => {
                self.close();
                self.answer(reply::EMPTY_ARRAY)
            }
            (Way::Buffered, shard) => self.exec_block(shard.unwrap_or(0)),
            (Way::Verbatim, Some(shard)) if let Some(own) = self.own(shard) => {
                self.state.written.note(shard, &own.backend);
                self.exec_own(&own, args)
            }
            _ => self.exec_lost(),
        }
    }

    /// Sends all of it in one piece.
    fn exec_block(&mut self, shard: usize) -> Flow {
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        let apart = open.queue.len() >= LARGE || !open.selects.is_empty();
        let Some(backend) = self.pick(shard, Access::Write, true) else {
            self.close();
            return self.refuse(Access::Write, |out| {
                self.unserved(shard, Access::Write, true, out);
            });
        };
        if (apart || !self.hub.is_proven(backend.id))
            && let Err(flow) = self.pin(shard)
        {
            if flow != Flow::Hold {
                self.close();
            }
            return flow;
        }
        let upstream = self.own(shard).unwrap_or_else(|| {
            self.hub.upstream(self.cluster, backend, self.state.class, Rc::clone)
        });
        self.state.written.note(shard, backend);
        let Some(open) = self.close() else { return Flow::Continue };
        let (requests, mut bytes) = (open.requests, open.queue);
        bytes.extend_from_slice(EXEC);
        let ends = self.ends(open.locals, open.selects);
        let seq = self.client.open(bytes.len());
        let owner = Owner::Client(Rc::clone(self.client));
        let entry = Entry::new(owner, seq, Access::Write, self.now_us).command(self.command);
        self.sends();
        upstream.send_block(self.hub, entry, Block::whole(requests, ends), bytes);
        if self.state.pinned.is_some() {
            self.client.wait_for_all();
        }
        Flow::Continue
    }

    /// EXEC where the server has the queue.
    fn exec_own(&mut self, own: &Rc<Upstream>, args: Args<'_>) -> Flow {
        let Some(open) = self.close() else { return Flow::Continue };
        self.set_in_multi(false);
        let ends = self.ends(open.locals, open.selects);
        let owner = Owner::Client(Rc::clone(self.client));
        let seq = self.client.open(args.frame.len());
        let entry = Entry::new(owner, seq, Access::Write, self.now_us);
        own.send_block(self.hub, entry, Block::last(ends), args.frame.to_vec());
        self.client.wait_for_all();
        Flow::Continue
    }

    /// EXEC whose connection is lost: nothing was executed. To who watched keys that is told as if
    /// one had changed, for then clients begin anew.
    fn exec_lost(&mut self) -> Flow {
        let lost = self.close().and_then(|open| open.shard).unwrap_or(0);
        let watched = self.state.pinned.take().is_some_and(|pinned| pinned.lease.watches);
        match (watched, self.state.class.resp) {
            (true, Resp::Two) => self.answer(reply::NULL_ARRAY),
            (true, Resp::Three) => self.answer(reply::NULL_THREE),
            (false, _) => {
                let name = self.cluster.shards.get(lost).map_or("", |shard| &shard.name);
                let cause = format!("sluice: connection to shard {name} lost");
                self.say(|out| reply::exec_aborted(out, cause.as_bytes()))
            }
        }
    }

    fn discard(&mut self, args: Args<'_>) -> Flow {
        let open = self.close();
        let own = open.and_then(|open| match open.way {
            Way::Verbatim => self.own(open.shard?),
            Way::Buffered | Way::Lost => None,
        });
        let Some(own) = own else {
            self.forget_watched();
            return self.answer(reply::OK);
        };
        self.set_in_multi(false);
        let owner = Owner::Client(Rc::clone(self.client));
        let seq = self.client.open(args.frame.len());
        let entry = Entry::new(owner, seq, Access::Write, self.now_us);
        own.send_block(self.hub, entry, Block::last(Ends::default()), args.frame.to_vec());
        self.client.wait_for_all();
        Flow::Continue
    }

    /// Ends the transaction, if one is open, without a word to the client.
    pub(super) fn abandon(&mut self) {
        let Some(open) = self.close() else { return };
        let own = open.shard.and_then(|shard| self.own(shard));
        let (Way::Verbatim, Some(own)) = (open.way, own) else { return self.forget_watched() };
        self.set_in_multi(false);
        let entry = Entry::new(Owner::Tombstone, 0, Access::Write, self.now_us);
        own.send_block(self.hub, entry, Block::last(Ends::default()), DISCARD.to_vec());
        self.client.wait_for_all();
    }

    /// A watching session without a connection has nothing to keep.
    fn forget_watched(&mut self) {
        if self.state.pinned.as_ref().is_some_and(|pinned| pinned.lease.upstream().has_ended()) {
            self.state.pinned = None;
        }
    }

    /// What is done with EXEC's reply: what we answer ourselves is answered now.
    fn ends(&mut self, locals: Vec<(usize, Vec<u8>)>, selects: Vec<(usize, u8)>) -> Ends {
        let locals = locals.into_iter().map(|(place, frame)| (place, self.aside(&frame))).collect();
        let ends = Ends { locals, selects, ..Ends::default() };
        if let (false, Some(pinned)) = (ends.selects.is_empty(), &mut self.state.pinned) {
            pinned.moved = true;
            pinned.lease.is_spoilt = true;
            pinned.selected = Some(Rc::clone(&ends.selected));
        }
        ends
    }

    /// Our own answer to a request, which is told elsewhere than in its turn.
    fn aside(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut decoder = Decoder::default();
        let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
        let Ok(Frame::Request(_)) = decoder.decode(frame, &limits) else { return Vec::new() };
        let args = Args { frame, spans: decoder.spans() };
        let Some(command) = self.commands.find(args) else { return Vec::new() };
        self.aside = Some(RefCell::default());
        self.run(command, args);
        self.aside.take().map(RefCell::into_inner).unwrap_or_default()
    }

    fn open(&mut self, transaction: Transaction) {
        self.state.transaction = Some(Box::new(transaction));
        self.client.set_unfinished(true);
    }

    fn close(&mut self) -> Option<Transaction> {
        self.client.set_unfinished(false);
        self.state.transaction.take().map(|open| *open)
    }

    /// Refuses a request: EXEC will be refused too.
    fn spoil(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        if let Some(open) = &mut self.state.transaction {
            open.dirty = true;
            open.queue = Vec::new();
            open.locals = Vec::new();
        }
        self.say(write)
    }

    fn answer(&self, bytes: &[u8]) -> Flow {
        self.reply(bytes);
        Flow::Continue
    }

    /// MULTI is open on the session's own connection from now on, or no longer and nothing is
    /// watched there any more.
    fn set_in_multi(&mut self, in_multi: bool) {
        if let Some(pinned) = &mut self.state.pinned {
            pinned.in_multi = in_multi;
            pinned.lease.is_spoilt = in_multi || pinned.moved;
            pinned.lease.watches &= in_multi;
        }
    }
}

/// What the server is to be sent for what we answer outside of transactions.
fn queued(local: Local, args: Args<'_>) -> Queued {
    match local {
        // As good from the server.
        Local::Ping
        | Local::Echo
        | Local::Time
        | Local::Info
        | Local::ConfigGet
        | Local::Command
        | Local::Unwatch => Queued::AsItIs,
        Local::Select => match args.get(1).and_then(local::database) {
            Some(db) => Queued::Select(db),
            // The server says what is wrong with it.
            None => Queued::AsItIs,
        },
        Local::Quit
        | Local::Auth
        | Local::Hello
        | Local::ClientSetName
        | Local::ClientGetName
        | Local::ClientSetInfo
        | Local::ClientId
        | Local::ClientUnblock
        | Local::ClusterKeySlot
        | Local::Role
        | Local::Slowlog
        | Local::Sluice
        | Local::Accept => Queued::Here,
    }
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// As many as a request may have arguments.
const MAX_COMMANDS: u32 = 1_000_000;
/// What Redis lets a client send ahead: its `client-query-buffer-limit`.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// From here on a block goes over a connection of its own: others would wait behind it, and a
/// server with `maxmemory-clients` closes connections that hold much (redis.md, T4, T32).
const LARGE: usize = 1024 * 1024;
/// What a request of ours costs beside its bytes.
const LOCAL: usize = size_of::<(usize, Vec<u8>)>();
/// Their replies would not stay inside EXEC's (redis.md, T4).
const UNFRAMED: &[&str] = &[
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "CLIENT|REPLY",
    "CLIENT|UNBLOCK",
    "MONITOR",
    "REPLCONF",
];

#[cfg(test)]
mod tests;
