//! What clients that do not read or do not send may cost, with 64 MiB for the whole process.

use crate::harness::{Cgroup, Cluster, Conn, Sluice, Value, bulk, figure, request};
use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 10;
/// Of the control group, in KiB.
const LIMIT: u64 = 64 * MIB;

/// Sluice before two shards, in its control group where one can be made.
struct Capped {
    sluice: Sluice,
    cluster: Cluster,
    /// Resident memory in KiB, before anything came.
    base: u64,
    group: Option<Cgroup>,
}

impl Capped {
    fn start() -> Self {
        let cluster = Cluster::start(2, 0);
        let group = Cgroup::of_memory(LIMIT << 10);
        let sluice = match &group {
            Ok(group) => cluster.sluice().inside(group).start(),
            Err(why) => {
                let _ = writeln!(
                    io::stderr(),
                    "no control group for memory, so only resident memory is held to 64 MiB: {why}"
                );
                cluster.sluice().start()
            }
        };
        let group = group.ok();
        if group.is_some() {
            let log = sluice.log();
            assert!(log.contains("limits.memory from the control group"), "{log}");
            assert!(log.contains(&format!("bytes={}", (LIMIT << 10) / 4 * 3)), "{log}");
        }
        assert_eq!(sluice.conn().cmd(&["MSET", "a", "1", "b", "2"]), "OK");
        let base = sluice.process().rss_kb();
        Self { sluice, cluster, base, group }
    }

    /// It still serves, was not killed, and never grew by more than `limit` KiB.
    #[track_caller]
    fn assert_flat(&self, what: &str, limit: u64) {
        let (sluice, base) = (&self.sluice, self.base);
        assert_eq!(
            sluice.conn().cmd(&["MGET", "a", "b"]),
            Value::Array(vec![bulk("1"), bulk("2")])
        );
        let peak = sluice.process().peak_kb();
        let grown = peak.saturating_sub(base);
        let capped = if self.group.is_some() { "in" } else { "without" };
        figure(format!("{what}: {base} KiB and {grown} KiB more, {capped} a control group"));
        assert!(peak < LIMIT, "{peak} KiB resident at most");
        assert!(grown < limit, "memory grew by {grown} KiB; at most {limit} expected");
        assert_eq!(self.group.as_ref().map_or(0, Cgroup::killed), 0);
        assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
    }
}

#[test]
fn three_hundred_megabytes_that_nobody_reads_in_sixty_four() {
    let capped = Capped::start();
    let (cluster, sluice) = (&capped.cluster, &capped.sluice);
    let key = cluster.key_of(0, "big");
    let neighbour = cluster.key_of(0, "n");
    let mut conn = sluice.conn();
    assert_eq!(cluster.owner(&key).primary.cmd(&["SET", &key, &"x".repeat(1_000_000)]), "OK");
    assert_eq!(conn.cmd(&["SET", &neighbour, "v"]), "OK");
    sluice.expect_log("slow");
    sluice.expect_log("output");
    let mut deaf = sluice.conn();
    deaf.send(&request(&["GET", &key]).repeat(300));
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert_eq!(conn.cmd(&["GET", &neighbour]), "v");
        thread::sleep(Duration::from_millis(5));
    }
    capped.assert_flat("300 GETs of 1 MB that are not read", 8 * MIB);
}

#[test]
fn two_hundred_giants_announced_and_never_sent_in_sixty_four_megabytes() {
    let capped = Capped::start();
    let giants: Vec<Conn> = (0..200)
        .map(|_| {
            let mut conn = capped.sluice.conn();
            conn.send(b"*1048576\r\n$536870912\r\n");
            conn
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    capped.assert_flat("200 announced giants", 4 * MIB);
    drop(giants);
}
