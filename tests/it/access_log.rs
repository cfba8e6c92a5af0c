//! The access log as an operator reads it, and the metrics of HTTP: what each request leaves in both.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually,
    web::{HttpConn, Nginx, Origin, exchange},
};
use serde_json::Value;
use std::{fs, path::Path, time::Duration};

/// With a log in a file of its own.
fn logged(setup: Setup, query: bool) -> Sluice {
    setup.top(&format!("access_log: {{ path: access.log, query: {query} }}")).start()
}

/// The lines of the log once there are `count`, by when their requests began.
#[track_caller]
fn lines(sluice: &Sluice, count: usize) -> Vec<Value> {
    read(&sluice.path("access.log"), count)
}

#[track_caller]
fn read(path: &Path, count: usize) -> Vec<Value> {
    let mut text = String::new();
    eventually(&format!("{count} lines in {}", path.display()), PATIENCE, || {
        text = fs::read_to_string(path).unwrap_or_default();
        (text.lines().count() >= count).then_some(())
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count, "{text}");
    lines
}

fn micros(line: &Value, key: &str) -> u64 {
    line[key].as_u64().unwrap_or_else(|| panic!("{key} of {line}"))
}

#[test]
fn a_request_leaves_one_line_that_says_all() {
    let nginx = Nginx::start("one");
    let sluice = logged(Setup::http([nginx.address()]), true);
    let mut conn = HttpConn::open(&sluice.address());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let fields = format!(
        "X-Request-Id: r-\"7\"\r\nTraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\
         Authorization: Bearer s3cret\r\nCookie: id=s3cret\r\n"
    );
    assert_eq!(conn.ask("GET", "/a\"b\"?c=d", &fields).status, 200);
    assert_eq!(conn.ask("GET", "/64k", "").length, 64 << 10);
    conn.send("POST /post HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(conn.response().status, 200);

    let [echo, long, post] = lines(&sluice, 3).try_into().unwrap();
    for (key, expected) in [
        ("client", Value::from("127.0.0.1")),
        ("listener", "cache".into()),
        ("cluster", "cache".into()),
        ("backend", nginx.address().into()),
        ("method", "GET".into()),
        ("path", "/a\"b\"?c=d".into()),
        ("status", 200.into()),
        ("bytes_received", 0.into()),
        ("bytes_sent", "one".len().into()),
        ("retries", 0.into()),
        ("ended", "complete".into()),
        ("error", Value::Null),
        ("request_id", "r-\"7\"".into()),
        ("trace_id", trace.into()),
    ] {
        assert_eq!(echo[key], expected, "{key} of {echo}");
    }
    assert!(!echo.to_string().contains("s3cret"), "{echo}");
    let (total, reply) = (micros(&echo, "total_us"), micros(&echo, "reply_us"));
    assert!(micros(&echo, "connect_us") <= reply && reply <= total, "{echo}");
    let time = echo["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    assert_eq!((&long["bytes_sent"], &long["connect_us"]), (&(64 << 10).into(), &0.into()));
    assert_eq!((&post["method"], &post["bytes_received"]), (&"POST".into(), &5.into()));
    assert_eq!((&post["request_id"], &post["trace_id"]), (&Value::Null, &Value::Null));
}

#[test]
fn who_ended_a_request_and_why_is_told() {
    let origin = Origin::start("one");
    let setup = Setup::http([origin.address()]).cluster("timeouts: { request: 1s }");
    let sluice = logged(setup, false);
    let mut count = 0;
    let mut line_of = |request: &str, act: &dyn Fn(&mut HttpConn)| {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n"));
        act(&mut conn);
        drop(conn);
        count += 1;
        let line = lines(&sluice, count).pop().unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        (text("ended"), line["status"].as_u64(), text("error"), line)
    };
    let answer = |conn: &mut HttpConn| drop(conn.try_response());
    let word = str::to_owned;

    let (ended, status, error, line) = line_of("GET /status/404?secret", &answer);
    assert_eq!((ended, status, error), (word("complete"), Some(404), word("-")));
    assert_eq!(line["path"], "/status/404", "the query is not wanted");
    let (ended, status, error, line) = line_of("GET /slow/500", &|_| {
        eventually("it is asked", PATIENCE, || (origin.begun() == 2).then_some(()));
    });
    assert_eq!((ended, status, error), (word("client"), None, word("-")), "{line}");
    assert_eq!((&line["backend"], &line["reply_us"]), (&origin.address().into(), &Value::Null));
    let (ended, status, _, line) = line_of("GET /endless", &|conn| {
        assert_eq!(conn.response_head().0, 200);
    });
    assert_eq!((ended, status), (word("client"), Some(200)), "{line}");
    let (ended, status, error, line) = line_of("GET /half", &answer);
    assert_eq!((ended, status, error), (word("backend"), Some(200), word("-")), "{line}");
    let (ended, status, error, line) = line_of("POST /slow/5000", &answer);
    assert_eq!((ended, status, error), (word("proxy"), Some(504), word("backend_timeout")));
    assert!(micros(&line, "total_us") >= 1_000_000 && micros(&line, "bytes_sent") > 0, "{line}");
    let (ended, status, error, line) = line_of("POST /close", &answer);
    assert_eq!((ended, status, error), (word("proxy"), Some(502), word("result_unknown")));
    assert_eq!(line["backend"], origin.address());
    let (ended, status, error, line) = line_of("GET /?a HTTP/1.1\r\nHost: first\r\nX: ", &answer);
    assert_eq!((ended, status, error), (word("proxy"), Some(400), word("malformed_request")));
    assert_eq!((&line["cluster"], &line["path"]), (&Value::Null, &"/".into()));
}

#[test]
fn a_tunnel_leaves_a_line_at_its_end() {
    let origin = Origin::start("one");
    let sluice = logged(Setup::http([origin.address()]), true);
    let mut conn = HttpConn::open(&sluice.address());
    let fields = "Connection: upgrade\r\nUpgrade: echo\r\n";
    assert_eq!(conn.ask("GET", "/upgrade", fields).status, 101);
    conn.send("twelve bytes");
    assert_eq!(conn.read_exact(12), b"twelve bytes");
    drop(conn);
    let line = lines(&sluice, 1).pop().unwrap();
    assert_eq!((&line["status"], &line["ended"]), (&101.into(), &"complete".into()), "{line}");
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&12.into(), &12.into()), "{line}");
}

#[test]
fn each_stream_of_http2_leaves_a_line() {
    let nginx = Nginx::start("one");
    let sluice =
        logged(Setup::http([nginx.address()]).listener("http: { request_id: make }"), true);
    let request = |path: &str| {
        let uri = format!("http://test{path}");
        (http::Request::get(uri).body(()).unwrap(), Vec::new(), None)
    };
    let answers = exchange(&sluice.address(), vec![request("/a"), request("/64k")]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let mut lines = lines(&sluice, 2);
    lines.sort_by_key(|line| line["path"].as_str().unwrap().to_owned());
    assert_eq!((&lines[0]["path"], &lines[0]["bytes_sent"]), (&"/64k".into(), &(64 << 10).into()));
    assert_eq!((&lines[1]["path"], &lines[1]["ended"]), (&"/a".into(), &"complete".into()));
    let ids: Vec<_> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert!(ids[0].len() == 32 && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn a_listener_may_stay_out_of_the_log() {
    let nginx = Nginx::start("one");
    let setup = Setup::http([nginx.address()]).listener("http: { access_log: false }");
    let sluice = setup.top("access_log: { path: access.log }");
    // A log that nobody writes to is worth a hint.
    let sluice = sluice.start();
    assert_eq!(HttpConn::open(&sluice.address()).get("/").status, 200);
    eventually("the request is counted", PATIENCE, || {
        let metrics = sluice.metrics();
        (metrics.sum("sluice_http_responses_total", &[("class", "2xx")]) == 1.0).then_some(())
    });
    assert_eq!(fs::read_to_string(sluice.path("access.log")).unwrap(), "");
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_and_the_last_line_is_written() {
    let nginx = Nginx::start("one");
    let setup = Setup::http([nginx.address()]).top("shutdown: { drain_timeout: 100ms }");
    let mut sluice = logged(setup, true);
    let mut conn = HttpConn::open(&sluice.address());
    conn.get("/first");
    assert_eq!(lines(&sluice, 1)[0]["path"], "/first");
    let (path, moved) = (sluice.path("access.log"), sluice.path("access.log.1"));
    fs::rename(&path, &moved).unwrap();
    let mut asked = 0;
    eventually("a new file", PATIENCE, || {
        conn.get(&format!("/{asked}"));
        asked += 1;
        std::thread::sleep(Duration::from_millis(100));
        path.exists().then_some(())
    });
    // One that is still under way when the process ends.
    let mut slow = HttpConn::open(&sluice.address());
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(slow.response_head().0, 200);
    sluice.expect_log("drain timeout");
    sluice.terminate();
    sluice.exit(PATIENCE);
    let all: Vec<Value> = [&moved, &path]
        .into_iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        })
        .collect();
    assert_eq!(all.len(), 1 + asked + 1, "no line is lost over the change");
    let last = all.last().unwrap();
    assert_eq!((&last["path"], &last["ended"]), (&"/slow".into(), &"proxy".into()));
}

#[test]
fn a_disk_that_is_full_costs_lines_and_no_request() {
    let nginx = Nginx::start("one");
    let sluice = Setup::http([nginx.address()]).top("access_log: { path: /dev/full }").start();
    sluice.expect_log("access log: No space left on device");
    let mut conn = HttpConn::open(&sluice.address());
    (0..50).for_each(|_| assert_eq!(conn.get("/").status, 200));
    eventually("each lost line is counted", PATIENCE, || {
        let dropped = sluice.metrics().sum("sluice_access_log_dropped_total", &[]);
        (dropped == 50.0).then_some(())
    });
}

#[test]
fn lines_may_go_to_stdout() {
    let nginx = Nginx::start("one");
    let sluice = Setup::http([nginx.address()]).top("access_log: { path: stdout }").start();
    HttpConn::open(&sluice.address()).get("/on-stdout");
    eventually("a line on stdout", PATIENCE, || {
        // The harness gathers stdout and stderr in one file.
        let log = sluice.log();
        let line = log.lines().find(|line| line.contains("/on-stdout"))?;
        Some(serde_json::from_str::<Value>(line).unwrap())
    });
}

/// A file that cannot be opened is told at once, with its name.
#[test]
fn a_log_that_cannot_be_opened_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.yaml");
    let yaml = "admin: { bind: 127.0.0.1:0 }\naccess_log: { path: none/access.log }\nlisteners:\n  \
                - { bind: 127.0.0.1:0, protocol: http, cluster: web }\nclusters:\n  web: { backends: \
                [127.0.0.1:1] }\n";
    fs::write(&file, yaml).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["run", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("none/access.log"), "{said}");
}

#[test]
fn the_metrics_of_http_add_up() {
    let mut nginx = Nginx::start("one");
    let sluice = Setup::http([nginx.address()]).start();
    let mut conn = HttpConn::open(&sluice.address());
    let before = sluice.metrics();
    assert_eq!(conn.get("/").status, 200);
    assert_eq!(conn.get("/64k").length, 64 << 10);
    conn.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9000\r\n\r\n{}",
        "x".repeat(9000)
    ));
    assert_eq!(conn.response().status, 200);
    let grown = |name: &str, labels: &[(&str, &str)]| {
        sluice.metrics().sum(name, labels) - before.sum(name, labels)
    };
    eventually("three replies are counted", PATIENCE, || {
        (grown("sluice_http_responses_total", &[("class", "2xx")]) == 3.0).then_some(())
    });
    for (name, direction, least) in [
        ("sluice_listener_bytes_total", "in", 9_000.0),
        ("sluice_listener_bytes_total", "out", 65_536.0),
        ("sluice_backend_bytes_total", "in", 65_536.0),
        ("sluice_backend_bytes_total", "out", 9_000.0),
    ] {
        let bytes = grown(name, &[("direction", direction)]);
        assert!((least..least + 2_000.0).contains(&bytes), "{name} {direction}: {bytes}");
    }
    eventually("the connection is idle", PATIENCE, || {
        (sluice.metrics().sum("sluice_backend_connections_idle", &[]) == 1.0).then_some(())
    });

    assert_eq!(conn.ask("GET", "/", "Host: second\r\n").status, 400);
    sluice.expect_log("-> unhealthy");
    nginx.kill();
    sluice.wait_for(&nginx.address(), false);
    let mut conn = HttpConn::open(&sluice.address());
    let code = conn.get("/").status;
    assert!((500..600).contains(&code));
    eventually("what we answered is counted", PATIENCE, || {
        let malformed = [("listener", "cache"), ("reason", "malformed_request")];
        let done = grown("sluice_http_refusals_total", &malformed) == 1.0
            && grown("sluice_http_refusals_total", &[]) == 2.0
            && grown("sluice_http_responses_total", &[("class", "5xx")]) == 1.0;
        done.then_some(())
    });
}

#[test]
fn retries_have_a_reason() {
    let nginx = Nginx::start("one");
    let mut second = Nginx::start("two");
    let sluice = Setup::http([nginx.address(), second.address()])
        .cluster("balance: round_robin")
        .check("{ interval: 1m, fast_interval: 1m, down_interval: 1m }")
        .start();
    sluice.expect_log("-> ejected");
    second.kill();
    let mut conn = HttpConn::open(&sluice.address());
    (0..4).for_each(|_| assert_eq!(conn.get("/").status, 200));
    eventually("a retry is counted", PATIENCE, || {
        let connect = [("access", "read"), ("reason", "connect")];
        (sluice.metrics().sum("sluice_retries_total", &connect) >= 1.0).then_some(())
    });
    assert_eq!(sluice.metrics().sum("sluice_retries_total", &[("access", "write")]), 0.0);
}
