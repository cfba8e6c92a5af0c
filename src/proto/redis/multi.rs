//! A client's open transaction: what is queued, what is refused, and where the queue is. Not how it
//! ends: that is `exec`; nor its way over a connection: `block`.
//!
//! Usually everything is kept here until EXEC and leaves in one piece on the shared connection. A
//! session that watches keys, and each one where `multi: pinned` is set, has a connection of its own
//! in MULTI: there every request goes to the server as it comes (redis.md, T4).

use super::{
    args::Args,
    block::Block,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    flags::flag,
    hello, keys,
    library::{self, Sha},
    local, reply, route,
    spanning::{self, MOST_SPANS, Span},
    table::{Command, FanOut, Kind, Local, OfClient, PubSub, Script, Step},
};
use crate::policy::access::Access;

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
    pub(super) way: Way,
    /// The place of MULTI, where its reply is the server's.
    pub(super) multi: Option<u32>,
    /// MULTI and what is queued, as it will be sent.
    pub(super) queue: Vec<u8>,
    /// How many are queued, here or in the server.
    pub(super) requests: u32,
    /// The shard of all keys so far.
    pub(super) shard: Option<usize>,
    /// Something was refused: EXEC will be too.
    pub(super) dirty: bool,
    /// Something queued may write: EXEC waits with the writes when those are paused.
    writes: bool,
    /// Functions that are called: whether one may write is asked when writes are paused.
    pub(super) functions: Vec<Vec<u8>>,
    /// Requests that we answer ourselves, by their place.
    pub(super) locals: Vec<(usize, Vec<u8>)>,
    pub(super) selects: Vec<(usize, u8)>,
    /// Requests that concern every shard.
    pub(super) spans: Vec<Span>,
    /// Those that are called by name: the server is told them first.
    pub(super) scripts: Vec<Sha>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
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
    /// The other shards are to do it too.
    Spans(&'static str, FanOut),
}

impl Transaction {
    fn new(way: Way, shard: Option<usize>) -> Self {
        Self {
            way,
            multi: None,
            queue: Vec::new(),
            requests: 0,
            shard,
            dirty: false,
            writes: false,
            functions: Vec::new(),
            locals: Vec::new(),
            selects: Vec::new(),
            spans: Vec::new(),
            scripts: Vec::new(),
        }
    }

    fn note_call(&mut self, function: &[u8]) {
        if !self.functions.iter().any(|name| name == function) {
            self.functions.push(function.to_vec());
        }
        if self.functions.len() > MOST_FUNCTIONS {
            self.functions.clear();
            self.writes = true;
        }
    }

    /// Whether EXEC may write.
    pub(super) fn writes(&self) -> bool {
        self.writes
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        let locals = self.locals.iter().map(|(_, frame)| frame.capacity() + LOCAL);
        let spans = self.spans.iter().map(|span| span.frame.capacity() + LOCAL).sum::<usize>();
        let functions = self.functions.iter().map(|name| name.capacity() + LOCAL);
        self.queue.capacity()
            + functions.sum::<usize>()
            + locals.sum::<usize>()
            + spans
            + self.scripts.len() * size_of::<Sha>()
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
        let watches = self.state.pinned.as_ref().filter(|pinned| pinned.lease.watches.get());
        let watched = watches.map(|pinned| pinned.shard);
        let shard = match watched {
            None if self.settings.multi.pinned && self.cluster.shards.len() == 1 => Some(0),
            watched => watched,
        };
        let Some(shard) = shard else {
            // As the client wrote it: a monitor of the server sees that.
            let queue = args.frame.to_vec();
            self.open(Transaction { queue, ..Transaction::new(Way::Buffered, None) });
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
        let entry = self.entry(Access::Write, true, args.frame.len());
        self.client.heed(entry.seq);
        self.state.transaction.iter_mut().for_each(|open| open.multi = Some(entry.seq));
        let flow = self.send_on(own, entry, args.frame);
        self.state.caching = None;
        flow
    }

    /// Whether a transaction is open. MULTI that was answered with an error has opened none.
    pub(super) fn is_in_transaction(&mut self) -> bool {
        let Some(open) = self.state.transaction.as_deref() else { return false };
        let heeded = self.client.heeded().filter(|heed| Some(heed.seq) == open.multi);
        if !heeded.is_some_and(|heed| heed.failed) {
            return true;
        }
        self.close();
        let pinned = self.state.pinned.as_deref();
        let watches = pinned.is_some_and(|pinned| pinned.lease.watches.get());
        self.set_in_multi(false);
        // Of that it says nothing.
        self.state.pinned.iter().for_each(|pinned| pinned.lease.watches.set(watches));
        false
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
            Kind::Local(now @ (Local::Quit | Local::Reset)) => {
                return local::answer(self, now, args);
            }
            Kind::CrossProtocol => return self.cross_protocol(command),
            _ => {}
        }
        if command.flags & flag::NO_MULTI != 0 {
            return self.spoil(|out| out.extend_from_slice(reply::NO_MULTI));
        }
        if !self.is_checked
            && let Some(text) = self.refusal(command, args)
        {
            return self.spoil(|out| out.extend_from_slice(&text));
        }
        if self.out_of_memory {
            return self.spoil(|out| out.extend_from_slice(reply::OUT_OF_MEMORY));
        }
        match self.admit(command, args) {
            Ok((shard, queued)) => {
                let sha = (command.kind == Kind::Script(Script::EvalSha))
                    .then(|| args.get(1).and_then(library::parse))
                    .flatten();
                let calls = command.name == "FCALL";
                let writes = !calls && self.may_write(command, args);
                if let Some(open) = &mut self.state.transaction {
                    open.writes |= writes;
                    if calls {
                        open.note_call(args.get(1).unwrap_or_default());
                    }
                    open.scripts.extend(sha);
                }
                self.enqueue(shard, queued, args)
            }
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
        let open = self.state.transaction.as_deref();
        let buffered = open.is_some_and(|open| open.way == Way::Buffered);
        if UNFRAMED.contains(&command.name) && !(buffered && PAUSES.contains(&command.name)) {
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
            Kind::FanOut(how) if spanning::merged(how).is_some() && self.may_span() => {
                Ok((None, Queued::Spans(command.name, how)))
            }
            Kind::FanOut(_) | Kind::Script(_) => {
                refuse(&|out| reply::spans_shards(out, command.name))
            }
            Kind::PubSub(PubSub::Publish(_)) => {
                let channel = args.get(1).unwrap_or_default();
                Ok((Some(route::shard_of(self.cluster, channel)), Queued::AsItIs))
            }
            Kind::PubSub(_) => Ok((None, Queued::Here)),
            // What follows in it would be another user's.
            Kind::Local(Local::Auth | Local::Hello) if self.has_users() => {
                refuse(&|out| reply::not_in_multi(out, command.name))
            }
            Kind::Local(local) => Ok((None, queued(local, args))),
            Kind::Container => refuse(&|out| reply::unknown_subcommand(out, args)),
            Kind::Disabled => refuse(&|out| reply::disabled(out, command.name)),
            Kind::Watch | Kind::Transaction(_) | Kind::CrossProtocol => {
                refuse(&|out| reply::not_in_multi(out, command.name))
            }
        }
    }

    /// Whether one more of its requests may concern every shard.
    fn may_span(&self) -> bool {
        let open = self.state.transaction.as_deref();
        open.is_some_and(|open| open.spans.len() < MOST_SPANS)
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
            Queued::Spans(name, how) => {
                open.spans.push(Span { place, name, how, frame: frame.to_vec() });
            }
        }
        open.requests += 1;
        self.client.card_mut().queued = Some(open.requests);
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
        let block = Block::opening(replies).behind(self.caching_on(&own));
        self.state.caching = None;
        own.send_block(self.hub, entry, block, queue);
        self.set_in_multi(true);
        Ok(())
    }

