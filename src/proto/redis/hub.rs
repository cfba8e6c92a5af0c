//! What all sessions of one worker share: the snapshot's reader, the upstream connections, the
//! buffers, the counters, the clock and the dice. Not shared between workers, so nothing locks.

use super::{
    audience::Audience,
    busy::Busy,
    class::Class,
    client::Client,
    cluster::Strangers,
    failover::Failovers,
    flight::Stamps,
    identity::Identities,
    insight::{Insight, SAMPLED},
    lease::Rested,
    library::Library,
    parked::Lot,
    pause::Paused,
    peers::Peers,
    pubsub::PubSub,
    redirect::{self, Ears},
    scripts::Scripts,
    table::Commands,
    upstream::{Phase, Purpose, Upstream},
};
use crate::{
    net::{buffer::Buffers, memory::Memory, spawn::Spawn},
    policy::{dice::Dice, retry::Budget},
    telemetry::metrics::{BackendMetrics, WorkerMetrics},
    topology::{Backend, Cluster, Reader, Reporter},
};
use foldhash::{HashMap, HashMapExt, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::Instant;

/// The state of one worker.
#[derive(Debug)]
pub struct Hub {
    worker: usize,
    pub buffers: Buffers,
    pub metrics: Arc<WorkerMetrics>,
    pub reporter: Reporter,
    pub memory: Memory,
    spawn: Spawn,
    topology: RefCell<Reader>,
    /// The shared ones, by the backend's seat, then [`Class::index`].
    upstreams: RefCell<Vec<Vec<Option<Rc<Upstream>>>>>,
    /// Shared too, of the classes that are seldom wanted, by backend id.
    rare: RefCell<HashMap<(u32, Class), Rc<Upstream>>>,
    /// Those that one session has for itself, or the next one will, and shared ones on which nothing
    /// new is sent.
    apart: RefCell<Vec<Rc<Upstream>>>,
    pub(super) rested: Rested,
    pub(super) peers: Peers,
    /// CLIENT PAUSE
    pub(super) paused: Cell<Option<Paused>>,
    pub(super) scripts: Scripts,
    /// Where a script runs long now.
    pub(super) busy: RefCell<Option<Busy>>,
    pub(super) pubsub: PubSub,
    pub(super) identities: Identities,
    pub(super) failovers: Failovers,
    pub(super) parked: Lot,
    pub(super) ears: Ears,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    /// By cluster.
    budgets: RefCell<Vec<Budget>>,
    /// By cluster.
    commands: RefCell<Vec<Rc<Commands>>>,
    /// Backends, by id, whose MULTI and EXEC are known to be ours to use.
    proven: RefCell<HashSet<u32>>,
    /// By cluster: `COMMAND` was asked.
    asked: RefCell<Vec<bool>>,
    draining: Cell<bool>,
    /// Some clients are not read because memory is scarce.
    pub(super) holds_back: Cell<bool>,
    pub(super) insight: Arc<Insight>,
    /// Requests until the next one whose keys are looked at.
    unsampled: Cell<u64>,
    /// When the log last told of something big.
    told_big_us: Cell<Option<u64>>,
    pub(super) stamps: Stamps,
    pub(super) strangers: Strangers,
    /// tokio's clock, which tests may stop; otherwise it is the system's monotonic one.
    epoch: Instant,
    dice: Cell<Dice>,
    ids: Arc<AtomicU64>,
}

/// What every worker is given of the same.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The commands of each cluster.
    pub commands: Vec<Commands>,
    /// Client ids already given out in the process.
    pub ids: Arc<AtomicU64>,
    pub insight: Arc<Insight>,
    pub library: Arc<Library>,
    /// Who listens to what in the whole process.
    pub audience: Arc<Audience>,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    pub worker: usize,
    pub metrics: Arc<WorkerMetrics>,
    pub reporter: Reporter,
    pub memory: Memory,
    pub spawn: Spawn,
    pub topology: Reader,
    /// The commands of each cluster.
    pub commands: Vec<Commands>,
    /// The scripts that clients have shown, of the whole process.
    pub library: Arc<Library>,
    pub seed: u64,
    /// Client ids already given out in the process.
    pub ids: Arc<AtomicU64>,
    pub insight: Arc<Insight>,
    /// The other workers.
    pub peers: Peers,
    /// Who listens to what in the whole process.
    pub audience: Arc<Audience>,
}

