//! Coalescing: equal GETs under way on one connection are asked once, and everybody who waits gets the
//! same bytes. Not when a cluster wants that: that is its `coalesce`.
//!
//! Nobody notices but by the time it takes, for the order of a session holds: each flight has a stamp
//! that counts up in the worker, and a session joins none that began before its own last request was
//! sent. So no flight that it joins can be older than a write of its own, nor than a read whose reply
//! it may know.

use super::{
    client::{Answered, Client, End},
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    hub::Hub,
    reading,
    session::Settings,
    table::Command,
    tally::{Settled, requests},
    upstream::Upstream,
};
use crate::{policy::access::Access, topology::Cluster};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

/// One GET under way, and who waits for it.
#[derive(Debug)]
pub struct Flight {
    key: Rc<[u8]>,
    stamp: u64,
    /// By the clock of what reads promise.
    began_ms: u64,
    waiters: RefCell<Vec<Waiter>>,
}

/// One of them, the one that was asked first at the front.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub client: Rc<Client>,
    pub seq: u32,
    pub start_us: u64,
}

/// The flights of one connection that may be joined.
#[derive(Debug, Default)]
pub(super) struct Flights {
    open: HashMap<Rc<[u8]>, Rc<Flight>>,
    /// Keys whose values were passed on piece by piece: a slow reader of such a value must hold up
    /// nobody, so each client asks for itself.
    long: VecDeque<Rc<[u8]>>,
}

/// Counts the flights of a worker.
#[derive(Debug, Default)]
pub(super) struct Stamps(Cell<u64>);

impl Stamps {
    /// What the next flight will have.
    pub(super) fn next(&self) -> u64 {
        self.0.get()
    }

    fn take(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }
}

/// Whether requests of this command are equal when their one key is.
pub(super) fn fits(command: &Command, frame: &[u8]) -> bool {
    command.name == "GET" && frame.len() < LONGEST_REQUEST
}

/// Whether a cluster's GETs are asked once here. Who has a connection of its own, or waits for each
/// shard, is not to be told by others.
pub(super) fn coalesces(hub: &Hub, settings: &Settings, cluster: &Cluster) -> bool {
    hub.insight.options(cluster.id).coalesce
        && !cluster.dedicated.always
        && !settings.strict_order
        && reading::may_coalesce(cluster)
}

/// Asks for `key`, or waits for the reply to whoever asks for it already.
pub(super) fn get(
    scene: &mut Scene<'_>,
    shard: usize,
    command: &Command,
    key: &[u8],
    frame: &[u8],
) -> Flow {
    let at_primary = !command.replica_ok;
    let Some(backend) = scene.pick(shard, Access::Read, at_primary) else {
        return scene.not_served(shard, Access::Read, at_primary);
    };
    if scene.is_turned_since(backend) {
        return Flow::Hold;
    }
    let hub = scene.hub;
    let (now_ms, newer_than) = scene.flight_times();
    let waiter = Waiter {
        client: Rc::clone(scene.client),
        seq: scene.client.open(frame.len()),
        start_us: scene.now_us,
    };
    // What went over a connection of its own may have been executed after any flight there is.
    let sent = scene.state.sent.unwrap_or_else(|| hub.stamps.next());
    let stamp = hub.upstream(scene.cluster, backend, scene.state.class, |upstream| {
        let joined = upstream.inner().flights.join(key, sent, newer_than, &waiter);
        if let Some(stamp) = joined {
            if let Some(metrics) = hub.metrics.clusters.get(upstream.cluster) {
                metrics.coalesced.add(1);
            }
            return stamp;
        }
        let seq = waiter.seq;
        let owner = upstream.inner().flights.begin(hub, key, waiter, now_ms);
        let entry = Entry::new(owner, seq, Access::Read, scene.now_us)
            .at_primary(at_primary)
            .command(command.index);
        let entry = scene.as_read(entry);
        upstream.send(hub, entry, |out| out.extend_from_slice(frame));
        hub.stamps.next().saturating_sub(1)
    });
    scene.state.sent = Some(stamp);
    Flow::Continue
}

impl Flights {
    /// Lets somebody who sent nothing since the stamp `sent` wait for a flight that is there and began
    /// after the last write to the key that is known of; its stamp.
    fn join(&self, key: &[u8], sent: u64, newer_than: u64, waiter: &Waiter) -> Option<u64> {
        let fits = |flight: &&Rc<Flight>| flight.stamp >= sent && flight.began_ms > newer_than;
        let flight = self.open.get(key).filter(fits)?;
        let mut waiters = flight.waiters.borrow_mut();
        if waiters.len() >= MOST_WAITERS {
            return None;
        }
        waiters.push(waiter.clone());
        Some(flight.stamp)
    }

