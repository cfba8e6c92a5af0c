//! The account of one request, from its head to the last byte of its reply: what is counted, and
//! what the client's connection waits for next. It closes itself, however the request ends.

use super::{
    entry::{Close, Entry},
    hub::{Hub, Watched},
    settings::Settings,
    site::Site,
    stickiness::Told,
    upstream::Upstream,
    watch::{Phase, Watch},
};
use crate::{
    policy::access::Access,
    telemetry::{
        access_log::Ended,
        metrics::{RequestMetrics, RetryReason},
    },
    topology::{Backend, Lease, Outcome},
};
use http::{HeaderValue, StatusCode};
use std::{rc::Rc, sync::Arc, time::Duration};

/// One request under way.
#[derive(Debug)]
pub(super) struct Trip {
    hub: Rc<Hub>,
    settings: Rc<Settings>,
    watch: Rc<Watch>,
    /// Of a stream of HTTP/2, which has a watch of its own.
    watched: Option<Watched>,
    started_us: u64,
    cluster: Option<usize>,
    access: Access,
    at: Option<Stop>,
    end: End,
    /// `None`: it is not logged.
    entry: Option<Box<Entry>>,
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
    Refused(StatusCode),
    /// The head of a backend's reply has come.
    Replied(StatusCode),
    /// All of the reply has come.
    Complete(StatusCode),
    /// The backend broke off within the reply.
    Broken(StatusCode),
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
            watched,
            started_us,
            cluster: None,
            access: Access::Write,
            at: None,
            end: End::Open,
            entry: None,
        }
    }

    /// It is to be logged.
    pub(super) fn log(&mut self, entry: Entry) {
        self.entry = Some(Box::new(entry));
    }

    /// The request's id as the backend gets it.
    pub(super) fn names<'h>(&mut self, id: impl FnOnce() -> Option<&'h HeaderValue>) {
        if let Some(entry) = &mut self.entry {
            entry.named(id());
        }
    }

    /// A try begins.
    pub(super) fn asks(&self, backend: &Arc<Backend>) {
        if let Some(entry) = &self.entry {
            entry.asks(backend);
        }
    }

    /// A try that began at `since_us` has its connection.
    pub(super) fn connected(&self, since_us: u64) {
        if let Some(entry) = &self.entry {
            entry.connected(self.hub.now_us().saturating_sub(since_us));
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
    pub(super) fn retried(&self, reason: RetryReason) {
        if let Some(requests) = self.requests() {
            requests.retried(reason);
        }
        if let Some(entry) = &self.entry {
            entry.retried();
        }
    }

    /// We answer it ourselves, with so many bytes.
    pub(super) fn refused(&mut self, status: StatusCode, reason: &'static str, bytes: u64) {
        self.end = End::Refused(status);
        self.watch.sent.set(bytes);
        if let Some(entry) = &mut self.entry {
            entry.error = Some(reason);
        }
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
        lease.observe(self.hub.chooser_us(), took_us, status.is_server_error());
        site.replied(now_us, took_us);
        let body_idle = self.settings.limits.body_idle;
        self.watch.reply();
        self.watch.enter(Phase::Reply, Hub::after(now_us, body_idle));
        self.end = End::Replied(status);
        if let Some(entry) = &mut self.entry {
            entry.reply_us = Some(now_us.saturating_sub(self.started_us));
        }
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

    /// The backend has nothing for the client now.
    pub(super) fn waits(&self) {
        let Some(stop) = &self.at else { return };
        if self.watch.phase() == Phase::Download {
            self.watch.enter(Phase::Reply, Hub::after(self.hub.now_us(), stop.body_idle));
        }
    }

    /// A part of the reply's body has come and is handed on.
    pub(super) fn passed(&self, bytes: usize) {
        let Some(stop) = &self.at else { return };
        let now_us = self.hub.now_us();
        self.watch.sent.set(self.watch.sent.get() + bytes as u64);
        self.watch.enter(Phase::Download, Hub::after(now_us, stop.body_idle));
        stop.site.heard(now_us);
    }

    /// Whether it may end as soon as its reply is handed over: over HTTP/2 the client's window says
    /// when the reply is taken, and somebody has to wait for that.
    pub(super) fn ends_with_its_reply(&self) -> bool {
        self.watched.is_none()
    }

    /// It became a connection of another protocol, on which so much went each way.
    pub(super) fn relayed(&self, received: u64, sent: u64) {
        self.watch.received.set(received);
        self.watch.sent.set(sent);
    }

    /// The backend broke off within the reply.
    pub(super) fn broken(&mut self) {
        if let End::Replied(status) = self.end {
            self.end = End::Broken(status);
        }
        let Some(stop) = &self.at else { return };
        if self.watch.body_broke() {
            return;
        }
        stop.lease.cell().failures.add(1);
        stop.lease.observe(self.hub.chooser_us(), 0, true);
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
    pub(super) fn give_back(&self, upstream: Box<Upstream>) {
        let Some(stop) = &self.at else { return };
        let wanted = stop.site.backend.gate().open() && stop.life_us > 0;
        if wanted && upstream.is_free() {
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

impl End {
    /// What the client was told.
    fn status(self) -> Option<StatusCode> {
        match self {
            Self::Open => None,
            Self::Refused(status)
            | Self::Replied(status)
            | Self::Complete(status)
            | Self::Broken(status) => Some(status),
        }
    }
}

impl Trip {
    /// Who ended it.
    fn ended(&self) -> Ended {
        match self.end {
            End::Complete(_) => Ended::Complete,
            End::Broken(_) => Ended::Backend,
            End::Refused(_) => Ended::Proxy,
            // Its time was over, or the process's is.
            End::Open | End::Replied(_) if self.watch.is_due() || self.hub.is_stopping() => {
                Ended::Proxy
            }
            End::Open | End::Replied(_) => Ended::Client,
        }
    }

    fn write(&self, entry: &Entry, now_us: u64) {
        let Some(page) = &self.hub.access_log else { return };
        let cluster = self.cluster.and_then(|cluster| self.hub.chooser.cluster(cluster));
        let close = Close {
            listener: &self.settings.name,
            cluster: cluster.as_ref().map(|cluster| &*cluster.name),
            status: self.end.status(),
            received: self.watch.received.get(),
            sent: self.watch.sent.get(),
            total_us: now_us.saturating_sub(self.started_us),
            ended: self.ended(),
        };
        entry.close(page, close);
    }

    fn count(&self, now_us: u64) {
        let Some(cluster) = self.cluster.and_then(|cluster| self.hub.counted(cluster)) else {
            return;
        };
        if let Some(status) = self.end.status() {
            let class = usize::from(status.as_u16() / 100).saturating_sub(1);
            cluster.responses.get(class).iter().for_each(|class| class.add(1));
        }
        let Some(requests) = self.requests() else { return };
        let counter = match self.end {
            End::Open | End::Refused(_) => &requests.proxy_errors,
            End::Broken(_) => &requests.backend_errors,
            End::Replied(status) | End::Complete(status) if status.is_server_error() => {
                &requests.backend_errors
            }
            End::Replied(_) | End::Complete(_) => &requests.ok,
        };
        counter.add(1);
        requests.duration.observe(now_us.saturating_sub(self.started_us), 1);
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        if matches!(self.end, End::Replied(_)) && self.watch.is_late_reply() {
            self.broken();
        }
        if let Some(stop) = &self.at {
            stop.site.leave(stop.key);
        }
        let now_us = self.hub.now_us();
        self.count(now_us);
        if let Some(entry) = &self.entry {
            self.write(entry, now_us);
        }
        let idle = self.settings.limits.keep_alive;
        self.watch.enter(Phase::Idle, Hub::after(now_us, idle));
    }
}