impl Hub {
    pub fn new(parts: Parts) -> Rc<Self> {
        let clusters = parts.commands.len();
        Rc::new(Self {
            worker: parts.worker,
            buffers: Buffers::default(),
            metrics: parts.metrics,
            reporter: parts.reporter,
            memory: parts.memory,
            spawn: parts.spawn,
            topology: RefCell::new(parts.topology),
            upstreams: RefCell::default(),
            rare: RefCell::default(),
            apart: RefCell::default(),
            rested: Rested::default(),
            peers: parts.peers,
            paused: Cell::default(),
            scripts: Scripts::new(parts.library),
            busy: RefCell::default(),
            pubsub: PubSub::new(parts.audience, clusters),
            identities: Identities::default(),
            failovers: Failovers::default(),
            parked: Lot::default(),
            ears: Ears::default(),
            clients: RefCell::new(HashMap::new()),
            budgets: RefCell::new((0..clusters).map(|_| Budget::default()).collect()),
            commands: RefCell::new(parts.commands.into_iter().map(Rc::new).collect()),
            proven: RefCell::default(),
            asked: RefCell::new(vec![false; clusters]),
            draining: Cell::new(false),
            holds_back: Cell::new(false),
            insight: parts.insight,
            unsampled: Cell::new(SAMPLED),
            told_big_us: Cell::new(None),
            stamps: Stamps::default(),
            strangers: Strangers::default(),
            epoch: Instant::now(),
            dice: Cell::new(Dice::new(parts.seed)),
            ids: parts.ids,
        })
    }

    /// Its place among the workers.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// Microseconds since the worker started.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// That moment of the worker's clock, on the system's.
    pub(super) fn at(&self, us: u64) -> std::time::Instant {
        (self.epoch + std::time::Duration::from_micros(us)).into_std()
    }

    /// A fresh random number.
    pub fn draw(&self) -> u64 {
        let mut dice = self.dice.get();
        let drawn = dice.next();
        self.dice.set(dice);
        drawn
    }

    /// Counts one request; true for the one in [`SAMPLED`], at random distances, that is looked at.
    pub(super) fn is_sampled(&self) -> bool {
        match self.unsampled.get().checked_sub(1) {
            Some(left) => {
                self.unsampled.set(left);
                false
            }
            None => {
                self.unsampled.set(self.draw() % (2 * SAMPLED - 1));
                true
            }
        }
    }

    /// Whether the log may tell of something big now: once a second.
    pub(super) fn may_tell_of_big(&self) -> bool {
        let now_us = self.now_us();
        let may = self.told_big_us.get().is_none_or(|at| now_us.saturating_sub(at) >= SECOND_US);
        if may {
            self.told_big_us.set(Some(now_us));
        }
        may
    }

