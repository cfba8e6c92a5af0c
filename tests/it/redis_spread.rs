//! What is asked of every shard and answered as one: DBSIZE, KEYS, FLUSHALL, RANDOMKEY, SCAN.

use crate::harness::{Cluster, Conn, Sluice, Value, bulk};
use std::collections::BTreeSet;

/// Three shards with `keys` keys in them, each shard with some.
fn filled(keys: usize) -> (Cluster, Sluice, Conn, BTreeSet<String>) {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let names: BTreeSet<String> = (0..keys).map(|n| format!("key:{n}")).collect();
    let sets: Vec<_> = names.iter().map(|name| vec!["SET", name, "v"]).collect();
    assert!(conn.pipeline(&sets).iter().all(|reply| *reply == "OK"));
    assert!(cluster.servers().all(|server| server.cmd(&["DBSIZE"]).int() > 0));
    (cluster, sluice, conn, names)
}

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

/// Every key that a whole SCAN gives, and how many calls it took.
fn scan(conn: &mut Conn, options: &[&str]) -> (Vec<String>, usize) {
    let (mut keys, mut cursor, mut calls) = (Vec::new(), "0".to_owned(), 0);
    loop {
        let words: Vec<&str> =
            ["SCAN", &cursor].into_iter().chain(options.iter().copied()).collect();
        let reply = conn.cmd(&words);
        keys.extend(texts(&reply.items()[1]));
        cursor = reply.items()[0].text();
        calls += 1;
        assert!(calls < 10_000, "the cursor does not come back to 0: {cursor}");
        if cursor == "0" {
            return (keys, calls);
        }
    }
}

#[test]
fn writes_are_not_split_and_errors_embedded_when_the_listener_says_so() {
    let mut cluster = Cluster::start(2, 0);
    let (one, two) = (cluster.key_of(0, "a"), cluster.key_of(1, "b"));
    let sluice = cluster
        .sluice()
        .listener("redis: { split_writes: false, mget_partial: embed }")
        .cluster("timeouts: { request: 1s }")
        .start();
    let mut conn = sluice.conn();
    for words in [vec!["MSET", &one, "1", &two, "2"], vec!["DEL", &one, &two]] {
        assert_eq!(
            conn.cmd(&words).error(),
            "CROSSSLOT Keys in request don't hash to the same slot"
        );
    }
    assert_eq!(conn.cmd(&["MSET", &two, "1"]), "OK");
    assert_eq!(conn.cmd(&["EXISTS", &one, &two]), 1);
    sluice.expect_log("backend");
    cluster.shards[0].primary.kill();
    let Value::Array(values) = conn.cmd(&["MGET", &one, &two, &one]) else { panic!() };
    assert!(values[0].is_error() && values[2].is_error(), "{values:?}");
    assert_eq!(values[1], bulk("1"));
}

#[test]
fn scan_walks_over_every_shard_once() {
    let (cluster, _sluice, mut conn, names) = filled(300);
    for options in [vec![], vec!["COUNT", "7"], vec!["COUNT", "1000"], vec!["TYPE", "string"]] {
        let (keys, calls) = scan(&mut conn, &options);
        let unique: BTreeSet<String> = keys.iter().cloned().collect();
        assert_eq!(unique, names, "{options:?}");
        assert!(calls >= 3, "{options:?}: {calls}");
    }
    assert_eq!(scan(&mut conn, &["TYPE", "list"]).0.len(), 0);
    let (keys, _) = scan(&mut conn, &["MATCH", "key:1?", "COUNT", "50"]);
    assert_eq!(keys.len(), 10);
    assert!(conn.cmd(&["SCAN", "x"]).error().starts_with("ERR invalid cursor"));
    assert!(conn.cmd(&["SCAN", "0", "COUNT", "0"]).is_error());
    assert!(conn.cmd(&["SCAN", "0", "BOGUS"]).is_error());

    // A tag without wildcards lives on one shard: the others are not asked.
    conn.cmd(&["SET", "{tag}:1", "v"]);
    let calls = || cluster.servers().map(|server| server.calls("scan")).collect::<Vec<_>>();
    let before = calls();
    assert_eq!(scan(&mut conn, &["MATCH", "{tag}:*", "COUNT", "1000"]).0, ["{tag}:1"]);
    let asked = before.iter().zip(calls()).filter(|(before, after)| *before != after).count();
    assert_eq!(asked, 1);
}

#[test]
fn one_shard_keeps_its_own_cursors() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let sets: Vec<_> =
        (0..100).map(|n| vec!["SET".to_owned(), format!("k{n}"), "v".to_owned()]).collect();
    conn.pipeline(&sets);
    let reply = conn.cmd(&["SCAN", "0", "COUNT", "10"]);
    assert_eq!(reply, cluster.shards[0].primary.cmd(&["SCAN", "0", "COUNT", "10"]));
}

#[test]
fn the_shards_count_and_answer_as_one() {
    let (cluster, _sluice, mut conn, names) = filled(60);
    assert_eq!(conn.cmd(&["DBSIZE"]), 60);
    let keys: BTreeSet<String> = texts(&conn.cmd(&["KEYS", "*"])).into_iter().collect();
    assert_eq!(keys, names);
    assert_eq!(conn.cmd(&["KEYS", "key:59"]), Value::Array(vec![bulk("key:59")]));

    let mut homes = BTreeSet::new();
    for _ in 0..200 {
        let key = conn.cmd(&["RANDOMKEY"]).text();
        assert!(names.contains(&key));
        homes.insert(cluster.owner_index(&key));
    }
    assert_eq!(homes.len(), 3, "RANDOMKEY never asked some shard");

    // Only one shard holds anything: RANDOMKEY must still find it.
    let last = cluster.key_of(2, "only");
    assert_eq!(conn.cmd(&["FLUSHALL"]), "OK");
    assert!(cluster.servers().all(|server| server.cmd(&["DBSIZE"]) == 0));
    assert_eq!(conn.cmd(&["RANDOMKEY"]), Value::Nil);
    conn.cmd(&["SET", &last, "v"]);
    assert!((0..10).all(|_| conn.cmd(&["RANDOMKEY"]) == last.as_str()));

    assert_eq!(conn.cmd(&["SELECT", "3"]), "OK");
    assert_eq!(conn.cmd(&["DBSIZE"]), 0);
    conn.cmd(&["SET", "k", "v"]);
    assert_eq!(conn.cmd(&["FLUSHDB", "ASYNC"]), "OK");
    assert_eq!(conn.cmd(&["DBSIZE"]), 0);
    assert_eq!(conn.cmd(&["SELECT", "0"]), "OK");
    assert_eq!(conn.cmd(&["DBSIZE"]), 1);
}
