//! Who of one worker's clients listens to what, over which taps, and who waits to be told. It
//! keeps its tables in step with each other and with the process's; what moves them is
//! [`super::pubsub`].

use super::{
    audience::Subject,
    class::Resp,
    client::{Client, End},
    hub::Hub,
    reply, route,
    tap::Tap,
    wire,
};
use crate::topology::Cluster;
use foldhash::{HashMap, HashMapExt, HashSet};
use std::{cell::Cell, ops::Range, rc::Rc, sync::Arc};

/// A channel's or pattern's name.
pub(super) type Name = Rc<[u8]>;

/// The tables of one worker.
#[derive(Debug)]
pub(super) struct Topics {
    /// By cluster, then by [`Subject`].
    pub(super) topics: Vec<[HashMap<Name, Topic>; 3]>,
    /// By cluster and shard.
    pub(super) taps: HashMap<(usize, usize), Rc<Tap>>,
    /// By the client's id.
    pub(super) listeners: HashMap<u64, Listener>,
    pub(super) last_topic: u64,
    /// By cluster: [`Cluster::order`] as it was when each topic was last put where it is heard.
    orders: Vec<Option<Arc<[Arc<str>]>>>,
}

/// A channel or pattern that somebody listens to, or is about to.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: u64,
    pub(super) readers: HashMap<u64, Rc<Client>>,
    pub(super) waiting: Vec<Rc<Ticket>>,
    /// Tickets that name it, those that wait for another topic alone included.
    pub(super) held: usize,
    pub(super) sides: Vec<Side>,
}

/// A shard at which a topic is heard.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) shard: usize,
    pub(super) confirmed: bool,
}

/// A client that has subscribed to something, or is about to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) client: Rc<Client>,
    pub(super) cluster: usize,
    /// By [`Subject`].
    pub(super) names: [HashSet<Name>; 3],
    pub(super) bytes: usize,
    /// One at most, for its session sends nothing else until that is answered.
    pub(super) pending: Option<Rc<Ticket>>,
    /// Since when it has left much unread.
    pub(super) slow_us: Option<u64>,
}

/// A request that waits for servers.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) client: Rc<Client>,
    /// Its place in the client's line.
    pub(super) seq: u32,
    pub(super) wish: Wish,
    /// How many confirmations it waits for.
    pub(super) missing: Cell<usize>,
    /// When it is given up.
    pub(super) deadline_us: u64,
}

#[derive(Debug)]
pub(super) enum Wish {
    Subscribe {
        subject: Subject,
        names: Vec<Name>,
    },
    /// All is done here; only the server must know before the client is told.
    Unsubscribe {
        reply: Vec<u8>,
    },
}

impl Topics {
    pub(super) fn new(clusters: usize) -> Self {
        Self {
            topics: (0..clusters).map(|_| Default::default()).collect(),
            taps: HashMap::new(),
            listeners: HashMap::new(),
            last_topic: 0,
            orders: vec![None; clusters],
        }
    }

    pub(super) fn of_cluster(&self, cluster: usize) -> &[HashMap<Name, Topic>] {
        self.topics.get(cluster).map_or(&[], |topics| topics.as_slice())
    }

    pub(super) fn of_cluster_mut(&mut self, cluster: usize) -> &mut [HashMap<Name, Topic>] {
        self.topics.get_mut(cluster).map_or(&mut [], |topics| topics.as_mut_slice())
    }

    pub(super) fn find(&self, cluster: usize, subject: Subject, name: &[u8]) -> Option<&Topic> {
        self.of_cluster(cluster).get(subject as usize)?.get(name)
    }

    pub(super) fn find_mut(
        &mut self,
        cluster: usize,
        subject: Subject,
        name: &[u8],
    ) -> Option<&mut Topic> {
        self.of_cluster_mut(cluster).get_mut(subject as usize)?.get_mut(name)
    }

