//! A transaction on its way as one entry of an upstream connection: `MULTI`, the queued requests and
//! `EXEC` leave in one write, so nothing of others can come between, and of the n + 2 replies only
//! the last one is the client's. Not how it is collected: that is [`super::multi`].

use super::{
    class::Resp,
    client::Client,
    cluster,
    entry::{Entry, Owner},
    failure,
    frame::{Decoder, Frame, Limits},
    hub::Hub,
    reply,
    scan::Scanner,
    spanning::{Rest, is_executed},
    tally::Settled,
    upstream::{Phase, Purpose, Upstream, UpstreamError},
};
use crate::policy::access::Access;
use std::{cell::Cell, rc::Rc};

/// What an entry of several requests waits for, and what it has heard.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Replies to all of it.
    replies: u32,
    /// Replies still due; 1: that of EXEC.
    due: u32,
    /// `MULTI` is its first request.
    leads: bool,
    /// What follows when the server has taken MULTI, which was sent alone.
    follows: Option<Vec<u8>>,
    /// A request of ours right before it.
    behind: Option<&'static [u8]>,
    ends: Ends,
    heard: Heard,
}

/// What is done with EXEC's reply before the client gets it.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Replies of our own, by their place in that of EXEC; the server was sent a PING there.
    pub(super) locals: Vec<(usize, Vec<u8>)>,
    /// The places of SELECTs and what they select.
    pub(super) selects: Vec<(usize, u8)>,
    /// The database that a SELECT in the block has left its connection in.
    pub(super) selected: Rc<Cell<Option<u8>>>,
    /// What the other shards are to do when EXEC has succeeded.
    pub(super) rest: Option<Rest>,
}

/// The replies before EXEC's.
#[derive(Debug, Default)]
struct Heard {
    any: bool,
    /// MULTI was refused: each request that followed was executed by itself.
    refused: Option<Vec<u8>>,
    /// The first error while queueing, cut to a line's length.
    error: Option<Vec<u8>>,
    /// One of the errors does not say that another server would do.
    fatal: bool,
}

impl Block {
    /// MULTI, so many requests, and EXEC.
    pub(super) fn whole(requests: u32, ends: Ends) -> Self {
        let replies = requests.saturating_add(2);
        Self { replies, due: replies, leads: true, ends, ..Self::default() }
    }

    /// EXEC or DISCARD alone, on a connection where MULTI and the requests went before it.
    pub(super) fn last(ends: Ends) -> Self {
        Self { replies: 1, due: 1, ends, ..Self::default() }
    }

    /// MULTI and requests behind which others will come, with so many replies in all.
    pub(super) fn opening(replies: u32) -> Self {
        Self { replies, due: replies, ..Self::default() }
    }

    /// The same right behind a request whose reply nobody hears.
    pub(super) fn behind(mut self, request: Option<&'static [u8]>) -> Self {
        self.behind = request;
        self
    }

    /// Takes a reply that comes before EXEC's. False: this one is EXEC's.
    pub(super) fn takes(&mut self, reply: &[u8]) -> bool {
        if self.due <= 1 {
            return false;
        }
        self.due -= 1;
        let first = !std::mem::replace(&mut self.heard.any, true);
        if first {
            if reply != reply::OK {
                self.heard.refused = Some(text_of(reply));
            }
        } else if reply.first() == Some(&b'-') {
            self.heard.fatal |= !NOT_EXECUTED.contains(&failure::code(reply));
            self.heard.error.get_or_insert_with(|| text_of(reply));
        }
        true
    }

    /// Whether what comes now is EXEC's reply and goes to the client as it is.
    pub(super) fn is_passable(&self) -> bool {
        self.due == 1
            && self.follows.is_none()
            && self.heard.refused.is_none()
            && self.ends.locals.is_empty()
            && self.ends.selects.is_empty()
    }

    /// Whether only its MULTI was sent.
    pub(super) fn is_to_follow(&self) -> bool {
        self.follows.is_some()
    }

