//! Members that die, hang, change their role or cut connections under load, and what clients see
//! of it: nothing, where another member can answer.

use crate::harness::{
    Cluster, Conn, FakeServer, Fault, FaultProxy, PATIENCE, Redis, Request, Setup, Sluice, Step,
    Value, bulk, during, eventually, fault::Way,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A read that took longer than this waited for something other than its server.
const SLOW: Duration = Duration::from_millis(200);

/// One shard with two replicas that have `k`, and Sluice reading from the replicas.
fn replicated() -> (Cluster, Sluice) {
    let cluster = Cluster::start(1, 2);
    assert_eq!(cluster.shards[0].primary.cmd(&["SET", "k", "v"]), "OK");
    cluster.wait_for_replicas();
    let sluice = cluster.sluice().cluster("reads: { from: prefer_replica, balance: p2c }").start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    (cluster, sluice)
}

/// Reads `k` on `clients` connections while `act` runs; each reply must be `v`. Gives the number
/// of reads, and of slow ones, of each connection.
fn under_reads<T>(
    sluice: &Sluice,
    clients: usize,
    act: impl FnOnce() -> T,
) -> (T, Vec<(u64, u64)>) {
    let read = |go_on: &dyn Fn() -> bool| {
        let (mut conn, mut reads, mut slow) = (sluice.conn(), 0, 0);
        while go_on() {
            let start = Instant::now();
            assert_eq!(conn.cmd(&["GET", "k"]), "v", "read {reads}");
            reads += 1;
            slow += u64::from(start.elapsed() > SLOW);
            // A few thousand reads a second leave the servers room on a small machine.
            thread::sleep(Duration::from_micros(500));
        }
        (reads, slow)
    };
    during(clients, read, act)
}

#[test]
fn a_killed_replica_costs_no_client_an_error() {
    let (mut cluster, sluice) = replicated();
    let address = cluster.shards[0].replicas[0].address();
    let ((), counts) = under_reads(&sluice, 6, || {
        thread::sleep(Duration::from_millis(200));
        cluster.shards[0].replicas[0].kill();
        sluice.wait_for(&address, false);
        thread::sleep(Duration::from_millis(300));
        cluster.shards[0].replicas[0].restart();
        cluster.shards[0].replicas[0].follow(&cluster.shards[0].primary);
        sluice.wait_for(&address, true);
        eventually("the replica serves reads again", PATIENCE, || {
            (cluster.shards[0].replicas[0].calls("get") > 0).then_some(())
        });
    });
    assert!(counts.iter().all(|(reads, _)| *reads > 50), "{counts:?}");
    assert!(sluice.log().contains(&address));
}

#[test]
fn a_hung_replica_is_ejected_within_a_second_and_its_reads_answered_elsewhere() {
    let (cluster, sluice) = replicated();
    let address = cluster.shards[0].replicas[0].address();
    let (took, counts) = under_reads(&sluice, 6, || {
        thread::sleep(Duration::from_millis(300));
        cluster.shards[0].replicas[0].stop();
        let start = Instant::now();
        sluice.wait_for(&address, false);
        let took = start.elapsed();
        thread::sleep(Duration::from_millis(500));
        took
    });
    cluster.shards[0].replicas[0].cont();
    assert!(took < Duration::from_secs(1), "ejected after {took:?}");
    assert!(counts.iter().all(|(_, slow)| *slow <= 1), "slow reads by connection: {counts:?}");
}

#[test]
fn a_hung_primary_is_found_within_the_worst_case() {
    let cluster = Cluster::start(1, 1);
    let sluice = cluster
        .sluice()
        .check("{ interval: 300ms, fast_interval: 100ms, down_interval: 100ms, timeout: 200ms, fall: 3 }")
        .cluster("reads: { from: prefer_replica }")
        .cluster("failover_wait: 0")
        .start();
    let primary = &cluster.shards[0].primary;
    sluice.expect_log(primary.address());
    sluice.expect_log("s0");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    cluster.wait_for_replicas();
    primary.stop();
    let start = Instant::now();
    conn.send(&crate::harness::request(&["SET", "k", "w"]));
    sluice.wait_for(&primary.address(), false);
    let took = start.elapsed();
    // interval + (fall - 1) x fast interval + fall x timeout, with 10 % jitter, and as much again
    // for a machine busy with other tests.
    assert!(took < Duration::from_millis(2 * 1_210), "found after {took:?}");
    // The write that was under way has an unknown outcome; a new one fails at once; reads go on.
    let reply = conn.read();
    assert!(reply.error().contains("result unknown"), "{reply:?}");
    let start = Instant::now();
    assert!(conn.cmd(&["SET", "k", "x"]).error().starts_with("CLUSTERDOWN sluice: "));
    assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    primary.cont();
    sluice.wait_for(&primary.address(), true);
    assert_eq!(conn.cmd(&["SET", "k", "y"]), "OK");
}

#[test]
fn a_dead_shard_fails_its_own_keys_and_no_other() {
    let mut cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().cluster("failover_wait: 0").start();
    cluster.shards[1].primary.kill();
    let dead = cluster.shards[1].primary.address();
    cluster.shards[1].replicas.iter().for_each(|replica| sluice.expect_log(replica.address()));
    sluice.expect_log(&dead);
    sluice.expect_log("s1");
    let (mine, theirs) = (cluster.key_of(0, "k"), cluster.key_of(1, "k"));
    let mut conn = sluice.conn();
    sluice.wait_for(&dead, false);
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(conn.cmd(&["SET", &mine, "v"]), "OK");
        let reply = conn.cmd(&["SET", &theirs, "v"]);
        assert!(
            reply.error().starts_with("CLUSTERDOWN sluice: ") && reply.error().contains("s1"),
            "{reply:?}"
        );
        assert_eq!(conn.cmd(&["GET", &mine]), "v");
        assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
        // Clients look with INFO whether anybody is there.
        assert!(conn.cmd(&["INFO"]).text().contains("sluice_shards_answering:1\r\n"));
    }
    let reply = conn.cmd(&["MGET", &mine, &theirs]);
    assert!(reply.error().contains("s1"), "{reply:?}");
    let reply = conn.cmd(&["MSET", &mine, "w", &theirs, "w"]);
    assert!(
        reply.error().starts_with("ERR sluice: MSET failed on 1 of 2 shards (shard s1: "),
        "{reply:?}"
    );
    assert!(reply.error().ends_with("; other keys were written"), "{reply:?}");
    assert_eq!(conn.cmd(&["GET", &mine]), "w");
    cluster.shards[1].primary.restart();
    sluice.wait_for(&dead, true);
    eventually("the shard takes writes again", PATIENCE, || {
        (conn.cmd(&["SET", &theirs, "v"]) == "OK").then_some(())
    });
}

