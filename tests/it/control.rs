//! Control against real redis-servers: who is taken out and brought back, how fast, and what the
//! admin address says of it.

use crate::harness::{Redis, eventually, port::Port};
use sluice::{
    config::{Admin, Check, Config, Env},
    control::{self, Inputs, admin, build::build, process::ProcessState},
    net::addr::Bind,
    policy::gate::{Role, State},
    telemetry::metrics::{ClusterMetrics, Counter, ListenerMetrics, WorkerMetrics},
    topology::{self, Backend, Outcome, Reporter},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

/// A running control over one shard.
struct Control {
    members: Vec<Arc<Backend>>,
    reporter: Reporter,
    worker: Arc<WorkerMetrics>,
    state: Arc<ProcessState>,
    changes: Arc<AtomicUsize>,
    admin: SocketAddr,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Polls `condition` until it holds; how long that took.
#[track_caller]
fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    eventually(what, limit, || condition().then_some(()));
    start.elapsed()
}

fn config(ports: &[u16], password: Option<&str>) -> Config {
    let mut members = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let (primary, replicas) = (members.next().unwrap(), members.collect::<Vec<_>>().join(", "));
    let upstream = password.map(|word| format!("password: {word}")).unwrap_or_default();
    let text = format!(
        "admin: {{ bind: 127.0.0.1:0 }}
listeners: [{{ name: cache, bind: 127.0.0.1:6380, protocol: redis, cluster: cache }}]
clusters:
  cache:
    shards: [{{ primary: {primary}, replicas: [{replicas}] }}]
    reads: {{ from: prefer_replica }}
    check: {{ interval: 200ms, fast_interval: 50ms, down_interval: 100ms }}
    upstream: {{ {upstream} }}
"
    );
    let (config, findings) = Config::parse(&text, "control.yaml", Env::empty());
    config.unwrap_or_else(|| panic!("{findings}"))
}

impl Control {
    fn start(config: Config) -> Self {
        let topology = build(&config, 1, &[]);
        let members = topology.clusters[0].shards[0].members.clone();
        let (publisher, _) = topology::channel(topology);
        let (reporter, reports) = Reporter::channel();
        let worker = Arc::new(WorkerMetrics {
            listeners: vec![ListenerMetrics::default()],
            clusters: vec![ClusterMetrics::default()],
            commands: vec![Counter::default(), Counter::default()],
            ..WorkerMetrics::default()
        });
        let doors = admin::bind(&config.admin).unwrap();
        let address = doors.tcp.as_ref().unwrap().local_addr().unwrap();
        let (state, changes) = (Arc::new(ProcessState::new()), Arc::new(AtomicUsize::new(0)));
        let (shutdown, counted) = (CancellationToken::new(), Arc::clone(&changes));
        let thread = control::start(Inputs {
            config,
            insight: Arc::default(),
            publisher,
            sentinel_tls: Vec::new(),
            tls: Vec::new(),
            reports,
            workers: vec![Arc::clone(&worker)],
            access_log: None,
            commands: vec!["get".to_owned(), "unknown".to_owned()],
            admin: doors,
            on_change: Arc::new(move || {
                counted.fetch_add(1, Relaxed);
            }),
            state: Arc::clone(&state),
            shutdown: shutdown.clone(),
        });
        Self {
            members,
            reporter,
            worker,
            state,
            changes,
            admin: address,
            shutdown,
            thread: Some(thread.unwrap()),
        }
    }

    /// Waits until every member has this state and role.
    fn settled(&self, expected: &[(State, Role)]) {
        until("states and roles", SOON, || {
            self.members.iter().map(|b| (b.state(), b.role())).eq(expected.iter().copied())
        });
    }

    /// Status code, head and body of a GET.
    fn get(&self, path: &str) -> (u16, String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn ask(&self, request: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.admin).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    fn status(&self) -> serde_json::Value {
        let (code, head, body) = self.get("/api/v1/status");
        assert!(code == 200 && head.contains("content-type: application/json"), "{head}");
        serde_json::from_str(&body).unwrap()
    }

    fn events(&self, cause: &str) -> Vec<String> {
        let status = self.status();
        let events = status["events"].as_array().unwrap();
        let with_cause = events.iter().filter(|event| event["cause"] == cause);
        with_cause
            .map(|event| format!("{} -> {}", event["from"], event["to"]).replace('"', ""))
            .collect()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

const PRIMARY: (State, Role) = (State::Ready, Role::Primary);
const REPLICA: (State, Role) = (State::Ready, Role::Replica);

#[test]
fn a_killed_replica_is_taken_out_and_comes_back() {
    let primary = Redis::with_args(&["--requirepass", "canary"]);
    let auth = ["--requirepass", "canary", "--masterauth", "canary"];
    let mut replica = Redis::replica_of(&primary, &auth);
    let control = Control::start(config(&[primary.port(), replica.port()], Some("canary")));
    control.settled(&[PRIMARY, REPLICA]);
    replica.kill();
    until("unhealthy", SOON, || control.members[1].state() == State::Unhealthy);
    assert!(control.members[1].gate().evict() && control.members[0].gate().primary());
    let changes = control.changes.load(Relaxed);
    replica.restart();
    control.settled(&[PRIMARY, REPLICA]);
    assert!(control.changes.load(Relaxed) > changes, "workers are told");
    let events = control.events("probe");
    assert!(events.contains(&"ready -> unhealthy".to_owned()), "{events:?}");
    assert!(events.contains(&"unhealthy -> ready".to_owned()), "{events:?}");
    for path in ["/api/v1/status", "/metrics"] {
        assert!(!control.get(path).2.contains("canary"), "{path} shows a password");
    }
}

#[test]
fn a_stopped_replica_is_ejected_within_a_second_of_the_hang() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    let other = Redis::replica_of(&primary, &[]);
    let mut config = config(&[primary.port(), replica.port(), other.port()], None);
    // The ordinary probes are too slow for it.
    config.clusters[0].check = Check::default();
    let control = Control::start(config);
    control.settled(&[PRIMARY, REPLICA, REPLICA]);
    replica.stop();
    let stopped = Instant::now();
    // A worker notices when its oldest request is 250ms old, and goes on saying so.
    std::thread::sleep(Duration::from_millis(300));
    until("ejected", Duration::from_secs(5), || {
        control.reporter.report(&control.members[1], Outcome::Suspect);
        control.members[1].state() == State::Ejected
    });
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(1), "took {took:?}");
    assert!(took > Duration::from_millis(750), "two probes of 250ms cannot take {took:?}");
    assert_eq!(control.events("hung"), ["ready -> ejected"]);
    assert_eq!(control.members[2].state(), State::Ready);
    replica.cont();
    until("half open", SOON, || control.members[1].gate().half_open());
    assert!(control.members[1].take_permit());
    control.members[1].cells[0].reads.add(1);
    control.settled(&[PRIMARY, REPLICA, REPLICA]);
}

#[test]
fn a_suspected_replica_that_answers_and_a_suspected_primary_stay() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    let control = Control::start(config(&[primary.port(), replica.port()], None));
    control.settled(&[PRIMARY, REPLICA]);
    let events = control.status()["events"].as_array().unwrap().len();
    primary.stop();
    for _ in 0..60 {
        for member in &control.members {
            control.reporter.report(member, Outcome::Suspect);
        }
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(control.members[0].state(), State::Ready);
    }
    primary.cont();
    assert!(control.events("hung").is_empty());
    assert_eq!(control.status()["events"].as_array().unwrap().len(), events);
}

#[test]
fn a_hung_primary_is_found_within_the_printed_worst_case() {
    let primary = Redis::start();
    let mut config = config(&[primary.port()], None);
    config.clusters[0].check = Check {
        interval: Duration::from_millis(600),
        fast_interval: Duration::from_millis(100),
        timeout: Duration::from_millis(300),
        ..Check::default()
    };
    let control = Control::start(config);
    control.settled(&[PRIMARY]);
    let backend = &control.status()["clusters"][0]["shards"][0]["backends"][0];
    let printed = Duration::from_millis(backend["worst_case_detection_ms"].as_u64().unwrap());
    assert_eq!(printed, Duration::from_millis(600 + 2 * 100 + 3 * 300));
    primary.stop();
    let took = until("unhealthy", SOON, || control.members[0].state() == State::Unhealthy);
    primary.cont();
    // Two cores are shared with other tests.
    assert!(took < printed + Duration::from_millis(200), "{took:?}");
    control.settled(&[PRIMARY]);
}

#[test]
fn a_changed_role_is_noticed_at_once_when_a_worker_reports_it() {
    let first = Redis::start();
    let second = Redis::replica_of(&first, &[]);
    let mut config = config(&[first.port(), second.port()], None);
    config.clusters[0].check.interval = Duration::from_secs(30);
    let control = Control::start(config);
    control.settled(&[PRIMARY, REPLICA]);
    assert_eq!(second.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    let port = second.port().to_string();
    assert_eq!(first.cmd(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    let took = until("the demoted one is noticed", SOON, || {
        control.reporter.report(&control.members[0], Outcome::RoleMismatch);
        !control.members[0].gate().primary()
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    until("the new one gets the writes", SOON, || {
        control.reporter.report(&control.members[1], Outcome::RoleMismatch);
        control.members[1].gate().primary()
    });
    until("the old one follows", SOON, || {
        control.reporter.report(&control.members[0], Outcome::RoleMismatch);
        control.members[0].gate().replica()
    });
    let roles = control.events("role");
    assert!(roles.contains(&"replica -> primary".to_owned()), "{roles:?}");
}

#[test]
fn readiness_waits_for_listeners_and_the_first_round() {
    // One answers at once; the other one never does, so its first probe takes the whole timeout.
    let primary = Redis::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&[primary.port(), silent.local_addr().unwrap().port()], None);
    config.clusters[0].check.timeout = Duration::from_secs(2);
    let control = Control::start(config);
    let (code, _, why) = control.get("/readyz");
    assert_eq!((code, why.as_str()), (503, "listeners are not bound yet\n"));
    control.state.set_listeners_bound();
    let (code, _, why) = control.get("/readyz");
    assert_eq!((code, why.as_str()), (503, "the first round of probes is not done yet\n"));
    until("ready", SOON, || control.get("/readyz").0 == 200);
    assert_eq!(control.get("/readyz").2, "ready\n");
    control.state.start_draining();
    assert_eq!(control.get("/readyz").0, 503);
    assert_eq!(control.status()["state"], "draining");
}

#[test]
fn grace_ends_a_first_round_that_takes_too_long() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&[silent.local_addr().unwrap().port()], None);
    config.clusters[0].check.timeout = Duration::from_secs(30);
    config.clusters[0].check.startup_grace = Duration::from_millis(200);
    let control = Control::start(config);
    let took = until("the round is over", SOON, || control.state.first_round_done());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn liveness_follows_the_heartbeats_of_the_workers() {
    let nobody = Port::free();
    let control = Control::start(config(&[nobody.number], None));
    assert_eq!(control.get("/livez"), {
        let (_, head, _) = control.get("/livez");
        (200, head, "alive\n".to_owned())
    });
    until("a dead worker is seen", SOON, || control.get("/livez").0 == 503);
    assert!(control.get("/livez").2.starts_with("worker 0 stands still for "));
    control.worker.turns.add(1);
    until("it turns again", SOON, || control.get("/livez").0 == 200);
}

#[test]
fn the_metrics_page_is_prometheus_text() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    let control = Control::start(config(&[primary.port(), replica.port()], None));
    control.settled(&[PRIMARY, REPLICA]);
    control.worker.commands[0].add(7);
    control.worker.clusters[0].reads.ok.add(5);
    control.worker.clusters[0].reads.duration.observe(120, 5);
    control.members[1].cells[0].reads.add(5);
    let (code, head, text) = control.get("/metrics");
    assert_eq!(code, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut seen = std::collections::HashSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(format!("# {family}")), "{family} appears twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(series.starts_with(&family), "{line} under {family}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} appears twice");
    }
    let replica =
        format!("cluster=\"cache\",shard=\"s0\",backend=\"127.0.0.1:{}\"", replica.port());
    for line in [
        "sluice_redis_commands_total{command=\"get\"} 7".to_owned(),
        "sluice_requests_total{cluster=\"cache\",access=\"read\",result=\"ok\"} 5".to_owned(),
        "sluice_request_duration_seconds_count{cluster=\"cache\",access=\"read\"} 5".to_owned(),
        "sluice_listener_connections_active{listener=\"cache\"} 0".to_owned(),
        format!("sluice_backend_up{{{replica}}} 1"),
        format!("sluice_backend_role{{{replica},role=\"replica\"}} 1"),
        format!("sluice_backend_requests_total{{{replica},result=\"ok\"}} 5"),
        "sluice_state{state=\"starting\"} 1".to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "no {line} in\n{text}");
    }
    assert!(!text.contains("command=\"unknown\""), "no rows of nothing");
}

#[test]
fn the_status_document_has_its_shape() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary, &[]);
    let control = Control::start(config(&[primary.port(), replica.port()], None));
    control.settled(&[PRIMARY, REPLICA]);
    until("lag is known", SOON, || {
        control.status()["clusters"][0]["shards"][0]["backends"][1]["lag_bytes"].is_u64()
    });
    let status = control.status();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"][0]["bind"], "127.0.0.1:6380");
    assert_eq!(status["listeners"][0]["cluster"], "cache");
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);
    let shard = &status["clusters"][0]["shards"][0];
    assert_eq!(shard["slots"], serde_json::json!([[0, 16383]]));
    assert_eq!(shard["slot_share"], 1.0);
    let backend = &shard["backends"][0];
    assert_eq!(backend["name"], format!("127.0.0.1:{}", primary.port()));
    assert_eq!((&backend["role"], &backend["state"]), (&"primary".into(), &"ready".into()));
    // 200ms + 2 x 50ms + 3 x 1s.
    assert_eq!(backend["worst_case_detection_ms"], 3300);
    assert!(backend["redis_version"].as_str().unwrap().starts_with(char::is_numeric));
    let probes = backend["probes"].as_array().unwrap();
    assert!((1..=10).contains(&probes.len()), "{probes:?}");
    assert_eq!(probes[0]["code"], "ok");
    assert!(probes[0]["text"].as_str().unwrap().starts_with("primary, offset "));
    for field in ["weight", "in_flight", "reads", "writes", "failures", "connections"] {
        assert!(backend[field].is_u64(), "{field}");
    }
    let event = &status["events"][0];
    for field in ["time_ms", "cluster", "shard", "backend", "from", "to", "cause", "detail"] {
        assert!(!event[field].is_null(), "{field}: {event}");
    }
}

