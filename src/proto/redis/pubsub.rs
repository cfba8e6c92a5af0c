//! What the clients of one worker have subscribed to, and who gets a message. Not the commands:
//! those are [`super::subscribe`]; nor the connections on which messages come: [`super::tap`].
//!
//! A client is told that it is subscribed once the servers have confirmed it, and hears no message
//! before. Until then its request has a [`Ticket`].

use super::{
    audience::{Audience, Subject},
    client::Client,
    hub::Hub,
    reply,
    tap::{Asked, Tap},
    topics::{Name, Ticket, Topic, Topics, Wish, confirm, shards_of},
};
use crate::topology::Cluster;
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

/// All subscriptions of one worker.
#[derive(Debug)]
pub(super) struct PubSub {
    pub(super) audience: Arc<Audience>,
    inner: RefCell<Topics>,
}

impl PubSub {
    pub(super) fn new(audience: Arc<Audience>, clusters: usize) -> Self {
        Self { audience, inner: RefCell::new(Topics::new(clusters)) }
    }

    /// A shard of which a subscription to one of `names` would need a connection that is not there.
    pub(super) fn missing_shard<'a>(
        &self,
        cluster: &Cluster,
        subject: Subject,
        names: impl Iterator<Item = &'a [u8]>,
        is_served: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let inner = self.inner.borrow();
        let connected = |shard| {
            let tap = inner.taps.get(&(cluster.id, shard));
            tap.is_some_and(|tap| tap.is_connected())
        };
        let mut shards = names.flat_map(|name| shards_of(cluster, subject, name));
        shards.find(|shard| !connected(*shard) && !is_served(*shard))
    }

    /// What is to be heard from a shard: subject, name and id of each topic.
    pub(super) fn topics_of(&self, cluster: usize, shard: usize) -> Vec<(Subject, Name, u64)> {
        let inner = self.inner.borrow();
        let mut found = Vec::new();
        for (subject, topics) in Subject::ALL.into_iter().zip(inner.of_cluster(cluster)) {
            for (name, topic) in topics {
                if topic.sides.iter().any(|side| side.shard == shard) {
                    found.push((subject, Rc::clone(name), topic.id));
                }
            }
        }
        found
    }

    /// A tap ended, for nobody wants it.
    pub(super) fn forget(&self, tap: &Rc<Tap>) {
        let mut inner = self.inner.borrow_mut();
        let key = (tap.cluster, tap.shard);
        if inner.taps.get(&key).is_some_and(|known| Rc::ptr_eq(known, tap)) {
            inner.taps.remove(&key);
        }
    }

    /// A tap's task panicked: another one takes its topics.
    pub(super) fn replace(&self, hub: &Rc<Hub>, tap: &Rc<Tap>) {
        self.forget(tap);
        let topics = tap.topics.get();
        if topics > 0 {
            let fresh = Tap::start(hub, tap.cluster, tap.shard);
            fresh.topics.set(topics);
            self.inner.borrow_mut().taps.insert((tap.cluster, tap.shard), fresh);
        }
    }
}

/// Subscribes a client that has nothing else under way: gives what it is to be told now; `None` when
/// it is told once the servers have confirmed.
pub(super) fn subscribe(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    client: &Rc<Client>,
    subject: Subject,
    names: &[&[u8]],
    asked: usize,
) -> Option<Vec<u8>> {
    let mut inner = hub.pubsub.inner.borrow_mut();
    let inner = &mut *inner;
    inner.listen(client, cluster.id);
    let names: Vec<Name> =
        names.iter().map(|name| inner.topic(hub, cluster, subject, name)).collect();
    let waits = |inner: &Topics, name: &Name| {
        inner.find(cluster.id, subject, name).is_some_and(|topic| !topic.is_confirmed())
    };
    let mut unconfirmed: Vec<&Name> = names.iter().filter(|name| waits(inner, name)).collect();
    unconfirmed.sort_unstable();
    unconfirmed.dedup();
    if unconfirmed.is_empty() {
        return Some(inner.activate(hub, cluster.id, client, subject, &names));
    }
    let ticket = Rc::new(Ticket {
        client: Rc::clone(client),
        seq: client.open(asked),
        missing: Cell::new(unconfirmed.len()),
        wish: Wish::Subscribe { subject, names: names.clone() },
        deadline_us: deadline(hub, cluster),
    });
    for name in unconfirmed {
        if let Some(topic) = inner.find_mut(cluster.id, subject, name) {
            topic.waiting.push(Rc::clone(&ticket));
        }
    }
    inner.hold(cluster.id, subject, &names, true);
    inner.wait(client, ticket);
    None
}

