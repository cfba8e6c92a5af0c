//! What all connections of one worker share: the means to choose, buffers and counters. Not shared
//! between workers, so nothing locks.

use crate::{
    net::relay::Stock,
    telemetry::metrics::WorkerMetrics,
    topology::{Chooser, Kills, Reporter},
};
use std::{rc::Rc, sync::Arc};

/// The state of one worker.
#[derive(Debug)]
pub struct Hub {
    pub chooser: Chooser,
    pub metrics: Arc<WorkerMetrics>,
    pub reporter: Reporter,
    pub stock: Stock,
    /// The relays that run.
    pub kills: Rc<Kills>,
}

impl Hub {
    pub fn new(chooser: Chooser, metrics: Arc<WorkerMetrics>, reporter: Reporter) -> Self {
        Self { chooser, metrics, reporter, stock: Stock::default(), kills: Rc::default() }
    }
}
