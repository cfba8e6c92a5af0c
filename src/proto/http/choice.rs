//! From a request to the backend that takes it: its shard, and then one of the shard's members
//! after the other. It decides nothing itself: the policies do, over the gates.

use super::{
    hub::Hub,
    reply::Refusal,
    settings::{ClusterSettings, ShardKey, Sticky},
};
use crate::{
    policy::{access::Access, cookie, dice::mix, gate::State},
    topology::{
        Backend, Cluster, FailOpen, Layout, Lease, Shard,
        admission::{Attempt, Turn, claim},
        pick,
    },
};
use http::{HeaderMap, HeaderValue, Method, header::COOKIE, request::Parts};
use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    sync::Arc,
};

/// Where one request may go, and where it has been.
#[derive(Debug)]
pub(super) struct Choice {
    cluster: Arc<Cluster>,
    /// The shard's place among the cluster's.
    place: usize,
    access: Access,
    /// What `client_ip` and `maglev` pin.
    key: u64,
    /// The hash that keeps it at one backend where no session does.
    pin: Option<u64>,
    /// Bit i: member i has been tried.
    tried: u64,
    /// The member that its session is at.
    sticky: Option<usize>,
    /// It goes nowhere else.
    strict: bool,
}

impl Choice {
    /// # Errors
    /// What the client is told when the request does not say which shard it is for.
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        settings: &ClusterSettings,
        head: &Parts,
        address: Option<IpAddr>,
        hub: &Hub,
    ) -> Result<Self, Refusal> {
        let found = settings.shard_key.as_ref().map(|place| (place, place.find(head)));
        let place = match (&*cluster.shards, &found) {
            ([], _) => None,
            ([_], _) => Some(0),
            (_, Some((_, Some(key)))) => Some(cluster.sharding.owner(key)),
            (_, Some((place, None))) => return Err(Refusal::no_shard_key(place.missing())),
            (_, None) => None,
        };
        let place = place.filter(|place| *place < cluster.shards.len());
        let place = place.ok_or_else(|| Refusal::no_backend("the cluster has no such shard"))?;
        let key = match (found.and_then(|(_, key)| key), cluster.layout, address) {
            (Some(key), _, _) => hash(key),
            (None, Layout::Group { client, .. }, Some(address)) => client.key(address),
            (None, _, _) => hub.chooser.draw(),
        };
        let pin = settings.sticky.as_ref().and_then(|sticky| sticky.pin(&head.headers, address));
        let access = access(&head.method);
        let cluster = Arc::clone(cluster);
        Ok(Self { cluster, place, access, key, pin, tried: 0, sticky: None, strict: false })
    }

    /// Its session is at the member at that place; `strict`: and goes nowhere else. `since`, and
    /// the cookies that `headers` have beside ours, tell it from other sessions of that member.
    ///
    /// When the member is out all of the session's requests go to the same other one: a browser
    /// sends several at once, and each by itself would begin the session somewhere else.
    pub(super) fn stick(&mut self, place: usize, strict: bool, since: u64, headers: &HeaderMap) {
        self.sticky = Some(place);
        self.strict = strict;
        let others = || headers.get(COOKIE).map_or(0, |others| hash(others.as_bytes()));
        self.pin = self.pin.or_else(|| Some(self.key ^ mix(since) ^ others()));
    }

    fn shard(&self) -> &Shard {
        self.cluster.shards.get(self.place).expect("it was looked for when this was made")
    }

    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Where it waits for room: who has a session somewhere waits for that backend alone.
    pub(super) fn turn(&self) -> Turn {
        Turn { shard: self.place, access: self.access, home: self.home().map(|(place, _)| place) }
    }

    /// A claim on the next backend to try, which is then tried.
    pub(super) fn next(&mut self, hub: &Hub) -> Attempt<(usize, Lease)> {
        let claimed = self.claim(hub);
        if let Attempt::Got((index, _)) = &claimed {
            self.tried |= 1 << index;
        }
        claimed
    }

    fn claim(&self, hub: &Hub) -> Attempt<(usize, Lease)> {
        let worker = hub.chooser.worker();
        if let Some((place, backend)) = self.home() {
            let mut once = (!backend.gate().half_open() || backend.take_permit()).then_some(place);
            return match claim(worker, self.shard(), self.tried, None, |_| once.take()) {
                Attempt::Nobody if !backend.has_room() => Attempt::Full,
                claimed => claimed,
            };
        }
        if self.strict && self.sticky.is_some() {
            return Attempt::Nobody;
        }
        let wanted = match self.cluster.layout {
            Layout::Group { .. } => None,
            Layout::Shards | Layout::Fixed => Some((self.access, self.cluster.reads)),
        };
        claim(worker, self.shard(), self.tried, wanted, |tried| self.elsewhere(hub, tried))
    }

    /// The member of its session, if it still takes those and was not tried.
    fn home(&self) -> Option<(usize, &Arc<Backend>)> {
        let place = self.sticky.filter(|place| self.tried >> place & 1 == 0)?;
        let backend = self.shard().members.get(place)?;
        let gate = backend.gate();
        let takes = gate.sticky()
            || gate.half_open() && backend.has_permit()
            || !self.strict && self.is_as_good_as_any(backend);
        takes.then_some((place, backend))
    }

    /// With nobody ready the pick takes them all for ready but those taken out by hand; so the
    /// session need not leave a backend for another one that is out too.
    fn is_as_good_as_any(&self, home: &Backend) -> bool {
        let ready = |one: &Arc<Backend>| one.gate().open() || one.gate().half_open();
        self.shard().fail_open == FailOpen::AllDown
            && home.state() != State::Disabled
            && !self.shard().members.iter().any(ready)
    }

    fn elsewhere(&self, hub: &Hub, tried: u64) -> Option<usize> {
        let (shard, cluster, now_us) = (self.shard(), &*self.cluster, hub.chooser_us());
        let pinned = self.pin.and_then(|key| {
            let draw = || hub.chooser.draw();
            hub.chooser.with_picker(cluster.id, key, now_us, |picker| {
                pick::pinned(shard, picker, tried, draw)
            })
        });
        if pinned.is_some() {
            return pinned;
        }
        let draw = || hub.chooser.draw();
        hub.chooser.with_picker(cluster.id, self.key, now_us, |picker| match cluster.layout {
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
        if let Some(home) = home.and_then(|place| self.shard().members.get(place)) {
            return format!("cluster {name}: the session's backend is out: {}", told(home));
        }
        let states: Vec<_> = self.shard().members.iter().take(MEMBERS_TOLD).map(told).collect();
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
    fn pin(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Option<u64> {
        let told = self.header.as_ref().and_then(|name| headers.get(name));
        let told = told.map(HeaderValue::as_bytes).filter(|told| !told.is_empty()).map(hash);
        let address = || Some(self.client_ip?.key(address?));
        told.or_else(address)
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
