//! What one worker chooses backends with: the snapshot's reader, its dice, and where each cluster's
//! balancer is. Not shared between workers, so nothing locks; not the choice itself: see
//! [`super::pick`].

use super::{Cluster, Reader, pick::Picker};
use crate::policy::dice::Dice;
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

/// One worker's means to choose.
#[derive(Debug)]
pub struct Chooser {
    worker: usize,
    topology: RefCell<Reader>,
    /// By cluster: where its balancer is; started anywhere.
    cursors: RefCell<Vec<u32>>,
    dice: Cell<Dice>,
    epoch: Instant,
}

impl Chooser {
    /// `seed` is any random number.
    pub fn new(worker: usize, mut topology: Reader, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut start = |_| u32::try_from(dice.below(u32::MAX.into())).unwrap_or(0);
        let cursors = topology.snapshot().clusters.iter().map(&mut start).collect();
        Self {
            worker,
            topology: RefCell::new(topology),
            cursors: RefCell::new(cursors),
            dice: Cell::new(dice),
            epoch: Instant::now(),
        }
    }

    /// Its worker's place among the workers, and of its cell in every backend.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// A cluster of the snapshot in force.
    pub fn cluster(&self, index: usize) -> Option<Arc<Cluster>> {
        self.topology.borrow_mut().snapshot().clusters.get(index).map(Arc::clone)
    }

    /// The workers' clock: microseconds since they started, within some milliseconds of each other.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A fresh random number.
    pub fn draw(&self) -> u64 {
        let mut dice = self.dice.get();
        let drawn = dice.next();
        self.dice.set(dice);
        drawn
    }

    /// Lends what balancing over a cluster needs; `key` is what `client_ip` and `maglev` pin,
    /// `now_us` what [`Self::now_us`] says or has just said.
    pub fn with_picker<T>(
        &self,
        cluster: usize,
        key: u64,
        now_us: u64,
        work: impl FnOnce(&mut Picker) -> T,
    ) -> T {
        let cursor = self.cursors.borrow().get(cluster).copied().unwrap_or_default();
        let mut picker = Picker { cursor, key, now_us };
        let done = work(&mut picker);
        if let Some(cursor) = self.cursors.borrow_mut().get_mut(cluster) {
            *cursor = picker.cursor;
        }
        done
    }
}
