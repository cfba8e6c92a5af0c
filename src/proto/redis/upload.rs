//! Requests too big to be kept whole: their bytes go on to the server while they come, over a
//! connection of the session's own, for nobody else could use it meanwhile (redis.md, T32). Not
//! where they end: that is [`super::feed`].

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    feed::Feed,
    frame::{DecodeError, Decoder},
    insight,
    keys::Keys,
    reply, route,
    table::{Command, Kind},
    upstream::Upstream,
};
use crate::policy::access::Access;
use std::rc::Rc;

/// A request of which the front has gone and the rest is coming.
#[derive(Debug)]
pub(super) struct Upload {
    feed: Feed,
    pub(super) shard: usize,
    access: Access,
    /// The command's place in the table.
    command: u16,
    /// How much of it has come.
    bytes: u64,
    /// Its connection is gone: the rest is read and dropped, then the client hears.
    lost: bool,
    /// The client has been told already why not.
    answered: bool,
}

impl Scene<'_> {
    /// Begins to pass on a request of which only `bytes` have come, when they tell where it goes.
    /// `None`: it must be kept until it is whole.
    pub(super) fn begin_upload(&mut self, decoder: &Decoder, bytes: &[u8]) -> Option<Flow> {
        // One that may have to be sent to another server is kept.
        if self.is_in_transaction() || self.cluster.follows.is_some() {
            return None;
        }
        let args = Args { frame: bytes, spans: decoder.spans() };
        let (front, missing) = decoder.progress();
        let command = self.commands.find(args)?;
        let argc = args.len() + missing as usize;
        let key = args.get(single_key(command)?)?;
        let fits = self.state.authenticated && command.arity_ok(argc) && !self.out_of_memory;
        let other = self.client.is_subscribed();
        let user = self.state.who.user.as_ref();
        let refused = user.is_some_and(|user| user.refuses(command, args).is_some());
        // Where a route leads is looked up when all is there.
        let fits = fits && !other && !refused && self.settings.routes.is_empty();
        if !fits || self.kind_of(command, args) != command.kind {
            return None;
        }
        if self.must_pause(command, args) {
            return Some(Flow::Hold);
        }
        let shard = route::shard_of(self.cluster, key);
        if let Err(flow) = self.pin(shard) {
            if flow == Flow::Hold {
                return Some(flow);
            }
            // It was refused: the rest is of no use to anybody.
            self.begin_feed((front, missing), shard, command, true);
            return Some(Flow::Continue);
        }
        let own = self.own(shard)?;
        if let Some(pinned) = &mut self.state.pinned {
            pinned.lease.is_spoilt.set(true);
        }
        self.send_caching(&own);
        own.append(self.hub, bytes.get(..front).unwrap_or_default());
        self.state.written.note(shard, &own.backend);
        self.begin_feed((front, missing), shard, command, false);
        Some(Flow::Continue)
    }

    /// The rest of a request, of which `front` bytes have come and `missing` arguments
    /// are to come, is passed on or dropped.
    pub(super) fn begin_feed(
        &mut self,
        (front, missing): (usize, u32),
        shard: usize,
        command: &Command,
        answered: bool,
    ) {
        self.client.set_unfinished(true);
        self.reads_unseen();
        let (access, command) = (command.access, command.index);
        let feed = Feed::new(missing, self.settings.max_bulk);
        let lost = answered;
        let bytes = front as u64;
        let upload = Upload { feed, shard, access, command, bytes, lost, answered };
        self.state.upload = Some(Box::new(upload));
    }

    /// Passes on what has come of the rest; returns how many bytes that were.
    ///
    /// # Errors
    /// They are not Redis protocol: the session ends, and its connection with what it has begun.
    pub(super) fn upload(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let Some(mut upload) = self.state.upload.take() else { return Ok(0) };
        let taken = upload.feed.take(bytes)?;
        let piece = bytes.get(..taken).unwrap_or_default();
        upload.bytes += taken as u64;
        let own = self.fed(upload.shard).filter(|_| !upload.lost);
        upload.lost = own.is_none();
        if !upload.feed.is_over() {
            own.iter().for_each(|own| own.append(self.hub, piece));
            self.state.upload = Some(upload);
            return Ok(taken);
        }
        self.client.set_unfinished(false);
        self.count(usize::from(upload.command));
        insight::big_upload(self, upload.command, upload.bytes);
        match own {
            Some(own) => {
                if let Some(pinned) = &mut self.state.pinned {
                    pinned.lease.is_spoilt.set(pinned.moved);
                }
                let owner = Owner::Client(Rc::clone(self.client));
                let entry = Entry::new(owner, self.client.open(0), upload.access, self.now_us);
                let entry = entry.at_primary(true).command(upload.command);
                own.send(self.hub, entry, |out| out.extend_from_slice(piece));
                if !self.relays() {
                    self.client.wait_for_all();
                }
            }
            None if upload.answered => {}
            None => {
                let name = self.cluster.shards.get(upload.shard).map_or("", |shard| &shard.name);
                self.refuse(upload.access, |out| reply::upload_lost(out, name));
            }
        }
        self.request_is_over();
        Ok(taken)
    }

    /// Where the rest of an upload goes.
    fn fed(&self, shard: usize) -> Option<Rc<Upstream>> {
        if self.relays() { self.relayed() } else { self.own(shard) }
    }

    /// Whether as much of an upload waits to be written as may.
    pub(super) fn is_full(&self) -> bool {
        let upload = self.state.upload.as_deref();
        let raw = self.state.own.is_raw().then(|| self.relayed()).flatten();
        let own = upload.and_then(|upload| self.fed(upload.shard)).or(raw);
        own.is_some_and(|own| own.is_full(self.client))
    }
}

/// Where the command's key is, when it has one and that is all one must know of its arguments.
fn single_key(command: &Command) -> Option<usize> {
    match (command.kind, command.keys) {
        (Kind::Keyed, Keys::First(at)) if !command.blocking => Some(at as usize),
        _ => None,
    }
}

/// redis.md, T32: a request up to here is kept until it is whole.
pub(super) const STREAM_FROM: usize = 1024 * 1024;
