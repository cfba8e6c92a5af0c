//! How the sticky sessions of a cluster are spread over its backends, as far as this process has
//! seen them: nobody keeps a list of sessions. Not what makes one sticky.

use super::plane::Plane;
use crate::{
    telemetry::metrics::{Counter, SessionMetrics},
    topology::Backend,
};
use serde::Serialize;
use std::sync::Arc;

/// The sessions of one backend. Those whose client never comes again are counted for ever: a cookie
/// does not say when it is thrown away.
#[derive(Debug, Serialize)]
pub(super) struct Sessions {
    /// Sessions here: `new` and `came` less `left`.
    here: u64,
    /// Their part of the whole cluster's, 0 to 1.
    share: f64,
    /// Sessions that began here.
    new: u64,
    /// Sessions that had to come here from another backend.
    came: u64,
    /// Sessions that had to go from here to another backend.
    left: u64,
    /// Requests of sessions that were here already.
    kept: u64,
    /// Their part of the whole cluster's, 0 to 1.
    kept_share: f64,
}

impl Sessions {
    /// `None` as long as no backend of its cluster has seen a session.
    pub(super) fn of(plane: &Plane, backend: &Backend) -> Option<Self> {
        let topology = plane.topology();
        let mut clusters = topology.clusters.iter();
        let cluster = clusters.find(|cluster| cluster.name == backend.cluster)?;
        let members = || cluster.shards.iter().flat_map(|shard| &shard.members);
        let all = |count: fn(&Backend) -> u64| members().map(Arc::as_ref).map(count).sum::<u64>();
        let (all_here, all_kept) = (all(here), all(|one| sum(one, |cell| &cell.kept)));
        if all_here + all_kept == 0 {
            return None;
        }
        let (here, kept) = (here(backend), sum(backend, |cell| &cell.kept));
        Some(Self {
            here,
            share: part(here, all_here),
            new: sum(backend, |cell| &cell.new),
            came: sum(backend, |cell| &cell.came),
            left: sum(backend, |cell| &cell.left),
            kept,
            kept_share: part(kept, all_kept),
        })
    }
}

/// One that began with another proxy may leave without having come.
fn here(backend: &Backend) -> u64 {
    let come = sum(backend, |cell| &cell.new) + sum(backend, |cell| &cell.came);
    come.saturating_sub(sum(backend, |cell| &cell.left))
}

/// Over all workers.
pub(super) fn sum(backend: &Backend, pick: fn(&SessionMetrics) -> &Counter) -> u64 {
    backend.cells.iter().map(|cell| pick(&cell.sessions).get()).sum()
}

#[expect(clippy::cast_precision_loss, reason = "a share has fewer digits")]
fn part(some: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}
