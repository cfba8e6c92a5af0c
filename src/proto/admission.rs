//! How a request of any protocol waits for a backend that has room: with the clock and the counters.
//! Not the line itself ([`crate::topology::admission`]), nor what a refused client is told.

use crate::{
    telemetry::metrics::ClusterMetrics,
    topology::{
        Cluster,
        admission::{Attempt, NotAdmitted, Turn},
    },
};
use std::cell::Cell;
use tokio::time::{Instant, sleep};

/// What `attempt` gets: at once when nobody waits, else in turn within the cluster's `timeouts.queue`.
/// In a cluster without limits this is one call of `attempt`. Dropping the future leaves the line.
///
/// # Errors
/// The line is full or the time over, which is counted; or nobody is ready, which is not.
pub async fn admit<T>(
    cluster: &Cluster,
    metrics: Option<&ClusterMetrics>,
    turn: Turn,
    mut attempt: impl FnMut() -> Attempt<T>,
) -> Result<T, NotAdmitted> {
    let result = match &cluster.queue {
        None => match attempt() {
            Attempt::Got(got) => Ok(got),
            Attempt::Full => Err(NotAdmitted::Overloaded),
            Attempt::Nobody => Err(NotAdmitted::Nobody),
        },
        Some(queue) => {
            let (start, waits) = (Instant::now(), Cell::new(false));
            let patience = async {
                waits.set(true);
                sleep(cluster.timeouts.queue).await;
            };
            // In a box: most requests do not wait, and their futures need no room for it.
            let result = Box::pin(queue.admit(turn, patience, attempt)).await;
            if let (true, Some(metrics)) = (waits.get(), metrics) {
                let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                metrics.queue_wait.observe(us, 1);
            }
            result
        }
    };
    if let (Err(NotAdmitted::Overloaded), Some(metrics)) = (&result, metrics) {
        metrics.overloaded.add(1);
    }
    result
}
