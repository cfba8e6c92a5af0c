//! Clients that others wrote, unchanged: redis-benchmark and redis-py.

use crate::harness::Cluster;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; ./tests/run.sh installs it"))
}

#[test]
fn redis_benchmark_runs_its_default_tests() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().workers(2).cluster("reads: { from: prefer_replica }").start();
    for pipeline in ["1", "16"] {
        let port = sluice.port().to_string();
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "-n",
            "1000",
            "-c",
            "20",
            "-r",
            "1000",
        ]);
        let output = run(command.args(["-P", pipeline]));
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{errors}");
        assert!(!said.contains("rror") && errors.trim().is_empty(), "{said}\n{errors}");
        for test in [
            "PING_INLINE",
            "PING_MBULK",
            "SET",
            "GET",
            "INCR",
            "LPUSH",
            "RPUSH",
            "LPOP",
            "RPOP",
            "SADD",
            "HSET",
            "SPOP",
            "ZADD",
            "ZPOPMIN",
            "LRANGE_100",
            "LRANGE_600",
            "MSET (10 keys)",
        ] {
            let done = format!("{test}: ");
            let line = said
                .split(['\r', '\n'])
                .any(|line| line.starts_with(test) && line.contains("requests per second"));
            assert!(line, "{done} is not in\n{said}");
        }
    }
}

#[test]
fn redis_py_uses_its_pipeline() {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().workers(2).start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    let mut command = Command::new(python);
    command.arg(root.join("tests/it/redis_py.py")).arg(sluice.port().to_string());
    let output = run(&mut command);
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim() == "ok", "{said}\n{errors}");
}
