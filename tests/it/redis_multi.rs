//! Transactions: what a client sees is what one server would have told it, on one shard and on
//! three, kept until EXEC or not.

use crate::harness::{Cluster, Conn, Dice, PATIENCE, Sluice, Value, bulk, eventually, request};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Sequences of requests by one client. All keys have one tag.
const STORIES: &[&[&str]] = &[
    &["EXEC", "DISCARD", "EXEC 1", "DISCARD 1", "MULTI 1", "EXEC"],
    &["MULTI", "EXEC", "EXEC", "MULTI", "DISCARD", "DISCARD"],
    &["MULTI", "MULTI", "WATCH {t}a", "SET {t}a 1", "EXEC", "GET {t}a"],
    &["MULTI", "SET {t}a 1", "GET {t}a", "INCR {t}a", "DEL {t}a {t}b", "EXEC", "GET {t}a"],
    &["SET {t}a x", "MULTI", "INCR {t}a", "LPUSH {t}a 1", "GET {t}a", "EXEC", "GET {t}a"],
    &["SET {t}a 1", "MULTI", "SET {t}a 2", "DISCARD", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a", "SET {t}a 1", "EXEC", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a 1", "EXEC x", "EXEC", "GET {t}a"],
    &["MULTI", "DISCARD x", "SET {t}a 1", "EXEC", "MULTI", "MULTI x", "DISCARD", "GET {t}a"],
    &["MULTI", "SAVE", "EXEC", "MULTI", "SYNC", "DISCARD", "EXEC"],
    &["MULTI", "CLIENT NOSUCH", "EXEC", "MULTI", "CONFIG NOSUCH x", "GET {t}a", "EXEC"],
    &["MULTI", "PING", "PING x", "ECHO y", "UNWATCH", "GET {t}a", "EXEC", "PING"],
    &["MULTI", "BLPOP {t}a 0", "RPUSH {t}a 1 2", "BLPOP {t}a 0", "BRPOPLPUSH {t}a {t}b 0", "EXEC"],
    &["MULTI", "WAIT 0 0", "SET {t}a 1", "XREAD BLOCK 0 STREAMS {t}s $", "EXEC"],
    &[
        "MULTI",
        "MSET {t}a 1 {t}b 2",
        "MGET {t}b {t}a {t}c",
        "EXISTS {t}a {t}a",
        "MSET {t}a",
        "EXEC",
    ],
    &["MULTI", "SELECT 3", "SET {t}a 3", "SELECT 99", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["MULTI", "SELECT 3", "SET {t}a 3", "DISCARD", "GET {t}a"],
    &["SELECT 5", "MULTI", "SET {t}a 5", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["MULTI", "CLIENT SETNAME x", "CLIENT GETNAME", "GET {t}a", "EXEC", "CLIENT GETNAME"],
    &["MULTI", "AUTH x", "AUTH a b", "GET {t}a", "EXEC", "GET {t}a"],
    &["MULTI", "HELLO 9", "PING", "CLIENT NO-EVICT on", "EXEC"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a {t}b", "GET {t}a", "MULTI", "SET {t}a 2", "GET {t}a", "EXEC", "MULTI", "EXEC"],
    &["WATCH {t}a", "SET {t}a 1", "UNWATCH", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "DISCARD", "MULTI", "SET {t}a 2", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "MULTI", "WATCH {t}b", "MULTI", "SET {t}a", "EXEC", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "SET {t}a 1", "MULTI", "EXEC", "MULTI", "PING", "EXEC"],
    &["WATCH {t}a", "MULTI", "SELECT 2", "SET {t}a 2", "CLIENT GETNAME", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "MULTI", "SET {t}a 1", "EXEC 1", "EXEC", "SET {t}a 2", "MULTI", "EXEC"],
    &[
        "WATCH {t}a",
        "SELECT 3",
        "SET {t}a 3",
        "MULTI",
        "GET {t}a",
        "EXEC",
        "GET {t}a",
        "SELECT 0",
        "GET {t}a",
    ],
    &[
        "SET {t}a 0",
        "WATCH {t}a",
        "SELECT 3",
        "SET {t}a 3",
        "SELECT 0",
        "SET {t}a 1",
        "MULTI",
        "EXEC",
    ],
    &["UNWATCH", "WATCH", "MULTI", "WATCH", "EXEC"],
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A story told one by one, or all at once.
fn told(conn: &mut Conn, story: &[&str], at_once: bool) -> Vec<Value> {
    let requests: Vec<Vec<String>> = story.iter().map(|line| words(line)).collect();
    if at_once {
        return conn.pipeline(&requests);
    }
    requests.iter().map(|words| conn.cmd(words)).collect()
}

fn flush(cluster: &Cluster) {
    cluster.servers().for_each(|server| assert_eq!(server.cmd(&["FLUSHALL"]), "OK"));
}

fn as_directly(shards: usize, listener: &str) {
    let cluster = Cluster::start(shards, 0);
    let sluice = cluster.sluice().listener(listener).start();
    let server = &cluster.owner("{t}").primary;
    let mut kept = sluice.conn();
    for story in STORIES {
        for at_once in [false, true] {
            flush(&cluster);
            let expected = told(&mut server.conn(), story, at_once);
            flush(&cluster);
            let got = told(&mut sluice.conn(), story, at_once);
            assert_eq!(got, expected, "{story:?}, at once: {at_once}");
            // The one who comes after finds nothing of it.
            flush(&cluster);
            let calm = ["SELECT 0", "SET {t}k v", "GET {t}k", "MULTI", "GET {t}k", "EXEC"];
            let expected = told(&mut server.conn(), &calm, true);
            assert_eq!(told(&mut kept, &calm, true), expected, "after {story:?}");
        }
    }
}

#[test]
fn one_shard_answers_as_its_server_would() {
    as_directly(1, "");
}

#[test]
fn three_shards_answer_as_a_server_would() {
    as_directly(3, "");
}

#[test]
fn pinned_transactions_are_answered_the_same() {
    as_directly(1, "redis: { multi: pinned }");
    as_directly(3, "redis: { multi: pinned }");
}

/// AUTH was put off where its answer was wanted at once: EXEC's reply had one element too few, and
/// took the next reply for it.
#[test]
fn auth_in_a_pinned_transaction_has_its_place_in_execs_reply() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let lines = ["WATCH {t}a", "MULTI", "AUTH x y", "ECHO z", "EXEC", "PING"];
    let replies = told(&mut conn, &lines, true);
    let of_exec = replies[4].items();
    assert_eq!(of_exec.len(), 2, "{of_exec:?}");
    assert!(of_exec[0].error().starts_with("WRONGPASS"), "{of_exec:?}");
    assert_eq!(of_exec[1], "z");
    assert_eq!(replies[5], "PONG");
}

const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

#[test]
fn a_transaction_has_one_shard() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let keys: Vec<String> = (0..3).map(|shard| cluster.key_of(shard, "k")).collect();
    let cross = "CROSSSLOT Keys in request don't hash to the same slot";
    for second in [format!("SET {} 1", keys[2]), format!("MGET {} {}", keys[1], keys[2])] {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert_eq!(conn.cmd(&["SET", &keys[1], "1"]), "QUEUED");
        assert_eq!(conn.cmd(&words(&second)).error(), cross);
        assert_eq!(conn.cmd(&["GET", &keys[1]]), "QUEUED");
        assert_eq!(conn.cmd(&["EXEC"]).error(), ABORTED);
        assert_eq!(conn.cmd(&["GET", &keys[1]]), Value::Nil);
    }
    for name in ["KEYS *", "SCAN 0", "RANDOMKEY", "SCRIPT FLUSH"] {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        let refused = conn.cmd(&words(name));
        assert!(refused.error().contains("concerns every shard"), "{name}: {refused:?}");
        assert_eq!(conn.cmd(&["EXEC"]).error(), ABORTED);
    }
    // What has no key goes where the others are.
    let server = &cluster.shards[2].primary;
    let lines = ["MULTI", "CONFIG GET port", &format!("GET {}", keys[2]), "EXEC"];
    let reply = told(&mut conn, &lines, true).pop().unwrap();
    assert_eq!(reply.items()[0].items()[1], bulk(server.port().to_string()));
    // One who watches on one shard cannot go to another.
    assert_eq!(conn.cmd(&["WATCH", &keys[1]]), "OK");
    assert_eq!(conn.cmd(&["WATCH", &keys[2]]).error(), cross);
    assert_eq!(conn.cmd(&["GET", &keys[2]]), Value::Nil);
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["GET", &keys[2]]).error(), cross);
    assert_eq!(conn.cmd(&["EXEC"]).error(), ABORTED);
}

