//! Requests that a server did not execute because another one has their keys, or nobody has all of
//! them yet. They go on by themselves; the client hears what comes of it.
//!
//! Nothing of a session may be overtaken: a request waits until the same session's later requests for
//! its slot, which are under way to the same server, are answered. If they are sent on as well, all
//! follow in their order; if one was executed, those before it are not any more, and say so. What the
//! session sends from then on waits until all of its requests are answered.

use super::{
    pinned,
    turned::{Other, Turned},
    way,
};
use crate::{
    policy::access::Access,
    proto::redis::{
        client::Client,
        entry::{Entry, Owner, Patience},
        failure,
        hub::Hub,
        reply,
        upstream::{Purpose, Upstream},
    },
    topology::Outcome,
};
use std::{rc::Rc, time::Duration};

/// Requests of one connection that wait for those behind them.
#[derive(Debug, Default)]
pub(in crate::proto::redis) struct Detours(Vec<Detour>);

#[derive(Debug)]
pub(super) struct Detour {
    pub(super) client: Rc<Client>,
    pub(super) entry: Entry,
    pub(super) bytes: Vec<u8>,
    pub(super) slot: Option<u16>,
    pub(super) way: Turned,
    /// What the server has said.
    pub(super) words: Vec<u8>,
}

impl Detours {
    pub(in crate::proto::redis) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A server has answered a request with an error. Gives the entry back when that does not mean that
/// another server is to be asked, or was asked often enough.
pub(in crate::proto::redis) fn turned(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    mut entry: Entry,
    error: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Option<Entry> {
    if !upstream.follows {
        return Some(entry);
    }
    let Some(way) = Turned::parse(error, &upstream.backend.address) else { return Some(entry) };
    let mut tried = entry.tried.as_deref().copied().unwrap_or_default();
    let metrics = hub.metrics.clusters.get(upstream.cluster);
    match &way {
        Turned::Moved(other) => {
            metrics.iter().for_each(|m| m.redirects_moved.add(1));
            way::learn(hub, upstream, other);
            tried.hops += 1;
        }
        Turned::Ask(_) => {
            metrics.iter().for_each(|m| m.redirects_ask.add(1));
            tried.hops += 1;
        }
        // After it has written a script can say what it likes, but not where to go.
        Turned::Wait if entry.patience == Patience::Script => return Some(entry),
        Turned::Wait => {
            metrics.iter().for_each(|m| m.redirects_wait.add(1));
            hub.reporter.report(&upstream.backend, Outcome::Moved);
            tried.waits += 1;
            // A slot on its way sends a request to and fro until it has arrived.
            tried.hops = 0;
        }
    }
    if upstream.purpose != Purpose::Shared {
        return pinned::turned(hub, upstream, entry, &way, error, touched);
    }
    if tried.hops > MOST_HOPS || tried.waits > MOST_WAITS {
        return Some(entry);
    }
    entry.tried = Some(Box::new(tried));
    let bytes =
        upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec);
    let Some(bytes) = bytes else { return Some(entry) };
    let slot = way::slot_of(hub, upstream.cluster, &bytes);
    let park = |client: Rc<Client>, entry: Entry| {
        client.wait_for_all();
        let (bytes, way, words) = (bytes.clone(), way.clone(), error.to_vec());
        let detour = Detour { client, entry, bytes, slot, way, words };
        upstream.inner().detours.0.push(detour);
    };
    match entry.owner {
        Owner::Client(ref client) => park(Rc::clone(client), entry),
        // From here on each asks for itself.
        Owner::Flight(flight) => {
            upstream.inner().flights.close(&flight);
            for one in flight.land() {
                let owner = Owner::Client(Rc::clone(&one.client));
                let own = Entry::new(owner, one.seq, entry.access, one.start_us);
                let own = own.at_primary(entry.at_primary).command(entry.command);
                let own = own.read_from(entry.from, entry.newer_than);
                park(one.client, Entry { tried: entry.tried.clone(), ..own });
            }
        }
        Owner::Tombstone | Owner::Commands | Owner::Number | Owner::Functions => {
            return Some(entry);
        }
    }
    None
}

/// A request was executed, or may have been: those of the same session before it can no longer be.
pub(in crate::proto::redis) fn passed(
    hub: &Hub,
    upstream: &Upstream,
    entry: &Entry,
    reply: &[u8],
    touched: &mut Vec<Rc<Client>>,
) {
    let mut inner = upstream.inner();
    let aborted = failure::code(reply) == b"-EXECABORT";
    if inner.detours.is_empty()
        || aborted
        || Turned::parse(reply, &upstream.backend.address).is_some()
    {
        return;
    }
    let bytes = inner.outbox.request(entry.offset, entry.len as usize).unwrap_or_default();
    let slot = way::slot_of(hub, upstream.cluster, bytes);
    let overtaken = |detour: &mut Detour| {
        let reads = entry.access == Access::Read && detour.entry.access == Access::Read;
        !reads && detour.slot == slot && entry.owner.is_of(&detour.client)
    };
    let gone: Vec<Detour> = inner.detours.0.extract_if(.., overtaken).collect();
    drop(inner);
    gone.into_iter().for_each(|detour| refuse(hub, detour, touched));
}

/// The connection is over: what waits for those behind it would overtake what may have been executed.
pub(in crate::proto::redis) fn abandon(
    hub: &Hub,
    upstream: &Upstream,
    touched: &mut Vec<Rc<Client>>,
) {
    let left = std::mem::take(&mut upstream.inner().detours.0);
    left.into_iter().for_each(|detour| refuse(hub, detour, touched));
}

fn refuse(hub: &Hub, detour: Detour, touched: &mut Vec<Rc<Client>>) {
    let mut text = Vec::new();
    reply::overtaken(&mut text, detour.slot.unwrap_or_default());
    tell(hub, detour, &text, touched);
}

fn tell(hub: &Hub, detour: Detour, text: &[u8], touched: &mut Vec<Rc<Client>>) {
    let Detour { client, entry, .. } = detour;
    let answered = client.answer(hub, entry.seq, entry.part, "", text);
    if answered.is_some_and(|answered| answered.first) {
        touched.push(client);
    }
}

/// Sends on what waits for nothing any more.
pub(in crate::proto::redis) fn advance(hub: &Rc<Hub>, upstream: &Rc<Upstream>) {
    let mut inner = upstream.inner();
    if inner.detours.is_empty() {
        return;
    }
    let mut all = std::mem::take(&mut inner.detours.0);
    let waits = |detour: &Detour| {
        inner.fifo.iter().filter(|later| later.owner.is_of(&detour.client)).any(|later| {
            let bytes = inner.outbox.request(later.offset, later.len as usize).unwrap_or_default();
            way::slot_of(hub, upstream.cluster, bytes) == detour.slot
        })
    };
    let ready: Vec<Detour> = all.extract_if(.., |detour| !waits(detour)).collect();
    inner.detours.0 = all;
    drop(inner);
    by_session(ready, |group| release(hub, upstream, group));
}

/// Those of one session for one slot together, in their order.
fn by_session(mut all: Vec<Detour>, mut each: impl FnMut(Vec<Detour>)) {
    while let Some(first) = all.first() {
        let (client, slot) = (Rc::clone(&first.client), first.slot);
        let alike = |one: &mut Detour| one.slot == slot && Rc::ptr_eq(&one.client, &client);
        each(all.extract_if(.., alike).collect());
    }
}

/// Sends requests of one session for one slot on, in their order: where they were all sent, or, when
/// they were sent to several places, to its owner again. To a server that is asked for keys which the
/// owner may still have nothing may be sent that the owner has not sent there itself.
pub(super) fn release(hub: &Rc<Hub>, upstream: &Rc<Upstream>, group: Vec<Detour>) {
    let Some(last) = group.last() else { return };
    let asking = matches!(last.way, Turned::Ask(_));
    let target = match &last.way {
        way if group.iter().any(|detour| detour.way != *way) => None,
        Turned::Moved(Other { address: Some(to), .. })
        | Turned::Ask(Other { address: Some(to), .. }) => way::cluster_of(hub, upstream)
            .and_then(|cluster| way::to_address(hub, &cluster, to, upstream.class)),
        Turned::Moved(_) | Turned::Ask(_) | Turned::Wait => None,
    };
    match target {
        Some(target) => {
            if hub.is_proven(upstream.backend.id) {
                // The servers of a cluster are alike.
                hub.prove(target.backend.id);
            }
            send(hub, group, &target, asking);
        }
        None => wait(hub, upstream, group),
    }
}

fn send(hub: &Hub, group: Vec<Detour>, target: &Upstream, asking: bool) {
    for Detour { entry, bytes, .. } in group {
        if asking {
            target.send_unheard(hub, ASKING);
        }
        target.send_owned(hub, entry, bytes);
    }
}

/// Tries again in a moment: by then the servers may agree.
fn wait(hub: &Rc<Hub>, upstream: &Rc<Upstream>, group: Vec<Detour>) {
    let waits = |detour: &Detour| detour.entry.tried.as_ref().map_or(0, |tried| tried.waits);
    let most = group.iter().map(waits).max().unwrap_or_default();
    let pause = FIRST_PAUSE.saturating_mul(1 << most.min(6)).min(LONGEST_PAUSE);
    let (this, upstream) = (Rc::clone(hub), Rc::clone(upstream));
    hub.start(async move {
        tokio::time::sleep(pause).await;
        again(&this, &upstream, group);
    });
}

fn again(hub: &Rc<Hub>, upstream: &Rc<Upstream>, mut group: Vec<Detour>) {
    let mut touched = Vec::new();
    let timeout_us = upstream.timeouts.request.as_micros();
    let now_us = hub.now_us();
    let late = |detour: &mut Detour| {
        let age = u128::from(now_us.saturating_sub(detour.entry.start_us));
        let waits = detour.entry.tried.as_ref().map_or(0, |tried| tried.waits);
        waits > MOST_WAITS || timeout_us > 0 && age >= timeout_us
    };
    let gone: Vec<Detour> = group.extract_if(.., late).collect();
    for detour in gone {
        let words = detour.words.clone();
        tell(hub, detour, &words, &mut touched);
    }
    touched.into_iter().for_each(|client| client.flush(hub));
    let writes = |one: &&Detour| one.entry.at_primary || one.entry.access == Access::Write;
    let Some(decides) = group.iter().find(writes).or_else(|| group.first()) else { return };
    let target = way::cluster_of(hub, upstream).and_then(|cluster| {
        way::by_table(hub, &cluster, decides.slot?, &decides.entry, upstream.class)
    });
    match target {
        Some(target) => send(hub, group, &target, false),
        None => {
            for detour in &mut group {
                let mut tried = detour.entry.tried.as_deref().copied().unwrap_or_default();
                tried.waits += 1;
                detour.entry.tried = Some(Box::new(tried));
            }
            wait(hub, upstream, group);
        }
    }
}

pub(super) const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
/// redis.md, T18.
pub(super) const MOST_HOPS: u8 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Some three seconds in all.
const MOST_WAITS: u8 = 34;
