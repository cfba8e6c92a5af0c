//! The account of one request, from its head to the last byte of its reply: what is counted, and
//! what the client's connection waits for next. It closes itself, however the request ends.

use super::{
    hub::{Hub, Watched},
    settings::Settings,
    site::Site,
    stickiness::Told,
    upstream::Upstream,
    watch::{Phase, Watch},
};
use crate::{
    policy::access::Access,
    telemetry::metrics::RequestMetrics,
    topology::{Lease, Outcome},
};
use http::StatusCode;
use std::{rc::Rc, time::Duration};

/// One request under way.
#[derive(Debug)]
pub(super) struct Trip {
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    watch: Rc<Watch>,
    /// Of a stream of HTTP/2, which has a watch of its own.
    _watched: Option<Watched>,
    started_us: u64,
    cluster: Option<usize>,
    access: Access,
    at: Option<Stop>,
    end: End,
}

/// Where it is under way.
#[derive(Debug)]
struct Stop {
    lease: Lease,
    site: Rc<Site>,
    /// Its place among those whom the site serves.
    key: usize,
    /// How long the connection may be idle afterwards.
    life_us: u64,
    body_idle: Duration,
}

/// How it stands, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody has answered.
    Open,
    /// Answered by us.
    Refused,
    /// The head of a backend's reply has come.
    Replied(StatusCode),
    /// All of the reply has come.
    Complete(StatusCode),
    /// The backend broke off within the reply.
    Broken,
}

impl Trip {
    pub(super) fn new(
        hub: Rc<Hub>,
        settings: Rc<Settings>,
        watch: Rc<Watch>,
        watched: Option<Watched>,
    ) -> Self {
        let started_us = hub.now_us();
        Self {
            hub,
            settings,
            watch,
            _watched: watched,
            started_us,
            cluster: None,
            access: Access::Write,
            at: None,
            end: End::Open,
        }
    }

    pub(super) fn started_us(&self) -> u64 {
        self.started_us
    }

    pub(super) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// Its cluster is known.
    pub(super) fn goes_to(&mut self, cluster: usize, access: Access) {
        self.cluster = Some(cluster);
        self.access = access;
        self.hub.on_request(cluster, self.started_us);
    }

    pub(super) fn cluster(&self) -> Option<usize> {
        self.cluster
    }

    /// The claim on the backend that has replied.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.at.as_ref().map(|stop| &stop.lease)
    }

    /// Another try.
    pub(super) fn retried(&self) {
        if let Some(requests) = self.requests() {
            requests.retries.add(1);
        }
    }

    /// We answer it ourselves.
    pub(super) fn refused(&mut self) {
        self.end = End::Refused;
    }

    /// The head of a reply has come from the backend of `lease`, `asked_us` after which it was
    /// asked.
    pub(super) fn replied(
        &mut self,
        status: StatusCode,
        lease: Lease,
        site: Rc<Site>,
        asked_us: u64,
        life_us: u64,
    ) {
        let now_us = self.hub.now_us();
        let cell = lease.cell();
        match self.access {
            Access::Read => cell.reads.add(1),
            Access::Write => cell.writes.add(1),
        }
        if status.is_server_error() {
            cell.failures.add(1);
            self.hub.reporter.report(lease.backend(), Outcome::Error);
        }
        let took_us = now_us.saturating_sub(asked_us);
        lease.observe(self.hub.chooser.now_us(), took_us, status.is_server_error());
        site.replied(now_us, took_us);
        let body_idle = self.settings.limits.body_idle;
        self.watch.enter(Phase::Download, Hub::after(now_us, body_idle));
        self.end = End::Replied(status);
        let key = site.enter(&self.watch);
        self.at = Some(Stop { lease, site, key, life_us, body_idle });
    }

    /// What became of the session that the request belongs to, at the backend of `lease`.
    pub(super) fn sticky(&self, told: Told, lease: &Lease) {
        let sessions = &lease.cell().sessions;
        match told {
            Told::Kept => sessions.kept.add(1),
            Told::New => sessions.new.add(1),
            Told::Moved { from } => {
                sessions.came.add(1);
                let cluster = self.cluster.and_then(|index| self.hub.chooser.cluster(index));
                let left = cluster.and_then(|one| one.shards.first()?.members.get(from).cloned());
                let worker = self.hub.chooser.worker();
                if let Some(cell) = left.as_ref().and_then(|one| one.cells.get(worker)) {
                    cell.sessions.left.add(1);
                }
            }
        }
    }

    pub(super) fn look_at_clock(&self) {
        self.hub.look_at_clock();
    }

    /// A part of the reply's body has come and is handed on.
    pub(super) fn passed(&self, bytes: usize) {
        let Some(stop) = &self.at else { return };
        let now_us = self.hub.now_us();
        self.watch.sent.set(self.watch.sent.get() + bytes as u64);
        self.watch.enter(Phase::Download, Hub::after(now_us, stop.body_idle));
        stop.lease.cell().bytes_in.add(bytes as u64);
        stop.site.heard(now_us);
    }

    /// The backend broke off within the reply.
    pub(super) fn broken(&mut self) {
        self.end = End::Broken;
        let Some(stop) = &self.at else { return };
        stop.lease.cell().failures.add(1);
        stop.lease.observe(self.hub.chooser.now_us(), 0, true);
        self.hub.reporter.report(stop.lease.backend(), Outcome::LocalFailure);
    }

    /// All of the reply has come.
    pub(super) fn complete(&mut self) {
        if let End::Replied(status) = self.end {
            self.end = End::Complete(status);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.end, End::Complete(_))
    }

    /// Keeps the connection for the next request, if it is fit for one.
    pub(super) fn give_back(&self, mut upstream: Box<Upstream>) {
        let Some(stop) = &self.at else { return };
        let wanted = stop.site.backend.gate().open() && stop.life_us > 0;
        if wanted && upstream.settle() {
            stop.site.pool.give(upstream, self.hub.now_us(), stop.life_us);
        }
    }

    fn requests(&self) -> Option<&RequestMetrics> {
        let cluster = self.hub.counted(self.cluster?)?;
        Some(match self.access {
            Access::Read => &cluster.reads,
            Access::Write => &cluster.writes,
        })
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        if let Some(stop) = &self.at {
            stop.site.leave(stop.key);
        }
        let now_us = self.hub.now_us();
        if let Some(requests) = self.requests() {
            let counter = match self.end {
                End::Open | End::Refused => &requests.proxy_errors,
                End::Broken => &requests.backend_errors,
                End::Replied(status) | End::Complete(status) if status.is_server_error() => {
                    &requests.backend_errors
                }
                End::Replied(_) | End::Complete(_) => &requests.ok,
            };
            counter.add(1);
            requests.duration.observe(now_us.saturating_sub(self.started_us), 1);
        }
        let idle = self.settings.limits.keep_alive;
        self.watch.enter(Phase::Idle, Hub::after(now_us, idle));
    }
}
