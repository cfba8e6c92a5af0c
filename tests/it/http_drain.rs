//! SIGTERM: what is under way is finished, who stays is told to go, and nobody's request is lost.

use crate::harness::{
    PATIENCE, Setup, during, figure,
    web::{Frame, HttpConn, Nginx, Origin, RawH2},
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

#[test]
fn no_request_of_a_keep_alive_client_is_lost() {
    let nginx = [Nginx::start("one"), Nginx::start("two")];
    let mut sluice = Setup::http(nginx.iter().map(Nginx::address)).start();
    let (asked, told, quiet) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let address = sluice.address();
    let load = |_: &dyn Fn() -> bool| {
        let mut conn = HttpConn::open(&address);
        loop {
            let answer = match conn.try_get("/") {
                Ok(answer) => answer,
                Err(broken) => return Err(format!("{broken}")),
            };
            asked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(answer.status, 200);
            if answer.head.says("connection", "close") {
                told.fetch_add(1, Ordering::Relaxed);
                assert!(conn.is_closed());
                return Ok(());
            }
            // Ready within the pause: it was closed between two requests, which costs none.
            if conn.is_ready(Duration::from_millis(20)) {
                quiet.fetch_add(1, Ordering::Relaxed);
                assert!(conn.is_closed());
                return Ok(());
            }
        }
    };
    let ((), ends) = during(8, load, || {
        thread::sleep(Duration::from_millis(500));
        sluice.terminate();
    });
    let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    figure(format_args!(
        "{asked:?} answered, {told:?} told to close, {quiet:?} closed while idle, lost {lost:?}"
    ));
    assert!(lost.is_empty(), "{lost:?}");
    assert!(sluice.exit(PATIENCE).success());
}

#[test]
fn requests_under_way_are_finished() {
    let origin = Origin::start("o");
    let mut sluice = Setup::http([origin.address()]).start();
    let start = Instant::now();
    let mut waits = HttpConn::open(&sluice.address());
    waits.send("GET /slow/1000 HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut uploads = HttpConn::open(&sluice.address());
    uploads.send("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello");
    let mut two = RawH2::open(&sluice.address());
    two.send(&RawH2::get(1, "/slow/1000")).unwrap();
    crate::harness::eventually("three are under way", PATIENCE, || {
        (sluice.metrics().sum("sluice_backend_in_flight", &[]) == 3.0).then_some(())
    });
    sluice.terminate();
    assert_ne!(two.wait_for(Frame::GOAWAY).stream, 1);
    assert_eq!(two.wait_for(Frame::HEADERS).stream, 1);
    let answer = waits.response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(waits.is_closed());
    uploads.send("world");
    let answer = uploads.response();
    assert_eq!(
        (answer.text().as_str(), answer.header("connection")),
        ("POST /up 10", Some("close"))
    );
    two.read_to_close();
    assert!(sluice.exit(PATIENCE).success());
    figure(format_args!("drained {:?} after the first request", start.elapsed()));
    assert!(HttpConn::try_open(&sluice.address()).is_err());
}
