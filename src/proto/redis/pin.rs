//! Sessions that need an upstream connection of their own for a while: when one is taken, what goes
//! over it, and when it is let go. Not the connection: that is [`super::lease`].
//!
//! Between a shared connection and one's own nothing may overtake (redis.md, T3): a session moves
//! only while none of its requests is under way.

use super::{
    args::Args,
    dispatch::{Flow, Scene},
    lease::Lease,
    reply,
    upstream::Upstream,
};
use crate::policy::access::Access;
use std::rc::Rc;

/// A session's own connection, and for what it is held.
#[derive(Debug)]
pub(super) struct Pinned {
    pub lease: Lease,
    pub shard: usize,
}

impl Pinned {
    /// Whether the session has no more need of it.
    pub(super) fn is_done(&self) -> bool {
        let keeps = self.lease.watches;
        !keeps && (self.lease.upstream().is_quiet() || self.lease.upstream().has_ended())
    }
}

impl Scene<'_> {
    /// Makes the session have a connection of its own to the primary of `shard`.
    ///
    /// # Errors
    /// How the request ends that wanted it: held until nothing is under way, or refused.
    pub(super) fn pin(&mut self, shard: usize) -> Result<(), Flow> {
        self.state.sent = None;
        if let Some(pinned) = &self.state.pinned {
            if pinned.shard == shard {
                return Ok(());
            }
            self.reply(reply::CROSS_SLOT);
            return Err(Flow::Continue);
        }
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Err(Flow::Hold);
        }
        let Some(backend) = self.pick(shard, Access::Write, true) else {
            return Err(self.refuse(Access::Write, |out| {
                self.unserved(shard, Access::Write, true, out);
            }));
        };
        let lease = Lease::take(self.hub, self.cluster, backend, self.state.class);
        self.state.pinned = Some(Box::new(Pinned { lease, shard }));
        Ok(())
    }

    /// The session's own connection, when it has one to `shard` that is not lost.
    pub(super) fn own(&self, shard: usize) -> Option<Rc<Upstream>> {
        let pinned = self.state.pinned.as_deref()?;
        let upstream = pinned.lease.upstream();
        (pinned.shard == shard && !upstream.has_ended()).then(|| Rc::clone(upstream))
    }

    /// WATCH: from here to EXEC, DISCARD or UNWATCH the session's requests for that shard go over a
    /// connection of its own.
    pub(super) fn watch(&mut self, shard: usize, args: Args<'_>) -> Flow {
        if let Err(flow) = self.pin(shard) {
            return flow;
        }
        if let Some(pinned) = &mut self.state.pinned {
            pinned.lease.watches = true;
        }
        self.send(shard, Access::Write, true, args.frame)
    }

    /// UNWATCH: forgets what is watched; the connection goes when it has answered.
    pub(super) fn unwatch(&mut self, args: Args<'_>) -> Flow {
        let Some(pinned) = &mut self.state.pinned else {
            self.reply(reply::OK);
            return Flow::Continue;
        };
        pinned.lease.watches = false;
        let shard = pinned.shard;
        self.client.wait_for_all();
        self.send(shard, Access::Write, true, args.frame)
    }
}

#[cfg(test)]
mod tests {
    use crate::{policy::reads::ReadFrom, proto::redis::stage::Stage};

    #[tokio::test(start_paused = true)]
    async fn who_watches_has_a_connection_of_its_own_which_the_next_one_gets_clean() {
        let stage = Stage::new(1, ReadFrom::Primary);
        let (mut watches, mut other) = (stage.client(), stage.client());
        watches.say("GET a\r\nWATCH a\r\nGET b\r\n");
        stage.settle().await;
        let mut shared = stage.accept(0);
        assert!(shared.heard().ends_with("a\r\n"));
        assert!(stage.try_accept(0).is_none(), "the GET before it is still under way");
        shared.say("+a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        own.heard();
        own.say("+OK\r\n+b\r\n");
        stage.settle().await;
        assert_eq!(watches.heard(), "+a\r\n+OK\r\n+b\r\n");
        drop(watches);
        stage.settle().await;
        assert_eq!(own.heard(), "*1\r\n$7\r\nUNWATCH\r\n");
        own.say("+OK\r\n");
        other.say("WATCH c\r\n");
        stage.settle().await;
        assert!(own.heard().ends_with("c\r\n"));
        assert!(stage.try_accept(0).is_none());
    }
}
