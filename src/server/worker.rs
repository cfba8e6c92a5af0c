//! The data threads: one single-threaded event loop each, with its own clients and its own
//! connection to each backend. The only file of the data plane that names threads and runtimes.
#![expect(clippy::disallowed_methods, reason = "this is the place that spawns")]

use super::mailbox::{self, Ask, Bell, Mailbox, Newcomer, Ticket};
use crate::{
    control::process::ProcessState,
    net::{
        listener::{Accepted, Acceptor, Listener},
        memory::Memory,
        spawn::Spawn,
    },
    proto::{
        http,
        redis::{
            self, duty,
            hub::{Hub, Parts, Shared},
        },
        tcp,
    },
    telemetry::{
        access_log::{AccessLog, Page},
        metrics::WorkerMetrics,
    },
    topology::{
        Chooser, Reader, Reporter,
        door::{Door, Place, Refusal},
    },
};
use std::{
    cell::Cell,
    fmt::Debug,
    hash::{BuildHasher, RandomState},
    io,
    net::IpAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

/// How the clients of a listener are served: by its protocol.
#[derive(Clone)]
pub(super) enum Settings {
    Redis(redis::session::Settings),
    Tcp(tcp::session::Settings),
    Http(http::settings::Settings),
}

/// The same on a worker, shared by its sessions.
enum Service {
    Redis(Rc<redis::session::Settings>),
    Tcp(Rc<tcp::session::Settings>),
    Http(Rc<http::settings::Settings>),
}

impl Service {
    fn new(settings: Settings) -> Self {
        match settings {
            Settings::Redis(settings) => Self::Redis(Rc::new(settings)),
            Settings::Tcp(settings) => Self::Tcp(Rc::new(settings)),
            Settings::Http(settings) => Self::Http(Rc::new(settings)),
        }
    }

    /// The listener's name.
    fn name(&self) -> Arc<str> {
        match self {
            Self::Redis(settings) => Arc::clone(&settings.name),
            Self::Tcp(settings) => Arc::clone(&settings.name),
            Self::Http(settings) => Arc::clone(&settings.name),
        }
    }

    /// Whether who a client is shows only in what it sends.
    fn identifies_later(&self, peer: IpAddr) -> bool {
        match self {
            Self::Redis(_) => false,
            Self::Tcp(settings) => settings.trusts(peer),
            Self::Http(settings) => settings.is_proxy(peer),
        }
    }

    /// Whether a new connection is refused when memory is used up. The others refuse each request.
    fn needs_memory(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// What a connection that is refused is told before it is closed; under TLS nothing, for it is not
    /// worth a handshake.
    fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        match self {
            Self::Redis(settings) if settings.tls.is_none() => redis::refused(refusal),
            Self::Http(settings) if settings.tls.is_none() => http::refused(refusal),
            Self::Redis(_) | Self::Tcp(_) | Self::Http(_) => Vec::new(),
        }
    }

    /// Whether clients wait until every backend was probed: roles must be known before, while what
    /// has none is taken for up (core.md, `init_state`).
    fn waits_for_probes(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}

/// What the workers are started with; vectors are by listener, cluster or worker.
pub(super) struct Start {
    pub settings: Vec<Settings>,
    pub listeners: Vec<Listener>,
    pub doors: Vec<Arc<Door>>,
    pub redis: Shared,
    pub metrics: Vec<Arc<WorkerMetrics>>,
    pub memory: Memory,
    pub access_log: Option<AccessLog>,
    pub reporter: Reporter,
    pub reader: Reader,
    /// `limits.max_connections`.
    pub clients: usize,
    pub state: Arc<ProcessState>,
    pub stop: CancellationToken,
}

/// Runs one future on the calling thread: for the main thread, which has no loop of its own.
///
/// # Errors
/// When no event loop can be set up.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Runs `work` on a thread of its own.
///
/// # Errors
/// When no thread can be started.
pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// The running workers.
pub(super) struct Crew {
    threads: Vec<JoinHandle<()>>,
    mailboxes: Arc<[Mailbox]>,
    accepting: CancellationToken,
}

impl Crew {
    /// Starts one thread per entry of `metrics`.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be set up.
    pub(super) fn start(start: Start) -> io::Result<Self> {
        let accepting = start.stop.child_token();
        let limit = Arc::new(Semaphore::new(start.clients.min(Semaphore::MAX_PERMITS)));
        let count = start.metrics.len();
        let (boxes, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(MAILBOX);
                (Mailbox { sender, clients: Arc::default() }, receiver)
            })
            .unzip();
        let mailboxes: Arc<[Mailbox]> = boxes.into();
        let mut doors: Vec<Vec<(usize, Listener)>> = (0..count).map(|_| Vec::new()).collect();
        for (index, listener) in start.listeners.into_iter().enumerate() {
            if let Some(of_worker) = doors.get_mut(index % count) {
                of_worker.push((index, listener));
            }
        }
        let mut threads = Vec::new();
        for (((index, metrics), receiver), listeners) in
            start.metrics.iter().enumerate().zip(receivers).zip(doors)
        {
            let worker = Worker {
                index,
                listeners,
                receiver,
                mailboxes: Arc::clone(&mailboxes),
                settings: start.settings.clone(),
                doors: start.doors.clone(),
                redis: start.redis.clone(),
                metrics: Arc::clone(metrics),
                memory: start.memory.clone(),
                access_log: start.access_log.clone(),
                reporter: start.reporter.clone(),
                reader: start.reader.clone(),
                limit: Arc::clone(&limit),
                state: Arc::clone(&start.state),
                stop: start.stop.clone(),
                accepting: accepting.clone(),
            };
            let (ready, started) = std::sync::mpsc::sync_channel(1);
            let thread =
                std::thread::Builder::new().name(format!("sluice-{index}")).spawn(move || {
                    match Builder::new_current_thread()
                        .enable_all()
                        .build_local(LocalOptions::default())
                    {
                        Ok(runtime) => {
                            let _ = ready.send(Ok(()));
                            runtime.block_on(worker.run());
                        }
                        Err(error) => {
                            let _ = ready.send(Err(error));
                        }
                    }
                })?;
            started.recv().map_err(io::Error::other)??;
            threads.push(thread);
        }
        Ok(Self { threads, mailboxes, accepting })
    }

    /// A handle for control.
    pub(super) fn bell(&self) -> Bell {
        Bell::new(Arc::clone(&self.mailboxes))
    }

    /// Clients of all workers.
    pub(super) fn clients(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.clients.load(Ordering::Relaxed)).sum()
    }

    /// Whether a worker ended although nobody asked it to.
    pub(super) fn lost_one(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops accepting; clients are closed as soon as nothing of theirs is under way.
    pub(super) fn drain(&self) {
        self.accepting.cancel();
        for mailbox in &*self.mailboxes {
            // A full mailbox holds newcomers; the worker sees the cancelled token as well.
            let _ = mailbox.sender.try_send(Ask::Drain);
        }
    }

    /// Waits for the threads; the stop token must have been cancelled.
    pub(super) fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

struct Worker {
    index: usize,
    listeners: Vec<(usize, Listener)>,
    receiver: mpsc::Receiver<Ask>,
    mailboxes: Arc<[Mailbox]>,
    settings: Vec<Settings>,
    doors: Vec<Arc<Door>>,
    redis: Shared,
    metrics: Arc<WorkerMetrics>,
    memory: Memory,
    access_log: Option<AccessLog>,
    reporter: Reporter,
    reader: Reader,
    limit: Arc<Semaphore>,
    state: Arc<ProcessState>,
    stop: CancellationToken,
    accepting: CancellationToken,
}

impl Worker {
    async fn run(mut self) {
        let seed = RandomState::new();
        let chooser = |protocol: &str| {
            Chooser::new(self.index, self.reader.clone(), seed.hash_one((protocol, self.index)))
        };
        let relays = Rc::new(tcp::hub::Hub::new(
            chooser("tcp"),
            Arc::clone(&self.metrics),
            self.reporter.clone(),
        ));
        let spawn = Spawn::new(|task| drop(tokio::task::spawn_local(task)));
        let web = Rc::new(http::hub::Hub::new(
            chooser("http"),
            Arc::clone(&self.metrics),
            self.reporter.clone(),
            spawn.clone(),
            self.accepting.clone(),
            self.access_log.map(Page::new),
        ));
        let peers = mailbox::peers(self.index, Arc::clone(&self.mailboxes));
        let hub = Hub::new(Parts {
            worker: self.index,
            metrics: self.metrics,
            reporter: self.reporter,
            memory: self.memory,
            spawn,
            topology: self.reader,
            commands: self.redis.commands,
            library: self.redis.library,
            seed: seed.hash_one(self.index),
            ids: self.redis.ids,
            insight: self.redis.insight,
            peers,
            audience: self.redis.audience,
        });
        let desk = Rc::new(Desk {
            index: self.index,
            hub: Rc::clone(&hub),
            relays,
            web: Rc::clone(&web),
            services: self.settings.into_iter().map(Service::new).collect(),
            doors: self.doors,
            mailboxes: self.mailboxes,
            limit: self.limit,
            warned: Cell::new(None),
        });
        for (index, listener) in self.listeners {
            let (desk, state, accepting) =
                (Rc::clone(&desk), Arc::clone(&self.state), self.accepting.clone());
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = desk.accept(index, listener, &state) => {}
                    () = accepting.cancelled() => {}
                }
            });
        }
        let mut ticks = tokio::time::interval(duty::TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0u64;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return web.stop(),
                () = self.accepting.cancelled(), if !hub.is_draining() => hub.drain(),
                Some(ask) = self.receiver.recv() => {
                    match ask {
                        Ask::NewClient(newcomer) => desk.welcome(newcomer),
                        Ask::GatesChanged => {}
                        Ask::Drain => hub.drain(),
                        Ask::Clients(ask) => survive(&hub, || redis::peers::serve(&hub, *ask)),
                    }
                    survive(&hub, || duty::gates_changed(&hub));
                    survive(&hub, || web.gates_changed());
                    survive(&hub, || desk.relays.kills.look());
                }
                _ = ticks.tick() => {
                    count += 1;
                    survive(&hub, || duty::tick(&hub, count));
                    survive(&hub, || web.tick());
                }
            }
        }
    }
}

