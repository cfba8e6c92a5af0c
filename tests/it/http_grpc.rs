//! A real gRPC client and a real gRPC server with Sluice between: all four shapes of calls.

use crate::harness::{PATIENCE, Setup, eventually, port::Port, process::Process, web::HttpConn};
use std::{path::Path, process::Command};

#[test]
fn grpc_calls_of_all_shapes_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let port = Port::free();
    let python = || Command::new(root.join("target/venv/bin/python"));
    let script = root.join("tests/it/grpc_echo.py");
    let mut server = python();
    server.arg(&script).args(["serve", &port.number.to_string()]);
    let _server = Process(server.spawn().unwrap());
    eventually("the server listens", PATIENCE, || HttpConn::try_open(&port.address()).ok());
    let sluice = Setup::http([port.address()]).cluster("upstream: { http2: true }").start();
    let output = python().arg(&script).args(["talk", &sluice.port().to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}\n{}", sluice.log());
    let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!(failed, 0.0);
}