/// FLUSHALL and CONFIG SET of a transaction are executed in it on its own shard, and on the others
/// when EXEC has succeeded.
#[test]
fn what_concerns_every_shard_is_done_on_every_shard() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().listener("redis: { allow: ['CONFIG|SET', DEBUG] }").start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    let keys: Vec<String> = (0..3).map(|shard| cluster.key_of(shard, "k")).collect();
    let sizes = || -> Vec<Value> {
        cluster.shards.iter().map(|shard| shard.primary.cmd(&["DBSIZE"])).collect()
    };
    let limits = || -> Vec<Value> {
        let primaries = cluster.shards.iter().map(|shard| &shard.primary);
        primaries.map(|primary| primary.cmd(&["CONFIG", "GET", "hz"]).items()[1].clone()).collect()
    };
    for (round, key) in keys.iter().enumerate() {
        keys.iter().for_each(|key| assert_eq!(other.cmd(&["SET", key, "1"]), "OK"));
        let hz = (20 + round).to_string();
        let lines = [
            "MULTI",
            "DBSIZE",
            &format!("SET {key} 2"),
            "FLUSHALL",
            &format!("GET {key}"),
            &format!("SET {key} 3"),
            &format!("CONFIG SET hz {hz}"),
            "CONFIG SET nosuch 1",
            "EXEC",
        ];
        let reply = told(&mut conn, &lines, round % 2 == 0).pop().unwrap();
        let items = reply.items();
        assert_eq!(items[0].int(), 3, "{reply:?}");
        for (place, item) in items.iter().enumerate().take(6).skip(1) {
            assert!(if place == 3 { *item == Value::Nil } else { *item == "OK" }, "{reply:?}");
        }
        assert!(items[6].error().starts_with("ERR Unknown option"), "{reply:?}");
        assert_eq!(limits(), vec![bulk(hz); 3]);
        let left: Vec<i64> = sizes().iter().map(Value::int).collect();
        assert_eq!(left.iter().sum::<i64>(), 1, "{left:?}");
        assert_eq!(left[round], 1);
    }
    // What was watched has changed: nothing is done anywhere.
    keys.iter().for_each(|key| assert_eq!(other.cmd(&["SET", key, "1"]), "OK"));
    conn.cmd(&["WATCH", &keys[1]]);
    other.cmd(&["SET", &keys[1], "2"]);
    conn.cmd(&["MULTI"]);
    assert_eq!(conn.cmd(&["FLUSHALL"]), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]), Value::Nil);
    conn.cmd(&["MULTI"]);
    assert_eq!(conn.cmd(&["FLUSHALL"]), "QUEUED");
    assert!(conn.cmd(&["NOSUCH"]).error().starts_with("ERR"));
    assert_eq!(conn.cmd(&["EXEC"]).error(), ABORTED);
    assert_eq!(sizes().iter().map(Value::int).sum::<i64>(), 3);
    // In the database in which it stands.
    other.cmd(&["SELECT", "2"]);
    keys.iter().for_each(|key| assert_eq!(other.cmd(&["SET", key, "1"]), "OK"));
    let lines = ["MULTI", "SELECT 2", "FLUSHDB", "EXEC"];
    let reply = told(&mut conn, &lines, true).pop().unwrap();
    assert!(reply.items().iter().all(|item| *item == "OK") && reply.items().len() == 2);
    assert_eq!(other.cmd(&["DBSIZE"]).int(), 0);
    assert_eq!(sizes().iter().map(Value::int).sum::<i64>(), 3);
}

