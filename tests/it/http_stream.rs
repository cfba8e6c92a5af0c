//! Bodies of every size and framing, both ways, and the connections that carry them: none is
//! gathered, none is lost, and connections are used again only where that is safe.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually, figure,
    web::{Act, HttpConn, Origin, respond},
};
use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

const BIG: u64 = 100_000_000;

fn behind(origin: &Origin) -> Sluice {
    Setup::http([origin.address()]).start()
}

/// The origin's connections that requests came on.
fn connections(origin: &Origin) -> HashSet<usize> {
    origin.seen().iter().map(|seen| seen.connection).collect()
}

fn text(text: impl Into<String>) -> Vec<Act> {
    vec![Act::Send(text.into().into_bytes())]
}

#[test]
fn bodies_of_any_size_pass_both_ways_in_little_memory() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    conn.patience(Duration::from_secs(60));
    let piece = vec![b'z'; 1 << 16];
    // What its code and its buffers take was touched by the small ones.
    let mut before = 0;
    for size in [0, 1, 1 << 16, BIG] {
        if size == BIG {
            before = sluice.process().rss_kb();
        }
        let start = Instant::now();
        assert_eq!(conn.get(&format!("/bytes/{size}")).length, size);
        conn.send(format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"));
        let mut left = size;
        while left > 0 {
            let some = left.min(1 << 16);
            conn.send(&piece[..usize::try_from(some).unwrap()]);
            left -= some;
        }
        assert_eq!(conn.response().text(), format!("POST /up {size}"));
        conn.send("PUT /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut left = size;
        while left > 0 {
            let some = left.min(1 << 16);
            conn.send(format!("{some:x}\r\n"));
            conn.send(&piece[..usize::try_from(some).unwrap()]);
            conn.send("\r\n");
            left -= some;
        }
        conn.send("0\r\n\r\n");
        assert_eq!(conn.response().text(), format!("PUT /up {size}"));
        figure(format_args!("{size} bytes down, up announced, up chunked: {:?}", start.elapsed()));
    }
    let grown = sluice.process().peak_kb().saturating_sub(before);
    figure(format_args!("memory: {before} KiB, at most {grown} KiB more"));
    assert!(grown < 8 << 10, "{before} KiB grew by {grown} KiB");
}

/// A backend that answers before it has the whole body: each part comes back as it is.
#[test]
fn a_reply_that_comes_while_the_body_goes_is_passed_on_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut first = [0; 4096];
            // A probe closes at once.
            let Ok(1..) = socket.read(&mut first) else { continue };
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n").unwrap();
            let mut sent = 0;
            while sent < 500 {
                let read = socket.read(&mut first).unwrap();
                let pings = first[..read].iter().filter(|byte| **byte == b'p').count();
                sent += pings;
                socket.write_all(&vec![b'q'; pings]).unwrap();
            }
            return;
        }
    });
    let sluice = Setup::http([address]).start();
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 500\r\n\r\n");
    assert_eq!(conn.response_head().0, 200, "before a byte of the body was sent");
    for _ in 0..50 {
        conn.send("pppppppppp");
        assert_eq!(conn.read_exact(10), b"qqqqqqqqqq");
    }
    server.join().unwrap();
    sluice.expect_log("connect");
}

