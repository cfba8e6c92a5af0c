//! Which cluster answers a request: by host, path, method and header, the first route that fits.

use crate::harness::{
    Setup, Sluice,
    web::{HttpConn, Origin, exchange},
};

/// Four clusters, each an origin of that name, and the routes to them.
fn start(routes: &[&str]) -> (Vec<Origin>, Sluice) {
    let origins: Vec<_> = ["cache", "b", "c", "d"].map(Origin::start).into();
    let more = |i: usize, name: &str| {
        let check = "check: { interval: 200ms }";
        format!("  {name}:\n    backends: [{}]\n    {check}\n", origins[i].address())
    };
    let clusters = [more(1, "b"), more(2, "c"), more(3, "d")].concat();
    let sluice = Setup::http([origins[0].address()]).routes(routes, &clusters, 3).start();
    (origins, sluice)
}

/// Which origin answered, or why none did.
fn ask(conn: &mut HttpConn, method: &str, host: &str, path: &str, fields: &str) -> String {
    conn.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    let answer = conn.response();
    match answer.header("x-origin") {
        Some(origin) => origin.to_owned(),
        None => format!("{} {}", answer.status, answer.header("x-sluice-error").unwrap_or("")),
    }
}

#[test]
fn the_first_route_that_fits_decides() {
    let (_origins, sluice) = start(&[
        "{ match: { host: \"a.example\", path_prefix: /api, method: [POST, PUT] }, cluster: b }",
        "{ match: { host: \"*.example\", header: { X-Canary: \"1\" } }, cluster: c }",
        "{ match: { header: { X-Any: \"*\" } }, cluster: d }",
        "{ match: { host: \"a.example\" }, cluster: cache }",
    ]);
    let mut conn = HttpConn::open(&sluice.address());
    for (method, host, path, fields, expected) in [
        ("POST", "a.example", "/api", "Content-Length: 0\r\n", "b"),
        ("POST", "A.Example:80", "/api/x?y", "Content-Length: 0\r\n", "b"),
        ("POST", "a.example", "/apis", "Content-Length: 0\r\n", "cache"),
        ("GET", "a.example", "/api", "", "cache"),
        ("GET", "a.example", "/", "X-Canary: 1\r\n", "c"),
        ("GET", "x.y.example", "/", "X-Canary: 1\r\n", "c"),
        ("GET", "x.y.example", "/", "X-Canary: 2\r\n", "404 no_route"),
        ("GET", "example", "/", "X-Canary: 1\r\n", "404 no_route"),
        ("GET", "elsewhere", "/", "X-Any: thing\r\n", "d"),
        ("GET", "elsewhere", "/", "", "404 no_route"),
        ("GET", "a.example", "/last", "", "cache"),
    ] {
        assert_eq!(
            ask(&mut conn, method, host, path, fields),
            expected,
            "{method} {host} {path} {fields}"
        );
    }
    // The host of a whole URI counts, not the field beside it.
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(ask(&mut conn, "GET", "elsewhere", "http://a.example/", ""), "cache");
    let request = http::Request::get("http://a.example/api").body(()).unwrap();
    let answers = exchange(&sluice.address(), vec![(request, Vec::new(), None)]);
    assert_eq!(answers[0].as_ref().unwrap().0.headers["x-origin"], "cache");
}

#[test]
fn a_route_without_conditions_takes_the_rest() {
    let (_origins, sluice) = start(&[
        "{ match: { path_prefix: /static }, cluster: b }",
        "{ match: { path_prefix: /cache }, cluster: cache }",
        "{ match: { method: [GET, HEAD] }, cluster: c }",
        "{ cluster: d }",
    ]);
    let mut conn = HttpConn::open(&sluice.address());
    assert_eq!(ask(&mut conn, "GET", "any", "/static/a", ""), "b");
    assert_eq!(ask(&mut conn, "GET", "any", "/", ""), "c");
    assert_eq!(ask(&mut conn, "DELETE", "any", "/", ""), "d");
    assert_eq!(ask(&mut conn, "OPTIONS", "any", "*", ""), "d");
}