    /// Behind a MULTI that was taken.
    fn begun(self) -> Self {
        let heard = Heard { any: true, ..Heard::default() };
        Self { due: self.replies.saturating_sub(1), heard, ..self }
    }

    /// Whether MULTI is its first request.
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// As before it was sent.
    pub(super) fn anew(mut self) -> Self {
        self.due = self.replies;
        self.heard = Heard::default();
        self
    }
}

impl Upstream {
    /// Sends a block of so many requests in one piece. Where it is not known that MULTI and EXEC are
    /// ours to use, the connection must be a session's own: MULTI goes first, and the rest only when
    /// that was taken.
    pub(super) fn send_block(&self, hub: &Hub, mut entry: Entry, block: Block, mut bytes: Vec<u8>) {
        if let Some(request) = block.behind {
            self.send_unheard(hub, request);
        }
        if block.leads && !hub.is_proven(self.backend.id) {
            let follows = bytes.split_off(first_request(&bytes));
            // It executes nothing, so its loss is told as a read's.
            entry.access = Access::Read;
            entry.block = Some(Box::new(Block { due: 1, follows: Some(follows), ..block }));
            return self.send(hub, entry, |out| out.extend_from_slice(&bytes));
        }
        self.push_block(hub, entry, block, bytes);
    }

    fn push_block(&self, hub: &Hub, mut entry: Entry, block: Block, bytes: Vec<u8>) {
        entry.block = Some(Box::new(block));
        let keep = self.purpose == Purpose::Shared || self.follows;
        self.push(hub, entry, |outbox| {
            if bytes.len() < COPIED {
                outbox.append(&hub.buffers, keep, |out| out.extend_from_slice(&bytes))
            } else {
                outbox.append_owned(keep, bytes)
            }
        });
    }
}