    /// The name of a command by its place in the table of a cluster.
    pub(super) fn command_name(&self, cluster: usize, index: u16) -> &'static str {
        let commands = self.commands(cluster);
        let found = commands.and_then(|all| all.iter().nth(usize::from(index)).map(|c| c.name));
        found.unwrap_or("(unknown)")
    }

    /// Seconds since 1970.
    pub(super) fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// The reader of the snapshot. Take it once per batch and let go before anything awaits.
    pub fn topology(&self) -> RefMut<'_, Reader> {
        self.topology.borrow_mut()
    }

    /// A client id that no other client of the process has.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// This worker's cell of a backend.
    pub fn cell<'b>(&self, backend: &'b Backend) -> Option<&'b BackendMetrics> {
        backend.cells.get(self.worker)
    }

    /// The commands of a cluster.
    pub fn commands(&self, cluster: usize) -> Option<Rc<Commands>> {
        self.commands.borrow().get(cluster).map(Rc::clone)
    }

    /// Puts what a backend's `COMMAND` told in force for a cluster.
    pub fn learn_commands(&self, cluster: usize, reply: &[u8]) {
        if let Some(slot) = self.commands.borrow_mut().get_mut(cluster) {
            let mut commands = Commands::clone(slot);
            let learned = commands.learn(reply);
            if learned > 0 {
                tracing::debug!(cluster, learned, "commands learned from a backend");
                *slot = Rc::new(commands);
            }
        }
    }

    /// Whether a backend of the cluster was asked for its commands.
    pub(super) fn has_asked_commands(&self, cluster: usize) -> bool {
        self.asked.borrow().get(cluster).copied().unwrap_or(true)
    }

    /// Remembers that a backend was asked, or that the one asked did not tell.
    pub(super) fn set_asked_commands(&self, cluster: usize, has_asked: bool) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(cluster) {
            *asked = has_asked;
        }
    }

    /// Whether a backend has taken a transaction already: where EXEC is refused a shared connection
    /// would stay in MULTI for everybody.
    pub(super) fn is_proven(&self, backend: u32) -> bool {
        self.proven.borrow().contains(&backend)
    }

    /// Remembers that it takes them.
    pub(super) fn prove(&self, backend: u32) {
        self.proven.borrow_mut().insert(backend);
    }

    /// Forgets all about a backend that has left its cluster.
    pub(super) fn forget(&self, backend: &Backend) {
        self.doubt(backend.id);
        self.rested.forget(backend.id);
    }

    /// It refuses them, or has begun to.
    pub(super) fn doubt(&self, backend: u32) {
        self.proven.borrow_mut().remove(&backend);
    }

    /// Runs `with` on the shared connection to a backend, opening one when there is none.
    #[inline(always)]
    pub fn upstream<T>(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
        with: impl FnOnce(&Rc<Upstream>) -> T,
    ) -> T {
        if !class.is_usual() {
            return with(&self.rare_upstream(cluster, backend, class));
        }
        let (seat, place) = (backend.seat as usize, class.index());
        let table = self.upstreams.borrow();
        if let Some(Some(open)) = table.get(seat).and_then(|classes| classes.get(place)) {
            return with(open);
        }
        drop(table);
        with(&self.open_shared(cluster, backend, class))
    }

    #[cold]
    fn open_shared(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
    ) -> Rc<Upstream> {
        let (seat, place) = (backend.seat as usize, class.index());
        let upstream = Upstream::open(self, cluster, Arc::clone(backend), class, Purpose::Shared);
        let mut table = self.upstreams.borrow_mut();
        if table.len() <= seat {
            table.resize_with(seat + 1, Vec::new);
        }
        if let Some(classes) = table.get_mut(seat) {
            if classes.len() <= place {
                classes.resize_with(place + 1, || None);
            }
            if let Some(slot) = classes.get_mut(place) {
                *slot = Some(Rc::clone(&upstream));
            }
        }
        drop(table);
        upstream
    }

    #[cold]
    fn rare_upstream(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
    ) -> Rc<Upstream> {
        let key = (backend.id, class);
        if let Some(open) = self.rare.borrow().get(&key) {
            return Rc::clone(open);
        }
        let upstream = Upstream::open(self, cluster, Arc::clone(backend), class, Purpose::Shared);
        self.rare.borrow_mut().insert(key, Rc::clone(&upstream));
        upstream
    }

    /// Closes the connections of rare classes that nobody has wanted for a while.
    pub(super) fn sweep_rare(&self, now_us: u64) {
        let is_idle = |upstream: &&Rc<Upstream>| upstream.is_idle(now_us, RARE_US);
        let idle: Vec<_> = self.rare.borrow().values().filter(is_idle).map(Rc::clone).collect();
        for upstream in idle {
            self.retire(&upstream);
            upstream.end(Phase::Released, "not wanted for a while");
        }
        self.identities.sweep(self);
        self.strangers.sweep(now_us);
    }

    /// A connection for one session, or to a server that control does not know.
    pub(super) fn open_apart(
        self: &Rc<Self>,
        cluster: &Cluster,
        backend: &Arc<Backend>,
        class: Class,
        purpose: Purpose,
    ) -> Rc<Upstream> {
        let backend = Arc::clone(backend);
        let upstream = Upstream::open(self, cluster, backend, class, purpose);
        self.apart.borrow_mut().push(Rc::clone(&upstream));
        upstream
    }

    /// Forgets a connection that ended; the next request opens a new one.
    pub fn forget_upstream(&self, upstream: &Rc<Upstream>) {
        self.apart.borrow_mut().retain(|open| !Rc::ptr_eq(open, upstream));
        if upstream.purpose == Purpose::Shared {
            self.unshare(upstream);
        }
    }

    /// Sends nothing new on a shared connection; it ends when what is under way is answered.
    pub(super) fn retire(&self, upstream: &Rc<Upstream>) {
        self.unshare(upstream);
        self.apart.borrow_mut().push(Rc::clone(upstream));
    }

    fn unshare(&self, upstream: &Rc<Upstream>) {
        if !upstream.class.is_usual() {
            return self.rare.borrow_mut().retain(|_, open| !Rc::ptr_eq(open, upstream));
        }
        for slot in self.upstreams.borrow_mut().iter_mut().flatten() {
            if slot.as_ref().is_some_and(|open| Rc::ptr_eq(open, upstream)) {
                *slot = None;
            }
        }
    }

    /// The connections that are open or being opened.
    pub fn upstreams(&self) -> Vec<Rc<Upstream>> {
        let (shared, rare) = (self.upstreams.borrow(), self.rare.borrow());
        let apart = self.apart.borrow();
        let shared = shared.iter().flatten().flatten().chain(rare.values());
        shared.chain(apart.iter()).map(Rc::clone).collect()
    }

    pub fn register(&self, client: &Rc<Client>) {
        self.clients.borrow_mut().insert(client.id, Rc::clone(client));
    }

    pub fn unregister(&self, id: u64) {
        redirect::forget(self, id);
        self.clients.borrow_mut().remove(&id);
    }

    /// A client of this worker.
    pub(super) fn client(&self, id: u64) -> Option<Rc<Client>> {
        self.clients.borrow().get(&id).map(Rc::clone)
    }

    /// Every client of this worker.
    pub fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.borrow().values().map(Rc::clone).collect()
    }

    /// Whether clients are to be closed as soon as nothing of theirs is under way.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// From now on clients are closed as soon as nothing of theirs is under way.
    pub fn drain(&self) {
        self.draining.set(true);
        self.clients().iter().for_each(|client| client.wake());
    }

    /// Counts requests for the retry budget of a cluster.
    pub fn on_requests(&self, cluster: usize, now_us: u64, n: u64) {
        if let Some(budget) = self.budgets.borrow_mut().get_mut(cluster) {
            budget.on_request(now_us / 1000, n);
        }
    }

    /// Whether the budget of a cluster has room for one more retry.
    pub fn try_retry(&self, cluster: usize) -> bool {
        let now_ms = self.now_us() / 1000;
        self.budgets.borrow_mut().get_mut(cluster).is_some_and(|budget| budget.try_retry(now_ms))
    }

    pub(super) fn start(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn.start(task);
    }

    /// Moves this worker's count of buffered bytes from `before` to `after`.
    pub fn charge(&self, before: usize, after: usize) {
        if after > before {
            self.metrics.buffered.add((after - before) as u64);
        } else if before > after {
            self.metrics.buffered.sub((before - after) as u64);
        }
    }
}

