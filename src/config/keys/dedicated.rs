//! The table of the keys of a cluster's `dedicated:`. Not what they do.

use super::{DAY, MINUTE, MS, Scope, between, key, up_to, whole};

pub(in crate::config) static DEDICATED: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "max_per_backend",
            whole(1, 1_000_000),
            "1024",
            "Connections to one backend that one client each has for itself, in use at once, of all workers together.",
        ),
        key("wait_timeout", between(MS, MINUTE), "1s", "How long a client waits for one."),
        key(
            "max_lease_idle",
            up_to(DAY),
            "30s",
            "A client that watches keys and is silent so long loses its connection; 0: never.",
        ),
        key("idle", between(MS, DAY), "30s", "How long one is kept that nobody uses."),
        key("lifetime", up_to(DAY), "0", "How old one may get before it is not kept; 0: any age."),
        key(
            "min",
            whole(0, 1024),
            "0",
            "So many that nobody uses are kept whatever idle says, for each worker and backend.",
        ),
    ],
};
