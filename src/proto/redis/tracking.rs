//! CLIENT TRACKING and what belongs to it: a session whose servers are to tell it of changed keys has
//! a connection of its own to each primary, over which all its requests go (redis.md, T52). Not what
//! is told: that is [`super::redirect`].

use super::{
    args::Args,
    card::Tracking,
    client::{Client, End},
    dispatch::{Flow, Part, Scene},
    entry::Reach,
    gather::{Gather, Merge},
    lease::Lease,
    reply, scripts,
    session::State,
    table::Command,
    upstream::Upstream,
    wire,
};
use crate::policy::access::Access;
use std::rc::Rc;

impl Client {
    /// Whether servers are to tell it of changed keys.
    pub(super) fn tracks(&self) -> bool {
        self.card().tracking.is_some()
    }
}

impl State {
    /// Of a CLIENT TRACKING that was answered with an error nothing is in force that was not before.
    pub(super) fn settle_tracking(&mut self, client: &Client) {
        if client.is_settled()
            && let Some(before) = self.tracked_before.take()
            && client.heeded().is_some_and(|heed| heed.failed)
        {
            client.card_mut().tracking = before;
        }
    }

    /// Whether its servers are still to say that they have forgotten what it has read.
    pub(super) fn ends_tracking(&self, client: &Client) -> bool {
        !self.tracked.is_empty() && !client.tracks()
    }
}