/// A panic of a duty (a bug of ours) must not take the worker's clients with it.
fn survive(hub: &Hub, duty: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(duty)).is_err() {
        hub.metrics.panics.add(1);
    }
}

/// Where connections arrive: it accepts, chooses the worker, and starts sessions.
struct Desk {
    index: usize,
    hub: Rc<Hub>,
    relays: Rc<tcp::hub::Hub>,
    web: Rc<http::hub::Hub>,
    services: Vec<Service>,
    doors: Vec<Arc<Door>>,
    mailboxes: Arc<[Mailbox]>,
    limit: Arc<Semaphore>,
    /// When it last warned that clients wait.
    warned: Cell<Option<Instant>>,
}

impl Desk {
    async fn accept(&self, index: usize, listener: Listener, state: &ProcessState) {
        let Some(service) = self.services.get(index) else { return };
        let name = service.name();
        let mut acceptor: Acceptor = match listener.register() {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(listener = %name, "cannot accept: {error}");
                return;
            }
        };
        if service.waits_for_probes() {
            state.wait_first_round().await;
        }
        // A place is taken only for somebody who waits: listeners share them.
        while acceptor.ready().await.is_ok() {
            let permit = self.permit(&name).await;
            let accepted = acceptor
                .accept(|error| {
                    self.warn(&name, &format!("cannot accept for now: {error}; new clients wait"));
                })
                .await;
            if let Some(accepted) = accepted {
                match self.let_in(index, &accepted) {
                    Ok(place) => self.assign(index, accepted, place, permit),
                    Err(refusal) => self.turn_away(index, &accepted, refusal),
                }
            }
        }
    }

    /// A place at the listener's door.
    fn let_in(&self, index: usize, accepted: &Accepted) -> Result<Place, Refusal> {
        let (Some(door), Some(service)) = (self.doors.get(index), self.services.get(index)) else {
            unreachable!("every listener has a door and a service")
        };
        if service.needs_memory() && self.hub.memory.is_used_up() {
            return Err(Refusal::MEMORY);
        }
        let mut place = door.enter()?;
        match accepted.peer() {
            Some(peer) if !service.identifies_later(peer) => {
                place.identify(door.prefix().client(peer), Instant::now())?;
            }
            _ => {}
        }
        Ok(place)
    }

    /// Tells one that is refused why, in its protocol's words; the caller closes the connection.
    fn turn_away(&self, index: usize, accepted: &Accepted, refusal: Refusal) {
        if let (Some(door), Some(listener)) =
            (self.doors.get(index), self.hub.metrics.listeners.get(index))
        {
            door.refused(refusal.reason, listener, Instant::now());
        }
        if let Some(service) = self.services.get(index) {
            accepted.say_last(&service.refusal(refusal));
        }
    }

    /// A place among `limits.max_connections`; at the limit the kernel's backlog waits.
    async fn permit(&self, name: &str) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.limit).try_acquire_owned() {
            return permit;
        }
        self.warn(name, "limits.max_connections reached: new clients wait");
        loop {
            match Arc::clone(&self.limit).acquire_owned().await {
                Ok(permit) => return permit,
                Err(_closed) => std::future::pending().await,
            }
        }
    }

    /// Says that clients wait, at most once a minute: one who waits may leave at once.
    fn warn(&self, listener: &str, what: &str) {
        if self.warned.get().is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            self.warned.set(Some(Instant::now()));
            tracing::warn!(%listener, "{what}");
        }
    }

    /// Keeps the connection when no worker has fewer clients, else passes it on.
    fn assign(
        &self,
        listener: usize,
        accepted: Accepted,
        place: Place,
        permit: OwnedSemaphorePermit,
    ) {
        let load = |mailbox: &Mailbox| mailbox.clients.load(Ordering::Relaxed);
        let own = self.mailboxes.get(self.index);
        let least = self.mailboxes.iter().min_by_key(|mailbox| load(mailbox));
        let chosen = match (own, least) {
            (Some(own), Some(least)) if load(own) <= load(least) => own,
            (_, Some(least)) => least,
            (_, None) => return,
        };
        chosen.clients.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket::new(permit, Arc::clone(&chosen.clients));
        let newcomer = Newcomer { accepted, listener, place, ticket };
        if own.is_some_and(|own| std::ptr::eq(own, chosen)) {
            self.welcome(newcomer);
        } else if let Err(error) = chosen.sender.try_send(Ask::NewClient(newcomer))
            && let Ask::NewClient(newcomer) = error.into_inner()
        {
            // Its mailbox is full: better served here than not at all.
            self.welcome(newcomer);
        }
    }

    /// Starts the session of a connection that is this worker's.
    fn welcome(&self, newcomer: Newcomer) {
        let Newcomer { accepted, listener, place, ticket } = newcomer;
        let Some(service) = self.services.get(listener) else { return };
        let peer = accepted.peer();
        let Ok(stream) = accepted.register() else { return };
        let counted = Counted::new(&self.hub.metrics, listener, ticket);
        match service {
            Service::Redis(settings) => {
                let (hub, settings) = (Rc::clone(&self.hub), Rc::clone(settings));
                let serving = redis::session::serve(hub, settings, stream, peer);
                start(listener, serving, (counted, place));
            }
            Service::Http(settings) => {
                let (hub, settings) = (Rc::clone(&self.web), Rc::clone(settings));
                start(listener, http::session::serve(hub, settings, stream, peer, place), counted);
            }
            Service::Tcp(settings) => {
                let (hub, settings) = (Rc::clone(&self.relays), Rc::clone(settings));
                start(listener, tcp::session::serve(hub, settings, stream, peer, place), counted);
            }
        }
    }
}

