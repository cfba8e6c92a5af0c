//! The control plane, on a thread of its own: probes every backend, follows what the workers
//! report, publishes who may be picked, and serves the admin address. It touches no client's
//! bytes, and no request ever waits for it.

mod access;
pub mod admin;
pub mod build;
mod certificates;
mod discover;
mod events;
mod health;
mod lag;
mod membership;
mod numbered;
mod operator;
mod plane;
mod prober;
pub mod process;
mod pulse;
mod scrape;
mod sessions;
mod sheet;
pub mod socket;
mod status;
mod subscriptions;
mod table;
mod usage;
mod warming;
mod watch;

use crate::{
    config::Config,
    net::tls,
    policy::dice::Dice,
    proto::redis::insight::Insight,
    telemetry::{access_log::Dropped, metrics::WorkerMetrics},
    topology::{Publisher, Report},
};
use discover::Council;
use plane::Plane;
use process::ProcessState;
use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Everything control needs; it owns all of it until `shutdown`.
pub struct Inputs {
    /// What [`build::build`] made the first snapshot of `publisher` from.
    pub config: Config,
    pub publisher: Publisher,
    /// Hot keys and slow requests.
    pub insight: Arc<Insight>,
    /// The TLS of each listener, in the order of the configuration.
    pub tls: Vec<Option<tls::Server>>,
    /// The TLS of each cluster's Sentinels, in the order of the configuration.
    pub sentinel_tls: Vec<Option<tls::Client>>,
    /// The workers' reports on backends.
    pub reports: mpsc::Receiver<Report>,
    /// Every worker's counters.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// Lines that are not in the access log; `None`: there is none.
    pub access_log: Option<Dropped>,
    /// Names of `WorkerMetrics::commands`, in their order.
    pub commands: Vec<String>,
    /// Where the pages are served; see [`admin::bind`].
    pub admin: admin::Doors,
    /// Called after a gate changed, on control's thread: wake the workers, and do not block.
    pub on_change: Arc<dyn Fn() + Send + Sync>,
    pub state: Arc<ProcessState>,
    /// Ends control: probes stop and the admin address closes.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// Starts control's thread; it ends soon after `shutdown`.
///
/// # Errors
/// When the thread, its event loop or the admin address cannot be set up.
pub fn start(inputs: Inputs) -> io::Result<JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread =
        std::thread::Builder::new().name("sluice-control".to_owned()).spawn(move || {
            let runtime =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(run(inputs));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    started.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Starts a task on control's thread.
#[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
fn run_task(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}

async fn run(inputs: Inputs) {
    let Inputs {
        config,
        insight,
        publisher,
        tls,
        sentinel_tls,
        reports,
        workers,
        access_log,
        commands,
        admin,
        on_change,
        state,
        shutdown,
    } = inputs;
    let topology = publisher.current();
    let orders = plane::orders(&config);
    let plane = Rc::new(Plane {
        wakes: orders.iter().map(|order| (order.cluster, Rc::clone(&order.wake))).collect(),
        listeners: plane::listeners(&config),
        web: plane::web(&config),
        certificates: plane::certificates(&config, &topology, tls),
        commands,
        table: RefCell::new(table::Table::new(&config, &topology, on_change)),
        pulse: RefCell::new(pulse::Pulse::new(workers.len(), 0)),
        moulds: plane::moulds(&config, &topology, workers.len()),
        nursery: membership::Nursery::default(),
        councils: councils(&config, &sentinel_tls),
        drain_timeout: config.shutdown.drain_timeout,
        insight,
        publisher,
        workers,
        access_log,
        state,
        started: Instant::now(),
        token: config.admin.token.clone(),
    });
    let mut dice = Dice::new(RandomState::new().hash_one(0));
    for order in orders {
        plane.table.borrow_mut().await_members(order.cluster);
        let dice = Dice::new(dice.next());
        run_task(discover::redis_cluster::follow(Rc::clone(&plane), order, dice));
    }
    plane.councils.iter().flatten().for_each(|council| council.start(&plane));
    admin::open(admin, &plane, &shutdown);
    let grace = config.clusters.iter().map(|cluster| cluster.check.startup_grace).max();
    run_task(certificates::follow(Rc::clone(&plane)));
    run_task(health::grace(Rc::clone(&plane), grace.unwrap_or_default()));
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = probe_all(Rc::clone(&plane), Dice::new(dice.next())) => {}
        () = health::listen(Rc::clone(&plane), reports, Dice::new(dice.next())) => shutdown.cancelled().await,
        () = health::tick(plane, dice) => {}
    }
}

/// By cluster: who knows its members.
fn councils(config: &Config, tls: &[Option<tls::Client>]) -> Vec<Option<Rc<Council>>> {
    let each = config.clusters.iter().enumerate().map(|(id, written)| {
        let tls = tls.get(id).and_then(Option::as_ref);
        Some(Council::new(id, written, written.sentinel.as_ref()?, tls))
    });
    each.collect()
}

/// One task per backend. A backend must never go unprobed because of a fault of ours, so a task
/// that panicked is started again.
async fn probe_all(plane: Rc<Plane>, mut dice: Dice) {
    let mut tasks = JoinSet::new();
    let mut indexes: HashMap<Id, usize> = HashMap::new();
    let watch = |index, pause, dice| {
        let plane = Rc::clone(&plane);
        async move {
            tokio::time::sleep(pause).await;
            health::watch(plane, index, dice).await;
        }
    };
    for index in plane.table.borrow().watches().numbers() {
        let spread = Duration::from_millis(dice.below(FIRST_SPREAD_MS));
        let handle = tasks.spawn_local(watch(index, spread, Dice::new(dice.next())));
        indexes.insert(handle.id(), index);
    }
    loop {
        tokio::select! {
            born = plane.nursery.leave() => {
                for index in born {
                    let task = watch(index, Duration::ZERO, Dice::new(dice.next()));
                    indexes.insert(tasks.spawn_local(task).id(), index);
                }
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.as_ref().map_or_else(|error| error.id(), |(id, ())| *id);
                let index = indexes.remove(&id);
                if let (Err(error), Some(index)) = (ended, index) {
                    tracing::error!("control: a probe task ended by a fault of ours: {error}");
                    let task = watch(index, RESTART_PAUSE, Dice::new(dice.next()));
                    indexes.insert(tasks.spawn_local(task).id(), index);
                }
            }
        }
    }
}

/// The first probes of all backends are spread over this, so that start-up stays fast.
const FIRST_SPREAD_MS: u64 = 100;
const RESTART_PAUSE: Duration = Duration::from_secs(1);
