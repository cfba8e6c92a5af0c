//! WAIT and WAITAOF: a server counts the replicas that have what came over the asking connection, and
//! the session's writes went over shared ones. So it is asked on a connection of the session's own,
//! behind a write that no data has (PUBLISH to nobody): who has that has all before it (redis.md,
//! T14). Not the waiting itself: that is the server's.

use super::{
    args::Args,
    blocking::{Blocked, micros_after},
    dispatch::{Flow, Scene},
    entry::{Entry, Owner, Reach},
    forms,
    gather::{Gather, Merge, integer},
    lease::Lease,
    reply,
    table::Command,
    wire,
};
use crate::{policy::access::Access, topology::Backend};
use std::{hash::BuildHasher, rc::Rc, sync::Arc, time::Duration};

/// Where a session has written since it came, and in which replication stream that was first seen.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The first 64 shards, by bit.
    known: u64,
    shards: Vec<(usize, u64)>,
}

impl Written {
    /// A write is about to be sent to `shard`.
    #[inline]
    pub(super) fn note(&mut self, shard: usize, backend: &Backend) {
        let bit = u32::try_from(shard).ok().and_then(|shard| 1u64.checked_shl(shard)).unwrap_or(0);
        if self.known & bit == 0 {
            self.note_first(shard, bit, backend);
        }
    }

    #[cold]
    fn note_first(&mut self, shard: usize, bit: u64, backend: &Backend) {
        self.known |= bit;
        if self.shards.iter().all(|(known, _)| *known != shard) {
            self.shards.push((shard, backend.stream()));
        }
    }
}

impl Written {
    /// Each shard stands where `place` says now.
    pub(super) fn renumber(&mut self, place: impl Fn(usize) -> usize) {
        self.known = 0;
        self.shards.iter_mut().for_each(|(shard, _)| *shard = place(*shard));
    }
}

impl Scene<'_> {
    /// WAIT and WAITAOF: the least that any shard says that the session has written to.
    pub(super) fn wait(&mut self, command: &Command, args: Args<'_>) -> Flow {
        if self.state.eof {
            return Flow::Close(super::client::End::Client);
        }
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Flow::Hold;
        }
        let mut asked = self.state.written.shards.clone();
        let wrote = !asked.is_empty();
        if !wrote {
            asked = (0..self.cluster.shards.len()).map(|shard| (shard, 0)).collect();
        }
        let leases = match self.lease_all(&asked) {
            Ok(leases) => leases,
            Err(flow) => return flow,
        };
        let each: u16 = if wrote { 3 } else { 1 };
        let parts = u16::try_from(asked.len()).unwrap_or(u16::MAX).saturating_mul(each);
        let streams = asked.iter().map(|(_, stream)| *stream).collect();
        let merge = if wrote { Merge::Waited { streams } } else { Merge::Least };
        let gather = Gather::new(command.name, merge, parts);
        let seq = self.client.open_gather(gather, args.frame.len());
        for (lease, first) in leases.iter().zip((0..parts).step_by(usize::from(each))) {
            self.ask_wait(lease, seq, first, wrote, args);
        }
        if wrote {
            // What it hears now stands for all before it, a count as well as an error.
            self.state.written = Written::default();
            for lease in &leases {
                let backend = &lease.upstream().backend;
                let of_lease = |shard: &crate::topology::Shard| shard.name == backend.shard;
                if let Some(shard) = self.cluster.shards.iter().position(of_lease) {
                    self.state.written.note(shard, backend);
                }
            }
        }
        self.begin_blocked(leases, deadline(args));
        Flow::Continue
    }

    /// One connection to the primary of each, or none.
    pub(super) fn lease_all(&mut self, asked: &[(usize, u64)]) -> Result<Vec<Lease>, Flow> {
        let mut leases = std::mem::take(&mut self.state.gathered);
        for (shard, _) in asked.iter().skip(leases.len()) {
            let Some(backend) = self.pick(*shard, Access::Write, true) else {
                let flow = self.not_served(*shard, Access::Write, true);
                if flow == Flow::Hold {
                    self.state.gathered = leases;
                }
                return Err(flow);
            };
            match self.lease(backend) {
                Ok(lease) => leases.push(lease),
                Err(flow) => {
                    if flow == Flow::Hold {
                        self.state.gathered = leases;
                    }
                    return Err(flow);
                }
            }
        }
        Ok(leases)
    }

    fn ask_wait(&self, lease: &Lease, seq: u32, first: u16, wrote: bool, args: Args<'_>) {
        let upstream = lease.upstream();
        let send = |part: u16, words: &[&[u8]]| {
            let owner = Owner::Client(Rc::clone(self.client));
            let entry = Entry::new(owner, seq, Access::Write, self.now_us)
                .part(part, Reach::Part)
                .patient();
            upstream.send(self.hub, entry, |out| {
                wire::array(out, words.len());
                words.iter().for_each(|word| wire::bulk(out, word));
            });
        };
        upstream.ask_number(self.hub);
        let mut last = first;
        if wrote {
            // Sharded channels are not seen by those who listen to every pattern.
            let sharded = forms::is_since(&upstream.backend, [7, 0, 0]);
            let publish: &[u8] = if sharded { b"SPUBLISH" } else { b"PUBLISH" };
            send(first, &[b"INFO", b"replication"]);
            send(first + 1, &[publish, b"__sluice_wait__", b"1"]);
            last = first + 2;
        }
        let words: Vec<&[u8]> = args.iter().collect();
        send(last, &words);
    }

    /// From here on the session waits in the servers.
    pub(super) fn begin_blocked(&mut self, leases: Vec<Lease>, patience: Option<Duration>) {
        let deadline_us = micros_after(self.now_us, patience);
        for lease in &leases {
            lease.upstream().set_deadline(deadline_us);
            let leases: &Arc<Backend> = &lease.upstream().backend;
            leases.leases.begin_wait(self.client.id, lease.upstream().standing());
        }
        self.state.blocked = Some(Box::new(Blocked::new(leases, Rc::clone(self.client))));
        self.client.wait_for_all();
        self.client.look_ahead();
    }
}

