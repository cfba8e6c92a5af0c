//! An upstream connection that one session has for itself, for what it does there would change a
//! shared one for everybody or keep everybody waiting. Not when a session needs one: that is
//! [`super::pin`].

use super::{class::Class, hub::Hub, upstream::Phase, upstream::Upstream};
use crate::{
    net::pool::Pool,
    topology::{Backend, Cluster},
};
use foldhash::HashMap;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// A connection that is nobody else's until it is dropped; then the next session may have it,
/// unless its state is not known to be clean (redis.md, T5).
#[derive(Debug)]
pub(super) struct Lease {
    hub: Rc<Hub>,
    upstream: Rc<Upstream>,
    /// Keys are watched on it: the server must be told to forget them.
    pub(super) watches: bool,
    /// What was done on it cannot be undone: it is not for others.
    pub(super) is_spoilt: bool,
}

impl Lease {
    /// One that has been used before, or a new one: requests may be sent at once and wait until it
    /// is there.
    pub(super) fn take(
        hub: &Rc<Hub>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
    ) -> Self {
        let upstream = hub
            .rested
            .take(hub, backend.id, class)
            .unwrap_or_else(|| hub.open_leased(cluster, backend, class));
        upstream.set_leased(true);
        Self { hub: Rc::clone(hub), upstream, watches: false, is_spoilt: false }
    }

    pub(super) fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let upstream = &self.upstream;
        upstream.set_leased(false);
        if upstream.has_ended() {
            return;
        }
        if self.is_spoilt || !upstream.is_quiet() {
            return upstream.end(Phase::Released, "its client left");
        }
        if self.watches {
            upstream.send_unheard(&self.hub, b"*1\r\n$7\r\nUNWATCH\r\n");
        }
        self.hub.rested.give(&self.hub, Rc::clone(upstream));
    }
}

/// The leased connections of one worker that no session has now.
#[derive(Debug, Default)]
pub(super) struct Rested {
    pools: RefCell<HashMap<(u32, Class), Pool<Idle>>>,
}

/// A connection in a pool: it is closed when the pool lets it go.
#[derive(Debug)]
struct Idle(Option<Rc<Upstream>>);

impl Rested {
    fn take(&self, hub: &Hub, backend: u32, class: Class) -> Option<Rc<Upstream>> {
        let pools = self.pools.borrow();
        let pool = pools.get(&(backend, class))?;
        loop {
            let upstream = pool.take(hub.now_us(), u64::MAX)?.0.take()?;
            if !upstream.has_ended() && !upstream.is_killed() {
                return Some(upstream);
            }
        }
    }

    fn give(&self, hub: &Hub, upstream: Rc<Upstream>) {
        let key = (upstream.backend.id, upstream.class);
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(key).or_default();
        pool.give(Idle(Some(upstream)), hub.now_us(), REST_US);
    }

    /// Closes those that nobody has wanted for a while.
    pub(super) fn sweep(&self, now_us: u64) {
        self.pools.borrow().values().for_each(|pool| pool.sweep(now_us));
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(upstream) = self.0.take() {
            upstream.end(Phase::Released, "not wanted for a while");
        }
    }
}

/// How long an idle connection is kept.
const REST_US: u64 = 30_000_000;