#[test]
fn the_admin_address_answers_what_it_knows_and_bears_bad_clients() {
    let nobody = Port::free();
    let control = Control::start(config(&[nobody.number], None));
    assert!(control.get("/").2.contains("/metrics"));
    assert_eq!(control.get("/nothing").0, 404);
    let close = "Host: localhost\r\nConnection: close\r\n";
    let (code, head, _) = control.ask(&format!("POST /metrics HTTP/1.1\r\n{close}\r\n"));
    assert!(code == 405 && head.contains("allow: get, head"), "{head}");
    let (code, head, body) = control.ask(&format!("HEAD /metrics HTTP/1.1\r\n{close}\r\n"));
    assert!(code == 200 && body.is_empty() && head.contains("content-length: "), "{head}");
    assert_eq!(control.ask("\0\0\0 nonsense\r\n\r\n").0, 400);
    let long = "x".repeat(20_000);
    assert_eq!(control.ask(&format!("GET /{long} HTTP/1.1\r\n{close}\r\n")).0, 431);
    let many: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(control.ask(&format!("GET / HTTP/1.1\r\n{many}{close}\r\n")).0, 431);
    // 64 clients that say nothing use all places, for five seconds at most.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(control.admin).unwrap()).collect();
    let start = Instant::now();
    assert_eq!(control.get("/").0, 200);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn a_taken_admin_address_ends_the_start_only_when_it_was_written() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = Bind::Tcp(taken.local_addr().unwrap());
    let default = Admin { bind: bind.clone(), explicit: false, ..Admin::default() };
    assert!(admin::bind(&default).unwrap().tcp.is_none());
    let error =
        admin::bind(&Admin { bind, explicit: true, ..Admin::default() }).unwrap_err().to_string();
    let who = format!("admin: bind {}: ", taken.local_addr().unwrap());
    assert!(error.starts_with(&who) && error.contains("in use"), "{error}");
}
