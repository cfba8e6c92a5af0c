//! The harness's own tests: what does not count or hurt as it says would make the tests built on it
//! prove nothing.

use super::super::{PATIENCE, eventually};
use super::*;
use std::time::{Duration, Instant};

#[test]
fn an_nginx_names_itself_fails_and_comes_back_on_its_port() {
    let mut nginx = Nginx::start("one");
    let mut conn = HttpConn::open(&nginx.address());
    let answer = conn.get("/any?thing");
    assert_eq!((answer.status, answer.header("x-server")), (200, Some("one")));
    assert_eq!(answer.text(), nginx.name());
    assert_eq!(conn.get("/64k").length, 64 << 10);
    assert_eq!(conn.get("/echo?a=b").text(), "GET /echo?a=b");
    let start = Instant::now();
    conn.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(conn.response().length, 64 << 10);
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
    nginx.fail(true);
    let mut failed = HttpConn::open(&nginx.address());
    assert_eq!((conn.get("/health").status, failed.get("/").status), (200, 500));
    assert!(failed.is_closed(), "nginx closes after a 500");
    nginx.fail(false);
    nginx.sicken(true);
    assert_eq!((conn.get("/").status, conn.get("/health").status), (200, 503));
    let mut conn = HttpConn::open(&nginx.address());
    nginx.sicken(false);
    assert_eq!(conn.get("/health").status, 200);
    nginx.stop();
    conn.patience(Duration::from_millis(50));
    assert!(conn.try_get("/").is_err());
    nginx.cont();
    nginx.kill();
    assert!(HttpConn::try_open(&nginx.address()).is_err());
    nginx.restart();
    assert_eq!(HttpConn::open(&nginx.address()).get("/health").text(), "ok");
}