    /// The name of a topic as it is kept; one that nobody had is asked for.
    pub(super) fn topic(
        &mut self,
        hub: &Rc<Hub>,
        cluster: &Cluster,
        subject: Subject,
        name: &[u8],
    ) -> Name {
        let topics = self.topics.get_mut(cluster.id).and_then(|t| t.get_mut(subject as usize));
        let Some(topics) = topics else { return Name::from(name) };
        if let Some((known, _)) = topics.get_key_value(name) {
            return Rc::clone(known);
        }
        self.last_topic += 1;
        let (name, id) = (Name::from(name), self.last_topic);
        let mut sides = Vec::new();
        for shard in shards_of(cluster, subject, &name) {
            sides.push(Side { shard, confirmed: false });
            let tap = self
                .taps
                .entry((cluster.id, shard))
                .or_insert_with(|| Tap::start(hub, cluster.id, shard));
            tap.topics.set(tap.topics.get() + 1);
            tap.subscribe(subject, &name, id);
        }
        let topic = Topic { id, readers: HashMap::new(), waiting: Vec::new(), held: 0, sides };
        topics.insert(Rc::clone(&name), topic);
        hub.metrics.clusters.get(cluster.id).iter().for_each(|m| m.topics.add(1));
        name
    }

    /// The cluster may have other shards than before: each topic is heard where it is said now.
    pub(super) fn resettle(
        &mut self,
        hub: &Rc<Hub>,
        cluster: &Cluster,
        touched: &mut Vec<Rc<Client>>,
    ) {
        let order = self.orders.get_mut(cluster.id);
        let before = order.and_then(|order| order.replace(Arc::clone(&cluster.order)));
        if before.is_some_and(|before| Arc::ptr_eq(&before, &cluster.order)) {
            return;
        }
        let (taps, id) = (&mut self.taps, cluster.id);
        let mut ready = Vec::new();
        let topics = self.topics.get_mut(id).into_iter().flatten();
        for (subject, topics) in Subject::ALL.into_iter().zip(topics) {
            for (name, topic) in topics {
                let now = shards_of(cluster, subject, name);
                for gone in topic.sides.extract_if(.., |side| !now.contains(&side.shard)) {
                    if let Some(tap) = taps.get(&(id, gone.shard)) {
                        tap.topics.set(tap.topics.get().saturating_sub(1));
                        tap.unsubscribe(subject, name, None);
                    }
                    let place = (hub.worker(), gone.shard);
                    hub.pubsub.audience.hears(id, subject, name, place, false);
                }
                for shard in now {
                    if topic.sides.iter().any(|side| side.shard == shard) {
                        continue;
                    }
                    topic.sides.push(Side { shard, confirmed: false });
                    let tap = taps.entry((id, shard)).or_insert_with(|| Tap::start(hub, id, shard));
                    tap.topics.set(tap.topics.get() + 1);
                    tap.subscribe(subject, name, topic.id);
                }
                if topic.is_confirmed() {
                    ready.append(&mut topic.waiting);
                }
            }
        }
        ready.iter().for_each(|ticket| self.stamp(hub, id, ticket, touched));
    }

    /// At how many servers somebody must be told that a topic is not wanted.
    pub(super) fn heard_at(&self, cluster: usize, subject: Subject, name: &[u8]) -> usize {
        let Some(topic) = self.find(cluster, subject, name).filter(|topic| topic.is_unwanted())
        else {
            return 0;
        };
        let connected = |side: &&Side| {
            self.taps.get(&(cluster, side.shard)).is_some_and(|tap| tap.is_connected())
        };
        topic.sides.iter().filter(connected).count()
    }

    /// Unsubscribes from a topic that nobody wants.
    pub(super) fn let_go(
        &mut self,
        hub: &Hub,
        cluster: usize,
        subject: Subject,
        name: &Name,
        ticket: Option<&Rc<Ticket>>,
    ) {
        let Some(topics) = self.topics.get_mut(cluster).and_then(|t| t.get_mut(subject as usize))
        else {
            return;
        };
        if !topics.get(name).is_some_and(Topic::is_unwanted) {
            return;
        }
        let Some(topic) = topics.remove(name) else { return };
        for side in &topic.sides {
            if let Some(tap) = self.taps.get(&(cluster, side.shard)) {
                tap.topics.set(tap.topics.get().saturating_sub(1));
                tap.unsubscribe(subject, name, ticket);
            }
        }
        hub.metrics.clusters.get(cluster).iter().for_each(|m| m.topics.sub(1));
    }

    /// Makes a client one that is looked after.
    pub(super) fn listen(&mut self, client: &Rc<Client>, cluster: usize) {
        self.listeners.entry(client.id).or_insert_with(|| Listener {
            client: Rc::clone(client),
            cluster,
            names: Default::default(),
            bytes: 0,
            pending: None,
            slow_us: None,
        });
    }

