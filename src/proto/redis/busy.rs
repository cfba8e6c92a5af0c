//! A script that runs long: others must not wait on the connection on which it runs, for there the
//! server tells nobody that it is busy. Not how a script is killed: that is `scripts`.

use super::{
    entry::{Entry, Owner, Patience},
    hub::Hub,
    upstream::{Purpose, Upstream},
};
use crate::topology::Backend;
use std::{rc::Rc, sync::Arc};

/// Where a script runs long.
#[derive(Debug)]
pub(super) struct Busy {
    pub cluster: usize,
    pub backend: Arc<Backend>,
}

/// Looks for scripts that run long, and has nothing new sent behind one; called some twenty times a
/// second.
pub(super) fn tick(hub: &Hub, now_us: u64) {
    let late: Vec<_> =
        hub.upstreams().into_iter().filter(|upstream| runs_long(upstream, now_us)).collect();
    for upstream in &late {
        leave_alone(hub, upstream, &late);
    }
    let first = late
        .first()
        .map(|upstream| Busy { cluster: upstream.cluster, backend: Arc::clone(&upstream.backend) });
    // One that was busy and runs the next script is asked, not taken for idle.
    let before = hub.busy.take().filter(|busy| runs_any(hub, busy));
    *hub.busy.borrow_mut() = first.or(before);
}

fn runs_any(hub: &Hub, busy: &Busy) -> bool {
    let runs = |upstream: &Rc<Upstream>| {
        let script = |entry: &Entry| entry.patience == Patience::Script;
        Arc::ptr_eq(&upstream.backend, &busy.backend) && upstream.inner().fifo.iter().any(script)
    };
    hub.upstreams().iter().any(runs)
}

/// A server also keeps the replies to what it read together with the script.
fn runs_long(upstream: &Upstream, now_us: u64) -> bool {
    let inner = upstream.inner();
    let is_long_ago = |us: u64| now_us.saturating_sub(us) >= LONG_US;
    is_long_ago(inner.last_byte_us)
        && inner
            .fifo
            .iter()
            .take_while(|entry| is_long_ago(entry.start_us))
            .any(|entry| entry.patience == Patience::Script)
}

/// Those whose requests are on their way there wait for their replies before they go on.
fn leave_alone(hub: &Hub, upstream: &Rc<Upstream>, late: &[Rc<Upstream>]) {
    let alone = |other: &&Rc<Upstream>| {
        Arc::ptr_eq(&other.backend, &upstream.backend) && other.inner().retired
    };
    if upstream.purpose != Purpose::Shared || late.iter().filter(alone).count() >= MOST_ALONE {
        return;
    }
    let mut inner = upstream.inner();
    if std::mem::replace(&mut inner.retired, true) {
        return;
    }
    for entry in &inner.fifo {
        if let Owner::Client(client) = &entry.owner {
            client.wait_for_all();
        }
    }
    drop(inner);
    hub.retire(upstream);
}

/// A server answers nobody while it runs a script, until its `busy-reply-threshold` (5s unless set)
/// is over: far below that, and far above what a script usually takes.
const LONG_US: u64 = 100_000;
/// Connections to one backend that may be left to their scripts: one that only hangs gets no more.
const MOST_ALONE: usize = 4;
