//! One client's session: read a batch, find the requests, dispatch each, write what is ready.
//! Not what a request means or where it goes: that is `dispatch`.

use super::{
    args::Args,
    blocking::Blocked,
    card::Tracking,
    class::Class,
    client::{AHEAD, Client, End, Event},
    client_reply::Replies,
    cluster::Turns,
    dispatch::{Flow, Scene},
    failover::Heir,
    flight,
    frame::{self, Decoder, Frame},
    hub::Hub,
    lease::Lease,
    multi::{Rules, Transaction},
    pin::Pinned,
    places::Places,
    pubsub,
    reading::Reading,
    redirect::Search,
    relay::Own,
    reply,
    route::{self, Route},
    upload::{STREAM_FROM, Upload},
    users::{self, User, Who},
    wait::Written,
    waiting::Waiting,
};
use crate::{
    net::{stream::Stream, tls},
    telemetry::metrics::ListenerMetrics,
};
use std::{
    hash::BuildHasher,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Sleep;

/// What a listener asks of its clients and gives them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The listener's place in the metrics.
    pub listener: usize,
    pub name: Arc<str>,
    /// The cluster's place in the snapshot.
    pub cluster: usize,
    pub password: Option<String>,
    /// Users with rules of their own.
    pub users: Vec<Arc<User>>,
    /// The servers say who may come in, and each client is to them who it says it is.
    pub passthrough: bool,
    /// By the beginning of the key, the longest first; everything else goes to `cluster`.
    pub routes: Vec<Route>,
    pub max_bulk: u64,
    pub limits: super::client::Limits,
    /// Whether writes to several shards are split.
    pub split_writes: bool,
    /// Whether MGET tells the error of a shard in its keys' places.
    pub mget_embeds: bool,
    /// Commands allowed although refused by default, upper case, `CONFIG|SET` for a subcommand.
    pub allow: Vec<String>,
    /// Commands refused, likewise.
    pub deny: Vec<String>,
    /// The most keys that KEYS tells of several shards.
    pub keys_max: usize,
    /// A request for another shard waits for the replies before it.
    pub strict_order: bool,
    pub multi: Rules,
    /// `None`: in clear.
    pub tls: Option<tls::Server>,
}

/// What a session remembers of its client.
#[derive(Debug)]
pub(super) struct State {
    pub authenticated: bool,
    pub class: Class,
    /// The cluster's place in the snapshot.
    pub cluster: usize,
    pub who: Who,
    pub replies: Replies,
    /// By shard: one cursor for two shards in turn would give the same members of each the same
    /// turns.
    pub cursors: [u32; CURSORS],
    /// What pins it.
    pub pin: u64,
    /// Flights that began before this stamp are older than what it sent last; `None`: any flight may
    /// be.
    pub sent: Option<u64>,
    /// A connection of its own.
    pub pinned: Option<Box<Pinned>>,
    /// One to each primary, on which the servers tell it of keys that change: CLIENT TRACKING.
    pub tracked: Vec<Rc<Lease>>,
    /// What was in force before the CLIENT TRACKING under way.
    pub tracked_before: Option<Option<Tracking>>,
    /// What CLIENT CACHING says of the next request, as its server is to hear it.
    pub caching: Option<&'static [u8]>,
    /// One on which it waits in the server.
    pub blocked: Option<Box<Blocked>>,
    /// Its turn to have one.
    pub waiting: Waiting,
    /// Its next request waits for a primary.
    pub heir: Option<Box<Heir>>,
    /// Those of a WAIT that waits for more of them.
    pub gathered: Vec<Lease>,
    /// Where it has written.
    pub written: Written,
    /// When it looked up who owns what is under way.
    pub turns: Turns,
    /// Since when its request has found nobody that owns its slot.
    pub ownerless_us: Option<u64>,
    /// READWRITE: its reads go to the primary.
    pub at_primary: bool,
    /// What the places of shards mean that it remembers.
    pub places: Places,
    /// The shard of its newest request, where order is strict.
    pub last_shard: Option<usize>,
    /// Connections of its own for as long as it lives.
    pub own: Own,
    /// Whose connection is to hear of changed keys for this one.
    pub search: Vec<Search>,
    /// The client sends no more.
    pub eof: bool,
    /// A request that is passed on while it comes.
    pub upload: Option<Box<Upload>>,
    /// MULTI was sent, EXEC and DISCARD were not.
    pub transaction: Option<Box<Transaction>>,
}