/// EXEC has answered: gives the client what it is to hear.
///
/// # Errors
/// The server did not take EXEC and still queues whatever comes: the connection cannot go on.
pub(super) fn settle(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    mut entry: Entry,
    mut block: Block,
    reply: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Result<Settled, UpstreamError> {
    let shard = &upstream.backend.shard;
    let refused = |told: &[u8], ran| {
        hub.doubt(upstream.backend.id);
        written(|out| reply::multi_refused(out, shard, told, ran))
    };
    if let Some(bytes) = block.follows.take() {
        if reply != reply::OK {
            let text = refused(&text_of(reply), false);
            return Ok(tell(hub, upstream, entry, &text, touched));
        }
        let exec = Entry::new(entry.owner, entry.seq, Access::Write, entry.start_us);
        upstream.push_block(hub, exec.command(entry.command), block.begun(), bytes);
        return Ok(Settled::No);
    }
    if let Some(told) = block.heard.refused.take() {
        let text = refused(&told, true);
        return Ok(tell(hub, upstream, entry, &text, touched));
    }
    let is_error = reply.first() == Some(&b'-');
    let code = failure::code(reply);
    let is_discarded = code == b"-EXECABORT" || DISCARDED.contains(&code);
    let was_none = reply.starts_with(reply::EXEC_WITHOUT_MULTI);
    if is_error && !is_discarded && !was_none {
        hub.doubt(upstream.backend.id);
        tell(hub, upstream, entry, reply, touched);
        return Err(upstream.error(Phase::Protocol, "it did not take EXEC"));
    }
    if block.leads && !was_none && !hub.is_proven(upstream.backend.id) {
        hub.prove(upstream.backend.id);
    }
    if let (b"-EXECABORT", Some(cause)) = (code, block.heard.error.take()) {
        failure::blame(hub, upstream, &cause);
        let text = written(|out| reply::exec_aborted(out, cause.get(1..).unwrap_or_default()));
        if block.heard.fatal {
            return Ok(tell(hub, upstream, entry, &text, touched));
        }
        entry.block = Some(Box::new(block.anew()));
        let Some(entry) = cluster::turned(hub, upstream, entry, &cause, touched) else {
            return Ok(Settled::No);
        };
        return Ok(match failure::retry(hub, upstream, entry, false) {
            Ok(()) => Settled::No,
            Err(entry) => tell(hub, upstream, entry, &text, touched),
        });
    }
    if is_error && upstream.follows {
        entry.block = Some(Box::new(block.anew()));
        return Ok(match cluster::turned(hub, upstream, entry, reply, touched) {
            Some(entry) => tell(hub, upstream, entry, reply, touched),
            None => Settled::No,
        });
    }
    if let (Some(rest), Owner::Client(client)) = (block.ends.rest.take(), &entry.owner)
        && is_executed(reply)
    {
        rest.send(hub, upstream.cluster, client, entry.seq);
    }
    match block.ends.applied(reply) {
        Some(reply) => Ok(tell(hub, upstream, entry, &reply, touched)),
        None => Ok(tell(hub, upstream, entry, reply, touched)),
    }
}

impl Ends {
    /// EXEC's reply as the client is to get it, if that is another one.
    fn applied(mut self, reply: &[u8]) -> Option<Vec<u8>> {
        if self.locals.is_empty() && self.selects.is_empty() {
            return None;
        }
        let head = reply.iter().position(|byte| *byte == b'\n')? + 1;
        let (mut at, mut place) = (head, 0);
        let mut out = reply.get(..head)?.to_vec();
        let (mut locals, mut selects) = (self.locals.drain(..), self.selects.iter());
        let (mut local, mut select) = (locals.next(), selects.next());
        let mut scanner = Scanner::new(Resp::Three);
        while let Some(element) = reply.get(at..).filter(|rest| !rest.is_empty()) {
            let len = scanner.measure(element).ok().flatten()?;
            let element = element.get(..len)?;
            match &local {
                Some((index, text)) if *index == place => {
                    out.extend_from_slice(text);
                    local = locals.next();
                }
                _ => out.extend_from_slice(element),
            }
            if let Some((index, db)) = select
                && *index == place
            {
                if element == reply::OK {
                    self.selected.set(Some(*db));
                }
                select = selects.next();
            }
            at += len;
            place += 1;
        }
        Some(out)
    }
}

fn tell(
    hub: &Hub,
    upstream: &Upstream,
    entry: Entry,
    reply: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Settled {
    let Owner::Client(client) = entry.owner else { return Settled::No };
    let shard = &upstream.backend.shard;
    let Some(answered) = client.answer(hub, entry.seq, entry.part, shard, reply) else {
        return Settled::No;
    };
    if answered.first {
        touched.push(client);
    }
    if reply.first() == Some(&b'-') { Settled::Failed } else { Settled::of(answered.progress) }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// The length of the request that a block begins with.
fn first_request(block: &[u8]) -> usize {
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    match Decoder::default().decode(block, &limits) {
        Ok(Frame::Request(len)) => len,
        _ => block.len(),
    }
}

/// The line of a reply, without its end.
fn text_of(reply: &[u8]) -> Vec<u8> {
    let reply = reply.trim_ascii_end();
    reply.get(..LONGEST_TEXT).unwrap_or(reply).to_vec()
}

/// Blocks below this are copied into a buffer with others' requests: one write for all.
const COPIED: usize = 64 * 1024;
const LONGEST_TEXT: usize = 512;
/// Of all errors while queueing, those that say that nothing was executed and another server may
/// (redis.md, T4).
const NOT_EXECUTED: &[&[u8]] =
    &[b"-READONLY", b"-LOADING", b"-MASTERDOWN", b"-CLUSTERDOWN", b"-TRYAGAIN", b"-MOVED", b"-ASK"];
/// EXEC's own errors after which the connection is out of MULTI (cluster.c, getNodeByQuery).
const DISCARDED: &[&[u8]] = &[b"-MOVED", b"-ASK", b"-CLUSTERDOWN", b"-CROSSSLOT", b"-TRYAGAIN"];
