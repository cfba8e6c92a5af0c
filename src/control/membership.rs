//! The members of a cluster change while it runs: whoever knows them (a discovery, later a reload)
//! says who they are, and workers see it in one snapshot. Not who knows: those are under `discover`.
//!
//! The order is what makes it safe. First the table: who has left takes nothing new, who is no
//! primary any more gets no writes, who is new gets nothing before it was probed. Then the snapshot.
//! Then the connections: those of former primaries are closed at once, for what was sent there may be
//! lost and whatever waits there would wait for nobody; those of who has left when nothing is under
//! way on them, or after `shutdown.drain_timeout`.

use super::{
    plane::Plane,
    run_task,
    table::{News, Part},
};
use crate::{
    policy::shard::Sharding,
    topology::{Backend, Cluster},
};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tokio::{sync::Notify, time::sleep};

/// What a cluster looks like now.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// All of its shards, in the order in which `sharding` counts them. Sessions find theirs again by
    /// its name.
    pub(super) parts: Vec<Part>,
    /// Which of them owns a key; `None`: as before.
    pub(super) sharding: Option<Sharding>,
}

/// Backends that nobody probes yet.
#[derive(Debug, Default)]
pub(super) struct Nursery {
    born: RefCell<Vec<usize>>,
    filled: Notify,
}

impl Nursery {
    fn take_in(&self, born: Vec<usize>) {
        if !born.is_empty() {
            self.born.borrow_mut().extend(born);
            self.filled.notify_one();
        }
    }

    /// Those that have come since it was asked last; at least one.
    pub(super) async fn leave(&self) -> Vec<usize> {
        loop {
            let born = self.born.take();
            if !born.is_empty() {
                return born;
            }
            self.filled.notified().await;
        }
    }
}

/// Puts in force what somebody says of a cluster. Who says the same again changes nothing.
pub(super) fn reshape(plane: &Rc<Plane>, cluster: usize, shape: Shape, news: News<'_>) {
    let Some(mould) = plane.moulds.get(cluster) else { return };
    let done = {
        let mut table = plane.table.borrow_mut();
        table.reshape(cluster, &shape.parts, mould, news, plane.now_ms())
    };
    let topology = plane.topology();
    if (done.changed || shape.sharding.is_some())
        && let Some(old) = topology.clusters.get(cluster)
    {
        let shards = done.shards.into_iter().map(|(name, members)| {
            let mut known = old.shards.iter().filter(|shard| shard.name == name);
            match known.find(|shard| are_same(&shard.members, &members)) {
                Some(shard) => shard.clone(),
                None => mould.shard(name, members),
            }
        });
        let shards: Vec<_> = shards.collect();
        let names = shards.iter().map(|shard| &shard.name);
        let order = match names.eq(old.order.iter()) {
            true => Arc::clone(&old.order),
            false => Cluster::order(&shards),
        };
        let sharding = shape.sharding.unwrap_or_else(|| old.sharding.clone());
        let next = Cluster { shards, order, sharding, ..Cluster::clone(old) };
        plane.publisher.publish(topology.with(next));
    }
    plane.nursery.take_in(done.born);
    done.demoted.iter().for_each(|backend| backend.kill());
    if done.changed {
        plane.table.borrow().tell_workers();
    }
    plane.follow_weights();
    if !done.removed.is_empty() {
        run_task(let_go(Rc::clone(plane), done.removed));
    }
}

/// Closes what is still open to those who have left, when its time is over.
async fn let_go(plane: Rc<Plane>, removed: Vec<Arc<Backend>>) {
    sleep(plane.drain_timeout).await;
    removed.iter().for_each(|backend| backend.kill());
    plane.table.borrow().tell_workers();
}

fn are_same(some: &[Arc<Backend>], others: &[Arc<Backend>]) -> bool {
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
}
