//! The table of the keys of a cluster's `redis_cluster:`. Not what they do.

use super::{Kind, MAX_MEMBERS, Scope, choice, key};
use crate::config::words;

pub(in crate::config) static REDIS_CLUSTER: Scope = Scope {
    required: &[&["seeds"]],
    keys: &[
        key(
            "seeds",
            Kind::List(&Kind::Address, MAX_MEMBERS),
            "",
            "Nodes of the Redis Cluster that are asked who owns which slot; any of them will do.",
        ),
        key(
            "accept_unknown",
            Kind::Switch,
            "true",
            "Follow a node's redirection to a node that nobody has told us of yet.",
        ),
        key(
            "spoof",
            choice(words::SPOOF_WORDS),
            "off",
            "What CLUSTER SLOTS and its like answer; self: one node, which is this proxy; list: the addresses of announce.",
        ),
        key(
            "announce",
            Kind::List(&Kind::Address, MAX_MEMBERS),
            "",
            "Where clients are told to go, with spoof; when not given, the address that they have connected to.",
        ),
    ],
};