impl Scene<'_> {
    /// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
    pub(super) fn client_tracking(&mut self, args: Args<'_>) -> Flow {
        let before = self.client.card().tracking.clone();
        let wanted = match options(args) {
            Ok(wanted) => wanted,
            Err(text) => return self.told(text),
        };
        if args.is(2, "OFF") {
            return match wanted.redirect.map_or(Ok(()), |client| self.seek_client(client)) {
                Ok(()) => self.stop_tracking(),
                Err(flow) => flow,
            };
        }
        if !args.is(2, "ON") {
            return self.told(reply::SYNTAX);
        }
        if self.has_keys_elsewhere() {
            return self.told(reply::TRACKING_ROUTES);
        }
        let rewritten = match wanted.redirect.map(|client| self.redirected(client, args)) {
            Some(Err(flow)) => return flow,
            Some(Ok(frames)) => frames,
            None => Vec::new(),
        };
        if let Err(text) = wanted.agrees(before.as_ref()) {
            return self.told(text);
        }
        if let Err(flow) = self.track() {
            return flow;
        }
        let redirect = wanted.redirect.and_then(|client| u64::try_from(client).ok());
        self.client.card_mut().tracking = Some(Tracking { redirect, ..wanted.tracking });
        let frame = |shard: usize| rewritten.get(shard).map_or(args.frame, Vec::as_slice);
        let seq = self.ask_tracked("CLIENT|TRACKING", Merge::AllSucceed, frame);
        self.client.heed(seq);
        self.client.wait_for_all();
        self.state.tracked_before = Some(before);
        Flow::Continue
    }

    /// Whether a route leads to where nobody would tell it of changes, or by other names.
    fn has_keys_elsewhere(&self) -> bool {
        let user = self.state.who.user.as_ref();
        let routes = &self.settings.routes;
        user.is_none_or(|user| user.cluster.is_none())
            && routes.iter().any(|route| route.strip || route.cluster != self.cluster.id)
    }

    /// Makes the session have a connection of its own to each primary.
    ///
    /// # Errors
    /// How the request ends that wanted them: held until nothing is under way and all can be had, or
    /// refused.
    fn track(&mut self) -> Result<(), Flow> {
        if self.tracks() {
            return Ok(());
        }
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Err(Flow::Hold);
        }
        // What is asked from here on would go over it, and it is on its way to others.
        if self.state.pinned.as_deref().is_some_and(|pinned| !pinned.keeps()) {
            self.state.let_go();
        }
        let shards = self.cluster.shards.len();
        let asked: Vec<_> = (0..shards).map(|shard| (shard, 0)).collect();
        let leases = self.lease_all(&asked)?;
        let mut tracked: Vec<_> = leases.into_iter().map(Rc::new).collect();
        // What is watched there is watched on.
        let pinned = self.state.pinned.as_deref().filter(|pinned| pinned.keeps());
        let here = pinned.filter(|pinned| pinned.lease.upstream().cluster == self.cluster.id);
        if let Some(pinned) = here
            && let Some(lease) = tracked.get_mut(pinned.shard)
        {
            *lease = Rc::clone(&pinned.lease);
        }
        for lease in &tracked {
            lease.keep_for_life();
            lease.upstream().set_tenant(Some(self.client));
        }
        self.state.tracked = tracked;
        Ok(())
    }

    /// Sends to each server that tracks what `frame` has for its shard; gives the place of the reply.
    fn ask_tracked<'f>(
        &mut self,
        name: &'static str,
        merge: Merge,
        frame: impl Fn(usize) -> &'f [u8],
    ) -> u32 {
        let count = u16::try_from(self.state.tracked.len()).unwrap_or(u16::MAX);
        let seq = self.client.open_gather(Gather::new(name, merge, count), frame(0).len());
        for index in 0..count {
            let shard = usize::from(index);
            let part = Part { seq, index, reach: Reach::All };
            let write = |out: &mut Vec<u8>| out.extend_from_slice(frame(shard));
            self.send_part(part, shard, Access::Read, true, write);
        }
        seq
    }

    /// The servers forget; their connections go when they have said so.
    fn stop_tracking(&mut self) -> Flow {
        self.state.caching = None;
        let tracked = self.client.card_mut().tracking.take().is_some();
        if !tracked || !self.tracks() {
            return self.told(reply::OK);
        }
        self.client.wait_for_all();
        self.ask_tracked("CLIENT|TRACKING", Merge::AllSucceed, |_| TRACKING_OFF);
        Flow::Continue
    }

    /// Whether it has connections on which servers of the cluster at hand tell it of changed keys.
    pub(super) fn tracks(&self) -> bool {
        let first = self.state.tracked.first();
        first.is_some_and(|lease| lease.upstream().cluster == self.cluster.id)
    }

    /// Ends a session whose request would go where nobody tells it of changes to what it reads. False
    /// for one that does not track.
    pub(super) fn loses_track(&self) -> bool {
        let tracks = self.tracks();
        if tracks {
            self.client.kill(End::TrackingLost);
        }
        tracks
    }

    /// The one to who is the primary of `shard` now.
    pub(super) fn tracked(&self, shard: usize) -> Option<&Rc<Lease>> {
        if !self.tracks() {
            return None;
        }
        let primary = scripts::primary(self.cluster.shards.get(shard)?)?;
        self.state.tracked.iter().find(|lease| lease.upstream().backend.id == primary.id)
    }

    /// `CLIENT CACHING YES | NO`: kept until it is known which servers the next request goes to.
    pub(super) fn client_caching(&mut self, args: Args<'_>) -> Flow {
        let tracking = self.client.card().tracking.clone();
        let Some(tracking) = tracking else {
            return self.told(reply::CACHING_WITHOUT_TRACKING);
        };
        let caching = match (args.is(2, "YES"), args.is(2, "NO")) {
            (true, _) if tracking.opt_in => CACHING_YES,
            (true, _) => return self.told(reply::CACHING_YES_WITHOUT_OPTIN),
            (_, true) if tracking.opt_out => CACHING_NO,
            (_, true) => return self.told(reply::CACHING_NO_WITHOUT_OPTOUT),
            _ => return self.told(reply::SYNTAX),
        };
        self.state.caching = Some(caching);
        self.told(reply::OK)
    }

    /// What the server of that connection is to be told right before the request.
    pub(super) fn caching_on(&self, upstream: &Rc<Upstream>) -> Option<&'static [u8]> {
        let caching = self.state.caching?;
        let mut tracked = self.state.tracked.iter();
        tracked.any(|lease| Rc::ptr_eq(lease.upstream(), upstream)).then_some(caching)
    }

    /// Tells it.
    pub(super) fn send_caching(&self, upstream: &Rc<Upstream>) {
        if let Some(request) = self.caching_on(upstream) {
            upstream.send_unheard(self.hub, request);
        }
    }

    /// networking.c, `resetClient`: CLIENT CACHING is of one request, or of one transaction, and no
    /// other request of CLIENT counts.
    pub(super) fn caching_is_over(&mut self, command: &Command) {
        if self.state.transaction.is_none() && !command.name.starts_with("CLIENT") {
            self.state.caching = None;
        }
    }

    /// `CLIENT TRACKINGINFO`
    pub(super) fn client_tracking_info(&mut self, args: Args<'_>) -> Flow {
        let redirect = self.client.card().tracking.as_ref().map(|tracking| tracking.redirect);
        if let Some(redirect) = redirect.filter(|_| self.tracks()) {
            let merge = Merge::TrackingInfo(redirect);
            self.ask_tracked("CLIENT|TRACKINGINFO", merge, |_| args.frame);
            if self.state.caching.is_some() {
                // It was told for this request, and is not to be of a later one.
                for lease in &self.state.tracked {
                    lease.upstream().send_unheard(self.hub, PING);
                }
            }
            return Flow::Continue;
        }
        let resp = self.state.class.resp;
        self.say(|out| {
            wire::map(out, resp, 3);
            wire::bulk(out, b"flags");
            wire::set(out, resp, 1);
            wire::bulk(out, b"off");
            wire::bulk(out, b"redirect");
            wire::integer(out, -1);
            wire::bulk(out, b"prefixes");
            wire::array(out, 0);
        })
    }

    /// `CLIENT GETREDIR`
    pub(super) fn client_get_redirect(&self) -> Flow {
        let told = |tracking: &Tracking| {
            tracking.redirect.map_or(0, |client| i64::try_from(client).unwrap_or(i64::MAX))
        };
        let redirect = self.client.card().tracking.as_ref().map_or(-1, told);
        self.say(|out| wire::integer(out, redirect))
    }

    fn told(&self, text: &[u8]) -> Flow {
        self.reply(text);
        Flow::Continue
    }
}