/// Runs a session to its end; `held` is given back then.
fn start<E: Debug>(
    listener: usize,
    serving: impl Future<Output = E> + 'static,
    held: impl Sized + 'static,
) {
    // In a box: the event loop moves a task itself several times.
    tokio::task::spawn_local(Box::pin(async move {
        let _held = held;
        let end = serving.await;
        tracing::debug!(listener, ?end, "session ended");
    }));
}

/// A client in the listener's gauges, for as long as it lives.
struct Counted {
    metrics: Arc<WorkerMetrics>,
    listener: usize,
    _ticket: Ticket,
}

impl Counted {
    fn new(metrics: &Arc<WorkerMetrics>, listener: usize, ticket: Ticket) -> Self {
        metrics.clients.add(1);
        if let Some(listener) = metrics.listeners.get(listener) {
            listener.accepted.add(1);
            listener.active.add(1);
        }
        Self { metrics: Arc::clone(metrics), listener, _ticket: ticket }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.clients.sub(1);
        if let Some(listener) = self.metrics.listeners.get(self.listener) {
            listener.active.sub(1);
        }
    }
}

/// Newcomers that a busy worker may have waiting; more are served where they were accepted.
const MAILBOX: usize = 1024;
const WARN_AGAIN: Duration = Duration::from_secs(60);
