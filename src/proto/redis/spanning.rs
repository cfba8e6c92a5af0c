//! Requests of a transaction that concern every shard, FLUSHALL or CONFIG SET: the transaction's own
//! shard executes them in it, the others as soon as EXEC says that it was executed. Not the
//! transaction: that is [`super::multi`]; nor its way over a connection: [`super::block`].

use super::{
    class::{Class, Resp},
    client::Client,
    dispatch::Scene,
    entry::{Entry, Owner, Reach},
    gather::{Gather, Merge},
    hub::Hub,
    reply,
    scan::Scanner,
    scripts,
    table::FanOut,
};
use crate::policy::access::Access;
use std::{rc::Rc, sync::Arc};

/// One that is queued.
#[derive(Debug)]
pub(super) struct Span {
    /// Its place among the queued requests.
    pub(super) place: usize,
    pub(super) name: &'static str,
    pub(super) how: FanOut,
    pub(super) frame: Vec<u8>,
}

/// What the other shards are to be sent once EXEC has succeeded.
#[derive(Debug)]
pub(super) struct Rest {
    /// Each with the database in which it is to be done.
    requests: Vec<(Class, Vec<u8>)>,
    shards: Vec<Arc<str>>,
}

/// How EXEC's reply is put together: the first part is that of the transaction's own shard, then
/// each request has one from every other shard.
#[derive(Debug)]
pub(super) struct Spanning {
    spans: Vec<(usize, &'static str, FanOut)>,
    own: Arc<str>,
    others: Vec<Arc<str>>,
}

impl Scene<'_> {
    /// Opens EXEC's place in the client's line, for a transaction of `bytes` on `shard` that has
    /// `spans`, and tells what is to be sent to the other shards behind it.
    pub(super) fn open_exec(
        &mut self,
        shard: usize,
        bytes: usize,
        spans: Vec<Span>,
        selects: &[(usize, u8)],
    ) -> (u32, Option<Rest>) {
        let Some(own) = self.cluster.shards.get(shard).filter(|_| !spans.is_empty()) else {
            return (self.client.open(bytes), None);
        };
        let mut others = Vec::new();
        for (at, other) in self.cluster.shards.iter().enumerate().filter(|(at, _)| *at != shard) {
            scripts::primary(other).iter().for_each(|primary| self.state.written.note(at, primary));
            others.push(Arc::clone(&other.name));
        }
        let parts = u16::try_from(1 + others.len() * spans.len()).unwrap_or(u16::MAX);
        let merged = spans.iter().map(|span| (span.place, span.name, span.how)).collect();
        let spanning =
            Spanning { spans: merged, own: Arc::clone(&own.name), others: others.clone() };
        let gather = Gather::new("EXEC", Merge::Spanning(Box::new(spanning)), parts);
        let class = |place: usize| {
            let before = selects.iter().rfind(|(select, _)| *select < place);
            Class { db: before.map_or(self.state.class.db, |(_, db)| *db), ..self.state.class }
        };
        let requests = spans.into_iter().map(|span| (class(span.place), span.frame)).collect();
        (self.client.open_gather(gather, bytes), Some(Rest { requests, shards: others }))
    }
}

impl Rest {
    /// Sends it, for EXEC at `seq` in the client's line.
    pub(super) fn send(self, hub: &Rc<Hub>, cluster: usize, client: &Rc<Client>, seq: u32) {
        let mut topology = hub.topology();
        let cluster = topology.snapshot().clusters.get(cluster).map(Arc::clone);
        drop(topology);
        let each = self.requests.iter().flat_map(|one| self.shards.iter().map(move |to| (one, to)));
        for ((request, name), part) in each.zip(1..) {
            let shard = cluster.as_ref().and_then(|cluster| {
                let shard = cluster.shards.iter().find(|shard| shard.name == *name)?;
                Some((cluster, scripts::primary(shard)?))
            });
            let Some((cluster, primary)) = shard else {
                let mut text = Vec::new();
                reply::cluster_down(&mut text, "no such shard");
                client.answer_now(hub, seq, part, name, &text);
                continue;
            };
            let (class, frame) = request;
            let owner = Owner::Client(Rc::clone(client));
            let entry = Entry::new(owner, seq, Access::Write, hub.now_us()).part(part, Reach::All);
            hub.upstream(cluster, primary, *class, |upstream| {
                upstream.send(hub, entry, |out| out.extend_from_slice(frame));
            });
        }
    }
}

impl Spanning {
    /// Writes EXEC's reply, each request's in its place as if there were one shard.
    pub(super) fn finish(&self, parts: &[Vec<u8>], out: &mut Vec<u8>) {
        let Some((exec, others)) = parts.split_first() else { return };
        let head = memchr::memchr(b'\n', exec).map_or(0, |end| end + 1);
        let (head, mut rest) = exec.split_at_checked(head).unwrap_or_default();
        if exec.starts_with(OURS) {
            let names = self.spans.iter().map(|(_, name, _)| *name).collect::<Vec<_>>();
            return reply::only_here(out, exec.trim_ascii_end(), &names.join(" and "));
        }
        out.extend_from_slice(head);
        if !is_executed(exec) {
            return;
        }
        let mut spans = self.spans.iter().zip(others.chunks(self.others.len().max(1))).peekable();
        let mut scanner = Scanner::new(Resp::Three);
        for place in 0.. {
            let Some(len) = scanner.measure(rest).ok().flatten() else { return };
            let (element, behind) = rest.split_at_checked(len).unwrap_or_default();
            rest = behind;
            match spans.next_if(|((at, ..), _)| *at == place) {
                Some(((_, name, how), others)) => self.merge(name, *how, element, others, out),
                None => out.extend_from_slice(element),
            }
        }
    }

    fn merge(
        &self,
        name: &'static str,
        how: FanOut,
        own: &[u8],
        others: &[Vec<u8>],
        out: &mut Vec<u8>,
    ) {
        let parts = u16::try_from(1 + others.len()).unwrap_or(u16::MAX);
        let mut gather = Gather::new(name, merged(how).unwrap_or(Merge::First), parts);
        gather.accept(0, &self.own, own);
        for ((part, other), reply) in (1..).zip(&self.others).zip(others) {
            gather.accept(part, other, reply);
        }
        gather.finish(out);
    }
}

/// How the replies become one; `None`: it is not allowed in a transaction over several shards.
pub(super) fn merged(how: FanOut) -> Option<Merge> {
    Some(match how {
        FanOut::Sum => Merge::Sum,
        FanOut::AllOk => Merge::AllOk,
        FanOut::Min => Merge::Min,
        FanOut::Xor => Merge::Xor,
        FanOut::First => Merge::First,
        FanOut::AllSucceed => Merge::AllSucceed,
        FanOut::And => Merge::And,
        FanOut::Concat | FanOut::Texts | FanOut::Tree(_) | FanOut::RandomKey | FanOut::Scan => {
            return None;
        }
    })
}

/// Whether EXEC's reply says that the requests were executed.
pub(super) fn is_executed(exec: &[u8]) -> bool {
    exec.starts_with(b"*") && !exec.starts_with(b"*-")
}

/// What we say of EXEC ourselves: its own shard may have executed it.
const OURS: &[u8] = b"-ERR sluice: ";
/// As many in one transaction: each has a part of EXEC's reply for every shard.
pub(super) const MOST_SPANS: usize = 64;
