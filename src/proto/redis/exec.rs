//! The end of a client's transaction: over which connection it is executed, or how it is given up.
//! Not what is in it: that is [`super::multi`]; nor its way over that connection: [`super::block`].

use super::{
    args::Args,
    block::{Block, Ends},
    class::Resp,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    frame::{Decoder, Frame, Limits},
    multi::Way,
    reply, scripts,
    upstream::Upstream,
};
use crate::policy::access::Access;
use std::{cell::RefCell, rc::Rc};

impl Scene<'_> {
    /// EXEC of an open transaction.
    pub(super) fn exec(&mut self, args: Args<'_>) -> Flow {
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        if open.dirty {
            self.abandon();
            return self.answer(reply::EXEC_ABORT);
        }
        if !open.spans.is_empty() && !self.client.is_settled() {
            // What is under way to other shards comes first there too.
            self.client.wait_for_all();
            return Flow::Hold;
        }
        let shard = match open.way {
            Way::Buffered => self.shard_now(open.shard),
            Way::Verbatim | Way::Lost => open.shard,
        };
        if self.is_turned() {
            return Flow::Hold;
        }
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        match (open.way, shard) {
            (Way::Buffered, _) if open.requests == 0 => {
                self.close();
                self.answer(reply::EMPTY_ARRAY)
            }
            (Way::Buffered, shard) => self.exec_block(shard.unwrap_or(0), args),
            (Way::Verbatim, Some(shard)) if let Some(own) = self.own(shard) => {
                self.state.written.note(shard, &own.backend);
                self.exec_own(shard, &own, args)
            }
            _ => self.exec_lost(),
        }
    }

    /// Sends all of it in one piece.
    fn exec_block(&mut self, shard: usize, args: Args<'_>) -> Flow {
        let Some(open) = &self.state.transaction else { return Flow::Continue };
        let apart = open.queue.len() >= LARGE || !open.selects.is_empty();
        let Some(backend) = self.pick(shard, Access::Write, true) else {
            let flow = self.not_served(shard, Access::Write, true);
            if flow != Flow::Hold {
                self.close();
            }
            return flow;
        };
        if self.is_turned_since(backend) {
            return Flow::Hold;
        }
        let proven = self.hub.is_proven(backend.id);
        if (apart || !proven)
            && let Err(flow) = self.pin(shard)
        {
            if flow != Flow::Hold {
                self.close();
            }
            return flow;
        }
        let upstream = match self.own(shard) {
            Some(own) => own,
            None if self.loses_track() => {
                self.close();
                return Flow::Continue;
            }
            None if proven => self.hub.upstream(self.cluster, backend, self.state.class, Rc::clone),
            None => return self.exec_lost(),
        };
        self.state.written.note(shard, backend);
        let Some(open) = self.close() else { return Flow::Continue };
        open.scripts.iter().for_each(|sha| scripts::go_ahead(self.hub, &upstream, *sha));
        let (requests, mut bytes) = (open.requests, open.queue);
        bytes.extend_from_slice(args.frame);
        let spans = !open.spans.is_empty();
        let (seq, rest) = self.open_exec(shard, bytes.len(), open.spans, &open.selects);
        let ends = Ends { rest, ..self.ends(open.locals, open.selects) };
        let owner = Owner::Client(Rc::clone(self.client));
        let entry = Entry::new(owner, seq, Access::Write, self.now_us).command(self.command);
        let block = Block::whole(requests, ends).behind(self.caching_on(&upstream));
        upstream.send_block(self.hub, entry, block, bytes);
        if self.state.pinned.is_some() || spans {
            self.client.wait_for_all();
        }
        Flow::Continue
    }

    /// EXEC where the server has the queue.
    fn exec_own(&mut self, shard: usize, own: &Rc<Upstream>, args: Args<'_>) -> Flow {
        let Some(open) = self.close() else { return Flow::Continue };
        self.set_in_multi(false);
        let (seq, rest) = self.open_exec(shard, args.frame.len(), open.spans, &open.selects);
        let ends = Ends { rest, ..self.ends(open.locals, open.selects) };
        let owner = Owner::Client(Rc::clone(self.client));
        let entry = Entry::new(owner, seq, Access::Write, self.now_us);
        own.send_block(self.hub, entry, Block::last(ends), args.frame.to_vec());
        self.client.wait_for_all();
        Flow::Continue
    }

    /// EXEC whose connection is lost: nothing was executed. To who watched keys that is told as if
    /// one had changed, for then clients begin anew; unless a request of it was answered with an error.
    fn exec_lost(&mut self) -> Flow {
        let heeded = self.client.heeded();
        let open = self.state.transaction.as_deref();
        let multi = open.and_then(|open| open.multi);
        if heeded.is_some_and(|heed| Some(heed.seq) == multi && heed.any_failed) {
            self.close();
            self.state.pinned = None;
            return self.answer(reply::EXEC_ABORT);
        }
        let lost = self.close().and_then(|open| open.shard).unwrap_or(0);
        let watched = self.state.pinned.take().is_some_and(|pinned| pinned.lease.watches.get());
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

    /// DISCARD of an open transaction.
    pub(super) fn discard(&mut self, args: Args<'_>) -> Flow {
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
            pinned.lease.is_spoilt.set(true);
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
        let mut told = self.aside.take().map(RefCell::into_inner).unwrap_or_default();
        if told.is_empty() {
            // Without an element in its place EXEC's reply would swallow the next one.
            reply::not_in_multi(&mut told, command.name);
        }
        told
    }
}

const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
/// From here on a block goes over a connection of its own: others would wait behind it, and a
/// server with `maxmemory-clients` closes connections that hold much (redis.md, T4, T32).
const LARGE: usize = 1024 * 1024;
