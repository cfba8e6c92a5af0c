//! What becomes of a head on its way: what is for one connection is taken off, who is asked for is
//! said, everything else stays as it was.

use crate::harness::{
    Setup, Sluice,
    web::{Act, HttpConn, Origin, Response, exchange, respond},
};
use http::Request;

/// An origin that answers every request with its head.
fn mirror() -> Origin {
    Origin::scripted("o", |seen| {
        let fields = seen.head.fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        let text = format!("{}\n{}", seen.head.line, fields.collect::<String>());
        Some(respond("200 OK", "", text.as_bytes()))
    })
}

fn start(listener: &str) -> (Origin, Sluice) {
    let origin = mirror();
    let mut setup = Setup::http([origin.address()]);
    if !listener.is_empty() {
        setup = setup.listener(&format!("http: {{ {listener} }}"));
    }
    let sluice = setup.start();
    (origin, sluice)
}

fn ask(sluice: &Sluice, fields: &str) -> Response {
    HttpConn::open(&sluice.address()).ask("GET", "/", fields)
}

/// The values of a field that the origin saw.
fn seen(answer: &Response, name: &str) -> Vec<String> {
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(field, _)| *field == name).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn what_is_for_one_connection_is_taken_off_on_the_way_there() {
    let (_origin, sluice) = start("");
    let answer = ask(
        &sluice,
        "Connection: keep-alive, X-Secret\r\nConnection: x-other\r\nX-Secret: 1\r\nX-Other: 2\r\n\
         Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: gzip, trailers\r\nX-Kept: 3\r\n",
    );
    assert_eq!(answer.status, 200);
    for name in
        ["connection", "x-secret", "x-other", "keep-alive", "proxy-connection", "transfer-encoding"]
    {
        assert!(seen(&answer, name).is_empty(), "{name}: {:?}", seen(&answer, name));
    }
    assert_eq!(
        (seen(&answer, "te"), seen(&answer, "x-kept")),
        (vec!["trailers".into()], vec!["3".into()])
    );
    // A field that the request needs cannot be named away.
    let answer = ask(&sluice, "Connection: Host, X-Forwarded-For\r\n");
    assert_eq!(seen(&answer, "host"), ["test"]);
    assert_eq!(seen(&answer, "x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn what_is_for_one_connection_is_taken_off_on_the_way_back() {
    let origin = Origin::scripted("o", |_| {
        let fields = "Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\n\
                      Proxy-Connection: keep-alive\r\nX-Kept: 3\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                      Server: theirs\r\nDate: Fri, 20 Nov 2026 00:00:00 GMT\r\n";
        Some(respond("200 OK", fields, b"ok"))
    });
    let sluice = Setup::http([origin.address()]).start();
    let answer = ask(&sluice, "");
    for name in ["connection", "x-secret", "keep-alive", "proxy-connection", "via"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!((answer.header("x-kept"), answer.header("server")), (Some("3"), Some("theirs")));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.all("date"), ["Fri, 20 Nov 2026 00:00:00 GMT"]);
}

#[test]
fn what_a_stranger_says_of_itself_is_thrown_away() {
    let (_origin, sluice) = start("");
    let answer = ask(
        &sluice,
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n",
    );
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "test"),
        ("forwarded", "for=127.0.0.1;host=\"test\";proto=http"),
        ("x-request-id", "mine"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("host", "test"),
    ] {
        assert_eq!(seen(&answer, name), [value], "{name}");
    }
    assert!(seen(&answer, "via").is_empty());
    assert!(seen(&ask(&sluice, ""), "x-request-id").is_empty(), "none is made unasked");
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let (_origin, sluice) = start("trusted: [127.0.0.0/8], via: true, request_id: make");
    let answer = ask(
        &sluice,
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: theirs\r\nVia: 1.1 first\r\n",
    );
    for (name, values) in [
        ("x-forwarded-for", &["6.6.6.6, 7.7.7.7, 127.0.0.1"][..]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &["shop"]),
        ("forwarded", &["for=6.6.6.6, for=127.0.0.1;host=\"test\";proto=http"]),
        ("x-request-id", &["theirs"]),
        ("via", &["1.1 first", "1.1 sluice"]),
    ] {
        assert_eq!(seen(&answer, name), values, "{name}");
    }
    assert_eq!(answer.header("via"), Some("1.1 sluice"));
    let ids = [ask(&sluice, ""), ask(&sluice, "")].map(|answer| seen(&answer, "x-request-id"));
    let fine = |id: &[String]| id.len() == 1 && id[0].len() == 32;
    assert!(fine(&ids[0]) && fine(&ids[1]) && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn a_request_for_a_whole_uri_is_for_its_host() {
    let (_origin, sluice) = start("");
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("GET http://user@shop.example:81/a?b HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = conn.response();
    assert!(answer.text().starts_with("GET /a?b HTTP/1.1\n"), "{}", answer.text());
    assert_eq!(seen(&answer, "host"), ["shop.example:81"]);
    assert_eq!(seen(&answer, "x-forwarded-host"), ["shop.example:81"]);
    conn.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(conn.response().text().starts_with("OPTIONS * HTTP/1.1\n"));
    conn.send("GET http://shop.example HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(conn.response().text().starts_with("GET / HTTP/1.1\n"));
}

/// Over HTTP/2 a client may send each cookie in a field of its own; a server of HTTP/1.1 reads one
/// field (RFC 9113, 8.2.3).
#[test]
fn cookies_of_http_2_are_joined_for_a_backend_of_http_1_1() {
    let (_origin, sluice) = start("");
    let request = Request::get("http://shop.example:81/a?b")
        .header("cookie", "a=1")
        .header("x-a", "1")
        .header("cookie", "b=2; c=3")
        .header("x-a", "2")
        .header("cookie", "d=4")
        .body(())
        .unwrap();
    let answers = exchange(&sluice.address(), vec![(request, Vec::new(), None)]);
    let text = String::from_utf8(answers.into_iter().next().unwrap().unwrap().1).unwrap();
    let lines = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(field, _)| *field == name).map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert!(text.starts_with("GET /a?b HTTP/1.1\n"), "{text}");
    assert_eq!(lines("cookie"), ["a=1; b=2; c=3; d=4"]);
    assert_eq!((lines("host"), lines("x-a")), (vec!["shop.example:81"], vec!["1", "2"]));
}

#[test]
fn repeated_and_long_fields_stay_as_they_are() {
    let (_origin, sluice) = start("");
    let long = "v".repeat(50_000);
    let answer =
        ask(&sluice, &format!("X-A: 1\r\nX-B: x\r\nX-A: 2\r\nX-A: 3\r\nX-Long: {long}\r\n"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        (seen(&answer, "x-a"), seen(&answer, "x-long")),
        (["1", "2", "3"].map(String::from).to_vec(), vec![long.clone()])
    );
    let origin = Origin::scripted("o", move |_| {
        Some(respond("200 OK", &format!("X-Long: {long}\r\nX-A: 2\r\nX-A: 1\r\n"), b"ok"))
    });
    let sluice = Setup::http([origin.address()]).start();
    let answer = ask(&sluice, "");
    assert_eq!(answer.header("x-long").map(str::len), Some(50_000));
    assert_eq!(answer.head.all("x-a"), ["2", "1"]);
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    let (origin, sluice) = start("header_bytes: 16KiB, headers: 20, uri_bytes: 1KiB");
    let long = "v".repeat(17_000);
    assert_eq!(ask(&sluice, &format!("X-Long: {long}\r\n")).status, 431);
    let many: String = (0..21).map(|i| format!("X-{i}: 1\r\n")).collect();
    assert_eq!(ask(&sluice, &many).status, 431);
    let mut conn = HttpConn::open(&sluice.address());
    let refused = conn.get(&format!("/{}", "p".repeat(1_100)));
    assert_eq!((refused.status, refused.header("x-sluice-error")), (414, Some("uri_too_long")));
    assert_eq!((conn.get("/").status, origin.count()), (200, 1));
}

/// Bytes that are no ASCII pass as they are.
#[test]
fn values_in_other_alphabets_pass() {
    let origin = Origin::scripted("o", |_| {
        Some(vec![Act::Send(
            b"HTTP/1.1 200 OK\r\nX-Name: \xe9\xc3\xa9\r\nContent-Length: 0\r\n\r\n".to_vec(),
        )])
    });
    let sluice = Setup::http([origin.address()]).start();
    let answer = ask(&sluice, "X-Name: \u{e9}\r\n");
    assert_eq!((answer.status, answer.head.all("x-name").len()), (200, 1));
    assert_eq!(origin.seen()[0].head.get("x-name"), Some("\u{e9}"));
}
