//! Clients of http that send what no client should, or do not read, or take their time; each must
//! cost bounded memory and nobody else anything. HTTP/2 is in http_hostile_h2, backends in
//! http_rogue.

use crate::harness::{
    PATIENCE, Setup, Sluice, during, eventually,
    web::{HttpConn, Origin},
};
use std::{
    io::ErrorKind,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

pub(crate) const MIB: u64 = 1 << 10;
/// A client that behaves waits no longer for nine requests of ten, and for the slowest one, on a
/// machine busy with other tests and with the hostile client itself.
const NORMAL: Duration = Duration::from_millis(500);
const SLOWEST: Duration = Duration::from_secs(5);

/// Sluice before an origin, and its memory once it has answered; `http` is what the listener says.
pub(crate) fn guarded(http: &str) -> (Origin, Sluice, u64) {
    let origin = Origin::start("o");
    let setup = Setup::http([origin.address()]).listener(&format!("http: {{ {http} }}"));
    let sluice = setup.start();
    for _ in 0..8 {
        assert_eq!(HttpConn::open(&sluice.address()).get("/bytes/1000000").length, 1_000_000);
    }
    let base = sluice.process().rss_kb();
    (origin, sluice, base)
}

/// Runs `act` while a client that behaves is served as ever; then fails when memory ever grew by
/// more than `limit` KiB.
#[track_caller]
pub(crate) fn unharmed<T>(sluice: &Sluice, base: u64, limit: u64, act: impl FnOnce() -> T) -> T {
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(conn.get("/").status, 200);
    let conn = Mutex::new(conn);
    let load = |go_on: &dyn Fn() -> bool| {
        let (mut conn, mut waits) = (conn.lock().unwrap(), Vec::new());
        while go_on() {
            let start = Instant::now();
            assert_eq!(conn.get("/").status, 200);
            waits.push(start.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        waits.sort();
        waits
    };
    let (result, waits) = during(1, load, act);
    let [waits] = waits.try_into().unwrap();
    let (usual, slowest) = (waits.get(waits.len() * 9 / 10), waits.last());
    // Of a few requests the slowest tells as much.
    let normal = waits.len() < 20 || usual.is_none_or(|usual| *usual < NORMAL);
    assert!(normal, "others wait for {usual:?}, at most {slowest:?}, in {}", waits.len());
    assert!(slowest.is_none_or(|slowest| *slowest < SLOWEST), "somebody waited for {slowest:?}");
    let grown = sluice.process().peak_kb().saturating_sub(base);
    assert!(grown < limit, "memory grew by {grown} KiB; at most {limit} expected");
    assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
    result
}

pub(crate) fn rejected(sluice: &Sluice, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    sluice.metrics().sum("sluice_listener_connections_rejected_total", &labels)
}

#[track_caller]
pub(crate) fn wait_for_rejected(sluice: &Sluice, reason: &str, count: f64) {
    let what = format!("{count} refused for {reason}: {}", sluice.metrics().text());
    eventually(&what, PATIENCE, || (rejected(sluice, reason) >= count).then_some(()));
}

/// How often the log tells of refused clients.
pub(crate) fn told(sluice: &Sluice) -> usize {
    sluice.log().matches("refused a client").count()
}

/// Waits until no client is connected.
#[track_caller]
pub(crate) fn wait_until_alone(sluice: &Sluice) {
    eventually("every client is gone", PATIENCE, || {
        (sluice.metrics().sum("sluice_listener_connections_active", &[]) == 0.0).then_some(())
    });
}

/// The status that a request is refused with, the connection's end behind it, and its reason.
#[track_caller]
fn refusal(sluice: &Sluice, request: &[u8]) -> u16 {
    let mut conn = HttpConn::open(&sluice.address());
    // The other side need not read all of it.
    let _ = conn.try_send(request);
    let response = conn.response();
    assert!(conn.is_closed());
    response.status
}

#[test]
fn a_head_that_is_too_large_is_told_so_and_said_once_in_the_log() {
    let (origin, sluice, base) = guarded("headers: 128");
    let before = origin.count();
    unharmed(&sluice, base, 8 * MIB, || {
        for _ in 0..20 {
            let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(128));
            assert_eq!(refusal(&sluice, many.as_bytes()), 431);
            let large = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(70 << 10));
            assert_eq!(refusal(&sluice, large.as_bytes()), 431);
            let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70 << 10));
            assert_eq!(refusal(&sluice, long.as_bytes()), 431);
        }
    });
    assert_eq!(rejected(&sluice, "header_limit"), 60.0);
    assert_eq!(told(&sluice), 1);
    assert_eq!(
        origin.seen()[before..].iter().filter(|seen| seen.head.request().1 != "/").count(),
        0
    );
    // Just within the limits.
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(127));
    let mut conn = HttpConn::open(&sluice.address());
    conn.send(fits);
    assert_eq!(conn.response().status, 200);
}

