//! Real clients of real storage through the tcp relay: psql, mysql, redis-cli.

use crate::harness::{
    PATIENCE, Redis, Setup, Sluice, during, eventually,
    mariadb::{MariaDb, mysql},
    postgres::{Postgres, psql},
    said,
};
use std::{
    io::Write,
    process::{Command, Stdio},
};

fn before(address: String) -> Sluice {
    Setup::tcp([address]).workers(2).start()
}

/// Every connection has ended and nothing is held for one.
#[track_caller]
fn nothing_is_left(sluice: &Sluice) {
    eventually("every connection has ended", PATIENCE, || {
        let metrics = sluice.metrics();
        let left = ["sluice_listener_connections_active", "sluice_backend_in_flight"];
        let left: f64 = left.iter().map(|name| metrics.sum(name, &[])).sum();
        (left + metrics.sum("sluice_buffered_bytes", &[]) == 0.0).then_some(())
    });
    assert_eq!(sluice.metrics().sum("sluice_requests_total", &[("result", "proxy_error")]), 0.0);
}

#[test]
fn psql_works_through_the_relay() {
    let server = Postgres::start();
    let sluice = before(server.address());
    let ask = |sql: &str| psql(sluice.port(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    ask("CREATE TABLE t (id int PRIMARY KEY, text text)");
    ask("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 50000) n");
    assert_eq!(ask("SELECT count(*), sum(id) FROM t"), "50000|1250025000");
    // Five megabytes in one answer.
    assert_eq!(ask("SELECT text FROM t").len(), 50_000 * 101 - 1);
    // One connection is one session of the server.
    ask("BEGIN; DELETE FROM t; ROLLBACK");
    assert_eq!(ask("PREPARE p(int) AS SELECT id FROM t WHERE id = $1; EXECUTE p(7)"), "7");
    let error = psql(sluice.port(), "SELECT 1 / 0").unwrap_err();
    assert!(error.contains("division by zero"), "{error}");
    assert_eq!(ask("SELECT count(*) FROM t"), "50000");
    // Many at once, over both workers.
    let ((), counts) = during(
        4,
        |go_on| {
            let mut done = 0;
            while go_on() {
                assert_eq!(psql(sluice.port(), "SELECT sum(id) FROM t").unwrap(), "1250025000");
                done += 1;
            }
            done
        },
        || {
            let wanted = sluice.metrics().sum("sluice_requests_total", &[("result", "ok")]) + 20.0;
            eventually("twenty more", 2 * PATIENCE, || {
                let now = sluice.metrics().sum("sluice_requests_total", &[("result", "ok")]);
                (now >= wanted).then_some(())
            });
        },
    );
    assert!(counts.iter().sum::<u32>() >= 16, "{counts:?}");
    nothing_is_left(&sluice);
}

#[test]
fn mysql_works_through_the_relay() {
    let server = MariaDb::start();
    let sluice = before(server.address());
    let ask =
        |sql: &str| mysql(sluice.port(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    ask("CREATE DATABASE d; USE d; CREATE TABLE t (id INT PRIMARY KEY, text VARCHAR(200))");
    ask("USE d; INSERT INTO t SELECT seq, REPEAT('x', 100) FROM seq_1_to_50000");
    assert_eq!(ask("SELECT COUNT(*), SUM(id) FROM d.t"), "50000\t1250025000");
    assert_eq!(ask("SELECT text FROM d.t").len(), 50_000 * 101 - 1);
    ask("START TRANSACTION; DELETE FROM d.t; ROLLBACK");
    assert_eq!(ask("SET @a = 7; SELECT id FROM d.t WHERE id = @a"), "7");
    let error = mysql(sluice.port(), "SELECT nothing").unwrap_err();
    assert!(error.contains("Unknown column"), "{error}");
    assert_eq!(ask("SELECT COUNT(*) FROM d.t"), "50000");
    nothing_is_left(&sluice);
}

#[test]
fn redis_cli_works_through_the_relay_with_all_that_redis_has() {
    let server = Redis::start();
    let sluice = before(server.address());
    let cli = |words: &[&str]| {
        let mut cli = Command::new("redis-cli");
        said(cli.args(["-p", &sluice.port().to_string()]).args(words)).unwrap()
    };
    assert_eq!(cli(&["eval", "return redis.call('set', KEYS[1], ARGV[1])", "1", "k", "v"]), "OK");
    assert_eq!(cli(&["-3", "get", "k"]), "v");
    assert_eq!(cli(&["-n", "7", "dbsize"]), "0");
    // A hundred thousand requests in one stream, counted by the client.
    let mut pipe = Command::new("redis-cli")
        .args(["-p", &sluice.port().to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = pipe.stdin.take().unwrap();
    for n in 0..100_000 {
        write!(input, "SET key:{n} {n}\r\n").unwrap();
    }
    drop(input);
    let output = String::from_utf8(pipe.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains("errors: 0, replies: 100000"), "{output}");
    assert_eq!(cli(&["dbsize"]), "100001");
    nothing_is_left(&sluice);
}
