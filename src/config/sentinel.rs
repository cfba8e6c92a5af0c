//! Who is asked for the members of a cluster, as checked values. Not the shards that they tell of.

use super::{Member, Shard};
use crate::{
    net::{addr::Address, tls::ClientFiles},
    topology::Credentials,
};

/// Where to ask who the members of the shards are. Each shard's name is that of a master there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sentinel {
    /// At least one.
    pub addresses: Vec<Address>,
    /// Who we are to the Sentinels themselves.
    pub credentials: Credentials,
    /// `None`: in clear.
    pub tls: Option<ClientFiles>,
}

impl Shard {
    /// The primary first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.primary.iter().chain(&self.replicas)
    }
}