#[test]
fn what_cannot_be_in_a_transaction_is_refused() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().listener("redis: { deny: [KEYS] }").start();
    let mut conn = sluice.conn();
    for line in [
        "SUBSCRIBE c",
        "PSUBSCRIBE c",
        "SSUBSCRIBE c",
        "UNSUBSCRIBE",
        "PUNSUBSCRIBE",
        "SUNSUBSCRIBE",
        "CLIENT REPLY OFF",
        "MONITOR",
        "REPLCONF ack 1",
        "KEYS *",
        "SHUTDOWN NOSAVE",
    ] {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        assert!(conn.cmd(&words(line)).is_error(), "{line}");
        assert_eq!(conn.cmd(&["EXEC"]).error(), ABORTED, "{line}");
    }
    // Until the server has told what it knows, it is left to the server.
    eventually("the server's commands are known", PATIENCE, || {
        assert_eq!(conn.cmd(&["MULTI"]), "OK");
        let reply = conn.cmd(&["NO-SUCH", "a", "b"]);
        assert!(conn.cmd(&["EXEC"]).error().starts_with("EXECABORT"));
        reply.is_error().then_some(())
    });
    let story = ["MULTI", "no-such a b", "NOSUCH", "DISCARD"];
    let expected = told(&mut cluster.shards[0].primary.conn(), &story, false);
    assert_eq!(told(&mut conn, &story, false), expected);
}