/// The options of one request.
#[derive(Debug, Default)]
struct Wanted {
    tracking: Tracking,
    redirect: Option<i64>,
    has_prefix: bool,
}

/// networking.c, `clientCommand`: the options in any order.
fn options(args: Args<'_>) -> Result<Wanted, &'static [u8]> {
    let mut wanted = Wanted::default();
    let mut at = 3;
    while at < args.len() {
        let more = at + 1 < args.len();
        if args.is(at, "REDIRECT") && more {
            at += 1;
            if wanted.redirect.is_some() {
                return Err(reply::TRACKING_TWO_REDIRECTS);
            }
            wanted.redirect = Some(args.number(at).ok_or(reply::NOT_AN_INTEGER)?);
        } else if args.is(at, "PREFIX") && more {
            at += 1;
            wanted.has_prefix = true;
        } else if args.is(at, "BCAST") {
            wanted.tracking.broadcast = true;
        } else if args.is(at, "OPTIN") {
            wanted.tracking.opt_in = true;
        } else if args.is(at, "OPTOUT") {
            wanted.tracking.opt_out = true;
        } else if args.is(at, "NOLOOP") {
            wanted.tracking.no_loop = true;
        } else {
            return Err(reply::SYNTAX);
        }
        at += 1;
    }
    Ok(wanted)
}

impl Wanted {
    /// Whether the options go together and with those in force, in Redis's words and order.
    fn agrees(&self, before: Option<&Tracking>) -> Result<(), &'static [u8]> {
        let Tracking { broadcast, opt_in, opt_out, .. } = self.tracking;
        if self.has_prefix && !broadcast {
            return Err(reply::TRACKING_PREFIX);
        }
        if before.is_some_and(|before| before.broadcast != broadcast) {
            return Err(reply::TRACKING_SWITCH_BCAST);
        }
        if broadcast && (opt_in || opt_out) {
            return Err(reply::TRACKING_OPT_BCAST);
        }
        if opt_in && opt_out {
            return Err(reply::TRACKING_OPT_BOTH);
        }
        if before.is_some_and(|before| (opt_in && before.opt_out) || (opt_out && before.opt_in)) {
            return Err(reply::TRACKING_SWITCH_OPT);
        }
        Ok(())
    }
}

const CACHING_YES: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n";
const CACHING_NO: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";
const TRACKING_OFF: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$3\r\nOFF\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
