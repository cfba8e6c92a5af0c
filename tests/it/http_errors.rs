//! What a client is told when something fails, in status, reason and text; and that nothing is left
//! behind.

use crate::harness::{
    FaultProxy, PATIENCE, Setup, Sluice, eventually,
    fault::{Fault, Way},
    figure,
    web::{Act, HttpConn, Origin, Response},
};
use std::{process::Command, time::Instant};

fn in_flight(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_backend_in_flight", &[])
}

fn reason(answer: &Response) -> (u16, &str) {
    (answer.status, answer.header("x-sluice-error").unwrap_or("none"))
}

/// What curl prints of an answer, head and body.
fn curl(sluice: &Sluice, path: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "15"]).args(arguments);
    let output = command.arg(format!("http://{}{path}", sluice.address())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_reason_has_its_status_and_its_words() {
    let origin = Origin::start("o");
    let gone = Origin::start("gone");
    let down = crate::harness::port::Port::free();
    let shards = [Origin::start("s0"), Origin::start("s1")];
    let (a, g, d) = (origin.address(), gone.address(), down.address());
    let [s0, s1] = shards.each_ref().map(Origin::address);
    let clusters = format!(
        "  gone:\n    backends: [{g}]\n    check: {{ interval: 60s }}\n  \
           down:\n    shards:\n      - {{ primary: {d} }}\n    check: {{ interval: 200ms, fast_interval: 100ms }}\n  \
           shards:\n    shards:\n      - {{ primary: {s0} }}\n      - {{ primary: {s1} }}\n    shard_key: {{ header: X-Tenant }}\n"
    );
    let routes = [
        "{ match: { host: gone }, cluster: gone }",
        "{ match: { host: down }, cluster: down }",
        "{ match: { host: shards }, cluster: shards }",
        "{ match: { host: test }, cluster: cache }",
    ];
    let sluice = Setup::http([origin.address()])
        .cluster("timeouts: { request: 400ms }")
        .listener("http: { body_idle: 600ms }")
        .routes(&routes, &clusters, 4)
        .without_waiting()
        .start();
    for backend in [&a, &g, &d] {
        sluice.expect_log(backend.as_str());
    }
    sluice.wait_for(&a, true);
    sluice.wait_for(&g, true);
    eventually("the probes have seen that it is down", PATIENCE, || {
        curl(&sluice, "/", &["-H", "Host: down"]).contains("no_backend").then_some(())
    });
    gone.kill();
    let long = format!("/{}", "p".repeat(17_000));
    /// Path, arguments of curl, status, reason, words of the text.
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 9] = [
        ("/", &["-H", "Host: a b"], "400", "malformed_request", &["the Host field is no host"]),
        (&long, &["-H", "Host: test"], "414", "uri_too_long", &["16384"]),
        ("/", &["-H", "Host: other"], "404", "no_route", &["other"]),
        ("/", &["-H", "Host: shards"], "400", "no_shard_key", &["x-tenant"]),
        ("/", &["-H", "Host: down"], "503", "no_backend", &[&d, "down"]),
        ("/", &["-H", "Host: gone"], "502", "connect_failed", &[&g, "refused"]),
        ("/close", &["-H", "Host: test"], "502", "reply_lost", &[&a]),
        (
            "/reset",
            &["-H", "Host: test", "-d", "x"],
            "502",
            "result_unknown",
            &[&a, "executed or not"],
        ),
        ("/slow/3000", &["-H", "Host: test"], "504", "backend_timeout", &[&a, "400ms"]),
    ];
    for (path, arguments, status, reason, words) in cases {
        let start = Instant::now();
        let said = curl(&sluice, path, arguments);
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reason}: {said}");
        assert!(head.to_lowercase().contains(&format!("\r\nx-sluice-error: {reason}")), "{said}");
        let again = head.to_lowercase().contains("\r\nretry-after: 1");
        assert_eq!(again, status == "503", "{said}");
        assert!(words.iter().all(|word| body.contains(word)) && body.ends_with('\n'), "{said}");
        figure(format_args!("{reason}: {status} after {:?}: {}", start.elapsed(), body.trim()));
    }
    // A body that stays away.
    let mut conn = HttpConn::open(&sluice.address());
    let start = Instant::now();
    conn.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = conn.response();
    assert_eq!(reason(&answer), (408, "client_timeout"));
    assert!((500..1_500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(conn.is_closed());
    eventually("nothing is in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
}

#[test]
fn a_refused_connection_goes_to_another_backend() {
    let origins = [Origin::start("one"), Origin::start("two")];
    let sluice = Setup::http(origins.iter().map(Origin::address)).start();
    sluice.expect_log(origins[0].address());
    let mut conn = HttpConn::open(&sluice.address());
    origins[0].kill();
    eventually("connections are refused", PATIENCE, || {
        HttpConn::try_open(&origins[0].address()).is_err().then_some(())
    });
    for i in 0..20 {
        let method = if i % 2 == 0 { "GET" } else { "POST" };
        let answer = conn.ask(method, "/", "Content-Length: 2\r\n\r\nhi");
        // The body of a GET is one too.
        assert_eq!(
            (answer.status, answer.header("x-origin")),
            (200, Some("two")),
            "{}",
            answer.text()
        );
    }
    assert_eq!(origins[1].count(), 20);
}

#[test]
fn a_reset_before_the_reply_costs_a_get_nothing_and_a_post_its_certainty() {
    let origins = [Origin::start("one"), Origin::start("two")];
    let broken = FaultProxy::start(&origins[0].address(), Fault::default());
    let sluice = Setup::http([broken.address(), origins[1].address()])
        .cluster("balance: round_robin")
        .check("{ interval: 60s }")
        .start();
    sluice.expect_log(broken.address());
    broken.set(Fault { replies: Way::ResetAfter(0), ..Fault::default() });
    let mut conn = HttpConn::open(&sluice.address());
    for _ in 0..6 {
        let answer = conn.get("/");
        assert_eq!((answer.status, answer.header("x-origin")), (200, Some("two")));
    }
    let (before, mut unknown) = (origins[0].count() + origins[1].count(), 0);
    for i in 0..10 {
        let answer = conn.ask("POST", &format!("/p{i}"), "Content-Length: 0\r\n");
        match reason(&answer) {
            (200, _) => {}
            (502, "result_unknown") => unknown += 1,
            other => panic!("{other:?}: {}", answer.text()),
        }
    }
    let posts = origins[0].count() + origins[1].count() - before;
    figure(format_args!("10 POSTs: {unknown} of unknown result, {posts} at the origins"));
    assert_eq!(posts, 10, "each was sent once");
}

#[test]
fn a_backend_that_talks_nonsense_is_named() {
    let origin = Origin::scripted("o", |seen| {
        let said = match seen.head.request().1 {
            "/garbage" => "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            "/two-lengths" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned()
            }
            "/head" => format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "v".repeat(1 << 20)),
            "/many" => format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(300)),
            "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            _ => return None,
        };
        Some(vec![Act::Send(said.into_bytes()), Act::Close])
    });
    let sluice = Setup::http([origin.address()]).start();
    sluice.expect_log(origin.address());
    for path in ["/garbage", "/two-lengths", "/head", "/many"] {
        for (method, expected) in [("GET", "reply_lost"), ("POST", "result_unknown")] {
            let mut conn = HttpConn::open(&sluice.address());
            let answer = conn.ask(method, path, "Content-Length: 0\r\n");
            assert_eq!(reason(&answer), (502, expected), "{method} {path}");
            assert!(answer.text().contains(&origin.address()), "{}", answer.text());
            figure(format_args!("{method} {path}: {}", answer.text().trim()));
        }
    }
    // What has begun cannot be taken back: the client sees that it is not whole.
    for path in ["/chunk", "/half"] {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(conn.try_response().is_err(), "{path}");
    }
    eventually("nothing is in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
    let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
    figure(format_args!("{failed} counted as failed"));
    assert!(failed >= 10.0);
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let connections = || sluice.metrics().sum("sluice_backend_connections", &[]);
    let status = || {
        let status = sluice.status();
        status["clusters"][0]["shards"][0]["backends"][0]["in_flight"].as_u64().unwrap()
    };
    let head = |path: &str, rest: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n{rest}\r\n");
    for (what, bytes) in [
        ("waits for the head", head("/slow/9000", "")),
        ("takes an endless body", head("/endless", "")),
        ("sends a body", head("/up", "Content-Length: 1000\r\n")),
    ] {
        let mut conns: Vec<_> = (0..5).map(|_| HttpConn::open(&sluice.address())).collect();
        conns.iter_mut().for_each(|conn| conn.send(&bytes));
        eventually(&format!("{what}: five in flight"), PATIENCE, || (status() == 5).then_some(()));
        drop(conns);
        let start = Instant::now();
        eventually(&format!("{what}: none in flight"), PATIENCE, || (status() == 0).then_some(()));
        eventually(&format!("{what}: closed"), PATIENCE, || (connections() == 0.0).then_some(()));
        figure(format_args!("{what}: gone after {:?}", start.elapsed()));
    }
    let clients = || sluice.status()["workers"][0]["clients"].as_u64().unwrap();
    eventually("no client is left", PATIENCE, || (clients() == 0).then_some(()));
    let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
    assert_eq!(failed, 0.0, "a client that leaves is no failure of the backend");
}