#[test]
fn what_only_the_server_can_see_is_told_by_exec_or_at_once_when_pinned() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let (buffered, pinned) =
        (cluster.sluice().start(), cluster.sluice().listener("redis: { multi: pinned }").start());
    assert_eq!(server.cmd(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let story = ["MULTI", "GET a", "SET a 1", "EXEC", "PING"];
    let replies = told(&mut buffered.conn(), &story, false);
    let oom = "OOM command not allowed when used memory > 'maxmemory'.";
    let because = format!("EXECABORT Transaction discarded because of: {oom}");
    assert_eq!((&replies[2], replies[3].error()), (&Value::Simple("QUEUED".into()), &*because));
    let expected = told(&mut server.conn(), &story, false);
    assert_eq!(expected[2].error(), oom);
    assert_eq!(told(&mut pinned.conn(), &story, false), expected);
}

#[test]
fn a_change_by_another_client_is_seen_by_who_watches() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    for _ in 0..20 {
        let (mut one, mut other) = (sluice.conn(), sluice.conn());
        assert_eq!(one.cmd(&["SET", "k", "1"]), "OK");
        assert_eq!(one.cmd(&["WATCH", "k"]), "OK");
        assert_eq!(one.cmd(&["GET", "k"]), "1");
        assert_eq!(other.cmd(&["SET", "k", "2"]), "OK");
        let lines = ["MULTI", "SET k mine", "EXEC", "GET k"];
        let replies = told(&mut one, &lines, true);
        assert_eq!(replies[2..], [Value::Nil, bulk("2")]);
        let lines = ["WATCH k", "MULTI", "SET k mine", "EXEC", "GET k"];
        assert_eq!(told(&mut one, &lines, true)[3..], [told_ok(1), bulk("mine")]);
    }
    // They left their connections to those who came after.
    let opened: u64 = cluster
        .servers()
        .map(|server| server.info("connected_clients").unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(opened < 12, "{opened} connections");
}

fn told_ok(count: usize) -> Value {
    Value::Array(vec![Value::Simple("OK".into()); count])
}

/// Counts with optimistic locking: WATCH, GET, MULTI, SET, EXEC until it is not nil.
#[test]
fn watched_counters_lose_no_step() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut conn = sluice.conn();
                for step in 0..40 {
                    let key = format!("count{}", step % 2);
                    loop {
                        assert_eq!(conn.cmd(&["WATCH", &key]), "OK");
                        let now = match conn.cmd(&["GET", &key]) {
                            Value::Nil => 0,
                            value => value.text().parse::<u64>().unwrap(),
                        };
                        let lines = ["MULTI", &format!("SET {key} {}", now + 1), "EXEC"];
                        if told(&mut conn, &lines, true)[2] != Value::Nil {
                            break;
                        }
                    }
                }
            });
        }
    });
    let mut conn = sluice.conn();
    assert_eq!(
        (conn.cmd(&["GET", "count0"]), conn.cmd(&["GET", "count1"])),
        (bulk("120"), bulk("120"))
    );
}

const ISOLATED: &[&str] = &[
    "MULTI",
    "ECHO TAG",
    "GET {G}w",
    "INCR {G}a",
    "INCRBY {G}b 2",
    "SET {G}w TAG",
    "GET {G}w",
    "MGET {G}a {G}b",
    "GET {G}w",
    "EXEC",
];

