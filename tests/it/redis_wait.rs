//! WAIT counts the replicas that have what this client wrote, whichever connection carried it; and
//! `strict_order` keeps a client's requests apart that go to several shards.

use crate::harness::{Cluster, PATIENCE, eventually, request};
use std::{
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_count_is_never_too_high() {
    let cluster = Cluster::start(1, 2);
    let shard = &cluster.shards[0];
    let sluice = cluster.sluice().start();
    let (mut conn, mut noise) = (sluice.conn(), sluice.conn());
    assert_eq!(conn.cmd(&["WAIT", "0", "0"]), 2, "nothing was written");
    for round in 0..50 {
        assert_eq!(noise.cmd(&["SET", "other", &round.to_string()]), "OK");
        assert_eq!(conn.cmd(&["SET", "a", &round.to_string()]), "OK");
        assert_eq!(conn.cmd(&["WAIT", "2", "0"]), 2);
        for replica in &shard.replicas {
            assert_eq!(replica.cmd(&["GET", "a"]), round.to_string().as_str());
        }
    }
    shard.replicas[0].stop();
    assert_eq!(conn.cmd(&["SET", "a", "one"]), "OK");
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1);
    shard.replicas[1].stop();
    assert_eq!(conn.cmd(&["SET", "a", "none"]), "OK");
    let start = Instant::now();
    assert_eq!(conn.cmd(&["WAIT", "1", "300"]), 0);
    assert!(start.elapsed() >= Duration::from_millis(300));
    // Asked again, the same: the count is of the writes, not of the asking.
    assert_eq!(conn.cmd(&["WAIT", "2", "50"]), 0);
    // Whoever else asks may hear what it will; who has written nothing hears of everybody.
    assert_eq!(noise.cmd(&["GET", "a"]), "none");
    shard.replicas[0].cont();
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1);
    shard.replicas[1].cont();
    assert_eq!(conn.cmd(&["WAIT", "2", "5000"]), 2);
    sluice.expect_log("replica");
}

#[test]
fn a_client_that_waits_for_replicas_holds_up_nobody_and_may_leave() {
    let cluster = Cluster::start(1, 1);
    let shard = &cluster.shards[0];
    let sluice = cluster.sluice().workers(2).start();
    let (mut waits, mut other) = (sluice.conn(), sluice.conn());
    let id = waits.cmd(&["CLIENT", "ID"]).int().to_string();
    shard.replicas[0].stop();
    sluice.expect_log("replica");
    assert_eq!(waits.cmd(&["SET", "a", "1"]), "OK");
    waits.send(&[request(&["WAIT", "1", "0"]), request(&["GET", "a"])].concat());
    let blocked = |wanted: &str| {
        eventually(&format!("{wanted} blocked"), PATIENCE, || {
            (shard.primary.info("blocked_clients")? == wanted).then_some(())
        });
    };
    blocked("1");
    assert_eq!(other.cmd(&["SET", "b", "1"]), "OK");
    assert_eq!(other.cmd(&["CLIENT", "UNBLOCK", &id]), 1);
    assert_eq!(waits.read(), 0);
    assert_eq!(waits.read(), "1");
    waits.send(&request(&["WAIT", "1", "0"]));
    blocked("1");
    drop(waits);
    blocked("0");
    shard.replicas[0].cont();
}

#[test]
fn over_several_shards_the_least_counts() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let [one, two] = [0, 1].map(|shard| cluster.key_of(shard, "k"));
    cluster.shards[1].replicas[0].stop();
    sluice.expect_log("replica");
    assert_eq!(conn.cmd(&["SET", &one, "1"]), "OK");
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1, "nothing was written to the other one");
    assert_eq!(conn.cmd(&["MSET", &one, "2", &two, "2"]), "OK");
    assert_eq!(conn.cmd(&["WAIT", "1", "200"]), 0);
    cluster.shards[1].replicas[0].cont();
    assert_eq!(conn.cmd(&["WAIT", "1", "5000"]), 1);
    for words in [vec!["WAIT", "x", "0"], vec!["WAIT", "1", "-1"], vec!["WAITAOF", "0", "0", "0"]] {
        let direct = cluster.shards[0].primary.cmd(&words);
        assert_eq!(conn.cmd(&words).error(), direct.error().trim_end(), "{words:?}");
    }
}

#[test]
fn a_write_that_a_failover_may_have_lost_is_not_confirmed() {
    let cluster = Cluster::start(1, 1);
    let shard = &cluster.shards[0];
    let sluice = cluster.sluice().start();
    sluice.expect_log("replica");
    sluice.expect_log("primary");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "a", "1"]), "OK");
    assert_eq!(shard.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    shard.primary.follow(&shard.replicas[0]);
    eventually("the new primary serves", PATIENCE, || {
        (sluice.conn().cmd(&["SET", "b", "1"]) == "OK").then_some(())
    });
    let told = conn.cmd(&["WAIT", "0", "100"]);
    assert!(told.error().contains("the primary is another one"), "{told:?}");
    cluster.shards[0].primary.info("role");
    assert_eq!(conn.cmd(&["SET", "a", "2"]), "OK");
    eventually("writes to the new one are confirmed", PATIENCE, || {
        (conn.cmd(&["WAIT", "1", "1000"]) == 1).then_some(())
    });
}

#[test]
fn strict_order_keeps_a_request_until_the_shard_before_has_replied() {
    let cluster = Cluster::start(2, 0);
    let [one, two] = [0, 1].map(|shard| cluster.key_of(shard, "k"));
    for strict in [true, false] {
        let sluice =
            cluster.sluice().listener(&format!("redis: {{ strict_order: {strict} }}")).start();
        let mut conn = sluice.conn();
        cluster.shards[1].primary.cmd(&["DEL", &two]);
        assert_eq!(cluster.shards[0].primary.cmd(&["CLIENT", "PAUSE", "800", "WRITE"]), "OK");
        conn.send(&[request(&["SET", &one, "1"]), request(&["SET", &two, "2"])].concat());
        thread::sleep(Duration::from_millis(200));
        let there = cluster.shards[1].primary.cmd(&["EXISTS", &two]);
        assert_eq!(there, i64::from(!strict), "strict: {strict}");
        assert_eq!(conn.read(), "OK");
        assert_eq!(conn.read(), "OK");
        assert_eq!(cluster.shards[1].primary.cmd(&["GET", &two]), "2");
        // Many of them, in any order.
        let sets: Vec<Vec<&str>> =
            (0..200).map(|i| vec!["INCR", if i % 3 == 0 { &one } else { &two }]).collect();
        assert!(conn.pipeline(&sets).iter().all(|reply| !reply.is_error()));
    }
}
