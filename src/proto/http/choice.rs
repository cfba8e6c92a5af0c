//! From a request to the backend that takes it: its shard, and then one of the shard's members
//! after the other. It decides nothing itself: the policies do, over the gates.

use super::{
    hub::Hub,
    reply::Refusal,
    settings::{ClusterSettings, ShardKey, Sticky},
};
use crate::{
    policy::{access::Access, cookie, dice::mix, gate::State, maglev::Maglev, slot::slot},
    topology::{Backend, Cluster, Layout, Shard, pick},
};
use http::{HeaderMap, HeaderValue, Method, header::COOKIE, request::Parts};
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
    /// What keeps it at one backend where no session does.
    pin: Option<Pin<'a>>,
    /// Bit i: member i has been tried.
    tried: u64,
    /// The member that its session is at.
    sticky: Option<usize>,
    /// It goes nowhere else.
    strict: bool,
}

/// A hash that belongs to one member, and to another one when that is out.
#[derive(Clone, Copy, Debug)]
struct Pin<'a> {
    table: &'a Maglev,
    hash: u64,
}

impl<'a> Choice<'a> {
    /// # Errors
    /// What the client is told when the request does not say which shard it is for.
    pub(super) fn new(
        cluster: &'a Cluster,
        settings: &'a ClusterSettings,
        head: &Parts,
        address: Option<IpAddr>,
        hub: &Hub,
    ) -> Result<Self, Refusal> {
        let found = settings.shard_key.as_ref().map(|place| (place, place.find(head)));
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
        let key = match (found.and_then(|(_, key)| key), cluster.layout, address) {
            (Some(key), _, _) => hash(key),
            (None, Layout::Group { client, .. }, Some(address)) => client.key(address),
            (None, _, _) => hub.chooser.draw(),
        };
        let pin = settings.sticky.as_ref().and_then(|sticky| sticky.pin(&head.headers, address));
        let access = access(&head.method);
        Ok(Self { cluster, shard, access, key, pin, tried: 0, sticky: None, strict: false })
    }

    /// Its session is at the member at that place; `strict`: and goes nowhere else. `since` tells it
    /// from other sessions of that member.
    ///
    /// When the member is out all of the session's requests go to the same other one: a browser
    /// sends several at once, and each by itself would begin the session somewhere else.
    pub(super) fn stick(&mut self, place: usize, strict: bool, since: u64, table: &'a Maglev) {
        self.sticky = Some(place);
        self.strict = strict;
        if self.pin.is_none() {
            self.pin = Some(Pin { table, hash: self.key ^ mix(since) });
        }
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The place of the next backend to try, or `None` when none is left.
    pub(super) fn next(&mut self, hub: &Hub) -> Option<(usize, &'a Arc<Backend>)> {
        let index =
            self.at_home().or_else(|| if self.strict { None } else { self.elsewhere(hub) })?;
        self.tried |= 1 << index;
        Some((index, self.shard.members.get(index)?))
    }

    /// The member of its session, if it still takes those and was not tried.
    fn at_home(&self) -> Option<usize> {
        let place = self.sticky.filter(|place| self.tried >> place & 1 == 0)?;
        let backend = self.shard.members.get(place)?;
        let gate = backend.gate();
        let takes = gate.sticky()
            || gate.half_open() && backend.take_permit()
            || !self.strict && self.is_as_good_as_any(backend);
        takes.then_some(place)
    }

    /// With nobody ready the pick takes them all for ready but those taken out by hand; so the
    /// session need not leave a backend for another one that is out too.
    fn is_as_good_as_any(&self, home: &Backend) -> bool {
        let ready = |one: &Arc<Backend>| one.gate().open() || one.gate().half_open();
        home.state() != State::Disabled && !self.shard.members.iter().any(ready)
    }

    fn pinned(&self) -> Option<usize> {
        let Pin { table, hash } = self.pin?;
        table.first(hash, |place| {
            let untried = self.tried >> place & 1 == 0;
            let member = self.shard.members.get(place).filter(|_| untried);
            member.is_some_and(|backend| {
                let gate = backend.gate();
                gate.open() || gate.half_open() && backend.take_permit()
            })
        })
    }

    fn elsewhere(&self, hub: &Hub) -> Option<usize> {
        if let Some(place) = self.pinned() {
            return Some(place);
        }
        let (shard, cluster, tried) = (self.shard, self.cluster, self.tried);
        let draw = || hub.chooser.draw();
        hub.chooser.with_picker(cluster.id, self.key, |picker| match cluster.layout {
            Layout::Group { .. } => pick::any(shard, picker, tried, draw),
            Layout::Shards | Layout::Fixed => {
                pick::select(shard, self.access, cluster.reads, picker, tried, draw)
            }
        })
    }

    /// A member that was tried may be tried once more: what failed was not its doing.
    pub(super) fn forgive(&mut self, index: usize) {
        self.tried &= !(1 << index);
    }

    /// Why [`Self::next`] found nobody at all.
    pub(super) fn why_not(&self) -> String {
        let told = |one: &Arc<Backend>| format!("{} is {}", one.name, one.state().as_str());
        let name = &self.cluster.name;
        let home = self.sticky.filter(|_| self.strict);
        if let Some(home) = home.and_then(|place| self.shard.members.get(place)) {
            return format!("cluster {name}: the session's backend is out: {}", told(home));
        }
        let states: Vec<_> = self.shard.members.iter().take(MEMBERS_TOLD).map(told).collect();
        format!("cluster {name} has no backend for this: {}", states.join(", "))
    }
}

/// RFC 9110, 9.2.1: safe methods read, all others write.
fn access(method: &Method) -> Access {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Access::Read,
        _ => Access::Write,
    }
}

impl Sticky {
    /// By its header, else by its client's address. One that says nothing is none.
    fn pin(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Option<Pin<'_>> {
        let told = self.header.as_ref().and_then(|name| headers.get(name));
        let told = told.map(HeaderValue::as_bytes).filter(|told| !told.is_empty()).map(hash);
        let address = || Some(self.client_ip?.key(address?));
        told.or_else(address).map(|hash| Pin { table: &self.table, hash })
    }
}

impl ShardKey {
    /// The key in a request.
    fn find<'h>(&self, head: &'h Parts) -> Option<&'h [u8]> {
        match self {
            Self::Header(name) => head.headers.get(name).map(|value| value.as_bytes()),
            Self::Cookie(name) => {
                let mut lines = head.headers.get_all(COOKIE).iter();
                lines.find_map(|line| cookie::find(line.as_bytes(), name.as_bytes()))
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