const SECOND_US: u64 = 1_000_000;
/// How long an idle connection of a rare class is kept.
const RARE_US: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use crate::{policy::reads::ReadFrom, proto::redis::stage::Stage};

    #[tokio::test(start_paused = true)]
    async fn clients_share_one_connection_and_each_database_has_its_own() {
        let stage = Stage::new(1, ReadFrom::Primary);
        let (mut one, mut two, mut other) = (stage.client(), stage.client(), stage.client());
        one.say("GET a\r\n");
        two.say("GET b\r\n");
        stage.settle().await;
        let mut shared = stage.accept(0);
        assert_eq!(shared.heard().matches("GET").count(), 2);
        assert!(stage.try_accept(0).is_none());
        other.say("SELECT 3\r\nGET a\r\n");
        stage.settle().await;
        let mut own = stage.accept(0);
        assert_eq!(own.heard(), "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
        own.say("+OK\r\n");
        stage.settle().await;
        assert_eq!(own.heard(), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        own.say("+three\r\n");
        shared.say("+a\r\n+b\r\n");
        stage.settle().await;
        assert_eq!(
            [one.heard(), two.heard(), other.heard()],
            ["+a\r\n", "+b\r\n", "+OK\r\n+three\r\n"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_closes_idle_clients_now_and_others_after_their_replies() {
        let stage = Stage::new(1, ReadFrom::Primary);
        let (mut idle, mut waits) = (stage.client(), stage.client());
        idle.say("PING\r\n");
        waits.say("GET a\r\n");
        stage.settle().await;
        assert_eq!(idle.heard(), "+PONG\r\n");
        stage.hub.drain();
        stage.settle().await;
        assert!(idle.is_closed());
        assert!(!waits.is_closed());
        stage.accept(0).say("+a\r\n");
        stage.settle().await;
        assert_eq!(waits.heard(), "+a\r\n");
        assert!(waits.is_closed());
        assert!(stage.hub.clients().is_empty());
    }
}