    /// Forgets a client that listens to nothing and waits for nothing.
    pub(super) fn unlisten(&mut self, hub: &Hub, client: &Client) {
        let Some(listener) = self.listeners.get(&client.id) else { return };
        if listener.pending.is_none() && listener.names.iter().all(HashSet::is_empty) {
            client.set_subscriptions(hub, [0; 3], 0);
            self.listeners.remove(&client.id);
        }
    }

    /// The client is told later; until then none of its requests is looked at.
    pub(super) fn wait(&mut self, client: &Client, ticket: Rc<Ticket>) {
        client.wait_for_all();
        if let Some(listener) = self.listeners.get_mut(&client.id) {
            listener.pending = Some(ticket);
        }
    }

    /// One more confirmation for a ticket; with the last one its client is told, unless it was told
    /// already that it took too long.
    pub(super) fn stamp(
        &mut self,
        hub: &Hub,
        cluster: usize,
        ticket: &Rc<Ticket>,
        touched: &mut Vec<Rc<Client>>,
    ) {
        ticket.missing.set(ticket.missing.get().saturating_sub(1));
        if ticket.missing.get() > 0 {
            return;
        }
        let client = &ticket.client;
        let Some(listener) = self.listeners.get_mut(&client.id) else { return };
        if listener.pending.take_if(|pending| Rc::ptr_eq(pending, ticket)).is_none() {
            return;
        }
        match &ticket.wish {
            Wish::Subscribe { subject, names } => {
                let text = self.activate(hub, cluster, client, *subject, names);
                self.hold(cluster, *subject, names, false);
                tell(hub, ticket, &text, touched);
            }
            Wish::Unsubscribe { reply } => {
                tell(hub, ticket, reply, touched);
                self.unlisten(hub, client);
            }
        }
    }

    /// The client of a ticket hears an error instead, and has subscribed to nothing of it.
    pub(super) fn fail(
        &mut self,
        hub: &Hub,
        cluster: usize,
        ticket: &Rc<Ticket>,
        error: &[u8],
        touched: &mut Vec<Rc<Client>>,
    ) {
        let client = &ticket.client;
        let Some(listener) = self.listeners.get_mut(&client.id) else { return };
        if listener.pending.take_if(|pending| Rc::ptr_eq(pending, ticket)).is_none() {
            return;
        }
        self.withdraw(hub, cluster, ticket);
        tell(hub, ticket, error, touched);
        self.unlisten(hub, client);
    }

    /// A ticket for `names` begins to wait, or ends: until then none of them is let go, whoever else
    /// leaves.
    pub(super) fn hold(&mut self, cluster: usize, subject: Subject, names: &[Name], begins: bool) {
        for name in names {
            if let Some(topic) = self.find_mut(cluster, subject, name) {
                topic.held = if begins { topic.held + 1 } else { topic.held.saturating_sub(1) };
            }
        }
    }

    /// Nobody waits for a ticket any more.
    pub(super) fn withdraw(&mut self, hub: &Hub, cluster: usize, ticket: &Rc<Ticket>) {
        let Wish::Subscribe { subject, names } = &ticket.wish else { return };
        self.hold(cluster, *subject, names, false);
        for name in names {
            if let Some(topic) = self.find_mut(cluster, *subject, name) {
                topic.waiting.retain(|waiting| !Rc::ptr_eq(waiting, ticket));
                self.let_go(hub, cluster, *subject, name, None);
            }
        }
    }

    /// From here on the client hears `names`; gives what it is told.
    pub(super) fn activate(
        &mut self,
        hub: &Hub,
        cluster: usize,
        client: &Rc<Client>,
        subject: Subject,
        names: &[Name],
    ) -> Vec<u8> {
        let mut text = Vec::new();
        for name in names {
            let Some(listener) = self.listeners.get_mut(&client.id) else { break };
            let known = listener.names.get_mut(subject as usize);
            if known.is_some_and(|known| known.insert(Rc::clone(name))) {
                listener.bytes += cost(name);
                if let Some(topic) = self.find_mut(cluster, subject, name) {
                    topic.readers.insert(client.id, Rc::clone(client));
                }
                hub.pubsub.audience.join(cluster, subject, name, hub.worker());
                self.recount(hub, cluster, client, subject, true);
            }
            let count = self.counted(client, subject);
            confirm(&mut text, client.resp(), subject.verb(true), Some(name), count);
        }
        text
    }

