//! The metrics page: what every worker counted and what control knows, summed when asked for.
//! Nothing here is on the request path.

use super::{
    certificates::Tls,
    plane::Plane,
    process::Stage,
    sessions,
    sheet::Sheet,
    status::HOT_KEYS,
    subscriptions::Subscriptions,
    usage,
    watch::{Watch, serves},
};
use crate::{
    config::Protocol,
    policy::{
        access::Access,
        gate::{Admin, Role, State},
    },
    telemetry::{
        metrics::{
            BackendMetrics, ClusterMetrics, Counter, ListenerMetrics, REFUSALS, RequestMetrics,
            RetryReason, SessionMetrics, WorkerMetrics,
        },
        names,
    },
    topology::{Layout, door::Reason},
};
use std::time::UNIX_EPOCH;

/// The whole page in Prometheus's text format.
pub(super) fn page(plane: &Plane) -> Vec<u8> {
    let mut sheet = Sheet::new();
    process(&mut sheet, plane);
    workers(&mut sheet, plane);
    listeners(&mut sheet, plane);
    certificates(&mut sheet, plane);
    clusters(&mut sheet, plane);
    for watch in plane.table.borrow().watches().iter() {
        let is_http = plane.web.contains(&*watch.backend().cluster);
        backend(&mut sheet, watch, is_http);
    }
    sheet.text()
}