#[test]
fn a_uri_that_is_too_long_is_told_so_and_the_connection_goes_on() {
    let (_origin, sluice, base) = guarded("uri_bytes: 1KiB");
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = HttpConn::open(&sluice.address());
        for _ in 0..100 {
            let response = conn.get(&format!("/{}", "x".repeat(1024)));
            assert_eq!(
                (response.status, response.header("x-sluice-error")),
                (414, Some("uri_too_long"))
            );
        }
        assert_eq!(conn.get(&format!("/{}", "x".repeat(1023))).status, 200);
    });
    assert_eq!((rejected(&sluice, "header_limit"), told(&sluice)), (100.0, 1));
}

/// Sends `part` again and again; how much of 100 MB was taken before the connection was closed, and
/// what was answered, if that was not overtaken by the close.
fn flood(sluice: &Sluice, begin: &str, part: &[u8]) -> (usize, Option<u16>) {
    let mut conn = HttpConn::open(&sluice.address());
    conn.send(begin);
    let mut sent = 0;
    while sent < 100_000_000 && conn.try_send(part).is_ok() {
        sent += part.len();
    }
    (sent, conn.try_response().ok().map(|response| response.status))
}

#[test]
fn a_hundred_megabytes_of_head_cost_what_a_head_may_have() {
    let (_origin, sluice, base) = guarded("");
    let line = format!("A-Field: {}\r\n", "x".repeat(1000)).repeat(64);
    unharmed(&sluice, base, 16 * MIB, || {
        for (begin, part) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", line.as_bytes()),
            ("GET / HTTP/1.1\r\nHost: a\r\nA: ", &[b'x'; 1 << 16][..]),
            ("GET /", &[b'x'; 1 << 16]),
            ("GET / HTTP/1.1\r\nHost: a\r\n", &b"a:\r\n".repeat(1 << 14)),
        ] {
            let floods: Vec<_> = thread::scope(|scope| {
                let floods: Vec<_> =
                    (0..8).map(|_| scope.spawn(|| flood(&sluice, begin, part))).collect();
                floods.into_iter().map(|flood| flood.join().unwrap()).collect()
            });
            for (_, status) in floods {
                assert!(matches!(status, None | Some(431)), "{status:?}");
            }
        }
    });
    wait_for_rejected(&sluice, "header_limit", 32.0);
    assert_eq!(told(&sluice), 1);
    wait_until_alone(&sluice);
}

/// Sends a byte now and then until the other side answers or closes; gives what it answered.
fn drip(conn: &mut HttpConn, bytes: &[u8]) -> Option<u16> {
    for byte in bytes {
        if conn.try_send([*byte]).is_err() || conn.is_ready(Duration::from_millis(100)) {
            break;
        }
    }
    conn.try_response().ok().map(|response| response.status)
}

#[test]
fn a_head_that_does_not_come_in_time_is_given_up() {
    let (_origin, sluice, base) = guarded("header_timeout: 1s");
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "A: b\r\n".repeat(20));
    unharmed(&sluice, base, 8 * MIB, || {
        let start = Instant::now();
        let mut conn = HttpConn::open(&sluice.address());
        assert_eq!(drip(&mut conn, head.as_bytes()), Some(408));
        assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
        assert!(conn.is_closed());
        // Behind a reply there is no telling where that ends for somebody who does not read.
        let mut conn = HttpConn::open(&sluice.address());
        assert_eq!(conn.get("/").status, 200);
        assert_eq!(drip(&mut conn, head.as_bytes()), None);
    });
    assert_eq!((rejected(&sluice, "slow"), told(&sluice)), (2.0, 1));
}

