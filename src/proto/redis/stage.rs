//! A worker for unit tests: a hub on a clock that stands still, clients over real sockets, and one
//! shard of backends that the test plays by hand. Not compiled into the program.

use super::{
    audience::Audience,
    client::Limits,
    duty,
    hub::{Hub, Parts},
    insight::{Insight, Options},
    multi::Rules,
    peers::Peers,
    session::{self, Settings},
    table::Commands,
};
use crate::{
    net::{addr::Address, memory::Memory, spawn::Spawn, stream::Stream},
    policy::{
        balance::{Balancer, Strategy},
        gate::{Axes, Health, Passive, Role, derive},
        reads::ReadFrom,
        shard::Sharding,
    },
    telemetry::metrics::{ClusterMetrics, Counter, ListenerMetrics, WorkerMetrics},
    topology::{
        Backend, Cluster, Credentials, Dedicated, Outage, Publisher, ReadRules, Report, Reporter,
        Shard, Timeouts, Topology, channel,
    },
};
use std::{
    cell::RefCell,
    fmt,
    future::Future,
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc::Receiver};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The worker and what surrounds it.
pub(super) struct Stage {
    pub(super) hub: Rc<Hub>,
    pub(super) backends: Vec<Arc<Backend>>,
    pub(super) limits: Limits,
    /// Of clients that come from now on.
    pub(super) rules: Rules,
    publisher: Publisher,
    timeouts: Timeouts,
    dedicated: Dedicated,
    rules_for_reads: Option<Arc<ReadRules>>,
    outage: Outage,
    turns: Arc<AtomicU64>,
    reports: Receiver<Report>,
    listeners: Vec<UnixListener>,
    tasks: Rc<RefCell<Vec<Task>>>,
    ticks: u64,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// A shard of so many members, all ready: the first one is the primary. Call it in a test of
    /// tokio with `start_paused`.
    pub(super) fn new(members: usize, from: ReadFrom) -> Self {
        Self::with_timeouts(members, from, Timeouts::default())
    }

    pub(super) fn with_timeouts(members: usize, from: ReadFrom, timeouts: Timeouts) -> Self {
        Self::with(members, from, timeouts, None, Insight::default(), None)
    }

    /// As [`Self::new`], with a limit on buffered bytes.
    pub(super) fn with_memory(members: usize, from: ReadFrom, limit: u64) -> Self {
        let timeouts = Timeouts::default();
        Self::with(members, from, timeouts, Some(limit), Insight::default(), None)
    }

    /// As [`Self::new`], where equal GETs are asked once.
    pub(super) fn coalescing(members: usize, from: ReadFrom) -> Self {
        let insight = Insight::new([Options { coalesce: true, ..Options::default() }], 1);
        Self::with(members, from, Timeouts::default(), None, insight, None)
    }

    /// As [`Self::coalescing`] or not, where reads have those rules.
    pub(super) fn ruled(members: usize, from: ReadFrom, coalesce: bool, rules: ReadRules) -> Self {
        let insight = Insight::new([Options { coalesce, ..Options::default() }], 1);
        Self::with(members, from, Timeouts::default(), None, insight, Some(rules))
    }