/// Serves one client until it ends. `peer` is its address, when it has one.
pub async fn serve(
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    mut stream: Stream,
    peer: Option<IpAddr>,
) -> End {
    if let Some(tls) = &settings.tls {
        let nobody = ListenerMetrics::default();
        let listener = hub.metrics.listeners.get(settings.listener).unwrap_or(&nobody);
        stream = match tls.accept(stream, &[], peer, listener).await {
            Ok(stream) => stream,
            Err(_) => return End::Handshake,
        };
    }
    let client = Client::new(hub.next_id(), settings.listener, stream, settings.limits);
    client.card_mut().born_us = hub.now_us();
    hub.register(&client);
    client.flush_batch(&hub, 0, hub.now_us());
    let pin = peer.map_or(0, key_of);
    let cursor = || u32::try_from(hub.draw() >> 32).unwrap_or(0);
    let cursors = [(); CURSORS].map(|()| cursor());
    let (authenticated, who) = users::at_first(&settings);
    let cluster = who.user.as_ref().and_then(|user| user.cluster).unwrap_or(settings.cluster);
    let mut session = Session {
        guard: Guard { hub, client },
        state: State {
            authenticated,
            class: Class::default(),
            cluster,
            who,
            replies: Replies::default(),
            cursors,
            pin,
            sent: Some(0),
            pinned: None,
            tracked: Vec::new(),
            tracked_before: None,
            caching: None,
            blocked: None,
            waiting: Waiting::Not,
            heir: None,
            gathered: Vec::new(),
            written: Written::default(),
            turns: Turns::default(),
            ownerless_us: None,
            at_primary: false,
            places: Places::default(),
            last_shard: None,
            own: Own::default(),
            search: Vec::new(),
            eof: false,
            upload: None,
            transaction: None,
        },
        settings,
        decoder: Decoder::default(),
        input: Vec::new(),
        start: 0,
        look: None,
        full: false,
    };
    if session.is_apart() {
        session.batch();
    }
    loop {
        match session.next_event().await {
            Event::End(end) => return end,
            // Nothing is to be popped for nobody.
            Event::Eof if session.state.is_elsewhere() => return End::Client,
            Event::Eof => session.end_of_input(),
            Event::Bytes | Event::Room => session.batch(),
        }
    }
}

impl State {
    /// Whether it waits in the server, or hears what no request of it asked for.
    fn is_elsewhere(&self) -> bool {
        self.blocked.is_some() || self.own.blocks || self.own.is_raw()
    }
}

struct Session {
    guard: Guard,
    settings: Rc<Settings>,
    state: State,
    decoder: Decoder,
    input: Vec<u8>,
    /// Bytes of `input` already dispatched.
    start: usize,
    /// When to ask the kernel whether a client that is not read is still there.
    look: Option<Pin<Box<Sleep>>>,
    /// Nothing more is read until more of an upload is written.
    full: bool,
}

impl State {
    /// The connection of its own goes, and what it has left the session with is taken over.
    pub(super) fn let_go(&mut self) {
        let Some(pinned) = self.pinned.take() else { return };
        if let Some(db) = pinned.selected.and_then(|selected| selected.take()) {
            let class = Class { db, ..self.class };
            let others = self.tracked.iter().filter(|lease| !Rc::ptr_eq(lease, &pinned.lease));
            others.for_each(|lease| lease.change_class(self.class, class));
            self.class = class;
        }
    }

    /// Whether any of its requests goes over a connection of its own.
    pub(super) fn has_own(&self) -> bool {
        self.pinned.is_some() || !self.tracked.is_empty()
    }

    /// Its connections, and those that it opens from here on, are of that class.
    pub(super) fn change_class(&mut self, class: Class) {
        let pinned = self.pinned.as_deref().map(|pinned| &pinned.lease);
        let shared = |lease: &&Rc<Lease>| !self.tracked.iter().any(|one| Rc::ptr_eq(one, lease));
        let own = pinned.filter(shared).into_iter().chain(&self.tracked);
        own.for_each(|lease| lease.change_class(self.class, class));
        self.class = class;
    }
}

/// Whatever ends a session, its socket is closed and nothing of it stays behind.
struct Guard {
    hub: Rc<Hub>,
    client: Rc<Client>,
}

impl Session {
    /// Whether the cluster gives each client connections of its own: one is opened when it comes.
    fn is_apart(&self) -> bool {
        let mut topology = self.guard.hub.topology();
        let cluster = topology.snapshot().clusters.get(self.settings.cluster);
        cluster.is_some_and(|cluster| cluster.dedicated.always)
    }

