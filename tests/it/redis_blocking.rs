//! Commands that wait in the server: what a client hears, what others may go on doing, and that
//! nothing is popped for a client that has left.

use crate::harness::{
    Cluster, Conn, PATIENCE, Redis, Value, bulk, during, eventually, figure, request,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

fn strings(words: &[&str]) -> Value {
    Value::Array(words.iter().map(bulk).collect())
}

/// Waits until so many clients are blocked in the server.
#[track_caller]
fn wait_for_blocked(server: &Redis, wanted: usize) {
    eventually(&format!("{wanted} blocked clients"), PATIENCE, || {
        (server.info("blocked_clients")? == wanted.to_string()).then_some(())
    });
}

#[test]
fn every_command_that_blocks_gives_what_comes_and_nobody_else_waits() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().start();
    let pair = || strings(&["k", "v"]);
    let moved = || bulk("v");
    let scored = || strings(&["z", "m", "1"]);
    let popped = |key: &str, item: Value| Value::Array(vec![bulk(key), Value::Array(vec![item])]);
    let entry = |id: &str| {
        let entry = Value::Array(vec![bulk(id), strings(&["f", "v"])]);
        Value::Array(vec![Value::Array(vec![bulk("x"), Value::Array(vec![entry])])])
    };
    assert_eq!(server.cmd(&["XGROUP", "CREATE", "x", "g", "$", "MKSTREAM"]), "OK");
    let push: &[&str] = &["LPUSH", "k", "v"];
    let add: &[&str] = &["ZADD", "z", "1", "m"];
    for (waits, gives, wanted) in [
        (&["BLPOP", "nothing", "k", "0"][..], push, pair()),
        (&["brpop", "k", "0"], push, pair()),
        (&["BRPOPLPUSH", "k", "to", "0"], push, moved()),
        (&["BLMOVE", "k", "to", "LEFT", "RIGHT", "0"], push, moved()),
        (&["BLMPOP", "0", "2", "nothing", "k", "LEFT"], push, popped("k", bulk("v"))),
        (&["BZPOPMIN", "z", "0"], add, scored()),
        (&["BZPOPMAX", "z", "0"], add, scored()),
        (&["BZMPOP", "0", "1", "z", "MIN"], add, popped("z", strings(&["m", "1"]))),
        (
            &["XREAD", "BLOCK", "0", "STREAMS", "x", "$"],
            &["XADD", "x", "1-1", "f", "v"],
            entry("1-1"),
        ),
        (
            &["XREADGROUP", "GROUP", "g", "c", "NOACK", "BLOCK", "0", "STREAMS", "x", ">"],
            &["XADD", "x", "1-2", "f", "v"],
            entry("1-2"),
        ),
    ] {
        if waits[0] == "XREADGROUP" {
            assert_eq!(server.cmd(&["XGROUP", "SETID", "x", "g", "$"]), "OK");
        }
        let (mut waiter, mut other) = (sluice.conn(), sluice.conn());
        // What comes behind it in the same write waits for it, and hides nothing.
        waiter.send(
            &[request(&["SET", "before", "1"]), request(waits), request(&["GET", "after"])]
                .concat(),
        );
        assert_eq!(waiter.read(), "OK");
        wait_for_blocked(server, 1);
        assert_eq!(other.cmd(&["SET", "after", waits[0]]), "OK");
        assert_eq!(other.cmd(&["GET", "after"]), waits[0]);
        other.cmd(gives);
        assert_eq!(waiter.read(), wanted, "{waits:?}");
        assert_eq!(waiter.read(), waits[0]);
        other.cmd(&["DEL", "to"]);
    }
    let metrics = sluice.metrics();
    let connects = metrics.sum("sluice_backend_connects_total", &[("result", "ok")]);
    assert!(connects <= 3.0, "one shared, one after the other leased: {connects}");
    assert_eq!(metrics.sum("sluice_backend_connections_leased", &[]), 0.0);
    assert_eq!(metrics.sum("sluice_requests_in_flight", &[]), 0.0);
}

