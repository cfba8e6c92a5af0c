//! One client's connection, start to end: pick, connect, relay. It never looks at a byte.

use super::{hub::Hub, pick::pick};
use crate::{
    net::{
        listener::is_exhaustion,
        relay::{self, Tally, relay},
        stream::{self, Stream},
    },
    telemetry::metrics::{BackendMetrics, ListenerMetrics},
    topology::{Backend, Cluster, Layout, Outcome, Shard},
};
use std::{io, net::IpAddr, rc::Rc, sync::Arc};

/// What a listener says of its connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its place among the process's listeners.
    pub listener: usize,
    pub name: Arc<str>,
    /// Index of its cluster.
    pub cluster: usize,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    Relayed(relay::End),
    /// No backend took it.
    NoBackend,
}

/// Serves one client until it ends. `peer` is its address, when it has one.
pub async fn serve(
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    mut client: Stream,
    peer: Option<IpAddr>,
) -> End {
    let Some(cluster) = hub.cluster(settings.cluster) else { return End::NoBackend };
    let counted = hub.metrics.clusters.get(settings.cluster).map(|cluster| &cluster.writes);
    let Some((lease, mut backend)) = connect(&hub, &cluster, peer).await else {
        counted.iter().for_each(|requests| requests.proxy_errors.add(1));
        return End::NoBackend;
    };
    counted.iter().for_each(|requests| requests.ok.add(1));
    let nobody = ListenerMetrics::default();
    let listener = hub.metrics.listeners.get(settings.listener).unwrap_or(&nobody);
    let tally = Tally {
        up: [&listener.bytes_in, &lease.cell().bytes_out],
        down: [&listener.bytes_out, &lease.cell().bytes_in],
        held: &hub.metrics.buffered,
    };
    let idle = cluster.timeouts.idle;
    End::Relayed(relay(&mut client, &mut backend, Vec::new(), idle, &hub.stock, tally).await)
}

/// A connection to one of the cluster's backends. Nothing was sent before, so another one may be
/// tried whatever went wrong.
async fn connect(hub: &Hub, cluster: &Cluster, peer: Option<IpAddr>) -> Option<(Lease, Stream)> {
    let group = cluster.shards.first()?;
    let Layout::Group { client } = cluster.layout else { return None };
    let key = peer.map_or_else(|| hub.draw(), |address| client.key(address));
    let mut tried = 0;
    for attempt in 0..ATTEMPTS {
        let (index, lease) = claim(hub, cluster.id, group, key, tried)?;
        tried |= 1 << index;
        if let (1.., Some(counted)) = (attempt, hub.metrics.clusters.get(cluster.id)) {
            counted.writes.retries.add(1);
        }
        match stream::connect(&lease.backend.address, cluster.timeouts.connect).await {
            Ok(stream) => return Some((lease.connected(), stream)),
            Err(error) => lease.failed(hub, &error),
        }
    }
    None
}

/// A claim on one that was not tried.
fn claim(hub: &Hub, cluster: usize, group: &Shard, key: u64, tried: u64) -> Option<(usize, Lease)> {
    let index =
        hub.with_cursor(cluster, |cursor| pick(group, key, tried, cursor, || hub.draw()))?;
    let backend = Arc::clone(group.members.get(index)?);
    Some((index, Lease::new(hub.worker(), backend)))
}

/// A connection in the counts of its backend, from the pick to the end.
struct Lease {
    backend: Arc<Backend>,
    worker: usize,
    connected: bool,
}

impl Lease {
    fn new(worker: usize, backend: Arc<Backend>) -> Self {
        let lease = Self { backend, worker, connected: false };
        lease.cell().in_flight.add(1);
        lease
    }

    fn cell(&self) -> &BackendMetrics {
        self.backend.cells.get(self.worker).expect("a backend has a cell for each worker")
    }

    fn connected(mut self) -> Self {
        self.connected = true;
        let cell = self.cell();
        cell.connects_ok.add(1);
        cell.connections.add(1);
        // What a client will do is not known, and what is not known to be a read is a write.
        cell.writes.add(1);
        self
    }

    /// Tells why there is no connection; what we lack ourselves is no fault of the backend.
    fn failed(self, hub: &Hub, error: &io::Error) {
        let cell = self.cell();
        cell.connects_failed.add(1);
        tracing::debug!(backend = %self.backend.name, "connect: {error}");
        if is_exhaustion(error) {
            return;
        }
        cell.writes.add(1);
        cell.failures.add(1);
        hub.reporter.report(&self.backend, Outcome::LocalFailure);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let cell = self.cell();
        cell.in_flight.sub(1);
        if self.connected {
            cell.connections.sub(1);
        }
    }
}

/// A connection is tried at so many backends at most.
const ATTEMPTS: usize = 3;
