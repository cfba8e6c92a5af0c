//! What `sentinel` adds to the printed configuration. Not the shards, of which it has the names.

use super::{Entries, Out, SET, keys, tls};
use crate::config::{Sentinel, Shard};

/// `sentinel` of a cluster of these shards.
pub(super) fn sentinel(written: &Sentinel, shards: &[Shard], defaults: bool) -> Entries {
    let addresses = written.addresses.iter().map(|address| Out::Text(address.to_string()));
    let masters = shards.iter().map(|shard| Out::Text(shard.name.clone()));
    let mut entries = Entries::new(&keys::SENTINEL, defaults);
    entries
        .push("addresses", Out::List(addresses.collect()))
        .push("masters", Out::List(masters.collect()))
        .optional("user", written.credentials.user.as_deref())
        .optional("password", written.credentials.password.as_ref().map(|_| SET));
    tls::client(&mut entries, written.tls.as_ref());
    entries
}