#[test]
fn timeouts_and_mistakes_are_answered_in_the_servers_words() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    let mut direct = cluster.shards[0].primary.conn();
    let mut conn = sluice.conn();
    let here = cluster.key_of(0, "k");
    let there = cluster.key_of(1, "k");
    for words in [
        vec!["BLPOP", &here, "0.05"],
        vec!["BLMOVE", &here, &here, "LEFT", "LEFT", "0.05"],
        vec!["XREAD", "BLOCK", "20", "STREAMS", &here, "$"],
        vec!["BLPOP", &here, "x"],
        vec!["BLPOP", &here, "-1"],
        vec!["BLPOP", &here, "nan"],
        vec!["BLPOP", &here, "1e400"],
        vec!["BLMPOP", "0.01", "x", &here, "LEFT"],
        vec!["BZMPOP", "0.01", "0", &here, "MIN"],
        vec!["XREAD", "BLOCK", "-1", "STREAMS", &here, "$"],
        vec!["XREADGROUP", "GROUP", "g", "c", "BLOCK", "1", "STREAMS", &here, ">"],
        vec!["BLPOP", "1"],
        vec!["CLIENT", "UNBLOCK", "x"],
        vec!["CLIENT", "UNBLOCK", "99999999", "NOW"],
        vec!["CLIENT", "UNBLOCK", "99999999"],
    ] {
        assert_eq!(conn.cmd(&words), direct.cmd(&words), "{words:?}");
    }
    let crossed = conn.cmd(&["BLPOP", &here, &there, "0"]);
    assert_eq!(crossed.error(), "CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(conn.cmd(&["PING"]), "PONG");
}

#[test]
fn a_client_is_unblocked_from_another_worker_and_its_connection_is_not_used_again() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().workers(2).start();
    let mut waiters: Vec<_> = (0..4).map(|_| sluice.conn()).collect();
    let ids: Vec<_> =
        waiters.iter_mut().map(|conn| conn.cmd(&["CLIENT", "ID"]).int().to_string()).collect();
    let mut operator = sluice.conn();
    assert_eq!(operator.cmd(&["CLIENT", "UNBLOCK", &ids[0]]), 0, "it does not wait");
    for round in 0..5 {
        for waiter in &mut waiters {
            waiter.send(&request(&["BLPOP", "nothing", "0"]));
        }
        wait_for_blocked(server, waiters.len());
        for (i, (waiter, id)) in waiters.iter_mut().zip(&ids).enumerate() {
            if (i + round) % 2 == 0 {
                assert_eq!(operator.cmd(&["CLIENT", "UNBLOCK", id]), 1);
                assert_eq!(waiter.read(), Value::Nil);
            } else {
                assert_eq!(operator.cmd(&["client", "unblock", id, "error"]), 1);
                let error = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
                assert_eq!(waiter.read().error(), error);
            }
        }
    }
    let made = sluice.metrics().sum("sluice_backend_connects_total", &[("result", "ok")]);
    assert!(made >= 20.0, "each of them was aimed at: {made}");
}

/// How the client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Closes,
    HalfCloses,
    /// With requests behind the one that waits.
    PipelinesAndCloses(usize),
}

/// One waits and leaves, then something is pushed the same way: how often that was popped for nobody.
/// Who pushes straight to the server overtakes when we do not get the processor at once.
fn lost(server: &Redis, open: impl Fn() -> Conn, rounds: usize, leave: Leave) -> usize {
    let mut pusher = open();
    let mut lost = 0;
    for _ in 0..rounds {
        let mut waiter = open();
        waiter.send(&request(&["BLPOP", "queue", "0"]));
        wait_for_blocked(server, 1);
        match leave {
            Leave::Closes => {}
            Leave::HalfCloses => waiter.finish_sending(),
            Leave::PipelinesAndCloses(bytes) => {
                waiter.send(&request(&["ECHO", &"x".repeat(bytes)]));
            }
        }
        let kept = matches!(leave, Leave::HalfCloses).then_some(waiter);
        let left = Instant::now();
        // Time for a tick: the kernel is asked only then when much is unread.
        if matches!(leave, Leave::PipelinesAndCloses(100_000..)) {
            wait_for_blocked(server, 0);
            assert!(left.elapsed() < Duration::from_secs(2));
        }
        pusher.cmd(&["RPUSH", "queue", "element"]);
        lost += usize::from(pusher.cmd(&["DEL", "queue"]) == 0);
        drop(kept);
        wait_for_blocked(server, 0);
    }
    lost
}