/// Unsubscribes a client that has nothing else under way from `names`, or from all of `subject`;
/// what it gives is that of [`subscribe`].
pub(super) fn unsubscribe(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    client: &Rc<Client>,
    subject: Subject,
    names: Option<&[&[u8]]>,
    asked: usize,
) -> Option<Vec<u8>> {
    let mut inner = hub.pubsub.inner.borrow_mut();
    let inner = &mut *inner;
    let names: Vec<Name> = match names {
        Some(names) => names.iter().map(|name| Name::from(*name)).collect(),
        None => {
            let listener = inner.listeners.get(&client.id);
            let known = listener.and_then(|listener| listener.names.get(subject as usize));
            known.into_iter().flatten().map(Rc::clone).collect()
        }
    };
    let mut gone = Vec::new();
    let mut text = Vec::new();
    if names.is_empty() {
        confirm(
            &mut text,
            client.resp(),
            subject.verb(false),
            None,
            inner.counted(client, subject),
        );
    }
    for name in &names {
        if inner.part(hub, cluster.id, client, subject, name) {
            gone.push(Rc::clone(name));
        }
        let count = inner.counted(client, subject);
        confirm(&mut text, client.resp(), subject.verb(false), Some(name), count);
    }
    let missing: usize = gone.iter().map(|name| inner.heard_at(cluster.id, subject, name)).sum();
    if missing == 0 {
        gone.iter().for_each(|name| inner.let_go(hub, cluster.id, subject, name, None));
        inner.unlisten(hub, client);
        return Some(text);
    }
    let ticket = Rc::new(Ticket {
        client: Rc::clone(client),
        seq: client.open(asked),
        missing: Cell::new(missing),
        wish: Wish::Unsubscribe { reply: text },
        deadline_us: deadline(hub, cluster),
    });
    for name in &gone {
        inner.let_go(hub, cluster.id, subject, name, Some(&ticket));
    }
    inner.listen(client, cluster.id);
    inner.wait(client, ticket);
    None
}

/// Ends all subscriptions of a client, and what it waits for: it has left, or asked for RESET.
pub(super) fn leave(hub: &Rc<Hub>, client: &Rc<Client>) {
    let mut inner = hub.pubsub.inner.borrow_mut();
    let inner = &mut *inner;
    let Some(listener) = inner.listeners.get_mut(&client.id) else { return };
    let cluster = listener.cluster;
    let names = listener.names.clone();
    if let Some(ticket) = listener.pending.take() {
        inner.withdraw(hub, cluster, &ticket);
    }
    if client.was_too_slow() {
        let metrics = hub.metrics.clusters.get(cluster);
        metrics.iter().for_each(|m| m.subscribers_dropped.add(1));
    }
    for (subject, names) in Subject::ALL.into_iter().zip(names) {
        for name in names {
            if inner.part(hub, cluster, client, subject, &name) {
                inner.let_go(hub, cluster, subject, &name, None);
            }
        }
    }
    inner.unlisten(hub, client);
}

