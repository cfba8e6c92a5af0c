//! The process: how it ends, what it listens on, how many it lets in, what it shows an operator.

use crate::harness::{Cluster, Conn, PATIENCE, eventually, request};
use rustix::process::Signal;
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn sigterm_answers_what_was_asked_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let cluster = Cluster::start(2, 0);
        let mut sluice = cluster.sluice().workers(2).start();
        let mut busy: Vec<Conn> = (0..8).map(|_| sluice.conn()).collect();
        let batch = request(&["SET", "k", "v"]).repeat(200);
        for conn in &mut busy {
            conn.send(&batch);
            // The first reply shows that the batch has arrived.
            assert_eq!(conn.read(), "OK");
        }
        sluice.process().signal(signal);
        for conn in &mut busy {
            assert!((1..200).all(|_| conn.read() == "OK"));
            assert_eq!(conn.read_to_close(), b"", "an idle client is closed");
        }
        let status = sluice.exit(Duration::from_secs(5));
        assert!(status.success(), "{status}\n{}", sluice.log());
        assert!(Conn::try_open(&sluice.address()).is_err());
    }
}

#[test]
fn readiness_ends_before_accepting_does() {
    let cluster = Cluster::start(1, 0);
    let mut sluice = cluster.sluice().top("shutdown: { pre_stop_delay: 1s }").start();
    assert_eq!(sluice.admin("/readyz").0, 200);
    assert_eq!(sluice.admin("/livez").0, 200);
    let mut old = sluice.conn();
    assert_eq!(old.cmd(&["PING"]), "PONG");
    sluice.terminate();
    eventually("/readyz says 503", PATIENCE, || (sluice.admin("/readyz").0 == 503).then_some(()));
    assert_eq!(sluice.admin("/livez").0, 200);
    assert_eq!(sluice.conn().cmd(&["SET", "k", "v"]), "OK", "still accepting");
    assert_eq!(old.cmd(&["GET", "k"]), "v");
    let status = sluice.exit(Duration::from_secs(5));
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_signal_does_not_wait() {
    let cluster = Cluster::start(1, 0);
    // No probe may find the hung server first and end the wait.
    let mut sluice =
        cluster.sluice().check("{ interval: 20s, fast_interval: 100ms, timeout: 10s }").start();
    sluice.expect_log(cluster.shards[0].primary.address());
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    cluster.shards[0].primary.stop();
    conn.send(&request(&["SET", "k", "v"]));
    eventually("the request is under way", PATIENCE, || {
        (sluice.metrics().sum("sluice_backend_in_flight", &[]) == 1.0).then_some(())
    });
    sluice.terminate();
    thread::sleep(Duration::from_millis(300));
    assert!(sluice.process().rss_kb() > 0, "it must wait for the outstanding request");
    let start = Instant::now();
    sluice.terminate();
    let status = sluice.exit(Duration::from_secs(3));
    assert!(status.success(), "{status}\n{}", sluice.log());
    assert!(start.elapsed() < Duration::from_secs(3));
    cluster.shards[0].primary.cont();
}

#[test]
fn a_drain_has_an_end() {
    let cluster = Cluster::start(1, 0);
    let mut sluice = cluster
        .sluice()
        .check("{ interval: 20s, fast_interval: 100ms, timeout: 10s }")
        .top("shutdown: { drain_timeout: 500ms }")
        .start();
    sluice.expect_log(cluster.shards[0].primary.address());
    sluice.expect_log("drain");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    cluster.shards[0].primary.stop();
    conn.send(&request(&["SET", "k", "w"]));
    eventually("the request is under way", PATIENCE, || {
        (sluice.metrics().sum("sluice_backend_in_flight", &[]) == 1.0).then_some(())
    });
    let start = Instant::now();
    sluice.terminate();
    let status = sluice.exit(Duration::from_secs(5));
    assert!(status.success(), "{status}\n{}", sluice.log());
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    cluster.shards[0].primary.cont();
}

#[test]
fn a_unix_socket_serves_as_well() {
    let cluster = Cluster::start(2, 0);
    let mut sluice = cluster.sluice().unix().workers(2).start();
    let path = sluice.path("sluice.sock");
    let mut conn = Conn::open_unix(&path);
    assert_eq!(conn.cmd(&["MSET", "a", "1", "b", "2"]), "OK");
    assert_eq!(conn.cmd(&["MGET", "a", "b"]).items().len(), 2);
    sluice.terminate();
    assert!(sluice.exit(PATIENCE).success());
    assert!(!path.exists(), "the socket is left behind");
}

#[test]
fn no_more_connections_than_the_file_allows() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).top("limits: { max_connections: 3 }").start();
    sluice.expect_log("max_connections");
    let mut three: Vec<Conn> = (0..3).map(|_| sluice.conn()).collect();
    assert!(three.iter_mut().all(|conn| conn.cmd(&["PING"]) == "PONG"));
    // The kernel takes the fourth; it waits there.
    let mut fourth = sluice.conn();
    fourth.send(&request(&["PING"]));
    fourth.patience(Duration::from_millis(200));
    assert!(fourth.try_read().is_err(), "a fourth was served");
    assert_eq!(sluice.admin("/readyz").0, 200, "the admin address is exempt");
    drop(three.pop());
    fourth.patience(PATIENCE);
    assert_eq!(fourth.read(), "PONG");
    assert!(three.iter_mut().all(|conn| conn.cmd(&["PING"]) == "PONG"));
}

