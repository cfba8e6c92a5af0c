//! `coalesce: true`: equal GETs under way are asked once, and nobody can tell but by the load of the
//! servers. Not the counters alone: a checker looks for a reply that is older than it may be.

use crate::harness::{
    Cluster, Conn, FakeServer, PATIENCE, Setup, Sluice, Step, Value, bulk, eventually,
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

fn coalesced(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_redis_coalesced_requests_total", &[])
}

/// One that answers every request so late.
fn slow_server(late: Duration) -> FakeServer {
    FakeServer::start(move |request| {
        let value = match request.words[0].as_str() {
            "GET" => bulk(format!("value of {}", request.words[1])),
            _ => Value::Simple("OK".into()),
        };
        [vec![Step::Wait(late)], Step::reply(&value)].concat()
    })
}

fn in_front_of(server: &FakeServer) -> Setup {
    Setup::shards([(server.address(), Vec::new())])
}

#[test]
fn a_hundred_equal_gets_are_one() {
    let cluster = Cluster::start(1, 0);
    let server = &cluster.shards[0].primary;
    server.cmd(&["SET", "hot", "value"]);
    for (coalesce, asked) in [(true, 1), (false, 100)] {
        let sluice = cluster.sluice().cluster(&format!("coalesce: {coalesce}")).start();
        server.cmd(&["CONFIG", "RESETSTAT"]);
        let mut conns: Vec<Conn> = (0..100).map(|_| sluice.conn()).collect();
        // The server is stopped while they ask, so that all of them are under way at once.
        server.stop();
        conns.iter_mut().for_each(|conn| conn.send(b"*2\r\n$3\r\nGET\r\n$3\r\nhot\r\n"));
        eventually("all are under way", PATIENCE, || {
            let sent = sluice.metrics().sum("sluice_requests_in_flight", &[]);
            (sent + coalesced(&sluice) == 100.0).then_some(())
        });
        server.cont();
        conns.iter_mut().for_each(|conn| assert_eq!(conn.read(), bulk("value")));
        assert_eq!(server.calls("get"), asked);
        let ok = sluice.metrics().sum("sluice_requests_total", &[("result", "ok")]);
        assert_eq!(ok, 100.0, "each of them is a request of its client's");
    }
}

/// Its own write lies between: the GET under way is older than that.
#[test]
fn a_get_behind_a_write_of_its_own_is_asked_anew() {
    let server = slow_server(Duration::from_millis(300));
    let sluice = in_front_of(&server).cluster("coalesce: true").start();
    let (mut other, mut writer) = (sluice.conn(), sluice.conn());
    other.send(b"GET k\r\n");
    eventually("the GET is under way", PATIENCE, || {
        (sluice.metrics().sum("sluice_requests_in_flight", &[]) == 1.0).then_some(())
    });
    // In one write, so that the GET comes while the SET is under way.
    writer.send(b"SET k 1\r\nGET k\r\n");
    assert_eq!(other.read(), bulk("value of k"));
    assert_eq!(writer.read(), "OK");
    assert_eq!(writer.read(), bulk("value of k"));
    let words: Vec<String> = server.seen().iter().map(|r| r.words.join(" ")).collect();
    let own: Vec<_> = words.iter().filter(|line| *line != "COMMAND").collect();
    assert_eq!(own, ["GET k", "SET k 1", "GET k"]);
    assert_eq!(coalesced(&sluice), 0.0);
}

/// Each key has one writer, which counts up; every session must see its own newest number at once, and
/// none may ever see a number go back.
#[test]
fn nobody_reads_what_is_older_than_it_may_be() {
    const KEYS: usize = 3;
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().cluster("coalesce: true").workers(2).start();
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let newest: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let number = |value: &Value| match value {
        Value::Nil => 0,
        value => value.text().parse::<u64>().unwrap(),
    };
    thread::scope(|scope| {
        for key in 0..KEYS {
            let (mut conn, newest, stop) = (sluice.conn(), &newest[key], &stop);
            scope.spawn(move || {
                let name = format!("k{key}");
                let mut n = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let (value, get) = (n.to_string(), vec!["GET", &*name]);
                    let set = vec!["SET", &*name, &*value];
                    let seen = conn.pipeline(&[get.clone(), set, get.clone(), get]);
                    assert_eq!(number(&seen[0]), n - 1, "its own write, one request before");
                    assert_eq!(number(&seen[2]), n, "its own write, in the same batch");
                    assert_eq!(number(&seen[3]), n);
                    newest.store(n, Ordering::SeqCst);
                }
            });
        }
        for reader in 0..24 {
            let (mut conn, newest, stop, reads) = (sluice.conn(), &newest, &stop, &reads);
            scope.spawn(move || {
                let key = reader % KEYS;
                let name = format!("k{key}");
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let known = newest[key].load(Ordering::SeqCst);
                    let batch = vec![vec!["GET", &*name]; 1 + reader % 4];
                    for value in conn.pipeline(&batch) {
                        let seen = number(&value);
                        assert!(seen >= last, "{name} went back from {last} to {seen}");
                        assert!(seen >= known, "{name} is {seen}, {known} was acknowledged before");
                        last = seen;
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(coalesced(&sluice) > 100.0, "it was not tried: {}", coalesced(&sluice));
    assert!(reads.load(Ordering::Relaxed) > 1_000);
}

/// The first who asked was told that it took too long; who came later waits for its own time.
#[test]
fn each_waits_for_its_own_timeout() {
    let server = slow_server(Duration::from_millis(1_400));
    let sluice = in_front_of(&server)
        .cluster("coalesce: true")
        .cluster("timeouts: { request: 1s, stall: 10s }")
        .start();
    let (mut early, mut late) = (sluice.conn(), sluice.conn());
    early.send(b"GET k\r\n");
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(700) {
        thread::sleep(Duration::from_millis(10));
    }
    late.send(b"GET k\r\n");
    assert!(early.read().error().contains("timed out"));
    assert_eq!(late.read(), bulk("value of k"));
    assert_eq!(server.seen().iter().filter(|r| r.words[0] == "GET").count(), 1);
}

#[test]
fn errors_and_lost_connections_are_told_to_everybody() {
    let server =
        FakeServer::start(|request| match request.words[1..].first().map(String::as_str) {
            Some("wrong") => vec![
                Step::Wait(Duration::from_millis(200)),
                Step::Send(b"-WRONGTYPE Operation against a key\r\n".to_vec()),
            ],
            Some("lost") => vec![Step::Wait(Duration::from_millis(200)), Step::Close],
            _ => Step::reply(&Value::Simple("OK".into())),
        });
    let sluice = in_front_of(&server).cluster("coalesce: true").start();
    for (key, code) in [("wrong", "WRONGTYPE"), ("lost", "CLUSTERDOWN")] {
        let mut conns: Vec<Conn> = (0..5).map(|_| sluice.conn()).collect();
        conns.iter_mut().for_each(|conn| conn.send(format!("GET {key}\r\n").as_bytes()));
        for conn in &mut conns {
            let told = conn.read();
            assert!(told.error().starts_with(code), "{told:?}");
        }
    }
    assert!(coalesced(&sluice) >= 4.0);
}

/// A long value is passed on while it comes, to all who wait for it, a slow reader among them.
#[test]
fn a_long_value_reaches_all_and_is_not_shared_again() {
    let cluster = Cluster::start(1, 0);
    let sluice = cluster.sluice().cluster("coalesce: true").start();
    let server = &cluster.shards[0].primary;
    let long = "0123456789".repeat(300_000);
    server.cmd(&["SET", "long", &long]);
    server.cmd(&["CONFIG", "RESETSTAT"]);
    let mut conns: Vec<Conn> = (0..4).map(|_| sluice.conn()).collect();
    // The server is stopped while they ask, so that all wait for one reply.
    server.stop();
    conns.iter_mut().for_each(|conn| conn.send(b"GET long\r\n"));
    eventually("they wait together", PATIENCE, || (coalesced(&sluice) == 3.0).then_some(()));
    server.cont();
    for conn in conns.iter_mut().rev() {
        assert_eq!(conn.read(), bulk(&long));
    }
    assert_eq!(server.calls("get"), 1);
    conns.iter_mut().for_each(|conn| conn.send(b"GET long\r\n"));
    conns.iter_mut().for_each(|conn| assert_eq!(conn.read(), bulk(&long)));
    assert_eq!(coalesced(&sluice), 3.0, "each reads at its own pace now");
}
