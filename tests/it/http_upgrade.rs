//! Connections that become another protocol: a WebSocket of a real client, bytes that come early
//! from either side, and what may not pass: h2c and CONNECT.

use crate::harness::{
    PATIENCE, Setup, eventually,
    web::{Act, HttpConn, Origin},
};
use std::{path::Path, process::Command};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

#[test]
fn bytes_right_behind_the_head_arrive() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    // More than fits into one read of a head.
    for size in [1, 5_000, 15_000, 200_000] {
        let mut conn = HttpConn::open(&sluice.address());
        let behind: Vec<u8> =
            (0..size).map(|i: u32| b'a' + u8::try_from(i % 26).unwrap()).collect();
        let head = format!("GET /upgrade HTTP/1.1\r\nHost: test\r\n{UPGRADE}\r\n");
        conn.send([head.as_bytes(), &behind].concat());
        let answer = conn.response();
        assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
        assert_eq!(conn.read_exact(behind.len()), behind, "{size} bytes");
        conn.send("more");
        assert_eq!(conn.read_exact(4), b"more");
        conn.finish_sending();
        assert!(conn.is_closed());
    }
    let in_flight = || sluice.metrics().sum("sluice_backend_in_flight", &[]);
    eventually("nothing is in flight", PATIENCE, || (in_flight() == 0.0).then_some(()));
}

#[test]
fn bytes_right_behind_the_101_arrive() {
    let long = "y".repeat(100_000);
    let said = format!("early{long}");
    let expected = said.clone();
    let origin = Origin::scripted("o", move |_| {
        let head = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        Some(vec![Act::Send(format!("{head}{said}").into_bytes()), Act::Echo])
    });
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(conn.ask("GET", "/", UPGRADE).status, 101);
    assert_eq!(conn.read_exact(expected.len()), expected.as_bytes());
    conn.send("ping");
    assert_eq!(conn.read_exact(4), b"ping");
}

#[test]
fn a_real_websocket_client_talks_to_a_real_websocket_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let port = crate::harness::port::Port::free();
    let python = || Command::new(root.join("target/venv/bin/python"));
    let script = root.join("tests/it/websocket.py");
    let mut server = python();
    server.arg(&script).args(["serve", &port.number.to_string()]);
    let _server = crate::harness::process::Process(server.spawn().unwrap());
    eventually("the server listens", PATIENCE, || HttpConn::try_open(&port.address()).ok());
    let sluice = Setup::http([port.address()]).start();
    let output = python().arg(&script).args(["talk", &sluice.port().to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}");
}

#[test]
fn h2c_is_not_passed_and_connect_is_refused() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    assert_eq!(conn.ask("GET", "/h2c", h2c).status, 200);
    let seen = origin.seen();
    for name in ["upgrade", "connection", "http2-settings"] {
        assert_eq!(seen[0].head.get(name), None, "{name}");
    }
    // An Upgrade that Connection does not name is none.
    assert_eq!(conn.ask("GET", "/upgrade-not", "Upgrade: echo\r\n").status, 200);
    assert_eq!(origin.seen()[1].head.get("upgrade"), None);
    conn.send("CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n");
    let refused = conn.response();
    assert_eq!((refused.status, refused.header("x-sluice-error")), (405, Some("no_tunnels")));
    assert!(conn.is_closed());
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_backend_that_changes_the_protocol_unasked_is_not_believed() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    let answer = conn.get("/upgrade");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(conn.get("/").status, 200);
}