/// The last argument, in milliseconds.
fn deadline(args: Args<'_>) -> Option<Duration> {
    let text = std::str::from_utf8(args.get(args.len().checked_sub(1)?)?).ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// The least count of `parts`, each a number (WAIT) or an array of numbers (WAITAOF).
pub(super) fn least<'a>(parts: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let mut least: Vec<i64> = Vec::new();
    let mut array = false;
    for part in parts {
        let lines = part.split(|byte| *byte == b'\n');
        let numbers = lines.filter_map(|line| integer(line.trim_ascii_end()));
        array |= part.starts_with(b"*");
        for (at, number) in numbers.enumerate() {
            match least.get_mut(at) {
                Some(known) => *known = number.min(*known),
                None => least.push(number),
            }
        }
    }
    if array {
        wire::array(out, least.len());
    }
    least.iter().for_each(|number| wire::integer(out, *number));
}

/// The same of what [`Scene::wait`] asked of those written to: replication, publication, count.
pub(super) fn waited(streams: &[u64], parts: &[Vec<u8>], out: &mut Vec<u8>) {
    for (triple, stream) in parts.chunks_exact(3).zip(streams) {
        let [info, published, _] = triple else { continue };
        let now = stream_of(&String::from_utf8_lossy(info));
        if now.is_none() || *stream != 0 && now != Some(*stream) {
            return out.extend_from_slice(reply::STREAM_CHANGED);
        }
        if integer(published).is_none() {
            return out.extend_from_slice(reply::NOT_PUBLISHED);
        }
    }
    least(parts.iter().skip(2).step_by(3).map(Vec::as_slice), out);
}

/// The replication stream that INFO tells, as [`stream_number`] has it.
fn stream_of(info: &str) -> Option<u64> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix("master_replid:")).map(|id| stream_number(id.trim()))
}

/// The name of a replication stream as a number, never 0.
pub fn stream_number(id: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one(id) | 1
}