#[test]
fn nothing_is_popped_for_a_client_that_has_left() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().start();
    for (leave, rounds) in [
        (Leave::Closes, 60),
        (Leave::HalfCloses, 30),
        (Leave::PipelinesAndCloses(10), 60),
        (Leave::PipelinesAndCloses(1_100_000), 10),
    ] {
        let direct = match leave {
            Leave::PipelinesAndCloses(100_000..) => 0,
            _ => lost(server, || server.conn(), rounds, leave),
        };
        let through = lost(server, || sluice.conn(), rounds, leave);
        figure(format!("{leave:?}: lost {through} of {rounds} through, {direct} directly"));
        // A server reads what a client has sent before it sees that it has left, and loses some; a busy
        // one may look at the push first: see below. Who does not tell it at once loses all.
        assert!(10 * through <= rounds, "{leave:?}: {through} of {rounds}, {direct} directly");
    }
}

/// A server that is busy for a client while another one leaves looks at the next request of the first
/// before it sees that: what is pushed then goes to who has left. With Sluice before it, it is no other.
#[test]
fn what_a_busy_server_gives_to_who_has_left_it_gives_with_and_without_sluice() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster
        .sluice()
        .listener("redis: { allow: [DEBUG] }")
        .check("{ interval: 10s, timeout: 9s, fall: 10 }")
        .start();
    for address in [server.address(), sluice.address()] {
        let (mut waiter, mut pusher) = (Conn::open(&address), Conn::open(&address));
        assert_eq!(pusher.cmd(&["DEL", "queue"]), 0);
        waiter.send(&request(&["BLPOP", "queue", "0"]));
        wait_for_blocked(server, 1);
        pusher.send(&request(&["DEBUG", "SLEEP", "0.6"]));
        thread::sleep(Duration::from_millis(150));
        drop(waiter);
        thread::sleep(Duration::from_millis(150));
        pusher.send(&request(&["RPUSH", "queue", "element"]));
        assert_eq!(pusher.read(), "OK");
        assert_eq!(pusher.read(), 1);
        assert_eq!(pusher.cmd(&["DEL", "queue"]), 0, "it was popped for who had left");
        wait_for_blocked(server, 0);
    }
}

#[test]
fn the_pool_ends_and_says_so() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster
        .sluice()
        .workers(2)
        .cluster("dedicated: { max_per_backend: 3, wait_timeout: 300ms }")
        .start();
    let mut waiters: Vec<_> = (0..3).map(|_| sluice.conn()).collect();
    for (waiter, before) in waiters.iter_mut().zip(1..) {
        waiter.send(&request(&["BLPOP", "queue", "0"]));
        wait_for_blocked(server, before);
    }
    let mut late = sluice.conn();
    let start = Instant::now();
    let refused = late.cmd(&["BLPOP", "queue", "0"]);
    assert_eq!(refused.error(), "ERR sluice: no dedicated connection free");
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(late.cmd(&["PING"]), "PONG");
    late.send(&request(&["BLPOP", "queue", "0"]));
    server.cmd(&["RPUSH", "queue", "one"]);
    assert_eq!(waiters[0].read(), strings(&["queue", "one"]));
    wait_for_blocked(server, 3);
    server.cmd(&["RPUSH", "queue", "two", "three", "four"]);
    assert_eq!(late.read(), strings(&["queue", "four"]));
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_backend_lease_refusals_total", &[]), 1.0);
    assert_eq!(metrics.sum("sluice_backend_lease_waits_total", &[]), 2.0);
}

