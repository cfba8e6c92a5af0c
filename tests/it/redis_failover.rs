//! A shard whose primary changes, without anybody who tells: by an operator's command and by a kill,
//! under load. What was acknowledged is there, and clients hear of it as little as can be.

use crate::harness::{Cluster, PATIENCE, Redis, Sluice, Value, during, eventually};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Probes find a change within half a second.
const CHECK: &str = "{ interval: 300ms, fast_interval: 100ms, timeout: 300ms, fall: 2 }";
const CLIENTS: usize = 4;

/// What one client was told of its writes, each a larger number for its own key.
#[derive(Debug, Default)]
struct Told {
    key: String,
    /// The newest that was acknowledged.
    acknowledged: u64,
    /// Those behind it that may have been executed.
    unknown: Vec<u64>,
    unknown_in_all: u64,
    errors: Vec<String>,
    longest: Duration,
}

/// Writes until told to stop, one after the other.
fn write(sluice: &Sluice, key: &str, go_on: &dyn Fn() -> bool) -> Told {
    let mut conn = sluice.conn();
    let mut told = Told { key: key.to_owned(), ..Told::default() };
    let mut last = Instant::now();
    for n in 1.. {
        if !go_on() {
            return told;
        }
        match conn.cmd(&["SET", key, &n.to_string()]) {
            Value::Error(text) if text.contains("result unknown") => {
                told.unknown.push(n);
                told.unknown_in_all += 1;
            }
            Value::Error(text) => told.errors.push(text),
            reply => {
                assert_eq!(reply, "OK");
                told.acknowledged = n;
                told.unknown.clear();
                told.longest = told.longest.max(last.elapsed());
                last = Instant::now();
            }
        }
    }
    told
}

/// So many clients write while `act` changes who the primary is, and a second longer.
fn write_while(sluice: &Sluice, act: impl FnOnce()) -> Vec<Told> {
    let ids = AtomicUsize::new(0);
    let load = |go_on: &dyn Fn() -> bool| {
        write(sluice, &format!("k{}", ids.fetch_add(1, Ordering::Relaxed)), go_on)
    };
    let ((), told) = during(CLIENTS, load, || {
        thread::sleep(Duration::from_millis(500));
        act();
        thread::sleep(Duration::from_secs(1));
    });
    let longest = told.iter().map(|told| told.longest).max();
    crate::harness::figure(format!("the longest time without a write: {longest:?}, with {CHECK}"));
    told
}

fn started(cluster: &Cluster) -> Sluice {
    cluster.wait_for_replicas();
    let sluice = cluster.sluice().check(CHECK).start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    sluice
}

fn number(server: &Redis, key: &str) -> u64 {
    server.cmd(&["GET", key]).text().parse().unwrap()
}

/// FAILOVER waits for the replica, so Redis itself loses nothing: neither do we, and no client hears
/// of it.
#[test]
fn a_planned_failover_is_heard_of_by_nobody() {
    let cluster = Cluster::start(1, 1);
    let sluice = started(&cluster);
    let (old, new) = (&cluster.shards[0].primary, &cluster.shards[0].replicas[0]);
    let told = write_while(&sluice, || {
        assert_eq!(old.cmd(&["FAILOVER"]), "OK");
        eventually("it is the primary", PATIENCE, || {
            (new.info("role").as_deref() == Some("master")).then_some(())
        });
    });
    for told in told {
        assert_eq!((told.errors.len(), told.unknown.len()), (0, 0), "{told:?}");
        assert_eq!(number(new, &told.key), told.acknowledged);
    }
}

#[test]
fn a_killed_primary_costs_no_error_but_writes_of_unknown_result() {
    let mut cluster = Cluster::start(1, 1);
    let sluice = started(&cluster);
    let shard = &mut cluster.shards[0];
    let told = write_while(&sluice, || {
        shard.primary.kill();
        thread::sleep(Duration::from_millis(500));
        assert_eq!(shard.replicas[0].cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
    });
    for told in told {
        // The one under way, and one more when a server that is dying still takes a connection.
        assert!(told.errors.is_empty() && told.unknown_in_all <= 3, "{told:?}");
        let is = number(&shard.replicas[0], &told.key);
        assert!(is == told.acknowledged || told.unknown.contains(&is), "{is}: {told:?}");
    }
    // It comes back and thinks that it still is the primary.
    shard.primary.restart();
    sluice.expect_log("another member of its shard is the primary; no writes go here");
    let mut conn = sluice.conn();
    for n in 0..100 {
        assert_eq!(conn.cmd(&["SET", "after", &n.to_string()]), "OK");
    }
    assert_eq!(shard.primary.calls("set"), 0);
    assert_eq!(shard.replicas[0].cmd(&["GET", "after"]), "99");
}

/// Of two primaries the one that was it goes on, whichever is written first.
#[test]
fn a_replica_that_becomes_a_primary_beside_another_gets_no_writes() {
    let cluster = Cluster::start(1, 1);
    let sluice = started(&cluster);
    let (old, new) = (&cluster.shards[0].primary, &cluster.shards[0].replicas[0]);
    let before = new.calls("set");
    let told = write_while(&sluice, || {
        assert_eq!(new.cmd(&["REPLICAOF", "NO", "ONE"]), "OK");
        sluice.expect_log("another member of its shard is the primary; no writes go here");
    });
    assert!(sluice.admin("/api/v1/status").1.contains("split_brain"));
    for told in told {
        assert_eq!((told.errors.len(), told.unknown.len()), (0, 0), "{told:?}");
        assert_eq!(number(old, &told.key), told.acknowledged);
    }
    // What it has executed as a replica is all that it has.
    let after = new.calls("set");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(new.calls("set"), after, "{before}");
}

#[test]
fn without_failover_wait_a_write_is_refused_at_once() {
    let mut cluster = Cluster::start(1, 1);
    cluster.wait_for_replicas();
    let sluice = cluster.sluice().check(CHECK).cluster("failover_wait: 0").start();
    cluster.servers().for_each(|server| sluice.expect_log(server.address()));
    let mut conn = sluice.conn();
    cluster.shards[0].primary.kill();
    sluice.wait_for(&cluster.shards[0].primary.address(), false);
    let begun = Instant::now();
    assert!(conn.cmd(&["SET", "k", "v"]).error().starts_with("CLUSTERDOWN sluice: shard s0"));
    assert!(begun.elapsed() < Duration::from_secs(1));
}