/// Passes a message on to all who listen to `topic`.
pub(super) fn deliver(
    hub: &Hub,
    tap: &Tap,
    subject: Subject,
    topic: &[u8],
    frame: &[u8],
    touched: &mut Vec<Rc<Client>>,
) {
    let inner = hub.pubsub.inner.borrow();
    // Who has just left may still be sent some.
    let Some(topic) = inner.find(tap.cluster, subject, topic) else { return };
    let mut delivered = 0;
    for client in topic.readers.values() {
        if let Some(first) = client.message(hub, frame) {
            delivered += 1;
            if first {
                touched.push(Rc::clone(client));
            }
        }
    }
    let metrics = hub.metrics.clusters.get(tap.cluster);
    metrics.iter().for_each(|m| m.messages.add(delivered));
}

/// The server has done what it was asked.
pub(super) fn answered(hub: &Rc<Hub>, tap: &Tap, asked: Asked, touched: &mut Vec<Rc<Client>>) {
    let place = (hub.worker(), tap.shard);
    let mut inner = hub.pubsub.inner.borrow_mut();
    match asked {
        Asked::Subscribe { subject, name, topic: id, .. } => {
            hub.pubsub.audience.hears(tap.cluster, subject, &name, place, true);
            let topic = inner.find_mut(tap.cluster, subject, &name).filter(|topic| topic.id == id);
            let Some(topic) = topic else { return };
            let side = topic.sides.iter_mut().find(|side| side.shard == tap.shard);
            side.into_iter().for_each(|side| side.confirmed = true);
            if topic.is_confirmed() {
                for ticket in std::mem::take(&mut topic.waiting) {
                    inner.stamp(hub, tap.cluster, &ticket, touched);
                }
            }
        }
        Asked::Unsubscribe { subject, name, ticket } => {
            hub.pubsub.audience.hears(tap.cluster, subject, &name, place, false);
            if let Some(ticket) = ticket {
                inner.stamp(hub, tap.cluster, &ticket, touched);
            }
        }
        Asked::Ping => {}
    }
}

/// The server refuses what it was asked, in these words.
pub(super) fn refused(
    hub: &Rc<Hub>,
    tap: &Tap,
    asked: Asked,
    text: &[u8],
    touched: &mut Vec<Rc<Client>>,
) {
    let Asked::Subscribe { subject, name, topic: id, .. } = asked else {
        return answered(hub, tap, asked, touched);
    };
    let mut inner = hub.pubsub.inner.borrow_mut();
    let topic = inner.find_mut(tap.cluster, subject, &name).filter(|topic| topic.id == id);
    let Some(topic) = topic else { return };
    if !topic.readers.is_empty() {
        tracing::warn!(
            cluster = tap.cluster,
            "a server refuses a subscription that clients have: {}; they miss its messages",
            reply::printable(text)
        );
    }
    let mut error = Vec::new();
    reply::raw_error(&mut error, text);
    for ticket in std::mem::take(&mut topic.waiting) {
        inner.fail(hub, tap.cluster, &ticket, &error, touched);
    }
}

/// A connection is lost: nothing is heard from its shard until there is another one.
pub(super) fn lost(hub: &Rc<Hub>, tap: &Tap, asked: VecDeque<Asked>) {
    let mut touched = Vec::new();
    {
        let mut inner = hub.pubsub.inner.borrow_mut();
        let inner = &mut *inner;
        let (audience, place) = (&hub.pubsub.audience, (hub.worker(), tap.shard));
        for (subject, topics) in Subject::ALL.into_iter().zip(inner.of_cluster_mut(tap.cluster)) {
            for (name, topic) in topics {
                let side = topic.sides.iter_mut().find(|side| side.shard == tap.shard);
                if let Some(side) = side.filter(|side| side.confirmed) {
                    side.confirmed = false;
                    audience.hears(tap.cluster, subject, name, place, false);
                }
            }
        }
        for asked in asked {
            // What is asked to end may be confirmed on the server's side and in no table of ours.
            if let Asked::Unsubscribe { subject, name, ticket } = asked {
                audience.hears(tap.cluster, subject, &name, place, false);
                if let Some(ticket) = ticket {
                    inner.stamp(hub, tap.cluster, &ticket, &mut touched);
                }
            }
        }
    }
    touched.into_iter().for_each(|client| client.flush(hub));
}

