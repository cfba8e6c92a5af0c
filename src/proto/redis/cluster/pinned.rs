//! What a server does not execute of what goes over a session's own connection. A transaction that
//! is sent whole goes on as others do; what the server remembers of a connection is lost with the
//! slot.

use super::{
    detour::{self, Detour},
    turned::{Other, Turned},
    way,
};
use crate::proto::redis::{
    client::Client,
    entry::{Entry, Owner, Patience},
    hub::Hub,
    lease::Lease,
    reply,
    upstream::Upstream,
};
use std::rc::Rc;

/// As [`detour::turned`].
pub(super) fn turned(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    entry: Entry,
    turned: &Turned,
    error: &[u8],
    touched: &mut Vec<Rc<Client>>,
) -> Option<Entry> {
    let Owner::Client(client) = &entry.owner else { return Some(entry) };
    let client = Rc::clone(client);
    if entry.block.as_ref().is_some_and(|block| block.leads()) {
        let rest =
            upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec);
        let Some(mut bytes) = rest else { return Some(entry) };
        if !bytes.get(..MULTI.len()).is_some_and(|head| head.eq_ignore_ascii_case(MULTI)) {
            bytes.splice(..0, MULTI.iter().copied());
        }
        let slot = way::slot_of(hub, upstream.cluster, &bytes);
        let (way, words) = (turned.clone(), error.to_vec());
        client.wait_for_all();
        detour::release(hub, upstream, vec![Detour { client, entry, bytes, slot, way, words }]);
        return None;
    }
    let other = match turned {
        Turned::Moved(other) | Turned::Ask(other) => other,
        Turned::Wait => return Some(entry),
    };
    let entry = match entry.patience {
        Patience::Own => wait_there(hub, upstream, entry, other, &client, turned)?,
        _ => entry,
    };
    let slot = other.slot;
    let mut text = Vec::new();
    reply::slot_moved(&mut text, slot);
    let answered = client.answer(hub, entry.seq, entry.part, "", &text);
    if answered.is_some_and(|answered| answered.first) {
        touched.push(client);
    }
    None
}

/// A command that waits in the server waits at another one, over a connection of its session's own as
/// well; the one that it has had is others'. Gives the entry back when there is none to be had.
fn wait_there(
    hub: &Rc<Hub>,
    upstream: &Rc<Upstream>,
    mut entry: Entry,
    other: &Other,
    client: &Rc<Client>,
    turned: &Turned,
) -> Option<Entry> {
    let mut tried = entry.tried.as_deref().copied().unwrap_or_default();
    tried.hops += 1;
    let bytes =
        upstream.inner().outbox.request(entry.offset, entry.len as usize).map(<[u8]>::to_vec);
    let held = client.card().held.upgrade();
    let cluster = way::cluster_of(hub, upstream);
    let (Some(bytes), Some(held), Some(cluster), true) =
        (bytes, held, cluster, tried.hops <= detour::MOST_HOPS)
    else {
        return Some(entry);
    };
    let there = other.address.as_ref().and_then(|to| way::member(&cluster, to));
    let Some((_, backend)) = there.filter(|_| held.borrow().len() == 1) else {
        return Some(entry);
    };
    let Some(permit) = backend.leases.try_permit() else { return Some(entry) };
    let lease = Lease::take(hub, &cluster, backend, upstream.class, permit);
    let target = Rc::clone(lease.upstream());
    target.set_deadline(upstream.deadline());
    target.ask_number(hub);
    upstream.backend.leases.end_wait(client.id);
    backend.leases.begin_wait(client.id, target.standing());
    let before = std::mem::replace(&mut *held.borrow_mut(), vec![lease]);
    drop(before);
    entry.tried = Some(Box::new(tried));
    if matches!(turned, Turned::Ask(_)) {
        target.send_unheard(hub, detour::ASKING);
    }
    target.send_owned(hub, entry, bytes);
    None
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