#[test]
fn replies_without_a_body_leave_the_connection_usable() {
    let origin = Origin::scripted("o", |seen| match seen.head.request().1 {
        "/204" => Some(text("HTTP/1.1 204 None\r\nX-A: 1\r\n\r\n")),
        "/304" => Some(text("HTTP/1.1 304 Same\r\nContent-Length: 77\r\nETag: x\r\n\r\n")),
        "/empty" => Some(respond("200 OK", "", b"")),
        "/none" => Some(text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        _ => None,
    });
    let sluice = behind(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("HEAD /bytes/1000 HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = conn.any_response(true).unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
    conn.send("HEAD /chunked HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(conn.any_response(true).unwrap().status, 200);
    let none = conn.get("/204");
    assert_eq!((none.status, none.length, none.header("x-a")), (204, 0, Some("1")));
    assert_eq!((none.header("content-length"), none.header("transfer-encoding")), (None, None));
    let same = conn.get("/304");
    assert_eq!((same.status, same.header("etag"), same.length), (304, Some("x"), 0));
    assert_eq!(conn.get("/empty").header("content-length"), Some("0"));
    assert_eq!(conn.get("/none").length, 0);
    assert_eq!(conn.get("/end").text(), "GET /end 0");
    assert_eq!(connections(&origin).len(), 1, "one connection carried them all");
}

#[test]
fn http_1_0_clients_get_what_they_can_read() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let ask = |bytes: &str| {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(bytes);
        let answer = conn.response();
        (conn, answer)
    };
    let (mut conn, answer) = ask("GET /chunked HTTP/1.0\r\n\r\n");
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("abc", None));
    assert!(conn.is_closed());
    let (mut conn, answer) = ask("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(answer.text(), "GET /a 0");
    conn.send("POST /b HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(conn.response().text(), "POST /b 2");
    assert!(conn.is_closed());
    let lines: Vec<_> = origin.seen().iter().map(|seen| seen.head.line.clone()).collect();
    assert_eq!(lines, ["GET /chunked HTTP/1.1", "GET /a HTTP/1.1", "POST /b HTTP/1.1"]);
}

#[test]
fn replies_that_end_with_the_connection_reach_the_client_whole() {
    let long = "x".repeat(300_000);
    let origin = Origin::scripted("o", move |seen| {
        let reply = match seen.head.request().1 {
            "/old" => format!("HTTP/1.0 200 OK\r\n\r\n{long}"),
            "/bare" => format!("HTTP/1.1 200 OK\r\n\r\n{long}"),
            "/old-length" => "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            _ => return None,
        };
        Some([text(reply), vec![Act::Close]].concat())
    });
    let sluice = behind(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    for path in ["/old", "/bare"] {
        let answer = conn.get(path);
        assert_eq!((answer.status, answer.length), (200, 300_000), "{path}");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{path}");
    }
    assert_eq!(conn.get("/old-length").text(), "ok");
    assert_eq!(conn.get("/last").text(), "GET /last 0");
    assert_eq!(conn.get("/end").text(), "GET /end 0");
    assert_eq!(connections(&origin).len(), 5, "none of them was used again");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    let request = |i: usize| match i % 3 {
        0 => format!("GET /p/{i} HTTP/1.1\r\nHost: test\r\n\r\n"),
        1 => format!("POST /p/{i} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"),
        _ => format!(
            "PUT /p/{i} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        ),
    };
    conn.send((0..60).map(request).collect::<String>());
    for i in 0..60 {
        let expected = [format!("GET /p/{i} 0"), format!("POST /p/{i} 3"), format!("PUT /p/{i} 2")];
        assert_eq!(conn.response().text(), expected[i % 3]);
    }
    assert_eq!((origin.count(), connections(&origin).len()), (60, 1));
}

#[test]
fn connections_to_a_backend_are_used_again() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let mut conns: Vec<_> = (0..10).map(|_| HttpConn::open(&sluice.address())).collect();
    for _ in 0..10 {
        for conn in &mut conns {
            assert_eq!(conn.get("/").status, 200);
        }
    }
    // One at a time, so one is enough.
    assert_eq!((origin.count(), connections(&origin).len()), (100, 1));
    thread::scope(|scope| {
        for conn in &mut conns {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(conn.get("/slow/50").status, 200)));
        }
    });
    let used = connections(&origin).len();
    assert!((2..=10).contains(&used), "50 slow ones of 10 clients used {used} connections");
}

#[test]
fn a_backend_says_how_long_it_keeps_a_connection() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let open = || sluice.metrics().sum("sluice_backend_connections", &[]);
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(conn.get("/keep-alive").status, 200);
    let start = Instant::now();
    assert_eq!(conn.get("/keep-alive").status, 200);
    assert_eq!(connections(&origin).len(), 1, "it is used again within a second");
    eventually("it is closed", PATIENCE, || (open() == 0.0).then_some(()));
    let took = start.elapsed();
    figure(format_args!("closed after {took:?}"));
    // A second less than the two that it said.
    assert!((900..1_900).contains(&took.as_millis()), "closed after {took:?}");
    assert_eq!(conn.get("/").status, 200);
    assert_eq!(connections(&origin).len(), 2);
}

/// Closes without an answer on every request to `/stale` but the first of a connection.
fn forgetful() -> Origin {
    Origin::scripted("o", |seen| {
        let stale = seen.number > 0 && seen.head.request().1.starts_with("/stale");
        stale.then(|| vec![Act::Close])
    })
}

/// So many idle connections.
fn warm(sluice: &Sluice, count: usize) {
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| HttpConn::open(&sluice.address()).get("/slow/200"));
        }
    });
}