    /// The client hears `name` no more. False when it did not before.
    pub(super) fn part(
        &mut self,
        hub: &Hub,
        cluster: usize,
        client: &Rc<Client>,
        subject: Subject,
        name: &Name,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(&client.id) else { return false };
        let known = listener.names.get_mut(subject as usize);
        if !known.is_some_and(|known| known.remove(name)) {
            return false;
        }
        listener.bytes = listener.bytes.saturating_sub(cost(name));
        if let Some(topic) = self.find_mut(cluster, subject, name) {
            topic.readers.remove(&client.id);
        }
        hub.pubsub.audience.leave(cluster, subject, name, hub.worker());
        self.recount(hub, cluster, client, subject, false);
        true
    }

    /// A subscription began or ended: the counts follow.
    pub(super) fn recount(
        &self,
        hub: &Hub,
        cluster: usize,
        client: &Client,
        subject: Subject,
        more: bool,
    ) {
        let Some(listener) = self.listeners.get(&client.id) else { return };
        let was = client.is_subscribed();
        client.set_subscriptions(hub, listener.names.each_ref().map(HashSet::len), listener.bytes);
        let Some(metrics) = hub.metrics.clusters.get(cluster) else { return };
        let gauge = match subject {
            Subject::Channel => &metrics.subscribed_channels,
            Subject::Pattern => &metrics.subscribed_patterns,
            Subject::ShardChannel => &metrics.subscribed_shard_channels,
        };
        if more {
            gauge.add(1)
        } else {
            gauge.sub(1)
        }
        match (was, client.is_subscribed()) {
            (false, true) => metrics.subscribers.add(1),
            (true, false) => metrics.subscribers.sub(1),
            _ => {}
        }
    }

    /// The number in a confirmation: shard channels count apart.
    pub(super) fn counted(&self, client: &Client, subject: Subject) -> usize {
        let [channels, patterns, shard_channels] = client.subscriptions();
        match subject {
            Subject::Channel | Subject::Pattern => channels + patterns,
            Subject::ShardChannel => shard_channels,
        }
    }
}

impl Topic {
    pub(super) fn is_confirmed(&self) -> bool {
        self.sides.iter().all(|side| side.confirmed)
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.readers.is_empty() && self.held == 0
    }
}

impl Listener {
    /// Redis's soft limit of subscribers: more than 8 MiB unread for 60 seconds.
    pub(super) fn look_at_backlog(&mut self, now_us: u64) {
        if self.client.pending() < SOFT_LIMIT {
            self.slow_us = None;
        } else if now_us.saturating_sub(*self.slow_us.get_or_insert(now_us)) >= SOFT_US {
            self.client.kill(End::OutputLimit);
        }
    }
}

fn tell(hub: &Hub, ticket: &Ticket, text: &[u8], touched: &mut Vec<Rc<Client>>) {
    let answered = ticket.client.answer(hub, ticket.seq, 0, "", text);
    if answered.is_some_and(|answered| answered.first) {
        touched.push(Rc::clone(&ticket.client));
    }
}

/// What a client is told of one name, or of there being none.
pub(super) fn confirm(
    out: &mut Vec<u8>,
    resp: Resp,
    verb: &str,
    name: Option<&[u8]>,
    count: usize,
) {
    let (head, none): (&[u8], &[u8]) = match resp {
        Resp::Two => (b"*3\r\n", reply::NULL),
        Resp::Three => (b">3\r\n", b"_\r\n"),
    };
    out.extend_from_slice(head);
    wire::bulk(out, verb.as_bytes());
    match name {
        Some(name) => wire::bulk(out, name),
        None => out.extend_from_slice(none),
    }
    wire::integer(out, count);
}

/// Where a topic is heard: a channel at the shard to which it is published, what any of them may
/// say (patterns, and what servers tell of their keys) at all.
pub(super) fn shards_of(cluster: &Cluster, subject: Subject, name: &[u8]) -> Range<usize> {
    let all = match subject {
        Subject::Channel => name.starts_with(b"__key"),
        Subject::Pattern => true,
        Subject::ShardChannel => false,
    };
    if all {
        return 0..cluster.shards.len();
    }
    let shard = route::shard_of(cluster, name);
    shard..shard + 1
}

/// What a subscription takes: its name here and in the process's table, and an entry in the client's
/// set, the topic's, and, of its only subscriber, in the tables of topics.
fn cost(name: &Name) -> usize {
    2 * name.len() + 384
}

/// redis.conf, `client-output-buffer-limit pubsub 32mb 8mb 60`.
const SOFT_LIMIT: usize = 8 * 1024 * 1024;
const SOFT_US: u64 = 60_000_000;