/// Nobody can be heard at a shard now: who waits for it is told why.
pub(super) fn unreachable(hub: &Rc<Hub>, tap: &Tap, text: &str) {
    let mut error = Vec::new();
    reply::cluster_down(&mut error, text);
    let mut touched = Vec::new();
    {
        let mut inner = hub.pubsub.inner.borrow_mut();
        let topics = inner.of_cluster_mut(tap.cluster).iter_mut().flat_map(HashMap::values_mut);
        let here = |topic: &&mut Topic| topic.sides.iter().any(|side| side.shard == tap.shard);
        let waiting: Vec<Rc<Ticket>> =
            topics.filter(here).flat_map(|topic| std::mem::take(&mut topic.waiting)).collect();
        for ticket in waiting {
            inner.fail(hub, tap.cluster, &ticket, &error, &mut touched);
        }
    }
    touched.into_iter().for_each(|client| client.flush(hub));
}

/// A server has ended the subscription to a shard channel, for its slot has moved.
pub(super) fn taken_away(hub: &Rc<Hub>, tap: &Rc<Tap>, name: &[u8]) {
    let (subject, place) = (Subject::ShardChannel, (hub.worker(), tap.shard));
    let mut inner = hub.pubsub.inner.borrow_mut();
    let Some(topic) = inner.find_mut(tap.cluster, subject, name) else { return };
    hub.pubsub.audience.hears(tap.cluster, subject, name, place, false);
    topic.sides.iter_mut().for_each(|side| side.confirmed = false);
    tap.subscribe(subject, &Name::from(name), topic.id);
}

/// What time brings, once a second.
pub(super) fn tick(hub: &Rc<Hub>, now_us: u64) {
    let mut touched = Vec::new();
    {
        let mut inner = hub.pubsub.inner.borrow_mut();
        let late: Vec<(usize, Rc<Ticket>)> = inner
            .listeners
            .values()
            .filter_map(|listener| Some((listener.cluster, listener.pending.clone()?)))
            .filter(|(_, ticket)| ticket.deadline_us <= now_us)
            .collect();
        for (cluster, ticket) in late {
            let error = match &ticket.wish {
                Wish::Subscribe { .. } => reply::SUBSCRIBE_TIMED_OUT,
                Wish::Unsubscribe { reply } => reply,
            };
            inner.fail(hub, cluster, &ticket, error, &mut touched);
        }
        for listener in inner.listeners.values_mut() {
            listener.look_at_backlog(now_us);
        }
        let mut topology = hub.topology();
        for tap in inner.taps.values() {
            if let Some(cluster) = topology.snapshot().clusters.get(tap.cluster) {
                tap.tick(now_us, cluster.timeouts.stall);
            }
        }
    }
    touched.into_iter().for_each(|client| client.flush(hub));
}

/// A gate, a role or the snapshot has changed.
pub(super) fn gates_changed(hub: &Rc<Hub>) {
    let snapshot = Arc::clone(hub.topology().snapshot());
    let mut touched = Vec::new();
    {
        let mut inner = hub.pubsub.inner.borrow_mut();
        for cluster in &snapshot.clusters {
            inner.resettle(hub, cluster, &mut touched);
        }
        for tap in inner.taps.values() {
            tap.look(snapshot.clusters.get(tap.cluster).map(Arc::as_ref));
        }
    }
    touched.into_iter().for_each(|client| client.flush(hub));
}

/// When a request that comes now is given up.
fn deadline(hub: &Hub, cluster: &Cluster) -> u64 {
    match u64::try_from(cluster.timeouts.request.as_micros()).unwrap_or(u64::MAX) {
        0 => u64::MAX,
        timeout => hub.now_us().saturating_add(timeout),
    }
}

#[cfg(test)]
mod tests;
