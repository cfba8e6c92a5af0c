//! Connections to servers that another server has named and that are no members of the cluster yet:
//! a request need not wait until control knows them. Not who is a member.

use crate::{
    net::addr::Address,
    policy::gate::{Axes, Health, Role, derive},
    proto::redis::{
        class::Class,
        hub::Hub,
        upstream::{Phase, Purpose, Upstream},
    },
    topology::{Backend, Cluster},
};
use foldhash::HashMap;
use std::{cell::RefCell, rc::Rc, sync::Arc};

/// Those of one worker.
#[derive(Debug, Default)]
pub(in crate::proto::redis) struct Strangers {
    open: RefCell<HashMap<(usize, Address, Class), Rc<Upstream>>>,
}

impl Strangers {
    /// The shared connection to the server at that address; `None` when there are too many.
    pub(super) fn upstream(
        &self,
        hub: &Rc<Hub>,
        cluster: &Cluster,
        address: &Address,
        class: Class,
    ) -> Option<Rc<Upstream>> {
        let key = (cluster.id, address.clone(), class);
        if let Some(open) = self.open.borrow().get(&key).filter(|open| is_fit(open)) {
            return Some(Rc::clone(open));
        }
        let mut open = self.open.borrow_mut();
        open.retain(|_, upstream| is_fit(upstream));
        if open.len() >= MOST {
            return None;
        }
        let backend = stranger(hub, cluster, address);
        let upstream = hub.open_apart(cluster, &backend, class, Purpose::Shared);
        open.insert(key, Rc::clone(&upstream));
        Some(upstream)
    }

    /// Closes those that nobody has wanted for a while: the server is a member by now.
    pub(in crate::proto::redis) fn sweep(&self, now_us: u64) {
        let mut open = self.open.borrow_mut();
        open.retain(|_, upstream| is_fit(upstream));
        for upstream in open.values().filter(|upstream| upstream.is_idle(now_us, IDLE_US)) {
            upstream.end(Phase::Released, "not wanted for a while");
        }
    }
}

fn is_fit(upstream: &Upstream) -> bool {
    !upstream.has_ended() && !upstream.is_doomed() && !upstream.inner().retired
}

/// Somebody whom control does not know, and who is what another server says.
fn stranger(hub: &Hub, cluster: &Cluster, address: &Address) -> Arc<Backend> {
    let name = Arc::clone(&cluster.name);
    let shard = address.to_string().into();
    let backend = Backend::new(u32::MAX, name, shard, address.clone(), 1, hub.worker() + 1);
    let role = Role::Primary;
    let (state, gate) = derive(Axes { health: Health::Healthy, role, ..Axes::default() });
    backend.publish(state, gate, role, 0);
    Arc::new(backend)
}

/// Of one worker: more than a cluster gets of new servers at once. What servers say may be wrong.
const MOST: usize = 64;
const IDLE_US: u64 = 10_000_000;
