//! From a request to the backend that takes it: its shard, and then one of the shard's members
//! after the other. It decides nothing itself: the policies do, over the gates.

use super::{hub::Hub, reply::Refusal, settings::ShardKey};
use crate::{
    policy::{access::Access, dice::mix, slot::slot},
    topology::{Backend, Cluster, Layout, Shard, pick},
};
use http::{Method, header::COOKIE, request::Parts};
use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    sync::Arc,
};

/// Where one request may go, and where it has been.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    cluster: &'a Cluster,
    shard: &'a Shard,
    access: Access,
    /// What `client_ip` and `maglev` pin.
    key: u64,
    /// Bit i: member i has been tried.
    tried: u64,
}

impl<'a> Choice<'a> {
    /// # Errors
    /// What the client is told when the request does not say which shard it is for.
    pub(super) fn new(
        cluster: &'a Cluster,
        shard_key: Option<&ShardKey>,
        head: &Parts,
        address: Option<IpAddr>,
        hub: &Hub,
    ) -> Result<Self, Refusal> {
        let found = shard_key.map(|place| (place, place.find(head)));
        let shard = match (&*cluster.shards, &found) {
            ([], _) => None,
            ([only], _) => Some(only),
            (_, Some((_, Some(key)))) => {
                let owner = cluster.slots.get(usize::from(slot(key))).copied().map(usize::from);
                owner.and_then(|owner| cluster.shards.get(owner))
            }
            (_, Some((place, None))) => return Err(Refusal::no_shard_key(place.missing())),
            (_, None) => None,
        };
        let shard = shard.ok_or_else(|| Refusal::no_backend("the cluster has no such shard"))?;
        let key = match (found, cluster.layout, address) {
            (Some((_, Some(key))), _, _) => hash(key),
            (_, Layout::Group { client, .. }, Some(address)) => client.key(address),
            _ => hub.chooser.draw(),
        };
        Ok(Self { cluster, shard, access: access(&head.method), key, tried: 0 })
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The next backend to try, or `None` when none is left.
    pub(super) fn next(&mut self, hub: &Hub) -> Option<&'a Arc<Backend>> {
        let (shard, cluster, tried) = (self.shard, self.cluster, self.tried);
        let draw = || hub.chooser.draw();
        let index =
            hub.chooser.with_picker(cluster.id, self.key, |picker| match cluster.layout {
                Layout::Group { .. } => pick::any(shard, picker, tried, draw),
                Layout::Shards | Layout::Fixed => {
                    pick::select(shard, self.access, cluster.reads, picker, tried, draw)
                }
            })?;
        self.tried |= 1 << index;
        shard.members.get(index)
    }

    /// The last one may be tried once more: what failed was not its doing.
    pub(super) fn forgive(&mut self, backend: &Backend) {
        let index = self.shard.members.iter().position(|member| member.id == backend.id);
        self.tried &= !index.map_or(0, |index| 1 << index);
    }

    /// Why [`Self::next`] found nobody at all.
    pub(super) fn why_not(&self) -> String {
        let members = self.shard.members.iter().take(MEMBERS_TOLD);
        let states: Vec<_> =
            members.map(|one| format!("{} is {}", one.name, one.state().as_str())).collect();
        format!("cluster {} has no backend for this: {}", self.cluster.name, states.join(", "))
    }
}

/// RFC 9110, 9.2.1: safe methods read, all others write.
fn access(method: &Method) -> Access {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Access::Read,
        _ => Access::Write,
    }
}

impl ShardKey {
    /// The key in a request.
    fn find<'h>(&self, head: &'h Parts) -> Option<&'h [u8]> {
        match self {
            Self::Header(name) => head.headers.get(name).map(|value| value.as_bytes()),
            Self::Cookie(name) => {
                let lines = head.headers.get_all(COOKIE).iter();
                let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
                value_of(pairs.map(<[u8]>::trim_ascii), name)
            }
            Self::Query(name) => {
                let query = head.uri.query()?.as_bytes();
                value_of(query.split(|byte| *byte == b'&'), name)
            }
            Self::PathSegment(number) => {
                let segment = head.uri.path().split('/').nth(*number)?;
                Some(segment.as_bytes()).filter(|segment| !segment.is_empty())
            }
        }
    }

    fn missing(&self) -> String {
        match self {
            Self::Header(name) => format!("the header {name} says where a request goes"),
            Self::Cookie(name) => format!("the cookie {name} says where a request goes"),
            Self::Query(name) => format!("the query parameter {name} says where a request goes"),
            Self::PathSegment(number) => {
                format!("part {number} of the path says where a request goes")
            }
        }
    }
}

fn value_of<'h>(mut pairs: impl Iterator<Item = &'h [u8]>, name: &str) -> Option<&'h [u8]> {
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The same on every machine, so that every proxy gives a key to the same backend.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    hasher.write(key);
    mix(hasher.finish())
}

/// An error names at most so many members.
const MEMBERS_TOLD: usize = 8;
