//! An upstream connection that one session has for itself, for what it does there would change a
//! shared one for everybody or keep everybody waiting. Not when a session needs one: that is
//! [`super::pin`] and [`super::blocking`].

use super::{
    class::{Class, Resp},
    hub::Hub,
    upstream::{Phase, Purpose, Upstream},
    wire,
};
use crate::{
    net::pool::Pool,
    topology::{Backend, Cluster, Dedicated},
};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// A connection that is nobody else's until it is dropped; then the next session may have it,
/// unless its state is not known to be clean (redis.md, T5).
#[derive(Debug)]
pub(super) struct Lease {
    hub: Rc<Hub>,
    upstream: Rc<Upstream>,
    rules: Dedicated,
    /// Keys are watched on it: the server must be told to forget them.
    pub(super) watches: Cell<bool>,
    /// What was done on it cannot be undone: it is not for others.
    pub(super) is_spoilt: Cell<bool>,
    /// The server remembers of it what it does not of others: it is not for others either.
    is_altered: Cell<bool>,
    /// Its session keeps it to its end.
    for_life: Cell<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// One that has been used before, or a new one: requests may be sent at once and wait until it
    /// is there. `permit` is one of the backend's.
    pub(super) fn take(
        hub: &Rc<Hub>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let upstream = hub
            .rested
            .take(hub, backend.id, class)
            .unwrap_or_else(|| hub.open_apart(cluster, backend, class, Purpose::Leased));
        upstream.set_leased(true);
        upstream.heard_now(hub.now_us());
        hub.cell(backend).iter().for_each(|cell| cell.leased.add(1));
        Self {
            hub: Rc::clone(hub),
            upstream,
            rules: cluster.dedicated,
            watches: Cell::new(false),
            is_spoilt: Cell::new(false),
            is_altered: Cell::new(false),
            for_life: Cell::new(false),
            _permit: permit,
        }
    }

    /// Its session keeps it to its end, and it is nobody else's after that.
    pub(super) fn for_life(self) -> Self {
        self.keep_for_life();
        self
    }

    /// [`Self::for_life`] of one that others may know already.
    pub(super) fn keep_for_life(&self) {
        self.for_life.set(true);
        self.upstream.keep_for_life();
    }

    pub(super) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    /// Makes it one of another class; then it is of no use to the next session.
    pub(super) fn change_class(&self, from: Class, to: Class) {
        self.is_altered.set(true);
        let mut request = Vec::new();
        if from.db != to.db {
            wire::array(&mut request, 2);
            wire::bulk(&mut request, b"SELECT");
            wire::bulk(&mut request, to.db.to_string().as_bytes());
            self.upstream.send_unheard(&self.hub, &request);
            request.clear();
        }
        if from.resp != to.resp {
            wire::array(&mut request, 2);
            wire::bulk(&mut request, b"HELLO");
            wire::bulk(&mut request, if to.resp == Resp::Three { b"3" } else { b"2" });
            self.upstream.send_unheard(&self.hub, &request);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let upstream = &self.upstream;
        upstream.set_leased(false);
        self.hub.cell(&upstream.backend).iter().for_each(|cell| cell.leased.sub(1));
        upstream.set_tenant(None);
        if upstream.has_ended() {
            return;
        }
        let stays = !upstream.backend.is_removed();
        let others_may =
            stays && !self.for_life.get() && !self.is_spoilt.get() && !self.is_altered.get();
        if !others_may || upstream.is_spoilt() || !upstream.is_quiet() {
            return upstream.end(Phase::Released, "its client left");
        }
        let age_us = self.hub.now_us().saturating_sub(upstream.opened_us);
        if !self.rules.lifetime.is_zero() && age_us >= micros(self.rules.lifetime) {
            return upstream.end(Phase::Released, "older than dedicated.lifetime");
        }
        if self.watches.get() {
            upstream.send_unheard(&self.hub, b"*1\r\n$7\r\nUNWATCH\r\n");
        }
        self.hub.rested.give(&self.hub, Rc::clone(upstream), self.rules);
    }
}

/// The leased connections of one worker that no session has now.
#[derive(Debug, Default)]
pub(super) struct Rested {
    pools: RefCell<HashMap<(u32, Class), Resting>>,
}

/// Those of one kind, and how many of them are kept in any case.
#[derive(Debug, Default)]
struct Resting {
    pool: Pool<Idle>,
    min: usize,
}

/// A connection in a pool: it is closed when the pool lets it go.
#[derive(Debug)]
struct Idle(Option<Rc<Upstream>>);

impl Rested {
    fn take(&self, hub: &Hub, backend: u32, class: Class) -> Option<Rc<Upstream>> {
        let pools = self.pools.borrow();
        let resting = pools.get(&(backend, class))?;
        loop {
            let upstream = resting.pool.take(hub.now_us(), u64::MAX)?.0.take()?;
            let is_gone = upstream.is_killed() || upstream.backend.is_removed();
            if upstream.has_ended() || is_gone || upstream.is_doomed() {
                continue;
            }
            if upstream.knows_role() {
                return Some(upstream);
            }
            upstream.end(Phase::Released, "its server plays another part now");
        }
    }

