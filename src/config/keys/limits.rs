//! The table of the keys of `limits:`, of a listener and of a cluster. Not those of the whole process.

use super::{Kind, Scope, key, whole};

/// The most connections of a listener or a backend that a file may speak of; an operator's slip.
const MANY: i64 = 100_000_000;

pub(in crate::config) static LISTENER_LIMITS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "max_connections",
            whole(1, MANY),
            "",
            "Connections of this listener at once; when not given, only the process's limit.",
        ),
        key("per_client", Kind::Map(&PER_CLIENT), "", "What one client address may have."),
    ],
};

pub(in crate::config) static PER_CLIENT: Scope = Scope {
    required: &[&["connections", "rate", "requests"]],
    keys: &[
        key("connections", whole(1, MANY), "", "Connections of one client address at once."),
        key("rate", Kind::Rate, "", "New connections of one client address: 100/s, 600/m, 1000/h."),
        key(
            "burst",
            whole(1, MANY),
            "",
            "So many new connections may come at once before the rate holds; when not given, the rate's number.",
        ),
        key("requests", Kind::Rate, "", "Requests of one client address, for http: 100/s."),
        key(
            "requests_burst",
            whole(1, MANY),
            "",
            "So many requests may come at once before their rate holds; when not given, the rate's number.",
        ),
        key("v4", whole(1, 32), "32", "Leading bits of an IPv4 address that tell clients apart."),
        key("v6", whole(1, 128), "64", "Leading bits of an IPv6 address that tell clients apart."),
    ],
};

pub(in crate::config) static CLUSTER_LIMITS: Scope = Scope {
    required: &[],
    keys: &[
        key(
            "max_connections",
            whole(1, 1_000_000),
            "",
            "Connections of ours to one backend, of all workers together.",
        ),
        key(
            "max_in_flight",
            whole(1, 1_000_000),
            "",
            "Requests under way at one backend, of all workers together; for tcp, connections.",
        ),
        key(
            "queue",
            whole(0, 65_536),
            "1024",
            "Requests that may wait for timeouts.queue when all backends are at their limit; 0: none.",
        ),
    ],
};