#[test]
fn http2_is_spoken_well_and_badly() {
    let nginx = Nginx::with("two", "http2", "");
    let request = |path: &str| {
        let uri = format!("http://test{path}");
        (http::Request::get(uri).body(()).unwrap(), Vec::new(), None)
    };
    let answers = exchange(&nginx.address(), vec![request("/"), request("/64k")]);
    let [Ok((first, body, None)), Ok((_, long, None))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!((first.status.as_u16(), body.as_slice(), long.len()), (200, &b"two"[..], 64 << 10));

    let mut raw = RawH2::open(&nginx.address());
    let path = format!("/{}", "x".repeat(300));
    raw.send(&RawH2::get(1, &path)).unwrap();
    assert_eq!(raw.wait_for(Frame::HEADERS).stream, 1);
    assert_eq!(raw.wait_for(Frame::DATA).payload, b"two");
    raw.send(&frame(Frame::PING, 0, 0, b"12345678")).unwrap();
    let pong = raw.wait_for(Frame::PING);
    assert_eq!((pong.flags, pong.payload.as_slice()), (Frame::ACK, &b"12345678"[..]));
    raw.send(&frame(Frame::CONTINUATION, Frame::END_HEADERS, 3, &literal(&[("a", "b")]))).unwrap();
    let frames = raw.read_to_close();
    let goaway = frames.iter().find(|frame| frame.kind == Frame::GOAWAY).unwrap();
    assert_eq!(goaway.error(), Some(1), "PROTOCOL_ERROR");
}

#[test]
fn an_origin_counts_what_it_gets_and_answers_as_asked() {
    let origin = Origin::start("o");
    let mut conn = HttpConn::open(&origin.address());
    let first = conn.get("/a?b");
    assert_eq!((first.header("x-origin"), first.header("x-count")), (Some("o"), Some("0")));
    assert_eq!(first.text(), "GET /a?b 0");
    conn.send("POST /p HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(conn.response().text(), "POST /p 3");
    conn.send("HEAD /h HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(conn.any_response(true).unwrap().status, 200);
    assert_eq!(
        conn.ask("GET", "/echo", "A: b\r\n").text(),
        "GET /echo HTTP/1.1\nhost: test\na: b\n"
    );
    assert_eq!(conn.get("/status/418").status, 418);
    assert_eq!(conn.get("/health").text(), "ok");
    origin.sicken(true);
    assert_eq!(conn.get("/health").status, 503);
    let chunked = conn.get("/chunked");
    assert_eq!(
        (chunked.text(), &chunked.trailers[..]),
        ("abc".into(), &[("x-sum".into(), "3".into())][..])
    );
    assert_eq!(conn.get("/keep-alive").header("keep-alive"), Some("timeout=2"));
    assert_eq!(conn.get("/bytes/3000000").length, 3_000_000);
    let seen = origin.seen();
    assert_eq!((seen.len(), origin.count(), origin.begun(), origin.reading()), (8, 8, 8, 0));
    assert_eq!((seen[1].body.kept.as_slice(), seen[1].body.trailers.len()), (&b"abc"[..], 1));
    assert_eq!(seen[4].head.line, "GET /status/418 HTTP/1.1");
    assert_eq!((seen[7].connection, seen[7].number), (0, 9), "probes have numbers too");

    conn.send(
        "POST /c HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    );
    assert_eq!(conn.any_response(false).unwrap().status, 100);
    conn.send("x");
    assert_eq!(conn.response().status, 200);
    let start = Instant::now();
    assert_eq!(conn.get("/slow/80").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(80));
    conn.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(conn.response_head().0, 200);
    assert_eq!(conn.read_exact(100_000).len(), 100_000);

    let open = || HttpConn::open(&origin.address());
    for path in ["/close", "/reset", "/half"] {
        assert!(open().try_get(path).is_err(), "{path}");
    }
    let mut last = open();
    assert_eq!(last.get("/last").status, 200);
    assert!(last.is_closed());
    let mut refused = open();
    refused.send("POST /expect-no HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(refused.response().status, 417);
    let mut echo = open();
    assert_eq!(echo.ask("GET", "/upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n").status, 101);
    echo.send("hello");
    assert_eq!(echo.read_exact(5), b"hello");
    echo.finish_sending();
    assert!(echo.is_closed());
    assert!(origin.garbage().is_empty() && origin.connections() == 7);

    let mut kept = open();
    assert_eq!(kept.get("/").status, 200);
    origin.kill();
    assert!(kept.is_closed());
    eventually("nobody accepts", PATIENCE, || {
        HttpConn::try_open(&origin.address()).is_err().then_some(())
    });
    origin.restart();
    assert_eq!(open().get("/").status, 200);
}

/// Each in a way that some server accepts.
#[test]
fn an_origin_believes_nothing_that_can_be_read_in_two_ways() {
    let origin = Origin::start("o");
    for (number, bytes) in [
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let mut conn = HttpConn::open(&origin.address());
        conn.send(bytes);
        assert_eq!(conn.response().status, 400, "{bytes:?}");
        assert_eq!((origin.count(), origin.garbage().len()), (0, number + 1), "{bytes:?}");
    }
    let mut cut = HttpConn::open(&origin.address());
    cut.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
    eventually("the head is there", PATIENCE, || (origin.reading() == 1).then_some(()));
    drop(cut);
    eventually("the request is cut", PATIENCE, || (origin.reading() == 0).then_some(()));
    assert_eq!(origin.count(), 0);
}

/// Straight at the strict origin: whatever a mutation is, the counts agree, for there is nobody
/// between; and most are garbage to it, else they would be no mutations. It has no limits of size.
#[test]
fn mutations_are_counted_and_most_are_garbage_to_a_strict_server() {
    let all = mutations();
    let mut names: Vec<&str> = all.iter().map(|mutation| mutation.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    assert!(all.len() >= 100, "{}", all.len());
    let origin = Origin::start("o");
    let mut garbage = 0;
    let small = all.iter().filter(|mutation| mutation.bytes.len() < 10_000);
    for mutation in small.filter(|mutation| mutation.expected != Expected::Agreed) {
        let before = origin.garbage().len();
        let Outcome { statuses, forwarded, cut, .. } =
            smuggle(mutation, &origin.address(), &origin);
        garbage += origin.garbage().len() - before;
        if let Expected::Served(requests) = mutation.expected {
            assert!(forwarded <= requests + cut, "{}: {statuses:?}", mutation.name);
        } else {
            assert_eq!(forwarded, 0, "{}: {statuses:?}", mutation.name);
        }
    }
    assert!(garbage > 100, "{garbage}");
}