    async fn next_event(&mut self) -> Event {
        std::future::poll_fn(|cx| {
            if self.state.waiting.poll(cx).is_ready() {
                return Poll::Ready(Event::Room);
            }
            let Guard { hub, client } = &self.guard;
            let event = client.poll(cx, hub, &mut self.input, !self.state.eof && !self.full);
            if event.is_pending() && self.state.is_elsewhere() && self.input.len() >= AHEAD {
                return self.poll_gone(cx);
            }
            event
        })
        .await
    }

    /// What lies unread hides the end of a client that has sent much behind a command that waits.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if self.guard.client.has_finished() {
                return Poll::Ready(Event::End(End::Client));
            }
            let look = self.look.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_AGAIN)));
            std::task::ready!(look.as_mut().poll(cx));
            self.look = None;
        }
    }

    /// The client sends no more: what was sent is answered, then the session ends (T51).
    fn end_of_input(&mut self) {
        self.state.eof = true;
        self.batch();
    }

    /// Dispatches every complete request of the input, as far as there is room for its reply.
    fn batch(&mut self) {
        while self.is_stale_after_run() {}
    }

    /// True when the rest of the batch is another user's than its beginning.
    fn is_stale_after_run(&mut self) -> bool {
        let Guard { hub, client } = &self.guard;
        let now_us = hub.now_us();
        if self.state.waiting.is_pending() {
            return false;
        }
        client.look_up();
        if self.state.blocked.as_ref().is_some_and(|blocked| blocked.is_done()) {
            self.state.blocked = None;
        }
        self.state.own.blocks &= !client.is_settled();
        let done = self.state.pinned.as_ref().is_some_and(|pinned| pinned.is_done());
        if done && self.state.upload.is_none() {
            self.state.let_go();
            client.card_mut().class = self.state.class;
        }
        self.state.settle_tracking(client);
        if self.state.ends_tracking(client) && client.is_settled() {
            self.state.tracked.clear();
        }
        let mut topology = hub.topology();
        let snapshot = topology.snapshot();
        let (Some(cluster), Some(commands)) =
            (snapshot.clusters.get(self.state.cluster), hub.commands(self.state.cluster))
        else {
            client.kill(End::Shutdown);
            return false;
        };
        self.state.find_shards(cluster);
        let tables = route::tables(hub, &self.settings.routes);
        let mut scene = Scene {
            hub,
            client,
            cluster,
            commands: &commands,
            clusters: &snapshot.clusters,
            tables: &tables,
            is_stale: false,
            is_checked: false,
            settings: &self.settings,
            state: &mut self.state,
            now_us,
            out_of_memory: hub.memory.is_used_up(),
            reading: Reading::default(),
            coalesce: flight::coalesces(hub, &self.settings, cluster),
            command: u16::MAX,
            big: None,
            aside: None,
        };
        scene.open_relay();
        let relays = scene.relays();
        let mut requests = 0;
        let mut flow = Flow::Continue;
        while flow == Flow::Continue
            && !scene.is_stale
            && self.start < self.input.len()
            && client.has_room()
        {
            let bytes = self.input.get(self.start..).unwrap_or_default();
            if scene.state.upload.is_some() {
                match scene.upload(bytes) {
                    Ok(taken) => self.start += taken,
                    Err(error) => flow = scene.protocol_error(error),
                }
                continue;
            }
            let limits = frame::Limits {
                bulk: self.settings.max_bulk,
                args: MAX_ARGS,
                authenticated: scene.state.authenticated,
            };
            match self.decoder.decode(bytes, &limits) {
                Ok(Frame::Incomplete) if relays => match scene.relay_front(&self.decoder, bytes) {
                    Some(Flow::Continue) => self.start += self.decoder.progress().0,
                    Some(other) => flow = other,
                    None => break,
                },
                Ok(Frame::Incomplete) if bytes.len() < STREAM_FROM => break,
                Ok(Frame::Incomplete) => match scene.begin_upload(&self.decoder, bytes) {
                    Some(Flow::Continue) => self.start += self.decoder.progress().0,
                    Some(other) => flow = other,
                    None => break,
                },
                Ok(Frame::Nothing(len)) => self.start += len,
                Ok(Frame::Inline { len, line }) => {
                    flow = scene.inline(bytes.get(..line).unwrap_or_default());
                    if flow != Flow::Hold {
                        self.start += len;
                        requests += 1;
                    }
                }
                Ok(Frame::Request(len)) => {
                    let frame = bytes.get(..len).unwrap_or_default();
                    flow = scene.request(Args { frame, spans: self.decoder.spans() });
                    if flow == Flow::Hold {
                        self.decoder.reset();
                        break;
                    }
                    requests += 1;
                    match scene.big.take() {
                        Some(big) if self.start == 0 && len == self.input.len() => {
                            big.send(hub, std::mem::take(&mut self.input));
                        }
                        big => {
                            big.into_iter().for_each(|big| big.send(hub, frame.to_vec()));
                            self.start += len;
                        }
                    }
                }
                Err(error) => {
                    flow = scene.protocol_error(error);
                }
            }
            self.decoder.reset();
        }
        self.full = scene.is_full();
        let is_stale = scene.is_stale && self.start < self.input.len();
        drop(topology);
        hub.on_requests(self.state.cluster, now_us, requests);
        if let Flow::Close(end) = flow {
            client.close_after_replies(end);
        } else if self.input.len() > BIG_INPUT && hub.memory.is_used_up() {
            client.reply(hub, reply::OUT_OF_MEMORY);
            client.close_after_replies(End::Memory);
        }
        let is_held = flow == Flow::Hold || self.start < self.input.len() && !client.has_room();
        if self.state.eof && !is_held && !self.state.waiting.is_pending() {
            client.close_after_replies(End::Client);
        }
        let waits = self.state.blocked.is_some() || self.state.own.blocks;
        let turns = self.state.tracked_before.is_some() || self.state.ends_tracking(client);
        let apart = self.state.pinned.is_some() || waits || turns;
        if flow == Flow::Hold || apart {
            // The session is to be told when nothing is under way.
            client.has_room();
        }
        self.compact();
        let queued = self.state.transaction.as_ref().map_or(0, |open| open.held());
        let Guard { hub, client } = &self.guard;
        client.card().unread.set(self.input.len() - self.start);
        client.flush_batch(hub, self.input.capacity() + queued, now_us);
        is_stale && flow == Flow::Continue
    }

    /// Gives the buffer back when all of it is dispatched, else keeps what is left.
    fn compact(&mut self) {
        if self.start >= self.input.len() {
            self.guard.hub.buffers.give(std::mem::take(&mut self.input));
            self.start = 0;
        } else if self.start >= self.input.len() / 2 {
            self.input.drain(..self.start);
            self.start = 0;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.hub.metrics.panics.add(1);
            tracing::error!(client = self.client.id, "a session panicked and was closed");
            for upstream in self.hub.upstreams() {
                upstream.end_if_owned_by(&self.client);
            }
        }
        pubsub::leave(&self.hub, &self.client);
        self.client.close(&self.hub);
        self.hub.unregister(self.client.id);
    }
}

