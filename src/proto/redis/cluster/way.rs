//! From what a server has said to the connection over which a request goes on, and what others are
//! to know of it.

use super::turned::{Other, Turned};
use crate::{
    net::addr::Address,
    policy::slot,
    proto::redis::{
        args::Args,
        class::Class,
        entry::Entry,
        frame::{Decoder, Frame, Limits},
        hub::Hub,
        keys,
        upstream::Upstream,
    },
    topology::{
        Backend, Cluster, Outcome,
        pick::{self, Picker},
    },
};
use std::{rc::Rc, sync::Arc};

/// The cluster of a connection as it is now.
pub(super) fn cluster_of(hub: &Hub, upstream: &Upstream) -> Option<Arc<Cluster>> {
    hub.topology().snapshot().clusters.get(upstream.cluster).map(Arc::clone)
}

/// The member at an address, and the place of its shard.
pub(super) fn member<'c>(
    cluster: &'c Cluster,
    address: &Address,
) -> Option<(usize, &'c Arc<Backend>)> {
    let mut shards = cluster.shards.iter().enumerate();
    shards.find_map(|(place, shard)| {
        Some((place, shard.members.iter().find(|member| member.address == *address)?))
    })
}

/// A server says that another one owns a slot: from here on its requests go there, and control is
/// told that what it knows is old.
pub(super) fn learn(hub: &Hub, upstream: &Upstream, other: &Other) {
    hub.reporter.report(&upstream.backend, Outcome::Moved);
    let Some(cluster) = cluster_of(hub, upstream) else { return };
    let Some(table) = cluster.sharding.live() else { return };
    if let Some((shard, _)) = other.address.as_ref().and_then(|to| member(&cluster, to)) {
        table.set(other.slot, Some(shard));
    }
}

/// The primary of `shard` refuses a shard channel in these words: when that is because another one
/// has its slot, that is known from here on. Gives the cluster then.
pub(in crate::proto::redis) fn channel_moved(
    hub: &Hub,
    cluster: usize,
    shard: usize,
    text: &[u8],
) -> Option<Arc<Cluster>> {
    let cluster = hub.topology().snapshot().clusters.get(cluster).map(Arc::clone)?;
    let table = cluster.sharding.live()?;
    let from = cluster.shards.get(shard)?.members.first()?;
    let Turned::Moved(other) = Turned::parse(&[b"-", text].concat(), &from.address)? else {
        return None;
    };
    hub.reporter.report(from, Outcome::Moved);
    let (owner, _) = member(&cluster, other.address.as_ref()?)?;
    table.set(other.slot, Some(owner));
    (owner != shard).then_some(cluster)
}

/// The connection to the server at `address`.
pub(super) fn to_address(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    address: &Address,
    class: Class,
) -> Option<Rc<Upstream>> {
    if let Some((_, backend)) = member(cluster, address) {
        return Some(hub.upstream(cluster, backend, class, Rc::clone));
    }
    let accepts = cluster.follows.as_ref().is_some_and(|follows| follows.accept_unknown);
    if accepts { hub.strangers.upstream(hub, cluster, address, class) } else { None }
}

/// The connection to whoever is to take a request for `slot` by the table.
pub(super) fn by_table(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    slot: u16,
    entry: &Entry,
    class: Class,
) -> Option<Rc<Upstream>> {
    let shard = cluster.shards.get(cluster.sharding.live()?.owner(slot)?)?;
    let from = entry.source(cluster.reads);
    let cursor = u32::try_from(hub.draw() >> 32).unwrap_or(0);
    let mut picker = Picker { cursor, key: 0, now_us: hub.now_us() };
    let index = pick::select(shard, entry.access, from, &mut picker, 0, || hub.draw())?;
    Some(hub.upstream(cluster, shard.members.get(index)?, class, Rc::clone))
}

/// The slot of the first key of these requests; `None` when they have none.
pub(super) fn slot_of(hub: &Hub, cluster: usize, mut bytes: &[u8]) -> Option<u16> {
    let commands = hub.commands(cluster)?;
    let limits = Limits { bulk: u64::MAX, args: u32::MAX, authenticated: true };
    loop {
        let mut decoder = Decoder::default();
        let Ok(Frame::Request(len)) = decoder.decode(bytes, &limits) else { return None };
        let (frame, rest) = bytes.split_at_checked(len)?;
        let args = Args { frame, spans: decoder.spans() };
        let found = match commands.find(args) {
            Some(command) => keys::keys(command, args).ok().and_then(|mut keys| keys.next()),
            None => Some(1),
        };
        if let Some(key) = found.and_then(|at| args.get(at)) {
            return Some(slot::slot(key));
        }
        bytes = rest;
    }
}
