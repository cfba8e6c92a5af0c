//! CLIENT TRACKING and what belongs to it: a session whose server is to tell it of changed keys has
//! that server to itself, over a connection of its own (redis.md, T52). Not the connection: that is
//! [`super::pin`].

use super::{
    args::Args,
    card::Tracking,
    dispatch::{Flow, Scene},
    gather::{Gather, Merge},
    reply, wire,
};
use crate::policy::access::Access;

impl Scene<'_> {
    /// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
    pub(super) fn client_tracking(&mut self, args: Args<'_>) -> Flow {
        let before = self.client.card().tracking.clone();
        let wanted = match options(args) {
            Ok(wanted) => wanted,
            Err(text) => return self.told(text),
        };
        if args.is(2, "OFF") {
            return self.stop_tracking(args);
        }
        if !args.is(2, "ON") {
            return self.told(reply::SYNTAX);
        }
        if self.cluster.shards.len() > 1 {
            let wrong = wanted.agrees(before.as_ref()).err();
            return self.told(wrong.unwrap_or(reply::TRACKING_SHARDS));
        }
        let rewritten = match wanted.redirect.map(|client| self.redirected(client, args)) {
            Some(Err(flow)) => return flow,
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        if let Err(text) = wanted.agrees(before.as_ref()) {
            return self.told(text);
        }
        if let Err(flow) = self.pin(0) {
            return flow;
        }
        if let Some(pinned) = &mut self.state.pinned {
            pinned.tracks = true;
            pinned.lease.is_altered = true;
        }
        let redirect = wanted.redirect.and_then(|client| u64::try_from(client).ok());
        self.client.card_mut().tracking = Some(Tracking { redirect, ..wanted.tracking });
        self.send(0, Access::Write, true, rewritten.as_deref().unwrap_or(args.frame))
    }

    /// The server forgets; the connection goes when it has said so.
    fn stop_tracking(&mut self, args: Args<'_>) -> Flow {
        let tracked = self.client.card_mut().tracking.take().is_some();
        match &mut self.state.pinned {
            Some(pinned) if tracked => pinned.tracks = false,
            _ => return self.told(reply::OK),
        }
        self.client.wait_for_all();
        self.send(0, Access::Write, true, args.frame)
    }

    /// `CLIENT CACHING YES | NO`
    pub(super) fn client_caching(&mut self, args: Args<'_>) -> Flow {
        if self.client.card().tracking.is_none() {
            return self.told(reply::CACHING_WITHOUT_TRACKING);
        }
        self.send(0, Access::Write, true, args.frame)
    }

    /// `CLIENT TRACKINGINFO`
    pub(super) fn client_tracking_info(&mut self, args: Args<'_>) -> Flow {
        let tracking = self.client.card().tracking.clone();
        if let Some(tracking) = tracking {
            return match tracking.redirect {
                Some(client) => {
                    let gather = Gather::new("CLIENT|TRACKINGINFO", Merge::Redirect(client), 1);
                    self.send_gathered(gather, 0, args.frame)
                }
                None => self.send(0, Access::Write, true, args.frame),
            };
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