/// What `client_ip` pins: the address for IPv4, its /64 for IPv6.
fn key_of(peer: IpAddr) -> u64 {
    let hasher = foldhash::fast::FixedState::default();
    match peer {
        IpAddr::V4(ip) => hasher.hash_one(ip.octets()),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => hasher.hash_one(ip.octets()),
            None => hasher.hash_one(ip.octets().first_chunk::<8>()),
        },
    }
}

/// Shards beyond these share the cursors again.
pub(super) const CURSORS: usize = 8;
/// Redis takes INT_MAX arguments; nobody sends more than a million.
const MAX_ARGS: u32 = 1024 * 1024;
/// As often as the event loop's own clock ticks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What an unfinished request may hold when the memory limit is reached.
const BIG_INPUT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::reads::ReadFrom, proto::redis::stage::Stage};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[tokio::test(start_paused = true)]
    async fn a_session_that_panics_ends_with_the_connections_it_may_have_left_half_written() {
        let stage = Stage::new(1, ReadFrom::Primary);
        let mut broken = stage.client();
        broken.say("GET a\r\n");
        stage.settle().await;
        let guard = Guard {
            hub: Rc::clone(&stage.hub),
            client: stage.hub.clients().pop().expect("the only client"),
        };
        let mut other = stage.client();
        other.say("GET b\r\n");
        stage.settle().await;
        let mut shared = stage.accept(0);
        assert_eq!(shared.heard().matches("GET").count(), 2);
        let bug = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            panic!("a bug");
        }));
        assert!(bug.is_err());
        stage.settle().await;
        assert_eq!(stage.hub.metrics.panics.get(), 1);
        assert!(broken.is_closed() && shared.is_closed());
        let mut fresh = stage.accept(0);
        fresh.heard().matches("GET").for_each(|_| fresh.say("+value\r\n"));
        stage.settle().await;
        assert_eq!(other.heard(), "+value\r\n");
    }
}
