//! What all HTTP connections of one worker share: the means to choose, the backends' connections,
//! who waits for what, and the counters. Not shared between workers, so nothing locks.

use super::{order::Order, site::Site, watch::Watch};
use crate::{
    net::{relay::Stock, spawn::Spawn},
    policy::retry::Budget,
    telemetry::{
        access_log::Page,
        metrics::{ClusterMetrics, WorkerMetrics},
    },
    topology::{Backend, Chooser, Reporter},
};
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The state of one worker.
#[derive(Debug)]
pub struct Hub {
    pub(super) chooser: Chooser,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) reporter: Reporter,
    pub(super) spawn: Spawn,
    pub(super) stock: Stock,
    pub(super) order: Rc<Order>,
    /// Cancelled when no new request is to come.
    pub(super) draining: CancellationToken,
    /// `None`: requests are not logged.
    pub(super) access_log: Option<Page>,
    /// It was, as everybody here has been told.
    leaving: Cell<bool>,
    /// Whoever is served now is cut off.
    stopping: Cell<bool>,
    start: Instant,
    /// What the chooser's clock showed then.
    chooser_us: u64,
    now_us: Cell<u64>,
    /// By the id of the backend.
    sites: RefCell<HashMap<u32, Rc<Site>, foldhash::fast::FixedState>>,
    watches: RefCell<Slab<Rc<Watch>>>,
    /// By cluster.
    budgets: RefCell<Vec<Budget>>,
    ticks: Cell<u64>,
}

/// A watch that the hub looks at, for as long as it lives.
#[derive(Debug)]
pub(super) struct Watched {
    hub: Rc<Hub>,
    key: usize,
}

impl Hub {
    pub fn new(
        chooser: Chooser,
        metrics: Arc<WorkerMetrics>,
        reporter: Reporter,
        spawn: Spawn,
        draining: CancellationToken,
        access_log: Option<Page>,
    ) -> Self {
        let chooser_us = chooser.now_us();
        let budgets = metrics.clusters.iter().map(|_| Budget::default()).collect();
        Self {
            chooser,
            metrics,
            reporter,
            spawn,
            stock: Stock::default(),
            order: Rc::default(),
            draining,
            access_log,
            leaving: Cell::new(false),
            stopping: Cell::new(false),
            start: Instant::now(),
            chooser_us,
            now_us: Cell::new(0),
            sites: RefCell::default(),
            watches: RefCell::default(),
            budgets: RefCell::new(budgets),
            ticks: Cell::new(0),
        }
    }

    /// The worker ends, whoever it serves.
    pub fn stop(&self) {
        self.look_at_clock();
        self.stopping.set(true);
    }

    /// Whether the worker ends.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether no new request is to come.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Tells every connection once that no new request is to come. They look when they are woken,
    /// which costs a request nothing; each waiting for the token itself would lock it time and again.
    fn leave(&self) {
        if self.draining.is_cancelled() && !self.leaving.replace(true) {
            self.watches.borrow().iter().for_each(|(_, watch)| watch.wake());
        }
    }

    /// What time brings; to be called twenty times a second: a hung
    /// backend must be ejected within one, of which the wait until it is suspect and two probes take
    /// 750ms.
    pub fn tick(&self) {
        self.look_at_clock();
        self.leave();
        let (now_us, count) = (self.now_us(), self.ticks.get() + 1);
        self.ticks.set(count);
        for site in self.sites() {
            site.suspect(now_us, &self.reporter);
            site.sweep(now_us);
            self.count_idle(&site);
            if count.is_multiple_of(DECAY) {
                site.decay();
            }
        }
        // Of a backend that has left its cluster, when nobody uses it any more.
        let is_needed = |site: &Rc<Site>| !site.backend.is_removed() || Rc::strong_count(site) > 1;
        self.sites.borrow_mut().retain(|_, site| is_needed(site));
        if let Some(page) = &self.access_log {
            page.flush();
        }
        if count.is_multiple_of(LOOK) {
            let watches = self.watches.borrow();
            watches.iter().for_each(|(_, watch)| watch.look(now_us));
        }
    }

    fn count_idle(&self, site: &Site) {
        if let Some(cell) = site.backend.cells.get(self.chooser.worker()) {
            cell.idle.set(site.pool.len() as u64);
        }
    }

    /// A gate has changed: who waits for a backend that is out goes elsewhere.
    pub fn gates_changed(&self) {
        for site in self.sites() {
            if site.take_killed() {
                site.kill();
            } else if site.backend.gate().evict() {
                site.evict();
            } else if !site.backend.gate().open() {
                site.rest();
            }
        }
    }

    /// Microseconds since the worker started, as of the last look at the clock: one for each time
    /// that a request is polled.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// The same moment by the chooser's clock.
    pub(super) fn chooser_us(&self) -> u64 {
        self.chooser_us.saturating_add(self.now_us())
    }

    /// Reads the clock.
    pub(super) fn look_at_clock(&self) {
        self.now_us.set(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    /// A time `from_us` on, or never for zero.
    pub(super) fn after(from_us: u64, wait: Duration) -> u64 {
        match u64::try_from(wait.as_micros()) {
            Ok(0) | Err(_) => u64::MAX,
            Ok(us) => from_us.saturating_add(us),
        }
    }

    pub(super) fn site(&self, backend: &Arc<Backend>) -> Rc<Site> {
        let mut sites = self.sites.borrow_mut();
        let site =
            sites.entry(backend.id).or_insert_with(|| Rc::new(Site::new(Arc::clone(backend))));
        Rc::clone(site)
    }

    fn sites(&self) -> Vec<Rc<Site>> {
        self.sites.borrow().values().map(Rc::clone).collect()
    }

    pub(super) fn counted(&self, cluster: usize) -> Option<&ClusterMetrics> {
        self.metrics.clusters.get(cluster)
    }

    pub(super) fn on_request(&self, cluster: usize, now_us: u64) {
        if let Some(budget) = self.budgets.borrow_mut().get_mut(cluster) {
            budget.on_request(now_us / 1000, 1);
        }
    }

    /// Takes one retry of the cluster's budget.
    pub(super) fn try_retry(&self, cluster: usize) -> bool {
        let now_ms = self.now_us() / 1000;
        self.budgets.borrow_mut().get_mut(cluster).is_some_and(|budget| budget.try_retry(now_ms))
    }

    /// Looks at `watch` from now on.
    pub(super) fn watch(self: &Rc<Self>, watch: Rc<Watch>) -> Watched {
        let key = self.watches.borrow_mut().insert(watch);
        Watched { hub: Rc::clone(self), key }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.hub.watches.borrow_mut().try_remove(self.key);
    }
}

/// In ticks: deadlines are looked at five times a second.
const LOOK: u64 = 4;
/// In ticks: every ten seconds.
const DECAY: u64 = 200;
