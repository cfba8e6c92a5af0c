//! What control knows of one backend: its machines, its newest report, its last probes and its
//! counters. Not the other members of its shard: see [`super::table`].

use super::{events::millis, lag::Lag, warming::Warming};
use crate::{
    config::Check,
    policy::{
        admin,
        fresh::Behind,
        gate::{Gate, Init, Role, State},
        health::{self, Phase, Probes},
        outlier,
    },
    proto::redis::probe::Report,
    telemetry::metrics::Histogram,
    topology::Backend,
};
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// One backend under watch.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) backend: Arc<Backend>,
    pub(super) check: Check,
    /// Index of its shard in the table.
    pub(super) group: usize,
    pub(super) admin: admin::Machine,
    pub(super) health: health::Machine,
    /// It was disabled, and nothing is known of it since.
    pub(super) returning: bool,
    pub(super) passive: outlier::Machine,
    pub(super) warming: Warming,
    /// When it was ejected last; a probe sent before that says nothing about it.
    pub(super) tripped_ms: u64,
    pub(super) report: Option<Report>,
    pub(super) lag: Option<Lag>,
    /// Whether it is too far behind to be read.
    pub(super) behind: Behind,
    /// When the newest probe was sent that it has answered.
    pub(super) asked_ms: u64,
    /// Whether `reads.max_lag` bounds how far it may be behind.
    limited: bool,
    /// Asks its task to probe at once.
    pub(super) wake: Rc<Notify>,
    /// Two probes on suspicion are under way.
    pub(super) suspected: bool,
    /// It claims to be the primary while another one is.
    pub(super) disputed: bool,
    /// What the configuration says that it is; `Unknown` where the server itself is asked.
    fixed: Role,
    probes: VecDeque<Probed>,
    checks: Checks,
    changes: [u64; State::ALL.len()],
    ejections: BTreeMap<&'static str, u64>,
}

/// One probe, as the status page shows it.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub(super) time_ms: u64,
    /// `ok`, or the kind of the failure.
    pub(super) code: &'static str,
    pub(super) duration_us: u64,
    pub(super) text: String,
}

/// Probes since the start.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) durations: Histogram,
}

impl Watch {
    /// A backend nobody has probed yet.
    pub(super) fn new(
        backend: Arc<Backend>,
        check: Check,
        slow_start: Duration,
        group: usize,
        limited: bool,
    ) -> Self {
        let fixed = backend.role();
        let probes = Probes { rise: check.rise, fall: check.fall };
        let (ok, failed) = totals(&backend);
        let warming = Warming::new(backend.weight(), slow_start);
        Self {
            backend,
            check,
            group,
            admin: admin::Machine::default(),
            health: health::Machine::new(probes),
            returning: false,
            passive: outlier::Machine::new(ok, failed),
            warming,
            tripped_ms: 0,
            report: None,
            lag: None,
            behind: Behind::default(),
            asked_ms: 0,
            limited,
            wake: Rc::new(Notify::new()),
            suspected: false,
            disputed: false,
            fixed,
            probes: VecDeque::with_capacity(KEPT),
            checks: Checks::default(),
            changes: [0; State::ALL.len()],
            ejections: BTreeMap::new(),
        }
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The newest ten probes, oldest first.
    pub(super) fn probes(&self) -> impl Iterator<Item = &Probed> {
        self.probes.iter()
    }

    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Transitions by the state they led to, in the order of [`State::ALL`].
    pub(super) fn changes(&self) -> &[u64] {
        &self.changes
    }

    /// Ejections by reason.
    pub(super) fn ejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.ejections.iter().map(|(reason, count)| (*reason, *count))
    }

    pub(super) fn lag(&self) -> Option<Lag> {
        self.lag
    }

    pub(super) fn redis_version(&self) -> Option<&str> {
        self.report.as_ref()?.redis_version.as_deref()
    }

    /// How long it can be dead before its probes say so.
    pub(super) fn worst_case_ms(&self) -> u64 {
        millis(self.check.worst_case_detection())
    }

    /// Its role as it says itself, or as configured where nobody is asked.
    pub(super) fn role(&self) -> Role {
        match self.fixed {
            Role::Unknown => {
                let told = self.report.as_ref().map_or(Role::Unknown, |report| report.role);
                self.as_late(told, self.limited)
            }
            fixed => fixed,
        }
    }

    /// What it is taken for until it was probed. One that comes back from being disabled was worked
    /// on: it has to show first that it is there.
    pub(super) const fn init(&self) -> Init {
        let asked = matches!(self.fixed, Role::Unknown);
        if asked || self.returning { Init::Down } else { Init::Up }
    }

    /// Asks for a probe at once, unless failures are being counted already: those keep their pace,
    /// for three probes at once would say no more than one.
    pub(super) fn hurry(&self) {
        if self.health.phase() == Phase::Healthy {
            self.wake.notify_one();
        }
    }

    pub(super) fn keep(&mut self, probed: Probed) {
        if probed.code == PASSED {
            self.checks.passed += 1;
        } else {
            self.checks.failed += 1;
        }
        self.checks.durations.observe(probed.duration_us, 1);
        if self.probes.len() == KEPT {
            self.probes.pop_front();
        }
        self.probes.push_back(probed);
    }

    pub(super) fn count_change(&mut self, to: State) {
        if let Some(count) = self.changes.get_mut(to as usize) {
            *count += 1;
        }
    }

    pub(super) fn count_ejection(&mut self, reason: &'static str) {
        *self.ejections.entry(reason).or_default() += 1;
    }
}

/// Requests of all workers that succeeded and that failed.
pub(super) fn totals(backend: &Backend) -> (u64, u64) {
    let (mut all, mut failed) = (0u64, 0u64);
    for cell in &backend.cells {
        all = all.wrapping_add(cell.reads.get()).wrapping_add(cell.writes.get());
        failed = failed.wrapping_add(cell.failures.get());
    }
    (all.saturating_sub(failed), failed)
}

/// Whether a gate lets requests through now.
pub(super) const fn serves(gate: Gate) -> bool {
    gate.open() && (gate.primary() || gate.replica() || gate.alike())
}

/// The code of a probe that passed.
pub(super) const PASSED: &str = "ok";
/// core.md: each result is kept (last 10).
const KEPT: usize = 10;
