//! What all connections of one worker share: the snapshot's reader, buffers, counters and dice. Not
//! shared between workers, so nothing locks.

use crate::{
    net::relay::Stock,
    policy::dice::Dice,
    telemetry::metrics::{ClusterMetrics, WorkerMetrics},
    topology::{Cluster, Reader, Reporter},
};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use tokio::time::Instant;

/// The state of one worker.
#[derive(Debug)]
pub struct Hub {
    worker: usize,
    pub metrics: Arc<WorkerMetrics>,
    pub reporter: Reporter,
    pub stock: Stock,
    topology: RefCell<Reader>,
    /// By cluster: where its balancer is; started anywhere.
    cursors: RefCell<Vec<u32>>,
    dice: Cell<Dice>,
    epoch: Instant,
}

impl Hub {
    /// `seed` is any random number.
    pub fn new(
        worker: usize,
        metrics: Arc<WorkerMetrics>,
        reporter: Reporter,
        topology: Reader,
        seed: u64,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let start = |_: &ClusterMetrics| u32::try_from(dice.below(u32::MAX.into())).unwrap_or(0);
        let cursors = metrics.clusters.iter().map(start).collect();
        Self {
            worker,
            metrics,
            reporter,
            stock: Stock::default(),
            topology: RefCell::new(topology),
            cursors: RefCell::new(cursors),
            dice: Cell::new(dice),
            epoch: Instant::now(),
        }
    }

    /// A cluster of the snapshot in force.
    pub(super) fn cluster(&self, index: usize) -> Option<Arc<Cluster>> {
        self.topology.borrow_mut().snapshot().clusters.get(index).map(Arc::clone)
    }

    /// Microseconds since the worker started.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A fresh random number.
    pub(super) fn draw(&self) -> u64 {
        let mut dice = self.dice.get();
        let drawn = dice.next();
        self.dice.set(dice);
        drawn
    }

    /// Lends the cursor of a cluster.
    pub(super) fn with_cursor<T>(&self, cluster: usize, work: impl FnOnce(&mut u32) -> T) -> T {
        match self.cursors.borrow_mut().get_mut(cluster) {
            Some(cursor) => work(cursor),
            None => work(&mut 0),
        }
    }

    /// Its place among the workers, and of its cell in every backend.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }
}
