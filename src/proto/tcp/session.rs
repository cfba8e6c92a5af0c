//! One client's connection, start to end: pick, connect, relay. It never looks at a byte.

use super::hub::Hub;
use crate::{
    net::{
        dial::{Opening, dial},
        listener::is_exhaustion,
        origin::Origin,
        proxy_protocol,
        relay::{self, Tally, relay},
        stream::Stream,
        tls,
    },
    policy::access::Access,
    proto::admission::admit,
    telemetry::metrics::{ListenerMetrics, RetryReason, WorkerMetrics},
    topology::{
        Cluster, Connected, Killable, Layout, Lease, Outcome, Shard,
        admission::{Attempt, Turn, claim},
        door::{Door, Place, Reason},
        pick,
    },
};
use ipnet::IpNet;
use std::{io, net::IpAddr, rc::Rc, sync::Arc, time::Instant};

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
    /// `None`: in clear.
    pub tls: Option<tls::Server>,
    pub door: Arc<Door>,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    Relayed(relay::End),
    /// The operator took the backend out and its connections with it.
    Killed,
    /// No backend took it.
    NoBackend,
    /// It left before a backend had taken it.
    Gone,
    /// The client has too many connections, or they come too fast.
    Refused(Reason),
    /// A trusted proxy did not say whose connection it is.
    NoHeader(io::Error),
    /// The TLS handshake failed.
    NoTls(io::Error),
}

/// Serves one client until it ends. `peer` is its address, when it has one; `place` is what it has at
/// the listener's door, where one whose proxy speaks for it is identified here.
pub async fn serve(
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    mut client: Stream,
    peer: Option<IpAddr>,
    mut place: Place,
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
        if let Some(address) = origin.address {
            let key = settings.door.prefix().client(address);
            if let Err(refusal) = place.identify(key, Instant::now()) {
                settings.door.refused(refusal.reason, listener, Instant::now());
                return End::Refused(refusal.reason);
            }
        }
    }
    if let Some(tls) = &settings.tls {
        // The header was in clear, what came behind it is TLS.
        let early = std::mem::take(&mut origin.early);
        client = match tls.accept(client, &early, origin.address, listener).await {
            Ok(client) => client,
            Err(error) => return End::NoTls(error),
        };
    }
    let counted = hub.metrics.clusters.get(settings.cluster).map(|cluster| &cluster.writes);
    let connected = tokio::select! {
        biased;
        connected = connect(&hub, &cluster, &origin) => connected,
        // One that has only finished sending waits for its answer.
        () = client.broken() => return End::Gone,
    };
    let Some((lease, connected, mut backend)) = connected else {
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
    /// Whether a connection from `peer` begins with a PROXY protocol header.
    pub fn trusts(&self, peer: IpAddr) -> bool {
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
        let metrics = hub.metrics.clusters.get(cluster.id);
        let one = || claim_one(hub, cluster.id, group, key, tried);
        let (index, lease) =
            admit(cluster, metrics, Turn { shard: 0, access: Access::Write, home: None }, one)
                .await
                .ok()?;
        tried |= 1 << index;
        if let (1.., Some(counted)) = (attempt, hub.metrics.clusters.get(cluster.id)) {
            counted.writes.retried(RetryReason::Connect);
        }
        let backend = lease.backend();
        let killable = Killable::new(&hub.kills, Arc::clone(backend));
        let opening = Opening { header: header.as_deref(), ..Opening::tls(cluster.tls.as_ref()) };
        let began_us = hub.chooser.now_us();
        match dial(&backend.address, opening, cluster.timeouts.connect).await {
            Ok(stream) => {
                // What a client will do is not known, and what is not known to be a read is a write.
                lease.cell().writes.add(1);
                let now_us = hub.chooser.now_us();
                lease.observe(now_us, now_us.saturating_sub(began_us), false);
                let _connected = Connected::new(hub.chooser.worker(), Arc::clone(backend));
                return Some((lease, Joined { _connected, killable }, stream));
            }
            Err(error) => failed(hub, &lease, &error),
        }
    }
    None
}

/// A claim on one that was not tried.
fn claim_one(
    hub: &Hub,
    cluster: usize,
    group: &Shard,
    key: u64,
    tried: u64,
) -> Attempt<(usize, Lease)> {
    hub.chooser.with_picker(cluster, key, hub.chooser.now_us(), |picker| {
        let pick = |tried| pick::any(group, picker, tried, || hub.chooser.draw());
        claim(hub.chooser.worker(), group, tried, None, pick)
    })
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
    lease.observe(hub.chooser.now_us(), 0, true);
    hub.reporter.report(lease.backend(), Outcome::LocalFailure);
}

/// A connection is tried at so many backends at most.
const ATTEMPTS: usize = 3;