    /// Begins one that others may join; a value known to be long has its asker alone.
    fn begin(&mut self, hub: &Hub, key: &[u8], waiter: Waiter, began_ms: u64) -> Owner {
        let stamp = hub.stamps.take();
        if self.long.iter().any(|long| **long == *key) {
            return Owner::Client(waiter.client);
        }
        let key: Rc<[u8]> = key.into();
        let waiters = RefCell::new(vec![waiter]);
        let flight = Rc::new(Flight { key: Rc::clone(&key), stamp, began_ms, waiters });
        self.open.insert(key, Rc::clone(&flight));
        Owner::Flight(flight)
    }

    /// Nobody joins it any more. A newer one for the same key stays.
    pub(super) fn close(&mut self, flight: &Rc<Flight>) {
        if self.open.get(&flight.key).is_some_and(|open| Rc::ptr_eq(open, flight)) {
            self.open.remove(&flight.key);
        }
    }

    /// As [`Self::close`], of one whose reply is long.
    pub(super) fn close_long(&mut self, flight: &Rc<Flight>) {
        self.close(flight);
        if !self.long.contains(&flight.key) {
            self.long.truncate(MOST_LONG - 1);
            self.long.push_front(Rc::clone(&flight.key));
        }
    }

    /// Long values may have become short ones; called every ten seconds.
    pub(super) fn forget_long(&mut self) {
        self.long.clear();
    }
}

impl Flight {
    /// Who waits, each once and the oldest first; nobody does any more.
    pub(super) fn land(&self) -> Vec<Waiter> {
        self.waiters.take()
    }

    /// Those who have waited so long, in microseconds, and since when the others do.
    pub(super) fn expire(&self, now_us: u64, timeout_us: u128) -> (Vec<Waiter>, Option<u64>) {
        let mut waiters = self.waiters.borrow_mut();
        let waits = |one: &Waiter| u128::from(now_us.saturating_sub(one.start_us)) < timeout_us;
        let (rest, expired) = waiters.drain(..).partition(waits);
        *waiters = rest;
        (expired, waiters.first().map(|one| one.start_us))
    }

    /// Whether that is one of them.
    pub(super) fn has(&self, client: &Rc<Client>) -> bool {
        self.waiters.borrow().iter().any(|one| Rc::ptr_eq(&one.client, client))
    }

    /// Whether everybody takes the reply piece by piece.
    pub(super) fn takes_pieces(&self) -> bool {
        self.waiters.borrow().iter().all(|one| one.client.takes_pieces(one.seq))
    }

    /// Passes on a piece to everybody.
    pub(super) fn stream(&self, hub: &Hub, bytes: &[u8]) {
        self.waiters.borrow().iter().for_each(|one| one.client.stream(hub, bytes));
    }

    /// Who waits.
    pub(super) fn clients(&self) -> Vec<Rc<Client>> {
        self.waiters.borrow().iter().map(|one| Rc::clone(&one.client)).collect()
    }

    /// Those with more than `backlog` bytes that they have not read.
    pub(super) fn slow(&self, backlog: usize) -> Vec<Rc<Client>> {
        let mut clients = self.clients();
        clients.retain(|client| client.backlog() > backlog);
        clients
    }

    /// As [`Client::wait_for_all`], of everybody.
    pub(super) fn wait_for_all(&self) {
        self.waiters.borrow().iter().for_each(|one| one.client.wait_for_all());
    }

    /// Half of a reply cannot be mended.
    pub(super) fn cut(&self) {
        self.land().iter().for_each(|one| one.client.kill(End::ReplyCut));
    }
}