#[test]
fn reads_fall_back_to_the_primary_only_where_the_file_lets_them() {
    let mut cluster = Cluster::start(1, 1);
    cluster.shards[0].primary.cmd(&["SET", "k", "v"]);
    cluster.wait_for_replicas();
    let prefer = cluster.sluice().cluster("reads: { from: prefer_replica }").start();
    let strict = cluster.sluice().cluster("reads: { from: replica }").start();
    cluster.shards[0].replicas[0].kill();
    let replica = cluster.shards[0].replicas[0].address();
    for sluice in [&prefer, &strict] {
        sluice.expect_log(&replica);
        sluice.expect_log("s0");
        sluice.wait_for(&replica, false);
    }
    assert_eq!(prefer.conn().cmd(&["GET", "k"]), "v");
    let reply = strict.conn().cmd(&["GET", "k"]);
    assert!(reply.error().starts_with("CLUSTERDOWN sluice: "), "{reply:?}");
    assert_eq!(strict.conn().cmd(&["SET", "k", "w"]), "OK");
}

#[test]
fn every_backend_out_one_by_one_and_at_once_during_mget() {
    let mut cluster = Cluster::start(3, 1);
    let sluice = cluster.sluice().cluster("reads: { from: prefer_replica }").start();
    for (i, server) in cluster.servers().enumerate() {
        sluice.expect_log(server.address());
        sluice.expect_log(format!("s{}", i / 2));
    }
    let keys: Vec<String> = (0..3).map(|shard| cluster.key_of(shard, "k")).collect();
    let mset: Vec<&str> =
        ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [key.as_str(), "v"])).collect();
    assert_eq!(sluice.conn().cmd(&mset), "OK");
    cluster.wait_for_replicas();
    let mget: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let whole = Value::Array(vec![bulk("v"); 3]);
    let read = |go_on: &dyn Fn() -> bool| {
        let (mut conn, mut good, mut bad) = (sluice.conn(), 0, 0);
        while go_on() {
            match conn.cmd(&mget) {
                Value::Error(text) => {
                    assert!(text.contains("sluice"), "{text}");
                    bad += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                reply => {
                    assert_eq!(reply, whole);
                    good += 1;
                }
            }
        }
        (good, bad)
    };
    let ((), counts) = during(4, read, || {
        // One by one, the last two at once; nobody is left.
        for shard in 0..2 {
            cluster.shards[shard].replicas[0].kill();
            thread::sleep(Duration::from_millis(50));
            cluster.shards[shard].primary.kill();
        }
        cluster.shards[2].primary.kill();
        cluster.shards[2].replicas[0].kill();
        eventually("nobody is up", PATIENCE, || {
            (sluice.metrics().sum("sluice_backend_up", &[]) == 0.0).then_some(())
        });
        thread::sleep(Duration::from_millis(100));
    });
    assert!(counts.iter().all(|(good, bad)| *good > 0 && *bad > 0), "whole, refused: {counts:?}");
    assert!(sluice.conn().cmd(&mget).error().contains("sluice"));
    assert_eq!(sluice.admin("/livez").0, 200, "dead backends are no reason to restart us");
    for shard in &mut cluster.shards {
        shard.primary.restart();
        sluice.wait_for(&shard.primary.address(), true);
    }
    assert_eq!(sluice.conn().cmd(&mset), "OK");
    assert_eq!(sluice.conn().cmd(&mget), whole);
    let in_flight = sluice.metrics().sum("sluice_backend_in_flight", &[]);
    assert_eq!(in_flight, 0.0, "leases leaked");
}