#[test]
fn a_failover_is_told_to_those_who_wait() {
    let cluster = Cluster::start(1, 1);
    let shard = &cluster.shards[0];
    let sluice = cluster.sluice().start();
    sluice.expect_log("primary -> replica");
    sluice.expect_log("has no primary");
    // Both say so for a moment.
    sluice.expect_log("split_brain");
    let mut waiter = sluice.conn();
    waiter.send(&request(&["BLPOP", "queue", "0"]));
    wait_for_blocked(&shard.primary, 1);
    assert_eq!(shard.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    shard.primary.follow(&shard.replicas[0]);
    let told = waiter.read();
    assert!(told.error().starts_with("UNBLOCKED force unblock"), "{told:?}");
    eventually("the new primary serves", PATIENCE, || {
        (sluice.conn().cmd(&["SET", "a", "1"]) == "OK").then_some(())
    });
    waiter.send(&request(&["BLPOP", "queue", "0"]));
    wait_for_blocked(&shard.replicas[0], 1);
    shard.replicas[0].cmd(&["RPUSH", "queue", "x"]);
    assert_eq!(waiter.read(), strings(&["queue", "x"]));
}

#[test]
fn a_drain_waits_for_those_who_wait() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    let sluice = cluster.sluice().top("shutdown: { drain_timeout: 8s }").start();
    let (mut waiter, mut idle) = (sluice.conn(), sluice.conn());
    assert_eq!(idle.cmd(&["PING"]), "PONG");
    waiter.send(&request(&["BLPOP", "queue", "0"]));
    wait_for_blocked(server, 1);
    sluice.terminate();
    assert!(idle.read_to_close().is_empty());
    server.cmd(&["RPUSH", "queue", "x"]);
    assert_eq!(waiter.read(), strings(&["queue", "x"]));
    assert!(waiter.read_to_close().is_empty());
}

/// As Sidekiq works: many workers that BRPOP in a loop, producers, and a server that is restarted in
/// between. What a producer was told is in the queue is popped once, unless it was lost with the
/// server's memory or its reply was.
#[test]
fn jobs_are_done_once_while_a_server_is_restarted() {
    let mut server = Redis::with_args(&["--appendonly", "yes", "--appendfsync", "always"]);
    let shards = [(server.address(), vec![])];
    let sluice = crate::harness::Setup::shards(shards).workers(2).start();
    sluice.expect_log("backend");
    let (pushed, popped) = (AtomicU64::new(0), AtomicU64::new(0));
    let (unknown, twice) = (AtomicU64::new(0), AtomicU64::new(0));
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    let jobs = |go_on: &dyn Fn() -> bool| {
        let mut conn = sluice.conn();
        let mut empty = 0;
        while empty < 2 {
            match conn.try_cmd(&["BRPOP", "jobs", "1"]) {
                Ok(Value::Array(items)) => {
                    popped.fetch_add(1, Ordering::Relaxed);
                    let new = seen.lock().unwrap().insert(items[1].text());
                    twice.fetch_add(u64::from(!new), Ordering::Relaxed);
                }
                Ok(Value::Error(_)) => {
                    unknown.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(_) => empty = if go_on() { 0 } else { empty + 1 },
                Err(_) => conn = sluice.conn(),
            }
        }
    };
    let produce = |n: u64| {
        let mut conn = sluice.conn();
        for i in 0.. {
            let job = format!("{n}-{i}");
            match conn.cmd(&["LPUSH", "jobs", &job]) {
                Value::Int(_) => {
                    pushed.fetch_add(1, Ordering::Relaxed);
                }
                Value::Error(_) => thread::sleep(Duration::from_millis(20)),
                other => panic!("{other:?}"),
            }
            if i % 8 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            if i > 200 && seen.lock().unwrap().len() > 3_000 * 2 {
                return;
            }
        }
    };
    during(8, jobs, || {
        thread::scope(|scope| {
            scope.spawn(|| produce(1));
            scope.spawn(|| produce(2));
            eventually("jobs are done", PATIENCE, || {
                (seen.lock().unwrap().len() > 2_000).then_some(())
            });
            server.restart();
        });
    });
    let [pushed, popped, unknown, twice] =
        [&pushed, &popped, &unknown, &twice].map(|count| count.load(Ordering::Relaxed));
    figure(format!("{pushed} pushed, {popped} popped, {unknown} errors, {twice} twice"));
    assert_eq!(twice, 0);
    // A worker's reply may be lost with its connection: at most one each.
    assert!(popped + 8 >= pushed, "{pushed} pushed, {popped} popped");
}