/// Transactions of many clients on the same keys, over connections that all share with others who
/// write: each sees its own state from its first request to its last, and gets its own replies.
fn isolated(sluice: &Sluice, client: u64, seed: u64, transactions: usize) {
    let mut dice = Dice::new(seed ^ (client << 32));
    let mut conn = sluice.conn();
    let mut done = 0;
    while done < transactions {
        let mut bytes = Vec::new();
        let mut tags = Vec::new();
        let mut ask = |line: String| bytes.extend(request(&words(&line)));
        for _ in 0..=dice.below(8) {
            let tag = format!("{client}/{done}/{}", tags.len());
            let group = dice.below(5);
            let plain = dice.percent(40);
            if plain {
                ask(format!("SET {{g{group}}}w plain/{tag}"));
            }
            for line in ISOLATED {
                ask(line.replace("{G}", &format!("{{g{group}}}")).replace("TAG", &tag));
            }
            tags.push((tag, plain));
        }
        conn.send(&bytes);
        for (tag, plain) in tags {
            let told = format!("{tag}, seed {seed}");
            let ahead = if plain { 10 } else { 9 };
            (0..ahead).for_each(|_| assert!(!conn.read().is_error(), "{told}"));
            let reply = conn.read();
            let [echo, _before, a, b, set, mine, both, again] = reply.items() else {
                panic!("{told}: {reply:?}");
            };
            assert_eq!((echo, set), (&bulk(&tag), &Value::Simple("OK".into())), "{told}");
            assert_eq!((mine, again), (&bulk(&tag), &bulk(&tag)), "{told}: not isolated");
            let (a, b) = (a.int(), b.int());
            assert_eq!(b, 2 * a, "{told}: not isolated");
            let expected = Value::Array(vec![bulk(a.to_string()), bulk(b.to_string())]);
            assert_eq!(both, &expected, "{told}: not isolated");
            done += 1;
        }
    }
}

#[test]
fn ten_thousand_transactions_are_isolated_and_aligned() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().workers(2).start();
    thread::scope(|scope| {
        for client in 0..8 {
            let sluice = &sluice;
            scope.spawn(move || isolated(sluice, client, 5, 1_250));
        }
    });
    // None was lost, none was executed twice: as many as were counted by the clients.
    let mut conn = sluice.conn();
    let counted = (0..5).map(|group| {
        let value = conn.cmd(&["GET", &format!("{{g{group}}}a")]);
        value.text().parse::<u64>().unwrap()
    });
    let counted: u64 = counted.sum();
    assert!((10_000..10_080).contains(&counted), "{counted}");
}

/// The server closes connections in the middle: what was counted is what was told, and for what was
/// not told nothing is executed twice.
#[test]
fn a_transaction_whose_reply_is_lost_is_executed_at_most_once() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().start();
    sluice.expect_log(server.address());
    let (told, unknown, running) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut conn = sluice.conn();
                let begun = Instant::now();
                let is_caught = || unknown.load(Ordering::Relaxed) > 0;
                let mut rounds = 0;
                while rounds < 400 || (!is_caught() && begun.elapsed() < PATIENCE) {
                    rounds += 1;
                    let reply = ["MULTI", "INCR a", "INCR b", "EXEC"]
                        .map(|line| conn.cmd(&words(line)))[3]
                        .clone();
                    match &reply {
                        Value::Array(items) => {
                            assert_eq!(items[0], items[1]);
                            told.fetch_add(1, Ordering::Relaxed);
                        }
                        Value::Error(text) if text.contains("result unknown") => {
                            unknown.fetch_add(1, Ordering::Relaxed);
                        }
                        Value::Error(text) => assert!(text.starts_with("CLUSTERDOWN"), "{text}"),
                        other => panic!("{other:?}"),
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut conn = server.conn();
            while running.load(Ordering::Relaxed) > 0 {
                conn.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                // Without a pause no connection would live for long enough to send anything.
                thread::sleep(Duration::from_millis(1));
            }
        });
    });
    let (told, unknown) = (told.into_inner(), unknown.into_inner());
    let counted: u64 = match server.cmd(&["GET", "a"]) {
        Value::Nil => 0,
        value => value.text().parse().unwrap(),
    };
    assert!((told..=told + unknown).contains(&counted), "{counted}, {told}, {unknown}");
    assert!(unknown > 0, "no connection was closed in the middle");
}