/// Everybody gets the reply. The first one is counted by the caller, as any request.
pub(super) fn settle(
    hub: &Hub,
    upstream: &Upstream,
    flight: &Rc<Flight>,
    reply: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Settled {
    upstream.inner().flights.close(flight);
    let failed = reply.first() == Some(&b'-');
    let now_us = hub.now_us();
    let mut first = Settled::No;
    for (n, waiter) in flight.land().into_iter().enumerate() {
        let shard = &upstream.backend.shard;
        let answered = waiter.client.answer(hub, waiter.seq, 0, shard, reply);
        if n == 0 && answered.is_some() {
            first = if failed { Settled::Failed } else { Settled::Ok };
        } else if answered.is_some()
            && let Some(metrics) = hub.metrics.clusters.get(upstream.cluster)
        {
            let metrics = requests(metrics, Access::Read);
            let counter = if failed { &metrics.backend_errors } else { &metrics.ok };
            counter.add(1);
            metrics.duration.observe(now_us.saturating_sub(waiter.start_us), 1);
        }
        if matches!(answered, Some(Answered { first: true, .. })) {
            touched.push(waiter.client);
        }
    }
    first
}

/// A longer request is forwarded without a copy of its key.
const LONGEST_REQUEST: usize = 4 * 1024;
/// Whoever comes later begins the next flight.
const MOST_WAITERS: usize = 4 * 1024;
const MOST_LONG: usize = 64;

#[cfg(test)]
mod tests {
    use crate::{
        policy::{gate::Passive, reads::ReadFrom},
        proto::redis::stage::Stage,
    };

    #[tokio::test(start_paused = true)]
    async fn who_sent_nothing_since_joins_and_who_did_asks_anew() {
        let stage = Stage::coalescing(1, ReadFrom::Primary);
        let (mut first, mut joins, mut writes, mut reads) =
            (stage.client(), stage.client(), stage.client(), stage.client());
        first.say("GET k\r\n");
        stage.settle().await;
        let mut server = stage.accept(0);
        assert_eq!(server.heard().matches("GET").count(), 1);
        joins.say("GET k\r\nGET k\r\n");
        stage.settle().await;
        assert_eq!(server.heard(), "");
        writes.say("SET a 1\r\nGET k\r\n");
        stage.settle().await;
        assert_eq!(server.heard().matches("GET").count(), 1, "it wrote something");
        // The newest one may be joined by whoever sent something before it began.
        reads.say("GET other\r\n");
        stage.settle().await;
        assert_eq!(server.heard().matches("GET").count(), 1);
        first.say("GET k\r\n");
        reads.say("GET k\r\n");
        stage.settle().await;
        assert_eq!(server.heard().matches("GET").count(), 1, "for the one that read another");
        server.say("+1\r\n+OK\r\n+2\r\n+o\r\n+3\r\n");
        stage.settle().await;
        assert_eq!(joins.heard(), "+1\r\n+1\r\n");
        assert_eq!(writes.heard(), "+OK\r\n+2\r\n");
        assert_eq!(reads.heard(), "+o\r\n+3\r\n");
        assert_eq!(first.heard(), "+1\r\n+2\r\n");
    }

    /// What went over its own connection was executed after the GET that is still under way.
    #[tokio::test(start_paused = true)]
    async fn who_comes_back_from_a_connection_of_its_own_asks_anew() {
        let stage = Stage::coalescing(1, ReadFrom::Primary);
        let (mut other, mut watches) = (stage.client(), stage.client());
        watches.say("WATCH k\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        own.say("+OK\r\n");
        stage.settle().await;
        other.say("GET k\r\n");
        stage.settle().await;
        let mut shared = stage.accept(0);
        assert_eq!(shared.heard().matches("GET").count(), 1);
        watches.say("SET k 2\r\n");
        stage.settle().await;
        own.say("+OK\r\n");
        watches.say("UNWATCH\r\n");
        stage.settle().await;
        own.say("+OK\r\n");
        stage.settle().await;
        assert_eq!(watches.heard(), "+OK\r\n+OK\r\n+OK\r\n");
        watches.say("GET k\r\n");
        stage.settle().await;
        assert_eq!(shared.heard().matches("GET").count(), 1, "not the one from before its SET");
        shared.say("+1\r\n+2\r\n");
        stage.settle().await;
        assert_eq!([other.heard(), watches.heard()], ["+1\r\n", "+2\r\n"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_moves_to_another_backend_with_all_who_wait() {
        let stage = Stage::coalescing(2, ReadFrom::PreferReplica);
        let mut clients = [stage.client(), stage.client(), stage.client()];
        clients.iter_mut().for_each(|client| client.say("GET k\r\n"));
        stage.settle().await;
        let mut replica = stage.accept(1);
        assert_eq!(replica.heard().matches("GET").count(), 1);
        stage.set_replica(1, Passive::Ejected);
        drop(replica);
        stage.settle().await;
        let mut primary = stage.accept(0);
        assert_eq!(primary.heard().matches("GET").count(), 1);
        primary.say("$1\r\nv\r\n");
        stage.settle().await;
        for client in &mut clients {
            assert_eq!(client.heard(), "$1\r\nv\r\n");
        }
        let metrics = &stage.hub.metrics.clusters[0];
        assert_eq!((metrics.reads.ok.get(), metrics.coalesced.get()), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_not_missed() {
        let stage = Stage::coalescing(1, ReadFrom::Primary);
        let (mut stays, mut leaves) = (stage.client(), stage.client());
        leaves.say("GET k\r\n");
        stays.say("GET k\r\n");
        stage.settle().await;
        let mut server = stage.accept(0);
        drop(leaves);
        stage.settle().await;
        let long = format!("${}\r\n{}\r\n", 100_000, "x".repeat(100_000));
        server.heard();
        server.say(&long[..80_000]);
        stage.settle().await;
        server.say(&long[80_000..]);
        stage.settle().await;
        assert_eq!(stays.heard().len(), long.len());
    }
}