    fn open(&mut self, transaction: Transaction) {
        self.state.transaction = Some(Box::new(transaction));
        self.client.card_mut().queued = Some(0);
        self.client.set_unfinished(true);
    }

    /// The transaction is over.
    pub(super) fn close(&mut self) -> Option<Transaction> {
        self.client.set_unfinished(false);
        self.client.card_mut().queued = None;
        self.state.transaction.take().map(|open| *open)
    }

    /// Refuses a request: EXEC will be refused too.
    pub(super) fn spoil(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        if let Some(open) = &mut self.state.transaction {
            open.dirty = true;
            open.queue = Vec::new();
            open.locals = Vec::new();
            open.spans = Vec::new();
        }
        self.say(write)
    }

    /// Answers here and goes on.
    pub(super) fn answer(&self, bytes: &[u8]) -> Flow {
        self.reply(bytes);
        Flow::Continue
    }

    /// MULTI is open on the session's own connection from now on, or no longer and nothing is
    /// watched there any more.
    pub(super) fn set_in_multi(&mut self, in_multi: bool) {
        if let Some(pinned) = &mut self.state.pinned {
            pinned.in_multi = in_multi;
            pinned.lease.upstream().set_in_multi(in_multi);
            pinned.lease.is_spoilt.set(in_multi || pinned.moved);
            pinned.lease.watches.set(pinned.lease.watches.get() && in_multi);
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
        | Local::AskFirst
        | Local::Client(OfClient::Caching | OfClient::TrackingInfo)
        | Local::Command
        | Local::ClusterOwner
        | Local::Unwatch => Queued::AsItIs,
        Local::Select => match hello::database(args) {
            Some(db) => Queued::Select(db),
            // The server says what is wrong with it.
            None => Queued::AsItIs,
        },
        Local::Quit
        | Local::Auth
        | Local::Hello
        | Local::Reset
        | Local::Role
        | Local::WhoAmI
        | Local::Client(_)
        | Local::ClientUnblock
        | Local::ClusterKeySlot
        | Local::ClusterNode
        | Local::Slowlog
        | Local::Sluice
        | Local::Prefer { .. }
        | Local::Accept => Queued::Here,
    }
}

/// Begun or ended when EXEC is sent, where nothing can make that do nothing.
const PAUSES: &[&str] = &["CLIENT|PAUSE", "CLIENT|UNPAUSE"];
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// Beyond these a transaction counts as one that may write.
const MOST_FUNCTIONS: usize = 16;
/// As many as a request may have arguments.
const MAX_COMMANDS: u32 = 1_000_000;
/// What Redis lets a client send ahead: its `client-query-buffer-limit`.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;
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
    "CLIENT|TRACKING",
    // All workers are asked.
    "CLIENT|LIST",
    "CLIENT|KILL",
    "CLIENT|PAUSE",
    "CLIENT|UNPAUSE",
    "CLIENT|UNBLOCK",
    "MONITOR",
    "REPLCONF",
];

#[cfg(test)]
mod tests;