#[test]
fn a_body_may_be_slow_but_not_stop() {
    let (origin, sluice, base) = guarded("body_idle: 1s");
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n");
        assert_eq!(drip(&mut conn, &[b'x'; 15]), Some(200), "1.5s in all, never a whole one");
        conn.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nxxx");
        let response = conn.response();
        assert_eq!(
            (response.status, response.header("x-sluice-error")),
            (408, Some("client_timeout"))
        );
        assert!(conn.is_closed());
    });
    assert_eq!((rejected(&sluice, "slow"), told(&sluice)), (1.0, 1));
    assert_eq!(origin.garbage(), Vec::<String>::new());
    let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!(failed, 0.0, "it is not the backend's fault");
}

#[test]
fn connections_that_say_nothing_cost_little_and_end() {
    let (_origin, sluice, base) = guarded("header_timeout: 2s, keep_alive: 2s");
    // 4 KiB for each.
    unharmed(&sluice, base, 16 * MIB, || {
        let open = || HttpConn::try_open(&sluice.address()).unwrap();
        let silent: Vec<_> = (0..2000).map(|_| open()).collect();
        eventually("they are closed", PATIENCE, || {
            (sluice.metrics().sum("sluice_listener_connections_active", &[]) <= 1.0).then_some(())
        });
        assert!(silent.into_iter().all(|mut conn| conn.is_closed()));
    });
    assert_eq!(told(&sluice), 0, "they did nothing wrong");
}

#[test]
fn a_client_that_takes_no_reply_holds_what_fits_a_buffer_and_is_closed() {
    let (_origin, sluice, base) = guarded("body_idle: 1s");
    unharmed(&sluice, base, 16 * MIB, || {
        let mut conns: Vec<_> = (0..16).map(|_| HttpConn::open(&sluice.address())).collect();
        for conn in &mut conns {
            conn.send("GET /bytes/1073741824 HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        wait_for_rejected(&sluice, "slow", 16.0);
    });
    wait_until_alone(&sluice);
    assert_eq!(told(&sluice), 1);
}

#[test]
fn a_client_that_takes_its_reply_slowly_gets_it() {
    let (_origin, sluice, base) = guarded("body_idle: 1s");
    let received = unharmed(&sluice, base, 16 * MIB, || {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send("GET /bytes/1073741824 HTTP/1.1\r\nHost: a\r\n\r\n");
        let start = Instant::now();
        let mut received = 0;
        while start.elapsed() < Duration::from_secs(4) {
            received += conn.read_exact(512 << 10).len();
            thread::sleep(Duration::from_millis(200));
        }
        received
    });
    assert!(received > 4 << 20 && rejected(&sluice, "slow") == 0.0, "{received}");
}

/// hyper would have answered 400, in a protocol that was not asked for; h2spec 3.5/2.
#[test]
fn what_begins_like_no_http_is_closed_without_words() {
    let (_origin, sluice, _) = guarded("");
    for (count, bytes) in
        [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], b"EHLO example.org\r\n", b"\x16\x03\n\0"]
            .into_iter()
            .enumerate()
    {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(bytes);
        assert!(conn.is_closed(), "{}", bytes.escape_ascii());
        assert_eq!(rejected(&sluice, "protocol") as usize, count + 1);
    }
    for bytes in
        ["GET / HTTP/9.9\r\nHost: a\r\n\r\n", "GET  HTTP/1.1\r\n\r\n", "\0 / HTTP/1.1\r\n\r\n"]
    {
        assert_eq!(refusal(&sluice, bytes.as_bytes()), 400, "{bytes:?}");
    }
    // The newest one may have been answered and not counted yet.
    eventually("all are counted", PATIENCE, || {
        (rejected(&sluice, "protocol") == 6.0).then_some(())
    });
    assert_eq!(told(&sluice), 1);
}

/// Whoever writes on gets the answer all the same: a close with bytes unread would be a reset.
#[test]
fn a_refusal_is_not_overtaken_by_a_reset() {
    let (_origin, sluice, _) = guarded("");
    for _ in 0..20 {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}", "x".repeat(200 << 10)));
        match conn.try_send(vec![b'x'; 100 << 10]) {
            Ok(()) => {}
            Err(error) => assert_ne!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!(conn.response().status, 431);
    }
}