/// 20 % of the requests of ten seconds, and 30 on top.
#[test]
fn retries_have_a_budget() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).check("{ interval: 60s }").start();
    sluice.expect_log(origin.address());
    let mut conn = HttpConn::open(&sluice.address());
    for _ in 0..100 {
        assert_eq!(reason(&conn.get("/close")), (502, "reply_lost"));
    }
    // A single backend is not tried twice for what it did: nothing else is left.
    assert_eq!(origin.count(), 100);
    let origins: Vec<_> = ["a", "b", "c", "d"].map(Origin::start).into();
    let setup = Setup::http(origins.iter().map(Origin::address)).check("{ interval: 60s }");
    let sluice = setup.start();
    origins.iter().for_each(|origin| sluice.expect_log(origin.address()));
    let mut conn = HttpConn::open(&sluice.address());
    for _ in 0..100 {
        assert_eq!(conn.get("/close").status, 502);
    }
    let retries = sluice.metrics().sum("sluice_retries_total", &[]);
    let asked: usize = origins.iter().map(Origin::count).sum();
    figure(format_args!("100 requests, {asked} at the origins, {retries} retries"));
    assert!(asked <= 100 + 30 + 20, "{asked}");
    assert!(asked > 100, "{asked}");
}

#[test]
fn a_deadline_covers_all_tries() {
    let origins = [Origin::start("one"), Origin::start("two")];
    let sluice = Setup::http(origins.iter().map(Origin::address))
        .cluster("timeouts: { request: 600ms }")
        .start();
    origins.iter().for_each(|origin| sluice.expect_log(origin.address()));
    for (method, path) in [("GET", "/slow/5000"), ("POST", "/slow/5000")] {
        let start = Instant::now();
        let answer = HttpConn::open(&sluice.address()).ask(method, path, "Content-Length: 0\r\n");
        let took = start.elapsed();
        assert_eq!(reason(&answer), (504, "backend_timeout"), "{}", answer.text());
        figure(format_args!("{method}: 504 after {took:?}"));
        assert!((550..1_300).contains(&took.as_millis()), "{took:?}");
    }
    eventually("nothing is in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
    assert_eq!(HttpConn::open(&sluice.address()).get("/").status, 200);
}