/// Each listener held a place while it waited for a client.
#[test]
fn two_listeners_share_one_place() {
    let cluster = Cluster::start(1, 0);
    let folder = tempfile::TempDir::new().unwrap();
    let second = folder.path().join("second.sock");
    let bind = second.display();
    let sluice = cluster
        .sluice()
        .top("limits: { max_connections: 1 }")
        .listener(&format!(
            "\n  - {{ name: second, bind: \"unix:{bind}\", protocol: redis, cluster: cache }}"
        ))
        .start();
    sluice.expect_log("max_connections");
    for _ in 0..3 {
        assert_eq!(Conn::open_unix(&second).cmd(&["PING"]), "PONG");
        assert_eq!(sluice.conn().cmd(&["PING"]), "PONG");
    }
}

#[test]
fn clients_are_spread_evenly_over_the_workers() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().workers(2).start();
    let mut clients: Vec<Conn> = (0..10).map(|_| sluice.conn()).collect();
    assert!(clients.iter_mut().all(|conn| conn.cmd(&["PING"]) == "PONG"));
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_worker_clients", &[]), 10.0);
    for worker in ["0", "1"] {
        let clients = metrics.sum("sluice_worker_clients", &[("worker", worker)]);
        assert_eq!(clients, 5.0, "{}", metrics.text());
    }
}

#[test]
fn an_operator_sees_what_happens() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().cluster("reads: { from: prefer_replica }").start();
    let mut conn = sluice.conn();
    for n in 0..20 {
        assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
    }
    cluster.wait_for_replicas();
    for n in 0..30 {
        assert_eq!(conn.cmd(&["GET", &format!("k{}", n % 20)]), "v");
    }
    let metrics = sluice.metrics();
    let requests =
        |access| metrics.sum("sluice_requests_total", &[("cluster", "cache"), ("access", access)]);
    assert_eq!((requests("read"), requests("write")), (30.0, 20.0), "{}", metrics.text());
    assert_eq!(metrics.sum("sluice_redis_commands_total", &[("command", "get")]), 30.0);
    assert_eq!(metrics.sum("sluice_request_duration_seconds_count", &[]), 50.0);
    assert_eq!(metrics.sum("sluice_listener_connections_active", &[]), 1.0);
    assert_eq!(metrics.sum("sluice_backend_up", &[]), 4.0);
    for server in cluster.servers() {
        let backend = [("backend", server.address())];
        let labels = backend.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert!(metrics.sum("sluice_backend_checks_total", &labels) > 0.0);
    }
    let status = sluice.status().to_string();
    for server in cluster.servers() {
        assert!(status.contains(&server.address()), "{status}");
    }
    assert_eq!(sluice.admin("/no-such").0, 404);
    // One line for what happened once, never one per request.
    assert!(sluice.log().lines().count() < 40, "{}", sluice.log());
}