    fn with(
        members: usize,
        from: ReadFrom,
        timeouts: Timeouts,
        limit: Option<u64>,
        insight: Insight,
        rules: Option<ReadRules>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |member: usize| folder.path().join(format!("b{member}"));
        let backend = |member| {
            let address = Address::Unix(path(member));
            let id = u32::try_from(member).unwrap();
            let mut backend = Backend::new(id, "main".into(), "s0".into(), address, 1, 1);
            backend.has_read_rules = rules.is_some();
            Arc::new(backend)
        };
        let listener = |member| {
            let listener = UnixListener::bind(path(member)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let backends: Vec<_> = (0..members).map(backend).collect();
        let (reporter, reports) = Reporter::channel();
        let (publisher, topology) = channel(Topology::default());
        let commands = Commands::builtin();
        let metrics = Arc::new(WorkerMetrics {
            listeners: vec![ListenerMetrics::default()],
            clusters: vec![ClusterMetrics::default()],
            commands: (0..=commands.len()).map(|_| Counter::default()).collect(),
            ..WorkerMetrics::default()
        });
        let tasks: Rc<RefCell<Vec<Task>>> = Rc::default();
        let started = Rc::clone(&tasks);
        let hub = Hub::new(Parts {
            worker: 0,
            metrics: Arc::clone(&metrics),
            reporter,
            memory: Memory { limit, workers: Arc::new([metrics]) },
            spawn: Spawn::new(move |task| started.borrow_mut().push(task)),
            topology,
            commands: vec![commands],
            library: Arc::default(),
            seed: 7,
            ids: Arc::default(),
            insight: Arc::new(insight),
            peers: Peers::none(),
            audience: Arc::new(Audience::new(1)),
        });
        let stage = Self {
            hub,
            limits: Limits {
                output: 32 * 1024 * 1024,
                pipeline: 1024,
                idle: Duration::ZERO,
                grace: Duration::from_secs(1),
            },
            rules: Rules::default(),
            publisher,
            timeouts,
            dedicated: Dedicated::default(),
            rules_for_reads: rules.map(Arc::new),
            outage: Outage { wait: Duration::ZERO, queue: 0 },
            turns: Arc::default(),
            reports,
            listeners: (0..members).map(listener).collect(),
            tasks,
            ticks: 0,
            _folder: folder,
            backends,
        };
        for member in 0..members {
            let role = if member == 0 { Role::Primary } else { Role::Replica };
            stage.set(member, Axes { health: Health::Healthy, role, ..Axes::default() });
        }
        stage.publish(from);
        stage
    }

    /// Leaves so many leases at every backend, under these rules.
    pub(super) fn limit_leases(&mut self, most: u32, dedicated: Dedicated) {
        for backend in &self.backends {
            (most..self.dedicated.max_per_backend)
                .filter_map(|_| backend.leases.try_permit())
                .for_each(std::mem::forget);
        }
        self.dedicated = Dedicated { max_per_backend: most, ..dedicated };
        self.publish(ReadFrom::Primary);
    }

    /// From now on what needs a primary waits so long for one, so many at a time.
    pub(super) fn wait_for_primary(&mut self, wait: Duration, queue: u32) {
        self.outage = Outage { wait, queue };
        self.publish(ReadFrom::Primary);
    }

    /// Publishes what control would of a backend in this state; a half-open one gets one permit.
    pub(super) fn set(&self, member: usize, axes: Axes) {
        let (state, gate) = derive(axes);
        if self.backends[member].gate().primary() != gate.primary() {
            self.turns.fetch_add(1, Ordering::AcqRel);
        }
        self.backends[member].publish(state, gate, axes.role, u32::from(gate.half_open()));
        duty::gates_changed(&self.hub);
    }

    /// As [`Self::set`], of a healthy replica whose passive axis moved.
    pub(super) fn set_replica(&self, member: usize, passive: Passive) {
        let role = Role::Replica;
        self.set(member, Axes { health: Health::Healthy, passive, role, ..Axes::default() });
    }

    /// The shard as it is now.
    pub(super) fn shard(&self) -> Shard {
        self.shard_of("s0", self.backends.clone())
    }

    fn shard_of(&self, name: &str, members: Vec<Arc<Backend>>) -> Shard {
        let weights = vec![1; members.len()];
        Shard {
            name: name.into(),
            members,
            replicas: Balancer::new(Strategy::RoundRobin, &weights[1..]),
            any: Balancer::new(Strategy::RoundRobin, &weights),
            pinned: None,
            fail_open: Default::default(),
            present: Default::default(),
        }
    }

    /// A snapshot with this policy for reads.
    pub(super) fn publish(&self, from: ReadFrom) {
        self.publish_shards(from, vec![self.shard()]);
    }

    /// A snapshot of these shards instead, the first of which owns every key, and the workers are
    /// told.
    pub(super) fn reshape(&self, from: ReadFrom, shards: &[(&str, &[usize])]) {
        let shards = shards.iter().map(|(name, members)| {
            let members = members.iter().map(|at| Arc::clone(&self.backends[*at])).collect();
            self.shard_of(name, members)
        });
        self.publish_shards(from, shards.collect());
        duty::gates_changed(&self.hub);
    }

    fn publish_shards(&self, from: ReadFrom, shards: Vec<Shard>) {
        let cluster = Cluster {
            id: 0,
            name: "main".into(),
            order: Cluster::order(&shards),
            shards,
            layout: Default::default(),
            sharding: Sharding::One,
            reads: from,
            read_rules: self.rules_for_reads.clone(),
            keyless: 0,
            shebang_reads: false,
            timeouts: self.timeouts,
            credentials: Credentials::default(),
            tls: None,
            queue: None,
            asks_role: false,
            dedicated: self.dedicated,
            follows: None,
            outage: self.outage,
            turns: Some(Arc::clone(&self.turns)),
            heirs: Arc::new(Semaphore::new(self.outage.queue as usize)),
        };
        self.publisher.publish(Topology { clusters: vec![Arc::new(cluster)] });
    }

    /// A client with its session.
    pub(super) fn client(&self) -> Peer {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        let settings = Settings {
            listener: 0,
            name: "test".into(),
            cluster: 0,
            password: None,
            users: Vec::new(),
            passthrough: false,
            routes: Vec::new(),
            max_bulk: 1024 * 1024,
            limits: self.limits,
            split_writes: true,
            mget_embeds: false,
            allow: Vec::new(),
            deny: Vec::new(),
            keys_max: 1_000,
            strict_order: false,
            multi: self.rules,
            tls: None,
        };
        let hub = Rc::clone(&self.hub);
        self.tasks.borrow_mut().push(Box::pin(async move {
            session::serve(hub, Rc::new(settings), ours, None).await;
        }));
        Peer::new(theirs)
    }

    /// The connection that the proxy has just opened to a backend.
    pub(super) fn accept(&self, member: usize) -> Peer {
        self.try_accept(member).expect("a connection to the backend")
    }

    /// The next connection that the proxy has opened to a backend, if it has.
    pub(super) fn try_accept(&self, member: usize) -> Option<Peer> {
        self.listeners[member].accept().ok().map(|(stream, _)| Peer::new(stream))
    }

    /// Nobody listens at a backend any more.
    pub(super) fn stop_listening(&self, member: usize) {
        let Address::Unix(path) = &self.backends[member].address else { unreachable!() };
        std::fs::remove_file(path).unwrap();
    }

    /// Somebody does again.
    pub(super) fn listen_again(&mut self, member: usize) {
        let Address::Unix(path) = &self.backends[member].address else { unreachable!() };
        self.listeners[member] = UnixListener::bind(path).unwrap();
        self.listeners[member].set_nonblocking(true).unwrap();
    }

    /// What was reported to control since the last call.
    pub(super) fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    /// Lets every task go on until all wait; the clock stands still.
    pub(super) async fn settle(&self) {
        for _ in 0..ROUNDS {
            self.round().await;
        }
    }

    /// Every task has one turn, the oldest first; one that is started now has its first in the
    /// next round.
    pub(super) async fn round(&self) {
        std::future::poll_fn(|cx| {
            let mut running = std::mem::take(&mut *self.tasks.borrow_mut());
            running.retain_mut(|task| task.as_mut().poll(cx).is_pending());
            let mut tasks = self.tasks.borrow_mut();
            running.append(&mut tasks);
            *tasks = running;
            Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
    }

    /// Time passes, with the worker's duties.
    pub(super) async fn pass(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            tokio::time::advance(duty::TICK).await;
            self.ticks += 1;
            duty::tick(&self.hub, self.ticks);
            self.settle().await;
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("backends", &self.backends).finish_non_exhaustive()
    }
}

/// The other end of a connection: a client, or a backend that the test plays.
#[derive(Debug)]
pub(super) struct Peer(UnixStream);

impl Peer {
    fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self(stream)
    }

    /// Sends bytes, all of which the socket must take at once (some 200 KiB).
    pub(super) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends no more.
    pub(super) fn end(&mut self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Everything that has come since the last call.
    pub(super) fn heard(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = self.0.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(all).unwrap()
    }

    /// Whether the other side has closed, and nothing is left to read.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.0.read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Enough for a request to come in, go out, come back and leave, with a retry on the way.
const ROUNDS: usize = 24;
