//! What a server does not execute of what goes over a session's own connection. A transaction that
//! is sent whole goes on as others do; what the server remembers of a connection is lost with the
//! slot.

use super::{
    detour::{self, Detour},
    turned::Turned,
    way,
};
use crate::proto::redis::{
    client::Client,
    entry::{Entry, Owner},
    hub::Hub,
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
    let mut text = Vec::new();
    let slot = match turned {
        Turned::Moved(other) | Turned::Ask(other) => other.slot,
        Turned::Wait => return Some(entry),
    };
    reply::slot_moved(&mut text, slot);
    let answered = client.answer(hub, entry.seq, entry.part, "", &text);
    if answered.is_some_and(|answered| answered.first) {
        touched.push(client);
    }
    None
}

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
