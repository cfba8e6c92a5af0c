//! What a cluster that is a Redis Cluster has beside others. Not who its members are.

use crate::net::addr::Address;

/// Of a cluster whose servers say who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follows {
    /// A redirection to a server that is no member yet is followed.
    pub accept_unknown: bool,
    pub spoof: Spoof,
    /// Where clients are told to go; empty: where they have connected to.
    pub announce: Vec<Address>,
}

/// As what a Redis Cluster shows itself to clients that ask for its nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoof {
    /// They are told that there is none.
    #[default]
    Off,
    /// As one node that owns all slots.
    Myself,
    /// As several nodes, which are proxies alike.
    List,
}