/// MULTI and EXEC were seen in Sluice's letters, and twice before the first transaction.
#[test]
fn a_server_sees_transactions_as_their_clients_wrote_them() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().start();
    let mut monitor = server.conn();
    assert_eq!(monitor.cmd(&["MONITOR"]), "OK");
    for _ in 0..2 {
        told(&mut sluice.conn(), &["mUlTi", "set k 1", "eXeC"], false);
        for line in ["\"mUlTi\"", "\"set\" \"k\" \"1\"", "\"eXeC\""] {
            let seen = eventually("the next one is seen", PATIENCE, || {
                let seen = monitor.read().text();
                ["multi", "set", "exec"]
                    .iter()
                    .any(|word| seen.to_lowercase().contains(&format!("\"{word}\"")))
                    .then_some(seen)
            });
            assert!(seen.ends_with(line), "{seen}");
        }
    }
    assert_eq!((server.calls("multi"), server.calls("exec")), (2, 2));
}

#[test]
fn a_server_without_multi_or_exec_is_told_apart() {
    for (name, told) in [("multi", "refuses MULTI"), ("exec", "unknown command 'EXEC'")] {
        let cluster = Cluster::with_args(1, 0, &["--rename-command", name, ""]);
        let sluice = cluster.sluice().start();
        sluice.expect_log("it did not take EXEC");
        let (mut conn, mut other) = (sluice.conn(), sluice.conn());
        for _ in 0..3 {
            let lines = ["SET k 1", "MULTI", "SET k 2", "EXEC", "GET k"];
            let replies = self::told(&mut conn, &lines, true);
            assert!(replies[3].error().contains(told), "{replies:?}");
            assert_eq!(replies[4], "1");
            assert_eq!(other.cmd(&["GET", "k"]), "1");
        }
    }
}

#[test]
fn a_transaction_of_many_requests_and_one_of_many_bytes() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    let mut bytes = request(&["MULTI"]);
    (0..50_000)
        .for_each(|n| bytes.extend(request(&["SET", &format!("k{}", n % 7), &n.to_string()])));
    bytes.extend(request(&["EXEC"]));
    let mut twin = conn.twin();
    thread::scope(|scope| {
        scope.spawn(|| twin.send(&bytes));
        assert_eq!(conn.read(), "OK");
        (0..50_000).for_each(|_| assert_eq!(conn.read(), "QUEUED"));
        assert_eq!(conn.read(), told_ok(50_000));
    });
    let value = "x".repeat(3 << 20);
    let lines = ["MULTI", &format!("SET big {value}"), "GET big", "GET big", "EXEC"];
    let replies = told(&mut conn, &lines, true);
    let big = bulk(&value);
    assert!(replies[4] == Value::Array(vec![Value::Simple("OK".into()), big.clone(), big.clone()]));
    // The same where the server has the queue.
    let lines = ["WATCH k", "MULTI", &format!("SET big {value}"), "GET big", "EXEC"];
    assert!(told(&mut conn, &lines, true)[4].items()[1] == big);
    // A short one whose reply is long.
    let reply = told(&mut conn, &["MULTI", "GET big", "EXEC", "PING"], true);
    assert!(reply[2].items() == [big] && reply[3] == "PONG");
}

#[test]
fn redis_py_runs_transactions() {
    for (shards, listener) in [(1, ""), (3, ""), (1, "redis: { multi: pinned }")] {
        let cluster = Cluster::start(shards, 0);
        let sluice = cluster.sluice().workers(2).listener(listener).start();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("target/venv/bin/python"));
        let script = root.join("tests/it/redis_multi.py");
        assert!(fs::exists(&script).unwrap());
        command.arg(script).arg(sluice.port().to_string()).stdin(Stdio::null());
        let output = command.output().expect("./tests/run.sh makes target/venv");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}");
    }
}

/// Nobody hears EXEC, and it did nothing: the other shards' parts that never come were waited for.
#[test]
fn a_transaction_that_nobody_hears_ends_when_it_was_not_executed() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let (mut conn, mut other) = (sluice.conn(), sluice.conn());
    assert_eq!(conn.cmd(&["WATCH", "k"]), "OK");
    assert_eq!(other.cmd(&["SET", "k", "1"]), "OK");
    conn.send(b"CLIENT REPLY OFF\r\nMULTI\r\nGET k\r\nFLUSHALL\r\nEXEC\r\nCLIENT REPLY ON\r\n");
    assert_eq!(conn.read_raw(), "+OK\r\n");
    assert_eq!(conn.cmd(&["GET", "k"]), "1");
}