    fn give(&self, hub: &Hub, upstream: Rc<Upstream>, rules: Dedicated) {
        let key = (upstream.backend.id, upstream.class);
        let mut pools = self.pools.borrow_mut();
        let resting = pools.entry(key).or_default();
        resting.min = rules.min;
        resting.pool.give(Idle(Some(upstream)), hub.now_us(), micros(rules.idle));
    }

    /// Closes those to a backend.
    pub(super) fn forget(&self, backend: u32) {
        let mut pools = self.pools.borrow_mut();
        let gone: Vec<_> = pools.extract_if(|(id, _), _| *id == backend).collect();
        drop(pools);
        drop(gone);
    }

    /// Closes those that nobody has wanted for a while.
    pub(super) fn sweep(&self, now_us: u64) {
        for resting in self.pools.borrow().values() {
            resting.pool.sweep_beyond(now_us, resting.min);
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.take() {
            upstream.end(Phase::Released, "not wanted for a while");
        }
    }
}

/// On the worker's clock.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::{policy::reads::ReadFrom, proto::redis::stage::Stage, topology::Dedicated};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn who_finds_none_free_waits_in_turn_and_is_told_when_it_takes_too_long() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.limit_leases(1, Dedicated { wait: Duration::from_secs(2), ..Dedicated::default() });
        let (mut first, mut second, mut third) = (stage.client(), stage.client(), stage.client());
        first.say("WATCH a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        own.heard();
        own.say("+OK\r\n");
        second.say("WATCH b\r\nGET b\r\n");
        stage.settle().await;
        third.say("WATCH c\r\n");
        stage.pass(Duration::from_secs(1)).await;
        assert_eq!((first.heard().as_str(), second.heard().as_str()), ("+OK\r\n", ""));
        assert_eq!(stage.hub.cell(&stage.backends[0]).unwrap().leased.get(), 1);
        drop(first);
        stage.settle().await;
        assert!(own.heard().starts_with("*1\r\n$7\r\nUNWATCH\r\n"));
        own.say("+OK\r\n+OK\r\n$-1\r\n");
        stage.settle().await;
        assert_eq!(second.heard(), "+OK\r\n$-1\r\n");
        stage.pass(Duration::from_secs(2)).await;
        assert_eq!(third.heard(), "-ERR sluice: no dedicated connection free\r\n");
        let cell = stage.hub.cell(&stage.backends[0]).unwrap();
        assert_eq!((cell.lease_waits.get(), cell.lease_refusals.get()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn for_who_leaves_while_it_waits_nothing_is_asked() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.limit_leases(1, Dedicated { wait: Duration::from_secs(9), ..Dedicated::default() });
        let (mut first, mut second, mut third) = (stage.client(), stage.client(), stage.client());
        first.say("WATCH a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        second.say("BLPOP b 0\r\n");
        stage.settle().await;
        third.say("BLPOP c 0\r\n");
        stage.settle().await;
        drop(second);
        stage.settle().await;
        own.heard();
        own.say("+OK\r\n");
        stage.settle().await;
        drop(first);
        stage.settle().await;
        let heard = own.heard();
        assert!(heard.contains("\r\nc\r\n") && !heard.contains("\r\nb\r\n"), "{heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_more_is_answered_however_often_it_waits() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        stage.limit_leases(1, Dedicated { wait: Duration::from_secs(9), ..Dedicated::default() });
        let (mut first, mut second, mut third) = (stage.client(), stage.client(), stage.client());
        first.say("WATCH a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        own.say("+OK\r\n");
        second.say("WATCH b\r\nUNWATCH\r\nWATCH c\r\nECHO end\r\n");
        second.end();
        stage.settle().await;
        third.say("WATCH d\r\n");
        stage.settle().await;
        drop(first);
        stage.settle().await;
        own.say("+OK\r\n+OK\r\n+OK\r\n");
        stage.settle().await;
        own.say("+OK\r\n");
        stage.settle().await;
        assert_eq!(third.heard(), "+OK\r\n");
        assert_eq!(second.heard(), "+OK\r\n+OK\r\n");
        drop(third);
        stage.settle().await;
        own.say("+OK\r\n+OK\r\n");
        stage.settle().await;
        assert_eq!(second.heard(), "+OK\r\n$3\r\nend\r\n");
        assert!(second.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_session_loses_its_connection_and_others_get_it() {
        let mut stage = Stage::new(1, ReadFrom::Primary);
        let mut silent = stage.client();
        silent.say("WATCH a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        own.heard();
        own.say("+OK\r\n");
        stage.pass(Duration::from_secs(29)).await;
        assert!(!own.is_closed());
        silent.say("PING\r\n");
        stage.pass(Duration::from_secs(2)).await;
        assert!(own.is_closed());
        assert_eq!(silent.heard(), "+OK\r\n+PONG\r\n");
    }
}
