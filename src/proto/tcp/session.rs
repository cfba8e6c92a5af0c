//! One client's connection, start to end: pick, connect, relay. It never looks at a byte.

use super::hub::Hub;
use crate::{
    net::{
        addr::Address,
        listener::is_exhaustion,
        origin::Origin,
        proxy_protocol,
        relay::{self, Tally, relay},
        stream::{self, Stream},
    },
    telemetry::metrics::{ListenerMetrics, RetryReason, WorkerMetrics},
    topology::{Cluster, Connected, Killable, Layout, Lease, Outcome, Shard, pick},
};
use ipnet::IpNet;
use std::{io, net::IpAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::io::AsyncWriteExt;

/// What a listener says of its connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its place among the process's listeners.
    pub listener: usize,
    pub name: Arc<str>,
    /// Index of its cluster.
    pub cluster: usize,
    /// Whose connections begin with a PROXY protocol header.
    pub trusted: Vec<IpNet>,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    Relayed(relay::End),
    /// The operator took the backend out and its connections with it.
    Killed,
    /// No backend took it.
    NoBackend,
    /// A trusted proxy did not say whose connection it is.
    NoHeader(io::Error),
}

/// Serves one client until it ends. `peer` is its address, when it has one.
pub async fn serve(
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    mut client: Stream,
    peer: Option<IpAddr>,
) -> End {
    let _guard = Guard(&hub.metrics);
    let Some(cluster) = hub.chooser.cluster(settings.cluster) else { return End::NoBackend };
    let nobody = ListenerMetrics::default();
    let listener = hub.metrics.listeners.get(settings.listener).unwrap_or(&nobody);
    let mut origin = Origin::of(&client, peer);
    if peer.is_some_and(|peer| settings.trusts(peer)) {
        origin = match origin.greeted(&mut client, hub.stock.buffer()).await {
            Ok(told) => told,
            Err(error) => {
                listener.rejected_protocol.add(1);
                return End::NoHeader(error);
            }
        };
    }
    let counted = hub.metrics.clusters.get(settings.cluster).map(|cluster| &cluster.writes);
    let Some((lease, connected, mut backend)) = connect(&hub, &cluster, &origin).await else {
        counted.iter().for_each(|requests| requests.proxy_errors.add(1));
        return End::NoBackend;
    };
    counted.iter().for_each(|requests| requests.ok.add(1));
    let tally = Tally {
        up: &[&listener.bytes_in, &lease.cell().bytes_out],
        down: &[&listener.bytes_out, &lease.cell().bytes_in],
        held: &hub.metrics.buffered,
    };
    let idle = cluster.timeouts.idle;
    tokio::select! {
        biased;
        end = relay(&mut client, &mut backend, origin.early, idle, &hub.stock, tally) => {
            End::Relayed(end)
        }
        () = connected.killable.killed() => End::Killed,
    }
}

/// A connection to a backend: counted, and the operator's to end.
struct Joined {
    _connected: Connected,
    killable: Killable,
}

/// Counts a fault of ours that ends the session.
struct Guard<'a>(&'a WorkerMetrics);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.add(1);
        }
    }
}

impl Settings {
    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }
}

/// A connection to one of the cluster's backends. Nothing was sent before, so another one may be
/// tried whatever went wrong.
async fn connect(hub: &Hub, cluster: &Cluster, origin: &Origin) -> Option<(Lease, Joined, Stream)> {
    let group = cluster.shards.first()?;
    let Layout::Group { client, send_proxy } = cluster.layout else { return None };
    let key = origin.address.map_or_else(|| hub.chooser.draw(), |address| client.key(address));
    let header = send_proxy.map(|version| proxy_protocol::header(version, origin.ends));
    let mut tried = 0;
    for attempt in 0..ATTEMPTS {
        let (index, lease) = claim(hub, cluster.id, group, key, tried)?;
        tried |= 1 << index;
        if let (1.., Some(counted)) = (attempt, hub.metrics.clusters.get(cluster.id)) {
            counted.writes.retried(RetryReason::Connect);
        }
        let backend = lease.backend();
        let killable = Killable::new(&hub.kills, Arc::clone(backend));
        match dial(&backend.address, cluster.timeouts.connect, header.as_deref()).await {
            Ok(stream) => {
                // What a client will do is not known, and what is not known to be a read is a write.
                lease.cell().writes.add(1);
                let _connected = Connected::new(hub.chooser.worker(), Arc::clone(backend));
                return Some((lease, Joined { _connected, killable }, stream));
            }
            Err(error) => failed(hub, &lease, &error),
        }
    }
    None
}

/// A connection that has got its header. A new socket takes so little at once.
async fn dial(address: &Address, limit: Duration, header: Option<&[u8]>) -> io::Result<Stream> {
    let mut stream = stream::connect(address, limit).await?;
    if let Some(header) = header {
        stream.write_all(header).await?;
    }
    Ok(stream)
}

/// A claim on one that was not tried.
fn claim(hub: &Hub, cluster: usize, group: &Shard, key: u64, tried: u64) -> Option<(usize, Lease)> {
    let index = hub.chooser.with_picker(cluster, key, |picker| {
        pick::any(group, picker, tried, || hub.chooser.draw())
    })?;
    let backend = Arc::clone(group.members.get(index)?);
    Some((index, Lease::new(hub.chooser.worker(), backend)))
}

/// Tells why there is no connection; what we lack ourselves is no fault of the backend.
fn failed(hub: &Hub, lease: &Lease, error: &io::Error) {
    let cell = lease.cell();
    cell.connects_failed.add(1);
    tracing::debug!(backend = %lease.backend().name, "connect: {error}");
    if is_exhaustion(error) {
        return;
    }
    cell.writes.add(1);
    cell.failures.add(1);
    hub.reporter.report(lease.backend(), Outcome::LocalFailure);
}

/// A connection is tried at so many backends at most.
const ATTEMPTS: usize = 3;
