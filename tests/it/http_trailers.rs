//! What follows a body: trailers, over each pair of versions. Over HTTP/1.1 hyper sends those that
//! `Trailer` announces, and to a client only when it says `TE: trailers`; over HTTP/2 all pass.

use crate::harness::{
    Setup, Sluice,
    web::{HttpConn, Origin, TwoOrigin, exchange},
};
use http::{HeaderMap, HeaderValue, Request};

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter().map(|(name, value)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    });
    fields.collect()
}

fn http2(origin: &TwoOrigin) -> Sluice {
    Setup::http([origin.address()]).cluster("upstream: { http2: true }").start()
}

#[test]
fn announced_trailers_pass_over_http_1_1_to_who_takes_them() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    let taken = conn.ask("GET", "/chunked", "TE: trailers\r\nConnection: TE\r\n");
    assert_eq!((taken.text().as_str(), taken.header("trailer")), ("abc", Some("X-Sum")));
    assert_eq!(taken.trailers, [("x-sum".to_owned(), "3".to_owned())]);
    let dropped = conn.get("/chunked");
    assert_eq!((dropped.text().as_str(), dropped.trailers.len()), ("abc", 0));
    conn.send(
        "POST /t HTTP/1.1\r\nHost: test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 3\r\nX-Other: 4\r\n\r\n",
    );
    assert_eq!(conn.response().text(), "POST /t 3");
    let seen = origin.seen();
    let last = seen.last().unwrap();
    assert_eq!(last.body.trailers, [("x-sum".to_owned(), "3".to_owned())], "the announced one");
    assert_eq!(seen[0].head.get("te"), Some("trailers"));
}

#[test]
fn trailers_pass_from_http_2_to_http_2() {
    let origin = TwoOrigin::start();
    let sluice = http2(&origin);
    let post = |path: &str| {
        let uri = format!("http://shop.example{path}");
        Request::post(uri).header("te", "trailers").body(()).unwrap()
    };
    let sent = trailers(&[("x-sum", "3"), ("grpc-status", "0")]);
    let answers = exchange(
        &sluice.address(),
        vec![
            (post("/echo"), b"abc".to_vec(), Some(sent.clone())),
            (post("/trailers-only"), Vec::new(), None),
            (post("/echo"), Vec::new(), Some(sent.clone())),
        ],
    );
    let [Ok((head, body, back)), Ok((only, nothing, None)), Ok((_, empty, again))] =
        answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (head.status.as_u16(), body.as_slice(), back),
        (200, &b"abc"[..], &Some(sent.clone()))
    );
    assert_eq!(head.headers["x-authority"], "shop.example", "the host is kept");
    assert_eq!(head.headers["x-te"], "trailers", "gRPC servers insist on it");
    assert_eq!((only.headers["grpc-status"].as_bytes(), nothing.len()), (&b"5"[..], 0));
    assert_eq!((empty.len(), again), (0, &Some(sent)));
}

#[test]
fn http_1_1_clients_reach_http_2_backends() {
    let origin = TwoOrigin::start();
    let sluice = http2(&origin);
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.get("/a");
    assert_eq!((answer.status, answer.header("x-authority")), (200, Some("test")));
    conn.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let answer = conn.response();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("abc", None));
    let upgrade = conn.ask("GET", "/a", "Connection: upgrade\r\nUpgrade: websocket\r\n");
    assert_eq!(upgrade.status, 200, "HTTP/2 has no Upgrade");
}

/// nginx closes each connection after so many requests, with a GOAWAY: what was not begun is sent
/// again, whatever its method.
#[test]
fn a_backend_that_ends_its_http_2_connections_costs_nobody_an_answer() {
    let nginx = crate::harness::web::Nginx::with("n", "http2", "keepalive_requests 7;");
    let sluice = Setup::http([nginx.address()]).cluster("upstream: { http2: true }").start();
    let request = |i: usize| {
        let builder = if i.is_multiple_of(2) {
            Request::get("http://test/")
        } else {
            Request::put("http://test/")
        };
        (builder.body(()).unwrap(), Vec::new(), None)
    };
    for round in 0..10 {
        let answers = exchange(&sluice.address(), (0..10).map(request).collect());
        for answer in answers {
            let (head, body, _) = answer.unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(head.status.as_u16(), 200, "round {round}: {:?} {body}", head.headers);
        }
    }
}
