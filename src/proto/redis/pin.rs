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
use std::{cell::Cell, rc::Rc};

/// A session's own connection, and for what it is held.
#[derive(Debug)]
pub(super) struct Pinned {
    pub lease: Rc<Lease>,
    pub shard: usize,
    /// MULTI is open on it.
    pub in_multi: bool,
    /// It is in another database than those who come after expect.
    pub moved: bool,
    /// The database in which a transaction has left it, once that is known.
    pub selected: Option<Rc<Cell<Option<u8>>>>,
}

impl Pinned {
    fn new(lease: Rc<Lease>, shard: usize) -> Self {
        Self { lease, shard, in_multi: false, moved: false, selected: None }
    }

    /// Whether the server knows something of the session that would be lost with it.
    pub(super) fn keeps(&self) -> bool {
        self.lease.watches.get() || self.in_multi
    }

    /// Whether the session has no more need of it.
    pub(super) fn is_done(&self) -> bool {
        !self.keeps() && (self.lease.upstream().is_quiet() || self.lease.upstream().has_ended())
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
            let keeps = pinned.keeps();
            let own = pinned.lease.upstream();
            let here = pinned.shard == shard && own.cluster == self.cluster.id;
            if here && (keeps || !own.has_ended()) {
                return Ok(());
            }
            if keeps {
                self.reply(reply::CROSS_SLOT);
                return Err(Flow::Continue);
            }
        }
        if !self.client.is_settled() {
            self.client.wait_for_all();
            return Err(Flow::Hold);
        }
        if let Some(lease) = self.tracked(shard).map(Rc::clone) {
            self.state.let_go();
            self.state.pinned = Some(Box::new(Pinned::new(lease, shard)));
            return Ok(());
        }
        if self.loses_track() {
            return Err(Flow::Continue);
        }
        let Some(backend) = self.pick(shard, Access::Write, true) else {
            return Err(self.not_served(shard, Access::Write, true));
        };
        // One that is lost is not held while there is a wait for the next.
        self.state.pinned = None;
        let lease = self.lease(backend)?;
        lease.upstream().set_tenant(Some(self.client));
        self.state.pinned = Some(Box::new(Pinned::new(Rc::new(lease), shard)));
        Ok(())
    }

    /// The session's own connection, when it has one to `shard` that is not lost.
    pub(super) fn own(&self, shard: usize) -> Option<Rc<Upstream>> {
        let pinned = self.state.pinned.as_deref().filter(|pinned| {
            pinned.shard == shard && pinned.lease.upstream().cluster == self.cluster.id
        });
        let lease = pinned.map(|pinned| &pinned.lease).or_else(|| self.tracked(shard))?;
        let upstream = lease.upstream();
        (!upstream.has_ended()).then(|| Rc::clone(upstream))
    }

    /// WATCH: from here to EXEC, DISCARD or UNWATCH the session's requests for that shard go over a
    /// connection of its own.
    pub(super) fn watch(&mut self, shard: usize, args: Args<'_>) -> Flow {
        if let Err(flow) = self.pin(shard) {
            return flow;
        }
        if let Some(pinned) = &mut self.state.pinned {
            pinned.lease.watches.set(true);
        }
        let Some(own) = self.own(shard) else {
            // Lost, and with it what was watched before: EXEC will say so.
            self.reply(reply::OK);
            return Flow::Continue;
        };
        self.send_over(own, Access::Write, true, args.frame)
    }

    /// UNWATCH: forgets what is watched; the connection goes when it has answered.
    pub(super) fn unwatch(&mut self, args: Args<'_>) -> Flow {
        let Some(pinned) = &mut self.state.pinned else {
            self.reply(reply::OK);
            return Flow::Continue;
        };
        pinned.lease.watches.set(false);
        let shard = pinned.shard;
        let Some(own) = self.own(shard) else {
            self.reply(reply::OK);
            return Flow::Continue;
        };
        self.client.wait_for_all();
        self.send_over(own, Access::Write, true, args.frame)
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