/// Each of three tries took another stale connection from the pool.
#[test]
fn stale_connections_never_cost_a_get_its_answer() {
    let origin = forgetful();
    let sluice = behind(&origin);
    warm(&sluice, 6);
    assert_eq!(connections(&origin).len(), 6);
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.get("/stale");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!(failed, 0.0, "a connection that was idle for too long is nobody's fault");
}

#[test]
fn a_post_on_a_stale_connection_is_answered_honestly_and_sent_once() {
    let origin = forgetful();
    let sluice = behind(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(conn.get("/").status, 200);
    let answer = conn.ask("POST", "/stale", "Content-Length: 0\r\n");
    assert_eq!((answer.status, answer.header("x-sluice-error")), (502, Some("result_unknown")));
    assert_eq!(origin.count(), 2);
    // One that was idle for longer than a second is not trusted with a POST at all.
    assert_eq!(conn.get("/").status, 200);
    thread::sleep(Duration::from_millis(1_200));
    let answer = conn.ask("POST", "/stale", "Content-Length: 0\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "POST /stale 0"));
    assert_eq!(origin.count(), 4);
}

#[test]
fn connections_that_a_backend_has_closed_are_not_used() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    sluice.expect_log(origin.address());
    warm(&sluice, 4);
    origin.kill();
    origin.restart();
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.ask("POST", "/", "Content-Length: 0\r\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// With many under way a new request waits for the replies that are there, and for nothing else.
#[test]
fn a_backend_gets_as_many_requests_at_once_as_there_are() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let mut conns: Vec<_> = (0..300).map(|_| HttpConn::open(&sluice.address())).collect();
    let request = "GET /slow/3000 HTTP/1.1\r\nHost: test\r\n\r\n";
    conns.iter_mut().for_each(|conn| conn.send(request));
    let in_flight = || sluice.metrics().sum("sluice_backend_in_flight", &[]);
    eventually("all are under way", PATIENCE, || (in_flight() == 300.0).then_some(()));
    let start = Instant::now();
    assert_eq!(HttpConn::open(&sluice.address()).get("/").status, 200);
    figure(format_args!("one more beside 300: {:?}", start.elapsed()));
    assert_eq!(in_flight(), 300.0, "it was answered before any of them");
    assert!(conns.iter_mut().all(|conn| conn.response().status == 200));
}

/// A close with bytes unread would be a reset, which may overtake the reply (RFC 9112, 9.6).
#[test]
fn who_sends_more_than_is_wanted_gets_its_reply_and_an_orderly_end() {
    let origin = Origin::start("o");
    let sluice = behind(&origin);
    let mut conn = TcpStream::connect(sluice.address()).unwrap();
    conn.write_all(b"GET /slow/300 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    conn.write_all(&[b'x'; 20_000]).unwrap();
    thread::sleep(Duration::from_millis(500));
    let mut answer = Vec::new();
    conn.read_to_end(&mut answer).expect("an end, not a reset");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
