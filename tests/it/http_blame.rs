//! Who is to blame when a request fails: a backend that does not answer, and not one whose client
//! broke off.

use crate::harness::{
    PATIENCE, Setup, eventually,
    web::{HttpConn, Origin},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

/// The address of a server that does this with each connection; it lives as long as the test.
fn server(serve: impl Fn(TcpStream) + Send + Copy + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || serve(socket.unwrap()));
        }
    });
    address
}

/// Begins its reply as soon as it is asked, and reads the request to its end.
fn early(mut socket: TcpStream) {
    let mut read = [0; 4096];
    if matches!(socket.read(&mut read), Ok(1..)) {
        let reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let _ = socket.write_all(reply);
        while matches!(socket.read(&mut read), Ok(1..)) {}
    }
}

/// It passes a probe that only connects. Its closed connections were once taken for idle ones of
/// ours that had aged, and it got its share of requests for ever.
#[test]
fn a_backend_that_accepts_and_closes_is_ejected_and_costs_no_get_its_answer() {
    for words in [&b""[..], b"220 mail.example.com ESMTP\r\n"] {
        // It says something to who connects, and closes.
        let rude = server(move |mut socket| drop(socket.write_all(words)));
        let origin = Origin::start("good");
        let sluice = Setup::http([rude.clone(), origin.address()]).start();
        sluice.expect_log(&rude);
        let mut conn = HttpConn::open(&sluice.address());
        eventually("it is ejected", PATIENCE, || {
            for _ in 0..20 {
                assert_eq!(conn.get("/").status, 200, "{}", sluice.log());
            }
            let ejections =
                sluice.metrics().sum("sluice_backend_ejections_total", &[("backend", &rude)]);
            (ejections > 0.0).then_some(())
        });
    }
}

/// A client whose body is no HTTP got three backends ejected, one after the other, when they
/// answered before they had read it.
#[test]
fn a_client_that_breaks_its_body_off_after_the_reply_began_ejects_nobody() {
    let sluice = Setup::http([server(early)]).start();
    for _ in 0..8 {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        );
        assert_eq!(conn.response_head().0, 200);
        conn.send("not a size\r\n");
        eventually("its connection ends", PATIENCE, || {
            let under_way = sluice.metrics().sum("sluice_backend_in_flight", &[]);
            (under_way == 0.0).then_some(())
        });
    }
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_backend_ejections_total", &[]), 0.0, "{}", sluice.log());
    let failed = metrics.sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!(failed, 0.0, "{}", sluice.log());
}

/// The host of an absolute URI was believed as it was, though it replaces the Host field.
#[test]
fn a_host_that_is_none_is_refused_in_an_absolute_uri_too() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    for target in ["http://a,b/", "http://a;b/", "http://a'b/"] {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(conn.response().status, 400, "{target}");
    }
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("GET http://a:80/ HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(conn.response().status, 200);
    assert_eq!(origin.seen().len(), 1);
}
