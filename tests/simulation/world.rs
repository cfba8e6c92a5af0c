//! One simulation: a worker's hub with real sessions and upstream connections between the fake
//! clients and the fake servers, on a clock that stands still until everything has come to rest.

use super::{
    Planted,
    clients::FakeClient,
    control::{Control, MEMBERS, SHARDS},
    ledger::Ledger,
    servers::{Fault, Mode, Server},
};
use sluice::{
    net::{memory::Memory, spawn::Spawn, stream::Stream},
    policy::dice::Dice,
    proto::redis::{
        client::Limits,
        duty,
        hub::{Hub, Parts},
        insight::{Insight, Options},
        multi::Rules,
        peers::Peers,
        session::{self, Settings},
        table::Commands,
    },
    telemetry::metrics::{ClusterMetrics, Counter, ListenerMetrics, WorkerMetrics},
    topology::{Credentials, Timeouts},
};
use std::{
    cell::Cell,
    io::Write,
    os::unix::net::UnixStream,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::runtime::{Builder, LocalOptions};

/// How one simulation went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) story: String,
    pub(crate) transitions: usize,
    pub(crate) faults: usize,
    pub(crate) snapshots: usize,
    pub(crate) replies: u64,
    pub(crate) errors: u64,
    pub(crate) retries: u64,
}

/// What the story does at one beat.
#[derive(Clone, Copy, Debug)]
enum Act {
    Disturb,
    Fault,
    Snapshot,
}

struct World {
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    control: Control,
    servers: Vec<Server>,
    /// Whom most of what happens happens to, for a while: troubles meet more often then.
    focus: usize,
    /// When a server is to be well again, in milliseconds.
    heal_ms: Vec<u64>,
    clients: Vec<FakeClient>,
    ledger: Ledger,
    dice: Dice,
    polls: Rc<Cell<u64>>,
    /// For so many more rounds servers look for new connections: each look costs the kernel much.
    dials: Rc<Cell<u32>>,
    /// Something has happened that may concern the fakes, though no task had a turn.
    stirred: bool,
    faults: usize,
    limit_ms: u64,
}

/// Plays the story of a seed.
pub(crate) fn play(seed: u64, planted: Planted) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let _told = SeedOnPanic(seed);
    runtime.block_on(async {
        let mut world = Box::new(World::new(seed, planted, folder.path()));
        world.live().await;
        world.rest().await;
        world.outcome()
    })
}

/// Tells which story it was when one panics.
struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stdout().lock(), "SIMULATION_SEED={}", self.0);
        }
    }
}

