//! Claims on a backend that give themselves back: what is counted up here is counted down by
//! `Drop`, so that a cancelled request leaks nothing. Not the choice of the backend: see
//! [`super::pick`].

use super::Backend;
use crate::telemetry::metrics::BackendMetrics;
use std::sync::Arc;

/// One request (or relayed connection) under way at a backend.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
    worker: usize,
}

/// One connection of a worker to a backend, in the backend's gauge for as long as it lives.
#[derive(Debug)]
pub struct Connected {
    backend: Arc<Backend>,
    worker: usize,
}

impl Lease {
    /// Counts one more in flight, in the cell of `worker`; `None` when the backend is at its limit.
    pub fn claim(worker: usize, backend: Arc<Backend>) -> Option<Self> {
        if backend.room().is_some_and(|room| !room.take()) {
            return None;
        }
        cell(&backend, worker).in_flight.add(1);
        Some(Self { backend, worker })
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Tells how long its answer took, or that none came: see [`Backend::observe`].
    pub fn observe(&self, now_us: u64, took_us: u64, failed: bool) {
        self.backend.observe(self.worker, now_us, took_us, failed);
    }

    /// The counters of its worker.
    pub fn cell(&self) -> &BackendMetrics {
        cell(&self.backend, self.worker)
    }
}

impl Connected {
    /// Counts a connection that was just made.
    pub fn new(worker: usize, backend: Arc<Backend>) -> Self {
        let cell = cell(&backend, worker);
        cell.connects_ok.add(1);
        cell.connections.add(1);
        Self { backend, worker }
    }

    /// The counters of its worker.
    pub fn cell(&self) -> &BackendMetrics {
        cell(&self.backend, self.worker)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cell().in_flight.sub(1);
        if let Some(room) = self.backend.room() {
            room.give();
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        cell(&self.backend, self.worker).connections.sub(1);
    }
}

fn cell(backend: &Backend, worker: usize) -> &BackendMetrics {
    backend.cells.get(worker).expect("a backend has a cell for each worker")
}
