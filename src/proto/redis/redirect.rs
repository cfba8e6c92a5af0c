//! CLIENT TRACKING with REDIRECT: the server tells a connection of ours, which belongs to the client
//! that is to hear it, on whichever worker that is. Not the tracking: that is [`super::tracking`].

use super::{
    args::Args,
    class::{Class, Resp},
    client::Client,
    dispatch::{Flow, Scene},
    entry::{Entry, Owner},
    hub::Hub,
    lease::Lease,
    peers::Question,
    reply,
    upstream::Upstream,
    waiting::Waiting,
    wire,
};
use crate::{
    policy::access::Access,
    topology::{Backend, Cluster, Standing},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

/// Of a worker, the connections on which its clients hear for others, by client and backend.
pub(super) type Ears = RefCell<HashMap<(u64, u32), Lease>>;

/// Who is to hear which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    client: u64,
    cluster: usize,
    /// `None`: nobody hears anything, the client is only to be there.
    backend: Option<u32>,
}

/// A session's look for somebody's ear.
#[derive(Clone, Debug)]
pub(super) struct Search {
    wish: Wish,
    since_us: u64,
    found: Rc<RefCell<Found>>,
}

#[derive(Clone, Debug)]
enum Found {
    /// Other workers are asked.
    NotYet,
    Nobody,
    Client,
    Ear(Arc<Standing>),
}

impl Upstream {
    /// From now on `client` hears on it what the server says of keys that others have read.
    pub(super) fn set_ear(&self, client: &Rc<Client>) {
        self.ear.set(true);
        self.set_tenant(Some(client));
    }

    /// Whether its tenant hears on it for others.
    pub(super) fn is_ear(&self) -> bool {
        self.ear.get()
    }

    /// Asks the server for its number of this connection, once.
    pub(super) fn ask_number(&self, hub: &Hub) {
        if !self.asked_number.replace(true) {
            let entry = Entry::new(Owner::Number, 0, Access::Write, hub.now_us());
            let request = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";
            self.send(hub, entry, |out| out.extend_from_slice(request));
        }
    }

    /// The answer to that; an error says nothing.
    pub(super) fn learn_number(&self, reply: &[u8]) {
        let digits = reply.strip_prefix(b":").unwrap_or_default().trim_ascii_end();
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        self.standing.number.store(number.unwrap_or(0), Ordering::Release);
    }
}

impl Scene<'_> {
    /// The request as each shard's server must hear it: with its own number for the connection on
    /// which `client` hears.
    ///
    /// # Errors
    /// How the request ends: held until those numbers are known, or refused.
    pub(super) fn redirected(&mut self, client: i64, args: Args<'_>) -> Result<Vec<Vec<u8>>, Flow> {
        let client = u64::try_from(client).unwrap_or(0);
        self.seek(client)?;
        let searches = self.state.search.clone();
        let numbers = searches.iter().map(|search| self.number(search));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        Ok(numbers.iter().map(|number| redirecting(args, *number)).collect())
    }

    /// Looks whether there is such a client.
    ///
    /// # Errors
    /// How the request ends: held until that is known, or refused.
    pub(super) fn seek_client(&mut self, client: i64) -> Result<(), Flow> {
        let client = u64::try_from(client).unwrap_or(0);
        let wish = Wish { client, cluster: self.cluster.id, backend: None };
        if self.state.search.first().is_none_or(|search| search.wish != wish) {
            let found = self.look_for(None, wish);
            self.state.search = vec![Search { wish, since_us: self.now_us, found }];
        }
        let search = self.state.search.first().cloned();
        search.map_or(Ok(()), |search| self.number(&search).map(drop))
    }

    /// Looks for the client's ear at each primary, unless that is on its way.
    fn seek(&mut self, client: u64) -> Result<(), Flow> {
        let mut searches = std::mem::take(&mut self.state.search);
        for shard in 0..self.cluster.shards.len() {
            let Some(backend) = self.pick(shard, Access::Write, true) else {
                return Err(self.not_served(shard, Access::Write, true));
            };
            let wish = Wish { client, cluster: self.cluster.id, backend: Some(backend.id) };
            if searches.get(shard).is_none_or(|search| search.wish != wish) {
                searches.truncate(shard);
                let found = self.look_for(Some(backend), wish);
                searches.push(Search { wish, since_us: self.now_us, found });
            }
        }
        self.state.search = searches;
        Ok(())
    }

    fn number(&mut self, search: &Search) -> Result<u64, Flow> {
        let found = search.found.borrow().clone();
        let number = match &found {
            Found::Nobody => return Err(self.say(|out| out.extend_from_slice(reply::NO_REDIRECT))),
            Found::NotYet => 0,
            Found::Client => return Ok(0),
            Found::Ear(standing) => standing.number.load(Ordering::Acquire),
        };
        if number > 0 {
            return Ok(number);
        }
        if self.now_us.saturating_sub(search.since_us) >= PATIENCE_US {
            return Err(self.say(|out| out.extend_from_slice(reply::REDIRECT_DEAF)));
        }
        self.state.waiting = Waiting::a_moment();
        self.client.look_ahead();
        Err(Flow::Hold)
    }

    fn look_for(&self, backend: Option<&Arc<Backend>>, wish: Wish) -> Rc<RefCell<Found>> {
        if let Some(client) = self.hub.client(wish.client) {
            let ear = backend.map(|backend| ear(self.hub, self.cluster, backend, &client));
            let found = ear.map_or(Found::Client, |ear| ear.map_or(Found::Nobody, Found::Ear));
            return Rc::new(RefCell::new(found));
        }
        let asked = self.hub.peers.ask(&Question::Ear(wish));
        let found = Rc::new(RefCell::new(Found::NotYet));
        let tell = Rc::clone(&found);
        self.hub.start(async move {
            let mut told = Found::Nobody;
            for receiver in asked.into_iter().flatten() {
                if let Some(ear) = receiver.await.ok().and_then(|answer| answer.ear) {
                    told = if wish.backend.is_some() { Found::Ear(ear) } else { Found::Client };
                }
            }
            *tell.borrow_mut() = told;
        });
        found
    }
}