impl World {
    fn new(seed: u64, planted: Planted, folder: &std::path::Path) -> Self {
        let mut dice = Dice::new(seed);
        let request = Duration::from_millis(400);
        let stall = Duration::from_millis([250, 900][dice.index(2)]);
        let timeouts = Timeouts {
            connect: Duration::from_millis(200),
            request,
            fan_out: request,
            script: request,
            stall,
            client_idle: Duration::ZERO,
            idle: Duration::ZERO,
            queue: Duration::ZERO,
        };
        let password = (dice.below(2) == 0).then(|| "secret".to_owned());
        let credentials = Credentials { user: None, password };
        let (control, reader, reporter) =
            Control::new(folder, planted, timeouts, credentials, &mut dice);
        let commands = Commands::builtin();
        let metrics = Arc::new(WorkerMetrics {
            listeners: vec![ListenerMetrics::default()],
            clusters: vec![ClusterMetrics::default()],
            commands: (0..=commands.len()).map(|_| Counter::default()).collect(),
            ..WorkerMetrics::default()
        });
        let polls: Rc<Cell<u64>> = Rc::default();
        let counter = Rc::clone(&polls);
        let dials: Rc<Cell<u32>> = Rc::default();
        let dialling = Rc::clone(&dials);
        // Whether equal GETs are asked once must make no difference to anybody, nor must watching.
        let coalesce = dice.next().is_multiple_of(2);
        let slow = Duration::from_millis(1);
        let watched = Options { slow, slow_entries: 8, big: 64 * 1024, redact: false, coalesce };
        let insight = Insight::new([watched], 1);
        let hub = Hub::new(Parts {
            worker: 0,
            metrics,
            reporter,
            memory: Memory::default(),
            spawn: Spawn::new(move |task| {
                dialling.set(DIAL_ROUNDS);
                start(Counted { task, polls: Rc::clone(&counter) });
            }),
            topology: reader,
            commands: vec![commands],
            library: Arc::default(),
            seed: dice.next(),
            ids: Arc::default(),
            insight: Arc::new(insight),
            peers: Peers::none(),
            audience: Arc::default(),
        });
        let settings = Settings {
            listener: 0,
            name: "sim".into(),
            cluster: 0,
            password: None,
            users: Vec::new(),
            passthrough: false,
            routes: Vec::new(),
            max_bulk: 1024 * 1024,
            limits: Limits {
                output: 64 * 1024 * 1024,
                pipeline: 1024,
                idle: Duration::ZERO,
                grace: Duration::from_secs(1),
            },
            split_writes: true,
            mget_embeds: false,
            allow: Vec::new(),
            deny: Vec::new(),
            keys_max: 1_000,
            strict_order: false,
            multi: Rules::default(),
            tls: None,
        };
        let all = SHARDS * MEMBERS;
        Self {
            hub,
            settings: Rc::new(settings),
            control,
            servers: (0..all).map(|id| Server::new(folder, id, planted)).collect(),
            focus: 0,
            heal_ms: vec![0; all],
            clients: Vec::new(),
            ledger: Ledger::default(),
            dice,
            polls,
            dials,
            stirred: true,
            faults: 0,
            limit_ms: u64::try_from((request + duty::TICK).as_millis()).unwrap() + 2 * BEAT_MS,
        }
    }

    /// The story: clients ask all the time, and at random beats something happens.
    async fn live(&mut self) {
        self.control.publish_gates(&mut self.ledger);
        for _ in 0..CLIENTS {
            self.connect();
        }
        let mut acts: Vec<(u64, Act)> = Vec::new();
        for (act, least) in [(Act::Disturb, 24), (Act::Fault, 10), (Act::Snapshot, 3)] {
            let count = least + self.dice.below(least);
            acts.extend((0..count).map(|_| (self.dice.below(BEATS), act)));
        }
        for beat in 0..BEATS {
            for (_, act) in acts.iter().filter(|(at, _)| *at == beat) {
                self.act(*act);
            }
            self.beat(beat, true).await;
        }
    }

    /// Everything is well again: what is under way ends, clients leave, and nothing stays behind.
    async fn rest(&mut self) {
        self.ledger.note("all is healed");
        self.stirred = true;
        for server in &mut self.servers {
            server.set_mode(Mode::Well);
            server.faults.clear();
        }
        self.clients.iter_mut().for_each(|client| client.deaf_until_ms = 0);
        self.control.heal(&self.servers);
        self.publish_gates();
        for beat in 0..REST_BEATS {
            self.beat(beat, false).await;
        }
        self.stirred = true;
        for client in &mut self.clients {
            if client.waiting() > 0 {
                self.ledger.violation(format!("{} requests never end", client.waiting()));
            }
            client.hang_up(&mut self.ledger);
        }
        self.settle().await;
        self.ledger.close();
        for watch in &self.control.watches {
            let in_flight = watch.backend.in_flight();
            if in_flight != 0 {
                let text = format!("{in_flight} in flight at {}", watch.backend.name);
                self.ledger.violation(text);
            }
        }
        let (buffered, panics) = (self.hub.metrics.buffered.get(), self.hub.metrics.panics.get());
        if buffered != 0 || panics != 0 || !self.hub.clients().is_empty() {
            let clients = self.hub.clients().len();
            let text = format!("left: {buffered} bytes, {panics} panics, {clients} clients");
            self.ledger.violation(text);
        }
    }

