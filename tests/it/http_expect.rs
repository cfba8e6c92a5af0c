//! `Expect: 100-continue`: the client hears what the backend says, and its body goes nowhere before.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually, figure,
    web::{HttpConn, Origin},
};
use std::time::{Duration, Instant};

fn ask(sluice: &Sluice, path: &str) -> HttpConn {
    let mut conn = HttpConn::open(&sluice.address());
    conn.send(format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ));
    conn
}

#[test]
fn a_client_hears_100_when_the_backend_says_so() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let start = Instant::now();
    let mut conn = ask(&sluice, "/up");
    let told = conn.any_response(false).unwrap();
    assert_eq!(told.status, 100);
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    conn.send("hello");
    assert_eq!(conn.response().text(), "POST /up 5");
    assert_eq!(origin.seen()[0].head.get("expect"), Some("100-continue"));
}

#[test]
fn a_backend_that_refuses_at_once_gets_no_body() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = ask(&sluice, "/expect-no");
    let answer = conn.any_response(false).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (417, "no"), "no 100 before it");
    assert!(conn.is_closed(), "whether a body follows is not known");
    assert_eq!((origin.begun(), origin.count()), (1, 0));
    let in_flight = || sluice.metrics().sum("sluice_backend_in_flight", &[]);
    eventually("nothing is in flight", PATIENCE, || (in_flight() == 0.0).then_some(()));
}

/// The wait for the backend's word counted as the client's silence: it was answered 408.
#[test]
fn a_backend_that_knows_nothing_of_it_gets_the_body_after_a_second() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let start = Instant::now();
    let mut conn = ask(&sluice, "/expect-nothing");
    assert_eq!(conn.any_response(false).unwrap().status, 100);
    let took = start.elapsed();
    conn.send("hello");
    assert_eq!(conn.response().text(), "POST /expect-nothing 5");
    figure(format_args!("told after {took:?}"));
    assert!((900..2_500).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_client_that_does_not_wait_is_served_as_well() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    for path in ["/up", "/expect-nothing"] {
        let mut conn = ask(&sluice, path);
        conn.send("hello");
        assert_eq!(conn.response().text(), format!("POST {path} 5"));
    }
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.ask("GET", "/", "Expect: 100-continue\r\n");
    assert_eq!(answer.text(), "GET / 0");
}
