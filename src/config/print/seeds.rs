//! How `redis_cluster:` is printed: as it would be written.

use super::Entries;
use crate::{
    config::{
        Seeds, keys,
        words::{self, word},
    },
    net::addr::Address,
};

pub(super) fn seeds(written: &Seeds, defaults: bool) -> Entries {
    let texts = |all: &[Address]| all.iter().map(Address::to_string).collect::<Vec<_>>();
    let mut entries = Entries::new(&keys::REDIS_CLUSTER, defaults);
    entries
        .row("seeds", &texts(&written.seeds))
        .text("accept_unknown", written.accept_unknown)
        .text("spoof", word(words::SPOOF, &written.spoof))
        .rows_or_unset("announce", &texts(&written.announce));
    entries
}
