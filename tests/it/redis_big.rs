//! Values too big to be kept whole, in both directions, and requests of very many keys: everything
//! arrives, in bounded memory, and nobody else waits. Hostile clients are in redis_hostile.

use crate::harness::{Cluster, PATIENCE, Sluice, Value, bulk, eventually, request};
use std::{
    thread,
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;

/// The front of a SET of `len` bytes.
fn set(key: &str, len: usize) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${len}\r\n", key.len()).into_bytes()
}

/// 1 MiB that says where it belongs.
fn piece(number: usize) -> Vec<u8> {
    let mut bytes = vec![b'.'; MIB];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

#[track_caller]
fn assert_grown_by_less_than(sluice: &Sluice, base: u64, mib: u64) {
    let grown = sluice.process().peak_kb().saturating_sub(base) >> 10;
    assert!(grown < mib, "memory grew by {grown} MiB, less than {mib} expected");
}

#[test]
fn half_a_gigabyte_passes_in_both_directions_in_bounded_memory() {
    let cluster = Cluster::start(2, 0);
    // A server that takes half a gigabyte on a busy machine is slow to answer probes.
    let sluice = cluster.sluice().check("{ interval: 10s, timeout: 20s }").start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "small", "1"]), "OK");
    let base = sluice.process().rss_kb();
    conn.patience(Duration::from_secs(60));
    conn.send(&set("huge", 512 * MIB));
    (0..512).for_each(|number| conn.send(&piece(number)));
    conn.send(b"\r\n*2\r\n$3\r\nGET\r\n$5\r\nsmall\r\n*2\r\n$6\r\nSTRLEN\r\n$4\r\nhuge\r\n");
    assert_eq!(conn.read(), "OK");
    assert_eq!(conn.read(), "1");
    assert_eq!(conn.read(), (512 * MIB) as i64);
    assert_grown_by_less_than(&sluice, base, 32);
    conn.send(&request(&["GET", "huge"]));
    assert_eq!(conn.read_exactly(b"$536870912\r\n".len()), b"$536870912\r\n");
    for number in 0..512 {
        assert!(conn.read_exactly(MIB) == piece(number), "MiB {number}");
    }
    assert_eq!(conn.read_exactly(2), b"\r\n");
    assert_eq!(conn.cmd(&["GET", "small"]), "1");
    assert_grown_by_less_than(&sluice, base, 32);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_big_value_leaves_nothing_behind() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    let mut other = sluice.conn();
    let base = sluice.process().rss_kb();
    for _ in 0..20 {
        let mut conn = sluice.conn();
        conn.send(&set("k", 100 * MIB));
        (0..4).for_each(|number| conn.send(&piece(number)));
        assert_eq!(other.cmd(&["SET", "other", "1"]), "OK");
        drop(conn);
    }
    let mut direct = cluster.owner("k").primary.conn();
    eventually("the half requests are gone", PATIENCE, || {
        (direct.cmd(&["CLIENT", "LIST"]).text().lines().count() <= 6).then_some(())
    });
    assert_eq!(other.cmd(&["EXISTS", "k"]), 0);
    assert_grown_by_less_than(&sluice, base, 64);
}

/// Everything that was sent to a server that does not read was kept.
#[test]
fn a_server_that_does_not_read_a_big_value_makes_its_client_wait() {
    let cluster = Cluster::start(2, 0);
    let (one, two) = (cluster.key_of(0, "one"), cluster.key_of(1, "two"));
    let sluice = cluster.sluice().check("{ interval: 1h, timeout: 1m }").start();
    let mut other = sluice.conn();
    assert_eq!(other.cmd(&["SET", &two, "1"]), "OK");
    let base = sluice.process().rss_kb();
    cluster.owner(&one).primary.stop();
    let mut conn = sluice.conn();
    let sender = thread::spawn(move || {
        conn.patience(Duration::from_secs(30));
        conn.send(&set(&one, 128 * MIB));
        (0..128).for_each(|number| conn.send(&piece(number)));
        conn.send(b"\r\n");
        conn.read()
    });
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert_eq!(other.cmd(&["GET", &two]), "1");
    }
    assert!(!sender.is_finished());
    assert_grown_by_less_than(&sluice, base, 32);
    cluster.owner(&cluster.key_of(0, "one")).primary.cont();
    assert_eq!(sender.join().unwrap(), "OK");
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_big_value_is_told_once_the_rest_has_come() {
    let mut cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().start();
    sluice.expect_log("backend");
    let mut conn = sluice.conn();
    conn.send(&set("k", 8 * MIB));
    (0..4).for_each(|number| conn.send(&piece(number)));
    eventually("the value is on its way", PATIENCE, || {
        let sent = sluice.metrics().sum("sluice_backend_bytes_total", &[("direction", "out")]);
        (sent > MIB as f64).then_some(())
    });
    cluster.shards[0].primary.kill();
    (4..8).for_each(|number| conn.send(&piece(number)));
    conn.send(b"\r\n*1\r\n$4\r\nPING\r\n");
    let told = conn.read().error().to_owned();
    assert!(told.ends_with("lost while the request came in, it was not executed"), "{told}");
    assert_eq!(conn.read(), "PONG");
}

#[test]
fn a_million_keys_in_one_request() {
    let cluster = Cluster::start(3, 0);
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    conn.patience(Duration::from_secs(60));
    let keys: Vec<String> = (0..1_000_000).map(|i| format!("k{i}")).collect();
    let words = |name: &str| [name.to_owned()].into_iter().chain(keys.iter().cloned());
    for key in keys.iter().step_by(1_000) {
        assert_eq!(conn.cmd(&["SET", key, key]), "OK");
    }
    let Value::Array(values) = conn.cmd(&words("MGET").collect::<Vec<_>>()) else { panic!() };
    assert_eq!(values.len(), keys.len());
    for (place, (value, key)) in values.iter().zip(&keys).enumerate() {
        let expected = if place % 1_000 == 0 { bulk(key) } else { Value::Nil };
        assert_eq!(*value, expected, "{key}");
    }
    assert_eq!(conn.cmd(&words("DEL").collect::<Vec<_>>()), 1_000);
}
