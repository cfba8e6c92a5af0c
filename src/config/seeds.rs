//! A Redis Cluster as it is written: whom to ask for its nodes. Not who those are.

use crate::{net::addr::Address, topology::Spoof};

/// `redis_cluster:` of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeds {
    /// At least one.
    pub seeds: Vec<Address>,
    /// Redirections to nodes that nobody has told of yet are followed; default true.
    pub accept_unknown: bool,
    pub spoof: Spoof,
    /// Where clients are told to go; empty: where they have connected to.
    pub announce: Vec<Address>,
}
