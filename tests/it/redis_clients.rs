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
fn redis_benchmark_with_one_client() {
    benchmark("1", [("1", "200"), ("16", "1000")]);
}

#[test]
fn redis_benchmark_with_fifty_clients() {
    benchmark("50", [("1", "1000"), ("16", "2000")]);
}

#[test]
fn redis_benchmark_with_a_thousand_clients() {
    benchmark("1000", [("1", "1000"), ("16", "2000")]);
}

/// All its default tests, at these depths of pipelines with so many requests.
fn benchmark(clients: &str, runs: [(&str, &str); 2]) {
    let cluster = Cluster::start(2, 1);
    let sluice = cluster.sluice().workers(2).cluster("reads: { from: prefer_replica }").start();
    for (pipeline, requests) in runs {
        let port = sluice.port().to_string();
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "-n",
            requests,
            "-c",
            clients,
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

/// What serving takes for a moment is there before the first count.
#[test]
fn ten_thousand_idle_clients_cost_little() {
    let cluster = Cluster::start(2, 0);
    let sluice = cluster.sluice().workers(2).start();
    let served = |count: usize| -> Vec<_> {
        (0..count)
            .map(|n| {
                let mut conn = sluice.conn();
                assert_eq!(conn.cmd(&["SET", &format!("k{n}"), "v"]), "OK");
                assert_eq!(conn.cmd(&["MGET", "k1", &format!("k{n}")]).items().len(), 2);
                conn
            })
            .collect()
    };
    let first = served(1_000);
    let before = sluice.process().rss_kb();
    let rest = served(9_000);
    let each = (sluice.process().rss_kb() - before) as f64 / rest.len() as f64;
    assert!(each <= 4.0, "{each:.2} KiB for each idle client");
    drop(first);
}
