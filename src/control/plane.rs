//! What control's tasks share: the table of backends, the workers' counters and the state of the
//! process. One thread owns it; nothing in it is held over an await.

use super::{
    build::Mould,
    certificates::{Owner, Side, Tls},
    discover::{Council, redis_cluster::Order},
    membership::Nursery,
    process::ProcessState,
    pulse::Pulse,
    table::Table,
};
use crate::{
    config::{Config, Protocol, Secret},
    net::tls,
    proto::redis::insight::Insight,
    telemetry::{access_log::Dropped, metrics::WorkerMetrics},
    topology::{Outcome, Publisher, Report, Topology},
};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Shared by reference between the tasks of control's thread.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) publisher: Publisher,
    pub(super) insight: Arc<Insight>,
    pub(super) listeners: Vec<Listener>,
    /// The names of the clusters that are spoken to in HTTP.
    pub(super) web: HashSet<String>,
    /// The TLS of those listeners and clusters that have it.
    pub(super) certificates: Vec<Owner>,
    /// Names of `WorkerMetrics::commands`.
    pub(super) commands: Vec<String>,
    pub(super) workers: Vec<Arc<WorkerMetrics>>,
    /// Lines that are not in the access log.
    pub(super) access_log: Option<Dropped>,
    pub(super) state: Arc<ProcessState>,
    pub(super) table: RefCell<Table>,
    /// By cluster.
    pub(super) moulds: Vec<Mould>,
    pub(super) nursery: Nursery,
    /// By cluster: who asks its servers again for its members.
    pub(super) wakes: HashMap<usize, Rc<Notify>>,
    /// By cluster: who knows its members, where the configuration does not.
    pub(super) councils: Vec<Option<Rc<Council>>>,
    /// How long who has left its cluster may keep its connections.
    pub(super) drain_timeout: Duration,
    pub(super) pulse: RefCell<Pulse>,
    pub(super) started: Instant,
    /// What lets somebody change something over TCP.
    pub(super) token: Option<Secret>,
}

/// The clusters of `config` whose servers say who is in them.
pub(super) fn orders(config: &Config) -> Vec<Order> {
    let each = config.clusters.iter().enumerate().filter_map(|(cluster, written)| {
        let seeds = written.redis_cluster.clone()?;
        Some(Order { cluster, seeds, wake: Rc::default() })
    });
    each.collect()
}

/// What the pages say of a listener beside its counters.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) bind: String,
    pub(super) protocol: &'static str,
    pub(super) cluster: String,
}

impl Plane {
    /// Milliseconds since control started; the clock of every machine in the table.
    pub(super) fn now_ms(&self) -> u64 {
        super::events::millis(self.started.elapsed())
    }

    /// The snapshot in force.
    pub(super) fn topology(&self) -> Arc<Topology> {
        self.publisher.current()
    }

    /// Puts balancers in force that know the newest weights.
    pub(super) fn follow_weights(&self) {
        let clusters = self.table.borrow_mut().take_reweighed();
        if !clusters.is_empty() {
            self.publisher.publish(self.topology().reweighed(&clusters));
        }
    }

    /// Has the members of a backend's cluster asked for anew, when a worker has met something that
    /// speaks of change.
    pub(super) fn look_again(&self, report: Report) {
        if matches!(report.outcome, Outcome::Suspect) {
            return;
        }
        let cluster = self.table.borrow().cluster_of(report.backend);
        let wake = cluster.and_then(|cluster| self.wakes.get(&cluster));
        wake.into_iter().for_each(|wake| wake.notify_one());
    }

    /// # Errors
    /// Which worker's loop does not turn.
    pub(super) fn alive(&self) -> Result<(), String> {
        self.pulse.borrow().alive(self.now_ms())
    }
}

/// The clusters of `config` that are spoken to in HTTP.
pub(super) fn web(config: &Config) -> HashSet<String> {
    let clusters = config.clusters.iter().filter(|one| one.protocol == Protocol::Http);
    clusters.map(|cluster| cluster.name.clone()).collect()
}

/// What the backends of each cluster are made with.
pub(super) fn moulds(config: &Config, topology: &Topology, workers: usize) -> Vec<Mould> {
    let both = config.clusters.iter().zip(&topology.clusters);
    both.map(|(written, cluster)| Mould::new(written, cluster.queue.clone(), workers)).collect()
}

/// The TLS of `config`: of listeners, in its order, and of the clusters of the snapshot.
pub(super) fn certificates(
    config: &Config,
    topology: &Topology,
    servers: Vec<Option<tls::Server>>,
) -> Vec<Owner> {
    let listeners = config.listeners.iter().zip(servers).filter_map(|(listener, tls)| {
        Some(Owner::new(Side::Listener, &listener.name, Tls::Server(tls?)))
    });
    let clusters = topology.clusters.iter().filter_map(|cluster| {
        Some(Owner::new(Side::Cluster, &cluster.name, Tls::Client(cluster.tls.clone()?)))
    });
    listeners.chain(clusters).collect()
}

/// The listeners of `config`, as the pages show them.
pub(super) fn listeners(config: &Config) -> Vec<Listener> {
    let each = config.listeners.iter().map(|listener| Listener {
        name: listener.name.clone(),
        bind: listener.bind.to_string(),
        protocol: listener.protocol.as_str(),
        cluster: listener
            .clusters()
            .into_iter()
            .filter_map(|index| config.clusters.get(index))
            .map(|cluster| cluster.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    });
    each.collect()
}