/// The request with the server's number of the connection that hears.
fn redirecting(args: Args<'_>, number: u64) -> Vec<u8> {
    let number = number.to_string();
    let mut frame = Vec::new();
    wire::array(&mut frame, args.len());
    for at in 0..args.len() {
        let is_id = at > 3 && args.is(at - 1, "REDIRECT");
        let word = args.get(at).unwrap_or_default();
        wire::bulk(&mut frame, if is_id { number.as_bytes() } else { word });
    }
    frame
}

/// What another worker wishes of a client of this one.
pub(super) fn serve(hub: &Rc<Hub>, wish: Wish) -> Option<Arc<Standing>> {
    let client = hub.client(wish.client)?;
    let Some(wanted) = wish.backend else { return Some(Arc::default()) };
    let mut topology = hub.topology();
    let cluster = Arc::clone(topology.snapshot().clusters.get(wish.cluster)?);
    drop(topology);
    let mut members = cluster.shards.iter().flat_map(|shard| &shard.members);
    let backend = members.find(|backend| backend.id == wanted)?;
    ear(hub, &cluster, backend, &client)
}

/// The connection on which a client of this worker hears; opened when it has none. `None`: no more
/// can be had.
fn ear(
    hub: &Rc<Hub>,
    cluster: &Cluster,
    backend: &Arc<Backend>,
    client: &Rc<Client>,
) -> Option<Arc<Standing>> {
    let mut ears = hub.ears.borrow_mut();
    ears.retain(|_, ear| !ear.upstream().has_ended());
    if let Some(ear) = ears.get(&(client.id, backend.id)) {
        return Some(Arc::clone(ear.upstream().standing()));
    }
    let class = Class { resp: Resp::Three, ..Class::default() };
    let lease = Lease::take(hub, cluster, backend, class, backend.leases.try_permit()?).for_life();
    let upstream = lease.upstream();
    upstream.set_ear(client);
    upstream.ask_number(hub);
    let standing = Arc::clone(upstream.standing());
    ears.insert((client.id, backend.id), lease);
    Some(standing)
}

/// The client has left: its servers hear that nobody listens there any more.
pub(super) fn forget(hub: &Hub, client: u64) {
    let mut ears = hub.ears.borrow_mut();
    if !ears.is_empty() {
        ears.retain(|(owner, _), _| *owner != client);
    }
}

/// tracking.c, `sendTrackingMessage`: in RESP3 a push, in RESP2 a message, to who has subscribed to
/// anything. True when the caller is to put the client into its turn's list of touched ones.
pub(super) fn tell(hub: &Hub, client: &Client, push: &[u8]) -> bool {
    match client.resp() {
        Resp::Three => client.push(hub, push),
        Resp::Two if !client.is_subscribed() => false,
        Resp::Two => {
            let Some(keys) = push.strip_prefix(INVALIDATE) else { return false };
            let mut message = MESSAGE.to_vec();
            message.extend_from_slice(if keys == b"_\r\n" { b"*-1\r\n" } else { keys });
            client.push(hub, &message)
        }
    }
}

/// What a server tells a session of its keys, on the session's own connection: behind the replies
/// that were read there before, for it may speak of what they say. True as for [`tell`].
pub(super) fn tell_own(hub: &Hub, client: &Client, push: &[u8]) -> bool {
    let redirect = client.card().tracking.as_ref().and_then(|tracking| tracking.redirect);
    match redirect.filter(|_| push.starts_with(GONE)) {
        Some(client_gone) => {
            let mut told = GONE.to_vec();
            wire::integer(&mut told, i64::try_from(client_gone).unwrap_or(i64::MAX));
            client.push_behind(hub, &told)
        }
        None => client.push_behind(hub, push),
    }
}

/// TRACKINGINFO of all servers as the client knows it: `client` instead of a server's number, and
/// whether any of them could not tell that one.
pub(super) fn info(client: Option<u64>, replies: &[Vec<u8>], out: &mut Vec<u8>) {
    let broken = |reply: &&Vec<u8>| memchr::memmem::find(reply, BROKEN).is_some();
    let reply = replies.iter().find(broken).or_else(|| replies.first());
    let reply = reply.map_or(&b""[..], Vec::as_slice);
    match client {
        Some(client) => rewrite(client, reply, out),
        None => out.extend_from_slice(reply),
    }
}

fn rewrite(client: u64, reply: &[u8], out: &mut Vec<u8>) {
    let at = memchr::memmem::find(reply, REDIRECT).map(|at| at + REDIRECT.len());
    let (front, rest) = reply.split_at_checked(at.unwrap_or(0)).unwrap_or_default();
    let digits = rest.iter().take_while(|byte| at.is_some() && byte.is_ascii_digit()).count();
    out.extend_from_slice(front);
    if digits > 0 {
        out.extend_from_slice(itoa::Buffer::new().format(client).as_bytes());
    }
    out.extend_from_slice(rest.get(digits..).unwrap_or_default());
}

const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
const GONE: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n";
const BROKEN: &[u8] = b"$15\r\nbroken_redirect\r\n";
const REDIRECT: &[u8] = b"$8\r\nredirect\r\n:";
/// A server that has not told its number of a connection by then is not going to.
const PATIENCE_US: u64 = 1_000_000;
