//! Requests that a connection has given back, of which no server has executed anything, while their
//! shard has no primary that can be reached: they wait in their order until one can, and their
//! clients' later requests behind them. Not requests that were never given to a connection: see
//! [`super::failover`].

use super::{
    class::Class,
    client::Client,
    entry::{Entry, Owner, Tried},
    failover::may_change,
    failure,
    hub::Hub,
    upstream::{Purpose, Upstream},
};
use crate::{
    policy::{access::Access, reads::ReadFrom, retry::MAX_RETRIES},
    topology::{Backend, Cluster, Shard, pick},
};
use foldhash::{HashSet, HashSetExt};
use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit as Permit;

/// Those of one worker, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lot(RefCell<VecDeque<Parked>>);

/// One request.
#[derive(Debug)]
struct Parked {
    entry: Entry,
    bytes: Vec<u8>,
    class: Class,
    /// Where it was.
    upstream: Rc<Upstream>,
    /// What its client hears if no primary comes.
    why: Vec<u8>,
    _place: Permit,
}

/// Keeps a request that was not executed until its shard has a primary again; `why` is what its
/// client hears if that takes too long.
///
/// # Errors
/// The request, when it cannot wait, and why not is for its client.
pub(super) fn park(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    entry: Entry,
    why: &[u8],
) -> Result<(), Entry> {
    let is_asked = matches!(entry.owner, Owner::Client(_) | Owner::Flight(_));
    // What was sent behind it may be executed before it.
    let is_followed = entry.owner.clients().iter().any(|client| upstream.has_more_of(client));
    if upstream.purpose != Purpose::Shared || !is_asked || entry.streamed || is_followed {
        return Err(entry);
    }
    let mut topology = hub.topology();
    let snapshot = topology.snapshot();
    let Some((cluster, shard)) = place(&snapshot.clusters, upstream) else { return Err(entry) };
    let is_replicas =
        entry.access == Access::Read && entry.source(cluster.reads) != ReadFrom::Primary;
    let waited = Duration::from_micros(hub.now_us().saturating_sub(entry.start_us));
    if is_replicas || !may_change(shard) || waited >= cluster.outage.wait {
        return Err(entry);
    }
    let bytes =
        upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec);
    let place = Arc::clone(&cluster.heirs).try_acquire_owned();
    let (Some(bytes), Ok(place)) = (bytes, place) else { return Err(entry) };
    hub.charge(0, bytes.len());
    entry.owner.clients().iter().for_each(|client| client.begin_detour());
    let (upstream, class) = (Rc::clone(upstream), upstream.class);
    let parked = Parked { entry, bytes, class, upstream, why: why.to_vec(), _place: place };
    hub.parked.0.borrow_mut().push_back(parked);
    Ok(())
}

/// A server said of a write that it is not fit to execute it: another one, or the same one later,
/// will be. Not when requests of the same client came behind it, which that server may have executed
/// by now.
///
/// # Errors
/// The request, when its client is to hear the error.
pub(super) fn reroute(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    entry: Entry,
    error: &[u8],
) -> Result<(), Entry> {
    // Of a command that nobody knows an error does not say that it was not executed.
    if entry.block.is_some() || entry.command == u16::MAX {
        return Err(entry);
    }
    park(hub, upstream, entry, error)
}

/// Sends what has a primary now, in its order, and answers what has waited too long. Called when a
/// gate has changed, and some twenty times a second.
pub(super) fn settle(hub: &Rc<Hub>) {
    if hub.parked.0.borrow().is_empty() {
        return;
    }
    let now_us = hub.now_us();
    let waiting = std::mem::take(&mut *hub.parked.0.borrow_mut());
    let snapshot = Arc::clone(hub.topology().snapshot());
    let mut kept: VecDeque<Parked> = VecDeque::new();
    // Whose requests stay: nothing of theirs may overtake those.
    let mut staying: HashSet<u64> = HashSet::new();
    let mut touched = Vec::new();
    for mut parked in waiting {
        let place = place(&snapshot.clusters, &parked.upstream);
        let is_first = !parked.entry.owner.clients().iter().any(|one| staying.contains(&one.id));
        // A block goes only where one was taken before.
        let needs_proof = parked.entry.block.is_some();
        let target = place
            .filter(|_| is_first)
            .and_then(|(cluster, shard)| Some((cluster, primary(hub, shard, needs_proof)?)));
        if let Some((cluster, target)) = target {
            let clients = parked.leave(hub);
            let before = parked.entry.tried.as_deref().copied().unwrap_or_default();
            let tried = Tried { members: 0, attempts: MAX_RETRIES, ..before };
            parked.entry.tried = Some(Box::new(tried));
            hub.upstream(cluster, target, parked.class, |next| {
                next.send_owned(hub, parked.entry, parked.bytes);
            });
            clients.iter().for_each(|client| client.end_detour());
            continue;
        }
        let waited = Duration::from_micros(now_us.saturating_sub(parked.entry.start_us));
        if place.is_some_and(|(cluster, _)| waited < cluster.outage.wait) {
            staying.extend(parked.entry.owner.clients().iter().map(|client| client.id));
            kept.push_back(parked);
            continue;
        }
        let clients = parked.leave(hub);
        failure::answer_all(hub, &parked.upstream, parked.entry, &parked.why, &mut touched);
        clients.iter().for_each(|client| client.end_detour());
    }
    // What an answer has led to comes behind.
    kept.append(&mut hub.parked.0.borrow_mut());
    *hub.parked.0.borrow_mut() = kept;
    failure::flush(hub, touched);
}

impl Parked {
    fn leave(&self, hub: &Hub) -> Vec<Rc<Client>> {
        hub.charge(self.bytes.len(), 0);
        self.entry.owner.clients()
    }
}

/// The shard that a connection's server is of.
fn place<'t>(
    clusters: &'t [Arc<Cluster>],
    upstream: &Upstream,
) -> Option<(&'t Cluster, &'t Shard)> {
    let cluster = clusters.get(upstream.cluster)?;
    let shard = cluster.shards.iter().find(|shard| shard.name == upstream.backend.shard)?;
    Some((cluster, shard))
}

/// Its primary, if there is one that may take a request now; with `needs_proof` if it has shown that
/// it takes transactions.
fn primary<'t>(hub: &Hub, shard: &'t Shard, needs_proof: bool) -> Option<&'t Arc<Backend>> {
    let mut primaries = shard.members.iter().filter(|member| member.gate().primary());
    if needs_proof && !primaries.any(|member| hub.is_proven(member.id)) {
        return None;
    }
    pick::primary(shard)
}
