//! The table of heads: first lines, hosts, fields, what is for one connection, and what follows.

use super::{
    CHUNKS,
    Expected::{Agreed, Refused, Served},
    HIDDEN, Mutation, get, line, mutation, post,
};

pub(super) fn all() -> Vec<Mutation> {
    [lines(), hosts(), fields(), hops(), pipelines()].concat()
}

fn lines() -> Vec<Mutation> {
    let long = format!("GET /{} HTTP/1.1", "x".repeat(100_000));
    vec![
        line("line: CRLF before it", "\r\nGET /first HTTP/1.1", Served(2)),
        line("line: LF before it", "\nGET /first HTTP/1.1", Agreed),
        line("line: CR before it", "\rGET /first HTTP/1.1", Agreed),
        line("line: space before it", " GET /first HTTP/1.1", Refused),
        line("line: NUL before it", "\0GET /first HTTP/1.1", Refused),
        line("line: two spaces", "GET  /first HTTP/1.1", Refused),
        line("line: two spaces before the version", "GET /first  HTTP/1.1", Refused),
        line("line: tabs", "GET\t/first\tHTTP/1.1", Refused),
        line("line: vertical tab", "GET\x0b/first HTTP/1.1", Refused),
        line("line: space behind it", "GET /first HTTP/1.1 ", Refused),
        line("line: no version", "GET /first", Refused),
        line("line: empty version", "GET /first ", Refused),
        line("line: lower case version", "GET /first http/1.1", Refused),
        line("line: HTTP/1.2", "GET /first HTTP/1.2", Agreed),
        line("line: HTTP/2.0", "GET /first HTTP/2.0", Refused),
        line("line: HTTP/0.9", "GET /first HTTP/0.9", Refused),
        line("line: HTTP/1.10", "GET /first HTTP/1.10", Refused),
        line("line: HTTP/01.1", "GET /first HTTP/01.1", Refused),
        line("line: HTTP/1.1x", "GET /first HTTP/1.1x", Refused),
        line("line: HTTP/1", "GET /first HTTP/1", Refused),
        line("line: HTTPS/1.1", "GET /first HTTPS/1.1", Refused),
        line("line: two versions", "GET /first HTTP/1.1 HTTP/1.1", Refused),
        line("line: HTTP/1.0", "GET /first HTTP/1.0", Served(1)),
        line("line: lower case method", "get /first HTTP/1.1", Agreed),
        line("line: unknown method", "BREW /first HTTP/1.1", Served(2)),
        line("line: colon in the method", "GE:T /first HTTP/1.1", Refused),
        line("line: NUL in the method", "GE\0T /first HTTP/1.1", Refused),
        line("line: high byte in the method", b"GE\xffT /first HTTP/1.1", Refused),
        line("line: no method", " /first HTTP/1.1", Refused),
        line("line: no target", "GET HTTP/1.1", Refused),
        line("line: space in the target", "GET /fi rst HTTP/1.1", Refused),
        line("line: NUL in the target", "GET /fi\0rst HTTP/1.1", Refused),
        line("line: CR in the target", "GET /fi\rrst HTTP/1.1", Refused),
        line("line: LF in the target", "GET /fi\nrst HTTP/1.1", Refused),
        line("line: DEL in the target", "GET /fi\x7frst HTTP/1.1", Refused),
        line("line: tab in the target", "GET /fi\trst HTTP/1.1", Refused),
        line("line: high bytes in the target", "GET /f\u{ef}rst HTTP/1.1", Agreed),
        line("line: fragment", "GET /first#x HTTP/1.1", Agreed),
        line("line: backslash", "GET \\first HTTP/1.1", Agreed),
        line("line: no slash", "GET first HTTP/1.1", Agreed),
        line("line: two slashes", "GET //first HTTP/1.1", Agreed),
        line("line: dots", "GET /../first HTTP/1.1", Agreed),
        line("line: encoded line end", "GET /%0d%0aX:%20y HTTP/1.1", Served(2)),
        line("line: star", "GET * HTTP/1.1", Agreed),
        line("line: OPTIONS *", "OPTIONS * HTTP/1.1", Agreed),
        line("line: absolute, other host", "GET http://other/first HTTP/1.1", Agreed),
        line("line: absolute, same host", "GET http://test/first HTTP/1.1", Served(2)),
        line("line: absolute, user", "GET http://a@test/first HTTP/1.1", Agreed),
        line("line: absolute, no host", "GET http:///first HTTP/1.1", Agreed),
        line("line: absolute, other scheme", "GET ftp://test/first HTTP/1.1", Agreed),
        line("line: authority", "GET test:80 HTTP/1.1", Agreed),
        line("line: CONNECT", "CONNECT test:80 HTTP/1.1", Agreed),
        line("line: CONNECT with a path", "CONNECT /first HTTP/1.1", Agreed),
        line("line: 100 kB", long, Refused),
        mutation("line: alone", "GET /first\r\n", Refused),
        mutation("line: bare LF behind it", "GET /first HTTP/1.1\nHost: test\r\n\r\n", Agreed),
        mutation("line: bare CR behind it", "GET /first HTTP/1.1\rHost: test\r\n\r\n", Refused),
        mutation("line: bare LF everywhere", "GET /first HTTP/1.1\nHost: test\n\n", Agreed),
        mutation("line: TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Refused),
    ]
}

fn hosts() -> Vec<Mutation> {
    vec![
        get("host: none", "X: y\r\n", Refused),
        get("host: two the same", "Host: test\r\nHost: test\r\n", Refused),
        get("host: two", "Host: test\r\nHost: other\r\n", Refused),
        get("host: two with other case", "Host: test\r\nhOsT: other\r\n", Refused),
        get("host: empty", "Host:\r\n", Agreed),
        get("host: list", "Host: test, other\r\n", Refused),
        get("host: path", "Host: test/x\r\n", Refused),
        get("host: user", "Host: a@test\r\n", Refused),
        get("host: space", "Host: test other\r\n", Refused),
        get("host: NUL", "Host: test\0\r\n", Refused),
        get("host: bad port", "Host: test:x\r\n", Refused),
        get("host: port too large", "Host: test:99999\r\n", Agreed),
        get("host: space before the colon", "Host : test\r\n", Refused),
        get("host: space before the name", " Host: test\r\n", Refused),
        get("host: folded", "Host:\r\n test\r\n", Refused),
        get("host: second one folded away", "X: y\r\n Host: other\r\nHost: test\r\n", Refused),
        get("host: behind a bare CR", "X: y\rHost: other\r\nHost: test\r\n", Refused),
        mutation("host: none in HTTP/1.0", "GET /first HTTP/1.0\r\n\r\n", Agreed),
        mutation(
            "host: two in HTTP/1.0",
            "GET /first HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            Agreed,
        ),
        mutation(
            "host: none with an absolute target",
            "GET http://test/first HTTP/1.1\r\n\r\n",
            Refused,
        ),
    ]
}

fn fields() -> Vec<Mutation> {
    let with = |name, line: &[u8], expected| {
        get(name, [b"Host: test\r\n", line, b"\r\n"].concat(), expected)
    };
    let many: String = (0..2_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X: {}", "y".repeat(200_000));
    let name = format!("{}: y", "X".repeat(100_000));
    vec![
        with("field: no colon", b"X", Refused),
        with("field: no name", b": y", Refused),
        with("field: space in the name", b"X Y: z", Refused),
        with("field: space before the colon", b"X : y", Refused),
        with("field: NUL in the name", b"X\0: y", Refused),
        with("field: parenthesis in the name", b"X(: y", Refused),
        with("field: slash in the name", b"X/Y: z", Refused),
        with("field: high byte in the name", b"X\xff: y", Refused),
        with("field: NUL in the value", b"X: a\0b", Refused),
        with("field: CR in the value", b"X: a\rb", Refused),
        with("field: bell in the value", b"X: a\x07b", Refused),
        with("field: DEL in the value", b"X: a\x7fb", Refused),
        with("field: high byte in the value", b"X: a\xffb", Served(2)),
        with("field: tab in the value", b"X: a\tb", Served(2)),
        with("field: empty value", b"X:", Served(2)),
        with("field: colon in the value", b"X: y: z", Served(2)),
        with("field: folded", b"X: a\r\n b", Refused),
        with("field: folded by a tab", b"X: a\r\n\tb", Refused),
        with("field: folded and empty", b"X: a\r\n ", Refused),
        with("field: bare LF", b"X: a\nY: b", Agreed),
        with("field: two CR", b"X: a\r\r\nY: b", Refused),
        with("field: hidden request", b"X: a\n\nGET /hidden HTTP/1.1\r\nHost: test", Agreed),
        with("field: 200 kB", long.as_bytes(), Refused),
        with("field: name of 100 kB", name.as_bytes(), Refused),
        with("field: 2,000 of them", many.trim_end().as_bytes(), Refused),
        get("field: space before the first", " X: y\r\nHost: test\r\n", Refused),
        get("field: none but the line end", "\r\n", Refused),
        mutation("field: no end of the head", "GET /first HTTP/1.1\r\nHost: test\r\n", Refused),
    ]
}

fn hops() -> Vec<Mutation> {
    let with =
        |name, lines: &str, expected| get(name, format!("Host: test\r\n{lines}\r\n"), expected);
    let body = |name, fields: &[u8], expected| {
        post(name, &[fields, b"~Content-Length: 5"].concat(), "hello", expected)
    };
    let upgrade = b"Connection: Upgrade~Upgrade: websocket~Sec-WebSocket-Version: 13~Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC==";
    vec![
        with(
            "hop: X-Forwarded-For",
            "Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.2.3.4",
            Served(2),
        ),
        with("hop: Host", "Connection: Host", Served(2)),
        with("hop: Cookie", "Connection: Cookie\r\nCookie: a=b", Served(2)),
        with("hop: not a token", "Connection: \"x\", @", Agreed),
        with("hop: commas", "Connection: ,,,", Served(2)),
        with("hop: Proxy-Connection", "Proxy-Connection: close", Served(2)),
        with(
            "hop: Keep-Alive",
            "Connection: Keep-Alive\r\nKeep-Alive: timeout=1, max=1",
            Served(2),
        ),
        with("hop: TE: trailers", "Connection: TE\r\nTE: trailers", Served(2)),
        with("hop: Upgrade without Connection", "Upgrade: websocket", Agreed),
        with("hop: Connection without Upgrade", "Connection: Upgrade", Agreed),
        with(
            "hop: Upgrade to h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
            Agreed,
        ),
        body("hop: Content-Length", b"Connection: Content-Length", Served(2)),
        body("hop: Content-Length, close", b"Connection: close, Content-Length", Served(1)),
        post(
            "hop: Transfer-Encoding",
            b"Connection: Transfer-Encoding~Transfer-Encoding: chunked",
            CHUNKS,
            Served(2),
        ),
        post("hop: Trailer", b"Trailer: X~Transfer-Encoding: chunked", CHUNKS, Served(2)),
        post(
            "upgrade: with a length",
            &[&upgrade[..], b"~Content-Length: 5"].concat(),
            "hello",
            Agreed,
        ),
        post(
            "upgrade: with chunks",
            &[&upgrade[..], b"~Transfer-Encoding: chunked"].concat(),
            CHUNKS,
            Agreed,
        ),
        post("upgrade: then a request", upgrade, HIDDEN, Agreed),
        body("expect: 100-continue", b"Expect: 100-continue", Served(2)),
        body("expect: upper case", b"Expect: 100-CONTINUE", Served(2)),
        body("expect: unknown", b"Expect: x", Agreed),
        body("expect: twice", b"Expect: 100-continue~Expect: 100-continue", Agreed),
        body("expect: with another", b"Expect: x 100-continue", Agreed),
        body("expect: folded", b"Expect:~ 100-continue", Refused),
        post(
            "expect: with chunks",
            b"Expect: 100-continue~Transfer-Encoding: chunked",
            CHUNKS,
            Served(2),
        ),
        post("expect: without a body", b"Expect: 100-continue", "", Agreed),
        post("expect: length 0", b"Expect: 100-continue~Content-Length: 0", "", Agreed),
        with("expect: on a GET", "Expect: 100-continue", Agreed),
    ]
}

fn pipelines() -> Vec<Mutation> {
    let closing = "GET /first HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let old = "GET /first HTTP/1.0\r\nHost: test\r\n\r\n";
    let kept = "GET /first HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n";
    let hello = "POST /first HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    let head = "HEAD /first HTTP/1.1\r\nHost: test\r\n\r\n";
    vec![
        mutation("pipeline: two", HIDDEN, Served(2)),
        mutation("pipeline: twenty", HIDDEN.repeat(20), Served(21)),
        mutation("pipeline: bodies", hello.repeat(5), Served(6)),
        mutation("pipeline: line ends between", format!("{HIDDEN}\r\n\r\n{HIDDEN}"), Agreed),
        mutation("pipeline: behind a close", format!("{closing}{HIDDEN}"), Served(1)),
        mutation("pipeline: behind HTTP/1.0", format!("{old}{HIDDEN}"), Served(1)),
        mutation("pipeline: behind HTTP/1.0 that is kept", format!("{kept}{HIDDEN}"), Agreed),
        mutation(
            "pipeline: behind a 500",
            format!("GET /status/500 HTTP/1.1\r\nHost: test\r\n\r\n{HIDDEN}"),
            Served(3),
        ),
        mutation(
            "pipeline: HTTP/2 preface",
            format!("{HIDDEN}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Served(1),
        ),
        mutation("pipeline: letters before the method", "x".repeat(100), Served(1)),
        mutation("pipeline: behind garbage", format!("{HIDDEN}x\r\n\r\n{HIDDEN}"), Served(1)),
        Mutation {
            heads: vec![0, 2],
            ..mutation("pipeline: heads", format!("{head}{HIDDEN}{head}"), Served(4))
        },
    ]
}
