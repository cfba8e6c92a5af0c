//! What a session is after an answer that did not come in time: as it was before it asked. What was
//! told to have failed in a transaction is not executed with it.

use crate::harness::{Cluster, Conn, PATIENCE, Redis, Sluice, Value, eventually};

/// In front of servers that stop, for shorter than a connection lasts.
fn start(shards: usize) -> (Cluster, Sluice) {
    let cluster = Cluster::start(shards, 0);
    let setup = cluster.sluice().cluster("timeouts: { request: 200ms, stall: 20s }");
    let sluice = setup.check("{ interval: 10s, timeout: 9s, fall: 10 }").start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    (0..shards).for_each(|shard| sluice.expect_log(format!("s{shard}")));
    (cluster, sluice)
}

/// The answer to a request that is asked while the server stands still.
fn asked_while_stopped(conn: &mut Conn, server: &Redis, words: &[&str]) -> Value {
    server.stop();
    let told = conn.cmd(words);
    server.cont();
    told
}

#[test]
fn multi_that_timed_out_after_watch_opens_no_transaction() {
    let (cluster, sluice) = start(1);
    let server = &cluster.shards[0].primary;
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "1"]), "OK");
    assert_eq!(conn.cmd(&["WATCH", "k"]), "OK");
    let told = asked_while_stopped(&mut conn, server, &["MULTI"]);
    assert!(told.error().starts_with("ERR sluice: shard s0: request timed out"), "{told:?}");
    assert_eq!(conn.cmd(&["GET", "k"]), "1");
    assert_eq!(conn.cmd(&["EXEC"]).error(), "ERR EXEC without MULTI");
    assert_eq!(conn.cmd(&["SET", "k", "2"]), "OK");
    // What it watches may have been forgotten, and is taken as changed.
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["SET", "k", "3"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]), Value::Nil);
    for words in [&["WATCH", "k"][..], &["MULTI"]] {
        assert_eq!(conn.cmd(words), "OK");
    }
    assert_eq!(conn.cmd(&["INCR", "k"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items(), [Value::Int(3)]);
}

#[test]
fn what_was_not_queued_in_time_is_not_executed() {
    for pinned in [false, true] {
        let (cluster, sluice) = start(1);
        let server = &cluster.shards[0].primary;
        let sluice = if pinned {
            let setup = cluster.sluice().cluster("timeouts: { request: 200ms, stall: 20s }");
            let setup = setup.check("{ interval: 10s, timeout: 9s, fall: 10 }");
            let sluice = setup.listener("redis: { multi: pinned }").start();
            sluice.expect_log("s0");
            sluice
        } else {
            sluice
        };
        let mut conn = sluice.conn();
        if !pinned {
            assert_eq!(conn.cmd(&["WATCH", "w"]), "OK");
        }
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", "first", "1"]), "QUEUED");
        let told = asked_while_stopped(&mut conn, server, &["SET", "second", "1"]);
        assert!(told.error().contains("timed out"), "{told:?}");
        let told = conn.cmd(&["EXEC"]);
        assert!(told.error().starts_with("EXECABORT Transaction discarded"), "{told:?}");
        assert_eq!(conn.cmd(&["EXISTS", "first", "second"]), 0);
    }
}

#[test]
fn a_spanning_exec_that_timed_out_says_what_other_shards_were_not_sent() {
    let (cluster, sluice) = start(2);
    let mut conn = sluice.conn();
    let keys = [cluster.key_of(0, "k"), cluster.key_of(1, "k")];
    // The first transaction to a server goes ahead.
    for words in [&["MULTI"][..], &["GET", &keys[0]], &["EXEC"]] {
        conn.cmd(words);
    }
    keys.iter().for_each(|key| assert_eq!(conn.cmd(&["SET", key, "1"]), "OK"));
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["GET", &keys[0]]), "QUEUED");
    assert_eq!(conn.cmd(&["FLUSHALL"]), "QUEUED");
    let told = asked_while_stopped(&mut conn, &cluster.shards[0].primary, &["EXEC"]);
    let text = told.error();
    assert!(text.starts_with("ERR sluice: shard s0: request timed out"), "{text}");
    assert!(text.ends_with("; the other shards were not sent FLUSHALL"), "{text}");
    eventually("its own shard has executed it", PATIENCE, || {
        (cluster.shards[0].primary.cmd(&["DBSIZE"]) == 0).then_some(())
    });
    assert_eq!(conn.cmd(&["GET", &keys[1]]), "1");
}