    /// One step of the clock, and all that follows from it.
    async fn beat(&mut self, beat: u64, busy: bool) {
        self.clients.retain(|client| !client.gone);
        while self.clients.len() < CLIENTS {
            self.connect();
        }
        for client in &mut self.clients {
            if busy && self.dice.below(ASK_ONE_IN) == 0 && client.waiting() < MOST_WAITING {
                let count = 1 + self.dice.index(8);
                client.ask(count, self.control.step(), &mut self.dice, &mut self.ledger);
            }
        }
        self.settle().await;
        tokio::time::advance(Duration::from_millis(BEAT_MS)).await;
        self.ledger.now_ms += BEAT_MS;
        let now_ms = self.ledger.now_ms;
        for (server, heal_ms) in self.servers.iter_mut().zip(&mut self.heal_ms) {
            if *heal_ms > 0 && now_ms >= *heal_ms {
                *heal_ms = 0;
                self.stirred = true;
                server.set_mode(Mode::Well);
            }
        }
        if beat.is_multiple_of(PROBE_EVERY) {
            self.control.probe(&self.servers, now_ms, &mut self.dice);
            self.control.follow_roles(&mut self.ledger);
        }
        self.control.listen(now_ms, &mut self.dice);
        self.publish_gates();
        self.settle().await;
        if beat.is_multiple_of(TICK_EVERY) {
            duty::tick(&self.hub, beat / TICK_EVERY);
            self.stirred = true;
            self.settle().await;
        }
        for client in &mut self.clients {
            client.check_deadline(self.limit_ms, &mut self.ledger);
        }
    }

    fn publish_gates(&mut self) {
        if self.control.publish_gates(&mut self.ledger) {
            duty::gates_changed(&self.hub);
            self.stirred = true;
        }
    }

    fn act(&mut self, act: Act) {
        self.stirred = true;
        match act {
            Act::Disturb => {
                let id = self.target();
                self.control.disturb(id, self.ledger.now_ms, &mut self.dice, &mut self.ledger);
                self.publish_gates();
            }
            Act::Snapshot => {
                let (dice, ledger) = (&mut self.dice, &mut self.ledger);
                self.control.change_topology(&mut self.servers, dice, ledger);
            }
            Act::Fault => self.fault(),
        }
    }

    fn fault(&mut self) {
        self.faults += 1;
        let id = self.target();
        let for_ms = 50 + self.dice.below(1_000);
        let mode = match self.dice.below(15) {
            0 => Mode::Slow(10 + self.dice.below(600)),
            1 | 2 => Mode::Hung,
            3 => Mode::Loading,
            4 => Mode::MasterDown,
            5 => Mode::Refusing,
            6 | 10 => {
                // Requests that the proxy has not seen yet: no reply is due, and soon one may be.
                for client in &mut self.clients {
                    client.ask(2, self.control.step(), &mut self.dice, &mut self.ledger);
                    client.pump(&mut self.ledger);
                }
                let sent = self.servers[id].send_surplus();
                return self.ledger.note(format!("b{id} sends a surplus reply: {sent}"));
            }
            7 => {
                let at = self.dice.index(self.clients.len());
                self.ledger.note("a client hangs up");
                return self.clients[at].hang_up(&mut self.ledger);
            }
            8 => {
                let at = self.dice.index(self.clients.len());
                self.clients[at].deaf_until_ms = self.ledger.now_ms + for_ms;
                return self.ledger.note(format!("a client is deaf for {for_ms}ms"));
            }
            9 => {
                let shard = id / MEMBERS * MEMBERS;
                self.servers[shard..shard + MEMBERS].iter_mut().for_each(|s| s.is_primary = false);
                let heir = shard + self.dice.index(MEMBERS);
                self.servers[heir].is_primary = true;
                return self.ledger.note(format!("b{heir} was made the primary of its shard"));
            }
            _ => {
                use Fault::{CloseAfter, Garbage, HalfReply, ResetBefore};
                for _ in 0..=self.dice.below(3) {
                    let kinds = [ResetBefore, CloseAfter, HalfReply, Garbage];
                    self.servers[id].faults.push_back(kinds[self.dice.index(kinds.len())]);
                }
                return;
            }
        };
        self.ledger.note(format!("b{id} is {mode:?} for {for_ms}ms"));
        self.servers[id].set_mode(mode);
        self.heal_ms[id] = self.ledger.now_ms + for_ms;
    }