fn process(sheet: &mut Sheet, plane: &Plane) {
    sheet.count(names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let stage = plane.state.stage().as_str();
    sheet.one_of(names::STATE, &[], "state", Stage::ALL.map(Stage::as_str), stage);
    let started = plane.state.started_at().duration_since(UNIX_EPOCH).unwrap_or_default();
    sheet.count(names::CONFIG_RELOAD_SUCCESSFUL, &[], 1);
    sheet.add(names::CONFIG_RELOAD_TIME, &[], started.as_secs_f64());
    sheet.add(names::PROCESS_START, &[], started.as_secs_f64());
    let usage = usage::read();
    if let Some(seconds) = usage.cpu_seconds {
        sheet.add(names::PROCESS_CPU, &[], seconds);
    }
    for (name, value) in [
        (names::PROCESS_MEMORY, usage.resident_bytes),
        (names::PROCESS_FDS, usage.open_fds),
        (names::PROCESS_MAX_FDS, usage.max_fds),
    ] {
        if let Some(value) = value {
            sheet.count(name, &[], value);
        }
    }
    if let Some(dropped) = &plane.access_log {
        sheet.count(names::ACCESS_LOG_DROPPED, &[], dropped.get());
    }
    sheet.count(names::EVENTS, &[], plane.table.borrow().events().total());
}

fn workers(sheet: &mut Sheet, plane: &Plane) {
    for (i, worker) in plane.workers.iter().enumerate() {
        let labels = [("worker", &*i.to_string())];
        sheet.count(names::WORKER_CLIENTS, &labels, worker.clients.get());
        sheet.count(names::WORKER_TURNS, &labels, worker.turns.get());
        sheet.count(names::BUFFERED, &labels, worker.buffered.get());
    }
    sheet.count(names::PANICS, &[], sum(plane, |worker| Some(&worker.panics)));
    for (i, command) in plane.commands.iter().enumerate() {
        let count = sum(plane, |worker| worker.commands.get(i));
        // 400 rows of nothing help nobody.
        if count > 0 {
            sheet.count(names::REDIS_COMMANDS, &[("command", command)], count);
        }
        for (direction, count) in [
            ("in", sum(plane, |worker| worker.big_requests.get(i))),
            ("out", sum(plane, |worker| worker.big_replies.get(i))),
        ] {
            if count > 0 {
                let labels = [("command", &**command), ("direction", direction)];
                sheet.count(names::REDIS_BIG, &labels, count);
            }
        }
    }
}

fn listeners(sheet: &mut Sheet, plane: &Plane) {
    for (i, listener) in plane.listeners.iter().enumerate() {
        let name = ("listener", &*listener.name);
        let total = |pick: fn(&ListenerMetrics) -> &Counter| {
            sum(plane, |worker| worker.listeners.get(i).map(pick))
        };
        sheet.count(names::LISTENER_ACCEPTED, &[name], total(|l| &l.accepted));
        sheet.count(names::LISTENER_ACTIVE, &[name], total(|l| &l.active));
        let rejected = names::LISTENER_REJECTED;
        sheet.count(rejected, &[name, ("reason", "protocol")], total(|l| &l.rejected_protocol));
        sheet.count(rejected, &[name, ("reason", "auth")], total(|l| &l.rejected_auth));
        let reason = ("reason", "header_limit");
        sheet.count(rejected, &[name, reason], total(|l| &l.rejected_header_limit));
        sheet.count(rejected, &[name, ("reason", "slow")], total(|l| &l.rejected_slow));
        sheet.count(rejected, &[name, ("reason", "flood")], total(|l| &l.rejected_flood));
        if plane.certificates.iter().any(|owner| owner.is_listener(&listener.name)) {
            let handshakes = names::LISTENER_TLS_HANDSHAKES;
            sheet.count(handshakes, &[name, ("result", "ok")], total(|l| &l.tls_ok));
            sheet.count(handshakes, &[name, ("result", "failed")], total(|l| &l.tls_failed));
        }
        for reason in Reason::ALL {
            let counted = |worker: &WorkerMetrics| {
                worker.listeners.get(i).map_or(0, |listener| reason.counter(listener).get())
            };
            let count = plane.workers.iter().map(|worker| counted(worker)).sum();
            sheet.count(rejected, &[name, ("reason", reason.as_str())], count);
        }
        let bytes = names::LISTENER_BYTES;
        sheet.count(bytes, &[name, ("direction", "in")], total(|l| &l.bytes_in));
        sheet.count(bytes, &[name, ("direction", "out")], total(|l| &l.bytes_out));
        if listener.protocol == Protocol::Http.as_str() {
            for (reason, word) in REFUSALS.iter().enumerate() {
                let count = sum(plane, |worker| worker.listeners.get(i)?.refusals.get(reason));
                sheet.count(names::HTTP_REFUSALS, &[name, ("reason", word)], count);
            }
        }
    }
}

fn certificates(sheet: &mut Sheet, plane: &Plane) {
    for owner in &plane.certificates {
        let labels = [("side", owner.side.as_str()), ("name", &*owner.name)];
        for (result, count) in [("ok", &owner.taken), ("failed", &owner.refused)] {
            let [side, name] = labels;
            sheet.count(names::TLS_RELOADS, &[side, name, ("result", result)], count.get());
        }
        let Tls::Server(server) = &owner.tls else { continue };
        for (file, end) in server.ends() {
            let file = file.to_string_lossy();
            let labels = [("listener", &*owner.name), ("certificate", &*file)];
            sheet.add(names::TLS_NOT_AFTER, &labels, seconds(end));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to the year 285 million")]
fn seconds(unix_time: i64) -> f64 {
    unix_time as f64
}

fn clusters(sheet: &mut Sheet, plane: &Plane) {
    for (i, cluster) in plane.topology().clusters.iter().enumerate() {
        let name = ("cluster", &*cluster.name);
        let total = |pick: fn(&ClusterMetrics) -> &Counter| {
            sum(plane, |worker| worker.clusters.get(i).map(pick))
        };
        sheet.count(names::REDIS_LOCAL, &[name], total(|c| &c.local));
        sheet.count(names::REDIS_SPLIT, &[name], total(|c| &c.split));
        if cluster.follows.is_some() {
            let kinds = [
                ("moved", total(|c| &c.redirects_moved)),
                ("ask", total(|c| &c.redirects_ask)),
                ("wait", total(|c| &c.redirects_wait)),
            ];
            for (kind, count) in kinds {
                sheet.count(names::REDIS_REDIRECTS, &[name, ("kind", kind)], count);
            }
        }
        sheet.count(names::REDIS_STRAY, &[name], total(|c| &c.stray_replies));
        sheet.count(names::REDIS_COALESCED, &[name], total(|c| &c.coalesced));
        sheet.count(names::REDIS_SLOW, &[name], plane.insight.slow_requests(i));
        for (rank, key) in (1..).zip(plane.insight.hot_keys(i, HOT_KEYS)) {
            let labels = [name, ("rank", &*format!("{rank}"))];
            sheet.count(names::REDIS_HOT, &labels, key.per_second);
        }
        sheet.count(names::REDIS_PUSHES, &[name], total(|c| &c.stray_pushes));
        if matches!(cluster.layout, Layout::Shards) {
            Subscriptions::of(plane, i).write(sheet, name);
        }
        if plane.web.contains(&*cluster.name) {
            for (class, word) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().enumerate() {
                let count = sum(plane, |worker| worker.clusters.get(i)?.responses.get(class));
                sheet.count(names::HTTP_RESPONSES, &[name, ("class", word)], count);
            }
        }
        sheet.count(names::REQUESTS_OVERLOADED, &[name], total(|c| &c.overloaded));
        sheet.count(names::FAILOVER_WAITS, &[name], total(|c| &c.failover_waits));
        if let Some(queue) = &cluster.queue {
            sheet.count(names::QUEUE_LENGTH, &[name], queue.len().try_into().unwrap_or(u64::MAX));
            let waits = plane.workers.iter().filter_map(|worker| worker.clusters.get(i));
            sheet.histogram(names::QUEUE_WAIT, &[name], waits.map(|c| &c.queue_wait));
        }
        let members = || cluster.shards.iter().flat_map(|shard| &shard.members);
        if matches!(cluster.layout, Layout::Group { .. }) {
            for (result, pick) in STICKY {
                let count = members().map(|one| sessions::sum(one, pick)).sum();
                sheet.count(names::STICKY, &[name, ("result", result)], count);
            }
        }
        let in_flight = members().map(|backend| backend.in_flight()).sum();
        sheet.count(names::REQUESTS_IN_FLIGHT, &[name], in_flight);
        let of_worker = |worker, access| requests_of(worker, i, access);
        for access in [Access::Read, Access::Write] {
            let labels = [name, ("access", access.as_str())];
            let total = |pick: fn(&RequestMetrics) -> &Counter| {
                sum(plane, |worker| of_worker(worker, access).map(pick))
            };
            for (result, count) in [
                ("ok", total(|m| &m.ok)),
                ("backend_error", total(|m| &m.backend_errors)),
                ("proxy_error", total(|m| &m.proxy_errors)),
            ] {
                let [cluster, access] = labels;
                sheet.count(names::REQUESTS, &[cluster, access, ("result", result)], count);
            }
            for reason in RetryReason::ALL {
                let count = plane.workers.iter().filter_map(|worker| of_worker(worker, access));
                let count = count.filter_map(|m| m.retries.get(reason as usize)).map(Counter::get);
                let [cluster, access] = labels;
                let labels = [cluster, access, ("reason", reason.as_str())];
                sheet.count(names::RETRIES, &labels, count.sum());
            }
            let durations = plane.workers.iter().filter_map(|worker| of_worker(worker, access));
            sheet.histogram(names::REQUEST_DURATION, &labels, durations.map(|m| &m.duration));
        }
    }
}

fn requests_of(worker: &WorkerMetrics, cluster: usize, access: Access) -> Option<&RequestMetrics> {
    let cluster = worker.clusters.get(cluster)?;
    Some(match access {
        Access::Read => &cluster.reads,
        Access::Write => &cluster.writes,
    })
}

fn backend(sheet: &mut Sheet, watch: &Watch, is_http: bool) {
    let backend = watch.backend();
    let labels =
        [("cluster", &*backend.cluster), ("shard", &*backend.shard), ("backend", &*backend.name)];
    let with = |name, value| {
        let [cluster, shard, backend] = labels;
        [cluster, shard, backend, (name, value)]
    };
    let total = |pick: fn(&BackendMetrics) -> &Counter| -> u64 {
        backend.cells.iter().map(|cell| pick(cell).get()).sum()
    };
    let (state, role) = (backend.state(), backend.role());
    sheet.count(names::BACKEND_UP, &labels, u64::from(serves(backend.gate())));
    let states = State::ALL.map(State::as_str);
    sheet.one_of(names::BACKEND_STATE, &labels, "state", states, state.as_str());
    let wishes = Admin::ALL.map(Admin::as_str);
    sheet.one_of(names::BACKEND_ADMIN, &labels, "admin", wishes, backend.admin().as_str());
    let roles = Role::ALL.map(Role::as_str);
    sheet.one_of(names::BACKEND_ROLE, &labels, "role", roles, role.as_str());
    sheet.count(names::BACKEND_WEIGHT, &labels, u64::from(backend.weight()));
    let effective = f64::from(backend.effective_weight()) / 10.0;
    sheet.add(names::BACKEND_EFFECTIVE_WEIGHT, &labels, effective);
    sheet.count(names::BACKEND_CONNECTIONS, &labels, total(|c| &c.connections));
    if is_http {
        sheet.count(names::BACKEND_IDLE, &labels, total(|c| &c.idle));
    } else if backend.role() != Role::None {
        sheet.count(names::BACKEND_LEASED, &labels, total(|c| &c.leased));
        sheet.count(names::BACKEND_LEASE_WAITS, &labels, total(|c| &c.lease_waits));
        sheet.count(names::BACKEND_LEASE_REFUSALS, &labels, total(|c| &c.lease_refusals));
    }
    sheet.count(names::BACKEND_IN_FLIGHT, &labels, backend.in_flight());
    let (reads, writes, failed) =
        (total(|c| &c.reads), total(|c| &c.writes), total(|c| &c.failures));
    let ok = reads.saturating_add(writes).saturating_sub(failed);
    for (name, label, values) in [
        (
            names::BACKEND_CONNECTS,
            "result",
            [("ok", total(|c| &c.connects_ok)), ("failed", total(|c| &c.connects_failed))],
        ),
        (names::BACKEND_REQUESTS, "result", [("ok", ok), ("failed", failed)]),
        (names::BACKEND_ACCESS, "access", [("read", reads), ("write", writes)]),
        (
            names::BACKEND_BYTES,
            "direction",
            [("in", total(|c| &c.bytes_in)), ("out", total(|c| &c.bytes_out))],
        ),
        (
            names::BACKEND_CHECKS,
            "result",
            [("passed", watch.checks().passed), ("failed", watch.checks().failed)],
        ),
    ] {
        for (value, count) in values {
            sheet.count(name, &with(label, value), count);
        }
    }
    let sticky = if backend.role() == Role::None { BACKEND_STICKY } else { &[] };
    for (result, pick) in sticky {
        sheet.count(names::BACKEND_STICKY, &with("result", result), sessions::sum(backend, *pick));
    }
    let durations = std::iter::once(&watch.checks().durations);
    sheet.histogram(names::BACKEND_CHECK_DURATION, &labels, durations);
    for (state, count) in State::ALL.iter().zip(watch.changes()) {
        sheet.count(names::BACKEND_CHANGES, &with("to", state.as_str()), *count);
    }
    for (reason, count) in watch.ejections() {
        sheet.count(names::BACKEND_EJECTIONS, &with("reason", reason), count);
    }
    if let Some(lag) = watch.lag() {
        sheet.count(names::BACKEND_LAG_BYTES, &labels, lag.bytes);
        if let Some(ms) = lag.ms {
            let seconds = std::time::Duration::from_millis(ms).as_secs_f64();
            sheet.add(names::BACKEND_LAG_SECONDS, &labels, seconds);
        }
    }
}

type OfSessions = (&'static str, fn(&SessionMetrics) -> &Counter);

/// By cluster, where each move is told once.
const STICKY: [OfSessions; 3] =
    [("kept", |s| &s.kept), ("new", |s| &s.new), ("moved", |s| &s.came)];
const BACKEND_STICKY: &[OfSessions] =
    &[("kept", |s| &s.kept), ("new", |s| &s.new), ("came", |s| &s.came), ("left", |s| &s.left)];

/// The sum over the workers that have such a counter.
fn sum<'a>(plane: &'a Plane, pick: impl Fn(&'a WorkerMetrics) -> Option<&'a Counter>) -> u64 {
    plane.workers.iter().filter_map(|worker| pick(worker)).map(Counter::get).sum()
}
