//! Clients that send what no client should, or do not read, or go away; each must cost bounded
//! memory and nobody else anything. Rogue servers are in redis_rogue.

use crate::harness::{
    Cluster, Conn, Dice, Fault, FaultProxy, PATIENCE, Setup, Sluice, Value, bulk, eventually,
    fault::Way, request,
};
use std::{
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 10;

/// Sluice before two shards, and its memory before anything came.
fn guarded() -> (Cluster, Sluice, u64) {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().start();
    assert_eq!(sluice.conn().cmd(&["MSET", "a", "1", "b", "2"]), "OK");
    let base = sluice.process().rss_kb();
    (cluster, sluice, base)
}

/// Fails when memory ever grew by more than `limit` KiB; and Sluice must still serve.
#[track_caller]
fn assert_bounded(sluice: &Sluice, base: u64, limit: u64) {
    assert_eq!(sluice.conn().cmd(&["MGET", "a", "b"]), Value::Array(vec![bulk("1"), bulk("2")]));
    let grown = sluice.process().peak_kb().saturating_sub(base);
    assert!(grown < limit, "memory grew by {grown} KiB; at most {limit} expected");
    assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
}

/// Sends `bytes`; the answer must be this protocol error and then a close.
#[track_caller]
fn assert_refused(sluice: &Sluice, bytes: &[u8], error: &str) {
    let mut conn = sluice.conn();
    // The other side may close before it has read everything.
    let _ = conn.try_send(bytes);
    let shown = bytes[..bytes.len().min(40)].escape_ascii().to_string();
    match conn.try_read() {
        Ok(reply) => assert_eq!(reply.error(), format!("ERR Protocol error: {error}"), "{shown}"),
        // With bytes unread, a close is a reset, which may overtake the answer.
        Err(why) => assert_eq!(why.kind(), std::io::ErrorKind::ConnectionReset, "{shown}: {why}"),
    }
    assert_eq!(conn.read_to_close(), b"", "{shown}");
}

#[test]
fn malformed_requests_are_told_why_and_closed() {
    let (_cluster, sluice, base) = guarded();
    for (bytes, error) in [
        ("*1\r\n*1\r\n", "expected '$', got '*'"),
        ("*1\r\n:1\r\n", "expected '$', got ':'"),
        ("*x\r\n", "invalid multibulk length"),
        ("*1 \r\n", "invalid multibulk length"),
        ("*+1\r\n", "invalid multibulk length"),
        ("*1048577\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*9223372036854775808\r\n", "invalid multibulk length"),
        ("*18446744073709551617\r\n", "invalid multibulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$-2147483649\r\n", "invalid bulk length"),
        ("*1\r\n$abc\r\n", "invalid bulk length"),
        ("*1\r\n$\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*2\r\n$3\r\nGET\r\n$629145600\r\n", "invalid bulk length"),
        ("*1\r\n$4294967297\r\n", "invalid bulk length"),
        ("*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        ("*1\r\n$18446744073709551620\r\n", "invalid bulk length"),
    ] {
        assert_refused(&sluice, bytes.as_bytes(), error);
    }
    assert_refused(&sluice, &[b'x'; 70 << 10], "too big inline request");
    let long_count = [b"*".to_vec(), vec![b'1'; 70 << 10]].concat();
    assert_refused(&sluice, &long_count, "too big mbulk count string");
    let long_length = [b"*1\r\n$".to_vec(), vec![b'1'; 70 << 10]].concat();
    assert_refused(&sluice, &long_length, "too big bulk count string");
    // Redis ignores these, and so do we.
    let mut conn = sluice.conn();
    conn.send(b"*-1\r\n*-5\r\n*0\r\n\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(conn.read(), "PONG");
    assert_bounded(&sluice, base, 8 * MIB);
}

#[test]
fn a_megabyte_of_nested_arrays() {
    let (_cluster, sluice, base) = guarded();
    assert_refused(&sluice, &b"*1\r\n".repeat(250_000), "expected '$', got '*'");
    assert_refused(&sluice, &b"*1048576\r\n".repeat(100_000), "expected '$', got '*'");
    assert_bounded(&sluice, base, 8 * MIB);
}

#[test]
fn giants_announced_and_never_sent() {
    let (_cluster, sluice, base) = guarded();
    let giants: Vec<Conn> = (0..200)
        .map(|n| {
            let mut conn = sluice.conn();
            let count = if n % 2 == 0 { 1_048_576 } else { 2 };
            conn.send(format!("*{count}\r\n$536870912\r\nabc").as_bytes());
            conn
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    assert_bounded(&sluice, base, 16 * MIB);
    drop(giants);
}

#[test]
fn bytes_split_at_every_position() {
    let (_cluster, sluice, _) = guarded();
    let bytes = [
        request(&["SET", "a", "x\r\ny"]),
        b"ECHO inline\r\n".to_vec(),
        request(&["MGET", "a", "none", "b"]),
        request(&["GET", "a"]),
    ]
    .concat();
    let mut conn = sluice.conn();
    for position in 1..bytes.len() {
        let (first, second) = bytes.split_at(position);
        conn.send(first);
        thread::sleep(Duration::from_millis(1));
        conn.send(second);
        assert_eq!(conn.read(), "OK", "at {position}");
        assert_eq!(conn.read(), "inline", "at {position}");
        let both = Value::Array(vec![bulk("x\r\ny"), Value::Nil, bulk("2")]);
        assert_eq!(conn.read(), both, "at {position}");
        assert_eq!(conn.read(), "x\r\ny", "at {position}");
    }
}

/// Mixed requests of all shapes, each reply checked.
fn exercise(conn: &mut Conn) {
    let long = "0123456789".repeat(300);
    for round in 0..5 {
        let [a, b] = [format!("x{round}"), format!("y{round}")];
        let replies = conn.pipeline(&[
            vec!["MSET", &a, "1", &b, &long],
            vec!["MGET", &a, "none", &b],
            vec!["INCR", &a],
            vec!["GET", "a", "b"],
            vec!["ECHO", "\0\r\n$-1"],
            vec!["DEL", &a, &b, &a],
            vec!["LRANGE", "none", "0", "-1"],
        ]);
        assert_eq!(replies[0], "OK");
        assert_eq!(replies[1], Value::Array(vec![bulk("1"), Value::Nil, bulk(&long)]));
        assert_eq!(replies[2], 2);
        assert!(replies[3].error().contains("wrong number of arguments"));
        assert_eq!(replies[4], "\0\r\n$-1");
        assert_eq!(replies[5], 2);
        assert_eq!(replies[6], Value::Array(vec![]));
    }
}

#[test]
fn one_to_three_bytes_at_a_time_from_the_client() {
    let (_cluster, sluice, _) = guarded();
    let fault = Fault { requests: Way::Slices, replies: Way::Slices };
    let proxy = FaultProxy::start(&sluice.address(), fault);
    exercise(&mut Conn::open(&proxy.address()));
}

#[test]
fn one_to_three_bytes_at_a_time_from_the_servers() {
    let cluster = Cluster::start(2, 0);
    let fault = Fault { requests: Way::Slices, replies: Way::Slices };
    let proxies: Vec<_> =
        cluster.servers().map(|server| FaultProxy::start(&server.address(), fault)).collect();
    let sluice = Setup::shards(proxies.iter().map(|proxy| (proxy.address(), vec![]))).start();
    exercise(&mut sluice.conn());
}

#[test]
fn bytes_of_every_value_pass_unchanged() {
    let (_cluster, sluice, base) = guarded();
    let mut conn = sluice.conn();
    let every: Vec<u8> = (0..=255).collect();
    assert_eq!(conn.cmd(&[b"SET".as_slice(), &every, &every]), "OK");
    assert_eq!(conn.cmd(&[b"GET".as_slice(), &every]), Value::Bulk(every.clone()));
    assert_eq!(conn.cmd(&[b"SET".as_slice(), b"\0", b""]), "OK");
    assert_eq!(conn.cmd(&[b"GET".as_slice(), b"\0"]), bulk(""));
    assert!(conn.cmd(&[b"\0\xff\r\n".as_slice(), b"k"]).is_error());
    assert!(conn.cmd(&[b"".as_slice()]).is_error());
    // Redis takes a line of nulls for an empty one; an error would be fair too.
    conn.send(b"\0\0\0\r\nPING\r\n");
    let reply = conn.read();
    assert!(reply == "PONG" || reply.is_error() && conn.read() == "PONG");
    // Anything may come; it must be answered or closed, and never stop the others.
    let mut dice = Dice::new(7);
    for _ in 0..100 {
        let noise: Vec<u8> = (0..dice.below(600))
            .map(|_| match dice.below(3) {
                0 => b"*$\r\n-10"[usize::try_from(dice.below(7)).unwrap()],
                _ => u8::try_from(dice.below(256)).unwrap(),
            })
            .collect();
        let mut conn = sluice.conn();
        conn.send(&noise);
        conn.finish_sending();
        conn.read_to_close();
    }
    assert_bounded(&sluice, base, 8 * MIB);
}

#[test]
fn an_http_request_is_closed_and_told_once() {
    let (_cluster, sluice, _) = guarded();
    sluice.expect_log("HTTP");
    for bytes in [
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a hacked\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a hacked\r\n",
        "post / HTTP/1.1\r\n\r\nSET a hacked\r\n",
        "*2\r\n$5\r\nhOsT:\r\n$1\r\nx\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$6\r\nhacked\r\n",
    ] {
        let mut conn = sluice.conn();
        conn.send(bytes.as_bytes());
        let said = conn.read_to_close();
        assert!(!said.windows(3).any(|piece| piece == b"+OK"), "{bytes:?}");
    }
    assert_eq!(sluice.conn().cmd(&["GET", "a"]), "1");
    eventually("the log says why", PATIENCE, || sluice.log().contains("HTTP").then_some(()));
    assert!(sluice.metrics().sum("sluice_listener_connections_rejected_total", &[]) >= 1.0);
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_nobody_else() {
    let (cluster, sluice, base) = guarded();
    let key = cluster.key_of(0, "big");
    let neighbour = cluster.key_of(0, "n");
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", &key, &"x".repeat(1 << 20)]), "OK");
    assert_eq!(conn.cmd(&["SET", &neighbour, "v"]), "OK");
    sluice.expect_log("slow");
    sluice.expect_log("output");
    let mut deaf = sluice.conn();
    deaf.send(&request(&["GET", &key]).repeat(300));
    let end = Instant::now() + Duration::from_secs(2);
    let mut worst = Duration::ZERO;
    while Instant::now() < end {
        let start = Instant::now();
        assert_eq!(conn.cmd(&["GET", &neighbour]), "v");
        worst = worst.max(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(worst < Duration::from_millis(1_500), "a neighbour waited {worst:?}");
    // The hard limit of one client's output is 32 MiB.
    assert_bounded(&sluice, base, 48 * MIB);
}

#[test]
fn clients_that_go_away_with_replies_outstanding() {
    let (_cluster, sluice, base) = guarded();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "big", &"x".repeat(10_000)]), "OK");
    let batch =
        [request(&["GET", "big"]).repeat(200), request(&["MGET", "a", "big", "b"]).repeat(50)];
    for round in 0..40 {
        let mut leaving = sluice.conn();
        leaving.send(&batch.concat());
        if round % 2 == 0 {
            leaving.read();
        }
        drop(leaving);
        assert_eq!(conn.cmd(&["MGET", "a", "b"]), Value::Array(vec![bulk("1"), bulk("2")]));
    }
    eventually("nothing is left in flight", PATIENCE, || {
        let metrics = sluice.metrics();
        let left = metrics.sum("sluice_backend_in_flight", &[]);
        let clients = metrics.sum("sluice_worker_clients", &[]);
        (left == 0.0 && clients == 1.0).then_some(())
    });
    assert_bounded(&sluice, base, 32 * MIB);
}

#[test]
fn a_hundred_thousand_commands_in_one_write() {
    const COUNT: usize = 100_000;
    let (_cluster, sluice, base) = guarded();
    let mut conn = sluice.conn();
    let bytes: Vec<u8> = (0..COUNT)
        .flat_map(|n| match n % 4 {
            0 => request(&["SET".to_owned(), format!("k{}", n % 64), n.to_string()]),
            1 => request(&["GET".to_owned(), format!("k{}", (n - 1) % 64)]),
            2 => request(&["ECHO".to_owned(), n.to_string()]),
            _ => request(&["EXISTS", "a", "b"]),
        })
        .collect();
    let mut sending = conn.twin();
    thread::scope(|scope| {
        scope.spawn(|| sending.send(&bytes));
        for n in 0..COUNT {
            let reply = conn.read();
            match n % 4 {
                0 => assert_eq!(reply, "OK", "{n}"),
                1 => assert_eq!(reply, (n - 1).to_string().as_str(), "{n}"),
                2 => assert_eq!(reply, n.to_string().as_str(), "{n}"),
                _ => assert_eq!(reply, 2, "{n}"),
            }
        }
    });
    assert_bounded(&sluice, base, 32 * MIB);
}

#[test]
fn a_hundred_and_twenty_eight_descriptors_and_four_hundred_clients() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().descriptors(128).start();
    sluice.expect_log("max_connections");
    survives_a_crowd(&sluice);
}

#[test]
fn descriptors_that_run_out_before_the_limit_of_connections() {
    let cluster = Cluster::start(2, 0);
    let limits = "limits: { max_connections: 1000 }";
    let sluice = cluster.sluice().descriptors(128).top(limits).start();
    // EMFILE: the limit is said to be too high at the start, and felt at accept.
    sluice.expect_log("max_connections");
    sluice.expect_log("accept");
    survives_a_crowd(&sluice);
}

/// 400 clients, more than there are descriptors: who is in is served, who waits gets in later.
fn survives_a_crowd(sluice: &Sluice) {
    let base = sluice.process().rss_kb();
    let mut old = sluice.conn();
    assert_eq!(old.cmd(&["MSET", "a", "1", "b", "2"]), "OK");
    let mut crowd: Vec<Conn> = (0..400).map(|_| sluice.conn()).collect();
    crowd.iter_mut().for_each(|conn| conn.send(&request(&["PING"])));
    let before = sluice.process().cpu();
    thread::sleep(Duration::from_secs(1));
    let spent = sluice.process().cpu() - before;
    assert!(spent < Duration::from_millis(400), "spun: {spent:?} of CPU in a second");
    for _ in 0..20 {
        assert_eq!(old.cmd(&["MGET", "a", "b"]), Value::Array(vec![bulk("1"), bulk("2")]));
    }
    // Each that leaves makes room for one that waits, until all were served.
    let deadline = Instant::now() + PATIENCE;
    while !crowd.is_empty() {
        assert!(Instant::now() < deadline, "{} clients were never served", crowd.len());
        crowd.retain_mut(|conn| {
            conn.patience(Duration::from_millis(2));
            conn.try_read().is_err()
        });
    }
    drop(old);
    assert_bounded(sluice, base, 24 * MIB);
    let told = sluice.log().matches("WARN").count();
    assert!(told < 10, "the log tells {told} times of one crowd:\n{}", sluice.log());
}

/// It was closed for its output: its own later requests counted as somebody who waits behind it.
#[test]
fn a_slow_reader_of_many_large_values_gets_all_of_them() {
    let cluster = Cluster::start(1, 0);
    let value = vec![b'v'; 2 << 20];
    let set = [b"SET".as_slice(), b"big", &value];
    assert_eq!(cluster.owner("big").primary.cmd(&set), "OK");
    let sluice = cluster.sluice().start();
    let mut conn = sluice.conn();
    conn.send(&request(&["GET", "big"]).repeat(60));
    thread::sleep(Duration::from_secs(1));
    for number in 0..60 {
        assert!(conn.read() == Value::Bulk(value.clone()), "value {number}");
    }
}

/// The request's time was over while the client still read: the reply was cut.
#[test]
fn a_slow_reader_of_a_large_value_gets_all_of_it() {
    let cluster = Cluster::start(1, 0);
    let value = vec![b'v'; 48 << 20];
    let set = [b"SET".as_slice(), b"big", &value];
    assert_eq!(cluster.owner("big").primary.cmd(&set), "OK");
    let sluice = cluster.sluice().cluster("timeouts: { request: 200ms, stall: 400ms }").start();
    let mut conn = sluice.conn();
    conn.send(&request(&["GET", "big"]));
    thread::sleep(Duration::from_secs(1));
    assert!(conn.read() == Value::Bulk(value), "the whole value");
    assert_eq!(conn.cmd(&["PING"]), "PONG");
    let failures = sluice.metrics().sum("sluice_backend_failures_total", &[]);
    assert_eq!(failures, 0.0);
}

/// Who came after a slow reader waited behind its reply, or the reply was kept until it was closed.
#[test]
fn new_requests_do_not_wait_behind_a_slow_reader_who_may_take_its_time_alone() {
    let cluster = Cluster::start(1, 0);
    let value = vec![b'v'; 48 << 20];
    let primary = &cluster.owner("big").primary;
    assert_eq!(primary.cmd(&[b"SET".as_slice(), b"big", &value]), "OK");
    let sluice = cluster.sluice().start();
    let mut other = sluice.conn();
    assert_eq!(other.cmd(&["SET", "n", "v"]), "OK");
    let base = sluice.process().rss_kb();
    let mut slow = sluice.conn();
    slow.send(&request(&["GET", "big"]));
    let mut before = 0.0;
    eventually("no more of the reply is read", PATIENCE, || {
        let read = sluice.metrics().sum("sluice_backend_bytes_total", &[("direction", "in")]);
        let stands = read == std::mem::replace(&mut before, read);
        thread::sleep(Duration::from_millis(50));
        (stands && read > 1e6).then_some(())
    });
    let end = Instant::now() + Duration::from_secs(2);
    let mut worst = Duration::ZERO;
    while Instant::now() < end {
        let start = Instant::now();
        assert_eq!(other.cmd(&["GET", "n"]), "v");
        worst = worst.max(start.elapsed());
    }
    assert!(worst < Duration::from_millis(900), "somebody else waited {worst:?}");
    assert!(sluice.process().peak_kb() < base + 16 * MIB);
    assert!(slow.read() == Value::Bulk(value), "the whole value");
    assert_eq!(slow.cmd(&["GET", "n"]), "v");
    eventually("the connection that was retired is closed", PATIENCE, || {
        let open = sluice.metrics().sum("sluice_backend_connections", &[]);
        (open == 1.0).then_some(())
    });
}

#[test]
fn a_slow_reader_behind_whom_others_wait_is_closed_after_its_grace() {
    let cluster = Cluster::start(1, 0);
    let value = vec![b'v'; 48 << 20];
    let primary = &cluster.owner("big").primary;
    assert_eq!(primary.cmd(&[b"SET".as_slice(), b"big", &value]), "OK");
    let sluice = cluster.sluice().listener("redis: { slow_client_grace: 300ms }").start();
    let mut other = sluice.conn();
    assert_eq!(other.cmd(&["SET", "n", "v"]), "OK");
    let base = sluice.process().rss_kb();
    let (mut slow, mut behind) = (sluice.conn(), sluice.conn());
    // While the server sleeps both requests get into one line.
    primary.conn().send(&request(&["DEBUG", "SLEEP", "0.5"]));
    thread::sleep(Duration::from_millis(100));
    slow.send(&request(&["GET", "big"]));
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert_eq!(behind.cmd(&["GET", "n"]), "v");
    assert!(start.elapsed() < Duration::from_secs(3), "waited {:?}", start.elapsed());
    assert!(sluice.process().peak_kb() < base + 16 * MIB);
    assert!(slow.read_to_close().len() < value.len());
    eventually("the log says why", PATIENCE, || {
        sluice.log().contains("does not read its reply").then_some(())
    });
}
