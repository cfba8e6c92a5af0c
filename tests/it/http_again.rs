//! What is sent a second time: bodies too, whole and to one who has not had them; and connections
//! over HTTP/2 that several requests wait for.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually,
    web::{Act, HttpConn, Nginx, Origin, TwoOrigin, exchange},
};
use http::Request;
use std::time::{Duration, Instant};

/// One that takes requests whole and resets, before one that answers.
fn resetting() -> (Origin, Origin) {
    (Origin::scripted("bad", |_| Some(vec![Act::Reset])), Origin::start("good"))
}

fn sluice(bad: &Origin, good: &Origin, retry: &str) -> Sluice {
    let setup = Setup::http([bad.address(), good.address()]);
    setup.cluster("balance: failover").cluster(retry).start()
}

const AGAIN: &str = "retry: { idempotent_writes: true }";

#[test]
fn a_body_goes_to_another_backend_whole_where_writes_may_be_repeated() {
    let (bad, good) = resetting();
    let sluice = sluice(&bad, &good, AGAIN);
    sluice.expect_log("ejected");
    let body: String = (0..65_536 / 8).map(|i| format!("{i:07} ")).collect();
    let mut conn = HttpConn::open(&sluice.address());
    conn.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    conn.send(&body);
    assert_eq!(conn.response().text(), "POST /a 65536");
    conn.send(
        "PUT /b HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n3\r\ndef\r\n0\r\nX-Sum: 6\r\n\r\n",
    );
    assert_eq!(conn.response().text(), "PUT /b 6");
    let (first, second) = (&good.seen()[0], &good.seen()[1]);
    assert_eq!(first.body.kept, body.as_bytes());
    assert_eq!(second.body.kept, b"abcdef");
    assert_eq!(second.body.trailers, [("x-sum".to_owned(), "6".to_owned())]);
    assert_eq!(bad.count(), 2, "each was there first");
    let held = || sluice.metrics().sum("sluice_buffered_bytes", &[]);
    eventually("nothing is kept", PATIENCE, || (held() == 0.0).then_some(()));
}

#[test]
fn a_body_that_is_too_long_to_keep_is_not_sent_again() {
    let (bad, good) = resetting();
    let sluice = sluice(&bad, &good, AGAIN);
    for head in ["Content-Length: 65537", "Transfer-Encoding: chunked"] {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"));
        match head.starts_with('C') {
            true => conn.send(vec![b'x'; 65_537]),
            false => conn.send(format!("10001\r\n{}\r\n0\r\n\r\n", "x".repeat(65_537))),
        }
        let answer = conn.response();
        assert_eq!((answer.status, answer.header("x-sluice-error")), (502, Some("result_unknown")));
    }
    assert_eq!((bad.count(), good.count()), (2, 0));
}

#[test]
fn without_a_word_about_it_a_write_with_a_body_is_sent_once() {
    let (bad, good) = resetting();
    let sluice = sluice(&bad, &good, "");
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let answer = conn.response();
    assert_eq!((answer.status, answer.header("x-sluice-error")), (502, Some("result_unknown")));
    assert_eq!((bad.count(), good.count()), (1, 0));
}

/// nginx closes each connection after so many requests, with a GOAWAY.
#[test]
fn a_body_that_an_http_2_backend_has_not_begun_with_is_sent_again() {
    let nginx = Nginx::with("n", "http2", "keepalive_requests 7;");
    let sluice = Setup::http([nginx.address()]).cluster("upstream: { http2: true }").start();
    let request = |_| (Request::put("http://test/").body(()).unwrap(), vec![b'x'; 1000], None);
    for round in 0..10 {
        for answer in exchange(&sluice.address(), (0..10).map(request).collect()) {
            let (head, body, _) = answer.unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(head.status.as_u16(), 200, "round {round}: {:?} {body}", head.headers);
        }
    }
}

#[test]
fn requests_that_begin_together_share_one_http_2_connection_which_ends_when_it_is_idle() {
    let origin = TwoOrigin::start();
    let setup = Setup::http([origin.address()]);
    let sluice = setup.cluster("upstream: { http2: true, idle: 1s }").start();
    let dialled = || sluice.metrics().sum("sluice_backend_connections", &[]);
    let request = |_| (Request::get("http://test/a").body(()).unwrap(), Vec::new(), None);
    for _ in 0..2 {
        let answers = exchange(&sluice.address(), (0..50).map(request).collect());
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().0.status.as_u16() == 200));
        assert_eq!(dialled(), 1.0);
        let idle = Instant::now();
        eventually("it is closed", PATIENCE, || (dialled() == 0.0).then_some(()));
        assert!(idle.elapsed() > Duration::from_millis(500), "{:?}", idle.elapsed());
    }
}

#[test]
fn everybody_hears_of_a_dial_that_fails() {
    let setup = Setup::http(["127.0.0.1:1".to_owned()]).cluster("upstream: { http2: true }");
    let sluice = setup.check("{ interval: 1h }").start();
    sluice.expect_log("127.0.0.1:1");
    let request = |_| (Request::get("http://test/a").body(()).unwrap(), Vec::new(), None);
    for answer in exchange(&sluice.address(), (0..20).map(request).collect()) {
        let (head, ..) = answer.unwrap();
        assert!(matches!(head.status.as_u16(), 502 | 503), "{}", head.status);
    }
}

/// It was given as long as a client that says nothing.
#[test]
fn half_a_head_behind_a_request_is_given_up_after_the_time_of_a_head() {
    let origin = Origin::start("o");
    let setup = Setup::http([origin.address()]);
    let sluice = setup.listener("http: { header_timeout: 1s, keep_alive: 60s }").start();
    let mut whole = HttpConn::open(&sluice.address());
    assert_eq!(whole.get("/a").status, 200);
    let mut half = HttpConn::open(&sluice.address());
    half.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHo");
    assert_eq!(half.response().text(), "GET /a 0");
    assert!(half.is_closed());
    assert_eq!(whole.get("/b").status, 200, "who says nothing may take longer");
}