    /// Some server, most often the one in focus.
    fn target(&mut self) -> usize {
        if self.dice.below(4) == 0 {
            self.focus = self.dice.index(self.servers.len());
        }
        self.focus
    }

    fn connect(&mut self) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        let (hub, settings) = (Rc::clone(&self.hub), Rc::clone(&self.settings));
        let task = Box::pin(async move {
            session::serve(hub, settings, ours, None).await;
        });
        start(Counted { task, polls: Rc::clone(&self.polls) });
        let number = usize::try_from(self.hub.next_id()).unwrap();
        self.clients.push(FakeClient::new(number, theirs, &mut self.dice, self.ledger.now_ms));
    }

    /// Lets everybody go on until nobody has anything to do before the clock moves. Sockets of one
    /// process deliver at once, and each yield lets the event loop look at all of them.
    async fn settle(&mut self) {
        let mut calm = 0;
        let mut moved = std::mem::take(&mut self.stirred)
            || self.servers.iter().any(Server::is_busy)
            || self.clients.iter().any(FakeClient::is_busy);
        for _ in 0..MOST_ROUNDS {
            // Only time, what was just asked, or the proxy gives the fakes something to do.
            if moved {
                let dialled = self.dials.get() > 0;
                self.dials.set(self.dials.get().saturating_sub(1));
                for server in &mut self.servers {
                    server.pump(dialled, &self.control, &mut self.ledger);
                }
                for client in &mut self.clients {
                    client.pump(&mut self.ledger);
                }
            }
            let polls = self.polls.get();
            tokio::task::yield_now().await;
            moved = self.polls.get() != polls;
            calm = if moved { 0 } else { calm + 1 };
            if calm == CALM_ROUNDS {
                return;
            }
        }
        self.ledger.violation("it never comes to rest");
    }

    fn outcome(&mut self) -> Outcome {
        let cluster = &self.hub.metrics.clusters[0];
        Outcome {
            violations: std::mem::take(&mut self.ledger.violations),
            story: self.ledger.tail(),
            transitions: self.control.transitions,
            faults: self.faults,
            snapshots: self.control.snapshots,
            replies: self.ledger.replies,
            errors: self.ledger.errors,
            retries: cluster.reads.all_retries() + cluster.writes.all_retries(),
        }
    }
}

/// A task of the proxy that counts its turns: as long as they go on, it has not come to rest.
struct Counted {
    task: Pin<Box<dyn Future<Output = ()>>>,
    polls: Rc<Cell<u64>>,
}

impl Future for Counted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        self.task.as_mut().poll(cx)
    }
}

#[expect(clippy::disallowed_methods, reason = "the simulation is the worker of its own hub")]
fn start(task: Counted) {
    drop(tokio::task::spawn_local(task));
}

const CLIENTS: usize = 5;
const BEAT_MS: u64 = 5;
/// Seven seconds: long enough for an ejection to end.
const BEATS: u64 = 1_400;
/// Longer than every timeout, and than a deaf client needs to catch up.
const REST_BEATS: u64 = 300;
const TICK_EVERY: u64 = 10;
const PROBE_EVERY: u64 = 20;
const ASK_ONE_IN: u64 = 12;
/// Within the first window of a session, so that nothing waits to be dispatched.
const MOST_WAITING: usize = 40;
/// A task woken by the event loop runs in the round after.
const CALM_ROUNDS: u32 = 2;
/// A connection is dialled in the first turn of its task, which comes soon after its start.
const DIAL_ROUNDS: u32 = 8;
const MOST_ROUNDS: u32 = 100_000;