#[test]
fn writes_follow_the_primary_role() {
    let cluster = Cluster::start(1, 1);
    let sluice = cluster.sluice().start();
    let (old, new) = (&cluster.shards[0].primary, &cluster.shards[0].replicas[0]);
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    sluice.expect_log("s0");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "before"]), "OK");
    assert_eq!(new.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    old.follow(new);
    eventually("writes reach the new primary", PATIENCE, || {
        (conn.cmd(&["SET", "k", "after"]) == "OK").then_some(())
    });
    assert_eq!(new.cmd(&["GET", "k"]), "after");
    assert_eq!(conn.cmd(&["GET", "k"]), "after");
}

/// It was taken out when a probe found it, and REPLICAOF NO ONE reached it no more.
#[test]
fn the_only_server_of_a_shard_says_itself_that_it_is_a_replica() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().listener("redis: { allow: [REPLICAOF] }").start();
    sluice.expect_log(server.address());
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "1"]), "OK");
    assert_eq!(conn.cmd(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    eventually("a probe has found it", PATIENCE, || {
        sluice.admin("/api/v1/status").1.contains("replica_link_down").then_some(())
    });
    assert!(conn.cmd(&["SET", "k", "2"]).error().starts_with("READONLY "));
    assert_eq!(conn.cmd(&["GET", "k"]), "1");
    assert_eq!(conn.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "2"]), "OK");
}

#[test]
fn a_read_whose_reply_broke_off_is_asked_of_another() {
    let cluster = Cluster::start(1, 2);
    cluster.shards[0].primary.cmd(&["SET", "k", "0123456789"]);
    cluster.wait_for_replicas();
    let [primary, sound, broken] =
        cluster.servers().map(Redis::address).collect::<Vec<_>>().try_into().unwrap();
    let proxy = FaultProxy::start(&broken, Fault::default());
    for way in [Way::CloseAfter(9), Way::ResetAfter(0), Way::CloseAfter(1), Way::ResetAfter(13)] {
        let sluice = Setup::shards([(primary.clone(), vec![sound.clone(), proxy.address()])])
            .cluster("reads: { from: replica, balance: round_robin }")
            .start();
        sluice.expect_log(proxy.address());
        let mut conn = sluice.conn();
        assert_eq!(conn.cmd(&["GET", "k"]), "0123456789");
        proxy.set(Fault { replies: way, ..Fault::default() });
        for _ in 0..20 {
            assert_eq!(conn.cmd(&["GET", "k"]), "0123456789", "{way:?}");
        }
        assert!(sluice.metrics().sum("sluice_retries_total", &[]) >= 1.0, "{way:?}");
        proxy.set(Fault::default());
    }
}

#[test]
fn a_write_whose_bytes_left_is_never_sent_again() {
    let fake = FakeServer::start(|asked: &Request| match asked.words[0].as_str() {
        "INCR" => vec![Step::Close],
        _ => Step::reply(&bulk("v")),
    });
    let sluice = Setup::shards([(fake.address(), vec![])]).start();
    sluice.expect_log(fake.address());
    let mut conn = sluice.conn();
    let reply = conn.cmd(&["INCR", "counter"]);
    assert_eq!(reply.error(), "ERR sluice: connection to shard s0 lost, result unknown");
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
    let sent = fake.seen().iter().filter(|request| request.words[0] == "INCR").count();
    assert_eq!(sent, 1);
}

#[test]
fn a_late_reply_after_a_timeout_reaches_nobody() {
    let fake = FakeServer::start(|asked: &Request| {
        let mut steps = Step::reply(&bulk(&asked.words[1]));
        if asked.words[1] == "slow" {
            steps.insert(0, Step::Wait(Duration::from_millis(700)));
        }
        steps
    });
    let sluice =
        Setup::shards([(fake.address(), vec![])]).cluster("timeouts: { request: 300ms }").start();
    sluice.expect_log(fake.address());
    let (mut one, mut two): (Conn, Conn) = (sluice.conn(), sluice.conn());
    let start = Instant::now();
    let reply = one.cmd(&["GET", "slow"]);
    assert!(reply.error().contains("timed out"), "{reply:?}");
    assert!((250..650).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    // The same shared connection, with the late reply still to come on it.
    for n in 0..20 {
        let key = format!("after{n}");
        for conn in [&mut one, &mut two] {
            let reply = conn.cmd(&["GET", &key]);
            assert!(reply == key.as_str() || reply.is_error(), "{key}: {reply:?}");
        }
    }
    eventually("requests are answered again", PATIENCE, || {
        (one.cmd(&["GET", "now"]) == "now").then_some(())
    });
}
