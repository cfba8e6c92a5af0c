//! TLS on either side: what openssl, redis-cli and a redis-server make of it, and who is kept out.

use crate::harness::{
    Authority, Conn, Issued, PATIENCE, Redis, Setup, Sluice, TlsConn, Value, eventually,
    port::Port, process::Process,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a program printed, stderr included, when it was given `input`. It has 20s.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("timeout")
        .args(["20", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended before it read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_ne!(output.status.code(), Some(124), "{program} {arguments:?} hangs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// What `openssl s_client` says of a handshake in which it sends PING and QUIT.
#[track_caller]
fn s_client(sluice: &Sluice, authority: &Authority, arguments: &[&str]) -> String {
    let (address, ca) = (sluice.address(), authority.ca());
    let common = ["s_client", "-connect", &address, "-CAfile", ca.to_str().unwrap(), "-ign_eof"];
    run("openssl", &[&common[..], arguments].concat(), "PING\r\nQUIT\r\n")
}

fn redis_cli(sluice: &Sluice, authority: &Authority, arguments: &[&str]) -> String {
    let (port, ca) = (sluice.port().to_string(), authority.ca());
    let common = ["-p", &port, "--tls", "--cacert", ca.to_str().unwrap(), "--sni", "site.test"];
    run("redis-cli", &[&common[..], arguments].concat(), "").trim_end().to_owned()
}

/// A line for the listener.
pub(crate) fn listener_tls(certificates: &[&Issued], more: &str) -> String {
    let certificates: Vec<_> = certificates.iter().map(|one| one.yaml()).collect();
    format!("tls: {{ certificates: [{}], {more} }}", certificates.join(", "))
}

/// Redis in clear behind a TLS listener that shows `site.test`.
pub(crate) struct Site {
    pub(crate) authority: Authority,
    pub(crate) issued: Issued,
    redis: Redis,
}

impl Site {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let issued = authority.issue("site", &["site.test", "127.0.0.1"]);
        Self { authority, issued, redis: Redis::start() }
    }

    pub(crate) fn setup(&self, more: &str) -> Setup {
        let shards = [(self.redis.address(), Vec::new())];
        Setup::shards(shards).listener(&listener_tls(&[&self.issued], more))
    }

    #[track_caller]
    pub(crate) fn conn(&self, sluice: &Sluice) -> TlsConn {
        TlsConn::open(&sluice.address(), &self.authority.client(), "site.test").unwrap()
    }
}

pub(crate) fn handshakes(sluice: &Sluice, result: &str) -> f64 {
    sluice.metrics().sum("sluice_listener_tls_handshakes_total", &[("result", result)])
}

#[test]
fn openssl_gets_the_certificate_of_the_name_it_asks_for() {
    let site = Site::new();
    let wild = site.authority.issue("wild", &["*.wild.test"]);
    let other = site.authority.issue("other", &["other.test", "a.wild.test"]);
    let tls = listener_tls(&[&site.issued, &wild, &other], "");
    let sluice = Setup::shards([(site.redis.address(), Vec::new())]).listener(&tls).start();
    for (name, subject) in [
        ("site.test", "site"),
        ("other.test", "other"),
        ("a.wild.test", "other"),
        ("B.wild.test", "wild"),
        ("a.b.wild.test", "site"),
        ("unknown.test", "site"),
    ] {
        let said = s_client(&sluice, &site.authority, &["-servername", name]);
        assert!(said.contains(&format!("subject=CN = {subject}\n")), "{name}: {said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("+PONG") && said.contains("+OK"), "{said}");
    }
    let said = s_client(&sluice, &site.authority, &["-noservername", "-tls1_2"]);
    assert!(said.contains("subject=CN = site\n") && said.contains("TLSv1.2"), "{said}");
    let said = s_client(&sluice, &site.authority, &["-verify_hostname", "site.test", "-brief"]);
    assert!(said.contains("Protocol version: TLSv1.3"), "{said}");
    // What costs least, unless a client offers nothing else.
    assert!(said.contains("Server Temp Key: X25519"), "{said}");
    assert_eq!(handshakes(&sluice, "ok"), 8.0);
    assert_eq!(handshakes(&sluice, "failed"), 0.0);
}

#[test]
fn redis_cli_speaks_tls_to_the_listener() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let value = "v".repeat(100_000);
    assert_eq!(redis_cli(&sluice, &site.authority, &["SET", "a", &value]), "OK");
    assert_eq!(redis_cli(&sluice, &site.authority, &["GET", "a"]), value);
    assert_eq!(site.redis.cmd(&["GET", "a"]).text(), value);
    let refused = run("redis-cli", &["-p", &sluice.port().to_string(), "PING"], "");
    assert!(refused.contains("Error"), "{refused}");
    eventually("it is counted", PATIENCE, || (handshakes(&sluice, "failed") == 1.0).then_some(()));
}

#[test]
fn pipelines_and_large_values_pass_in_order_under_tls() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let mut conn = site.conn(&sluice);
    let large = "x".repeat(5_000_000);
    assert_eq!(conn.cmd(&["SET", "large", &large]), "OK");
    let mut requests = Vec::new();
    for i in 0..2_000 {
        requests.extend(crate::harness::request(&["SET", &format!("k{i}"), &i.to_string()]));
        requests.extend(crate::harness::request(&["GET", &format!("k{i}")]));
        if i % 500 == 0 {
            requests.extend(crate::harness::request(&["GET", "large"]));
        }
    }
    conn.write_all(&requests).unwrap();
    for i in 0..2_000 {
        assert_eq!(conn.reply(), "OK");
        assert_eq!(conn.reply().text(), i.to_string());
        if i % 500 == 0 {
            assert!(conn.reply().text() == large);
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_bounded_and_gets_all_of_it_later() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let mut slow = site.conn(&sluice);
    let value = "y".repeat(1_000_000);
    assert_eq!(slow.cmd(&["SET", "a", &value]), "OK");
    let get = crate::harness::request(&["GET", "a"]);
    slow.write_all(&get.repeat(25)).unwrap();
    let mut other = site.conn(&sluice);
    let held = || sluice.metrics().sum("sluice_buffered_bytes", &[]);
    eventually("what it does not read waits here", PATIENCE, || (held() > 4e5).then_some(()));
    let mut most = 0.0;
    // Somebody else waits for replies on the same connection, so it is read on.
    for _ in 0..50 {
        assert_eq!(other.cmd(&["GET", "b"]), Value::Nil);
        most = held().max(most);
    }
    assert!(most < 28e6, "{most}");
    for _ in 0..25 {
        assert!(slow.reply().text() == value);
    }
    eventually("all is given back", PATIENCE, || (held() == 0.0).then_some(()));
}

#[test]
fn redis_servers_are_spoken_to_under_tls_probes_included() {
    let authority = Authority::new();
    let (server, client) = (authority.issue("server", &["redis.test"]), authority.issue("us", &[]));
    let port = Port::free();
    let redis = tls_redis(&authority, &server, &port, "yes");
    let upstream = |name: &str, more: &str| {
        let ca = authority.ca();
        format!("upstream: {{ tls: {{ ca: {}, server_name: {name}{more} }} }}", ca.display())
    };
    let shown = format!(", cert: {}, key: {}", client.cert.display(), client.key.display());
    let setup = || Setup::shards([(port.address(), Vec::new())]);
    let sluice = setup().cluster(&upstream("redis.test", &shown)).start();
    let mut conn = sluice.conn();
    let value = "z".repeat(3_000_000);
    assert_eq!(conn.cmd(&["SET", "a", &value]), "OK");
    assert!(conn.cmd(&["GET", "a"]).text() == value);
    assert!(redis.cmd(&["GET", "a"]).text() == value);
    let many: Vec<_> =
        (0..500).map(|i| vec!["SET".to_owned(), format!("k{i}"), "1".into()]).collect();
    assert!(conn.pipeline(&many).iter().all(|reply| *reply == "OK"));
    // Not who it should be, and nobody we know.
    for (line, reason) in [
        (upstream("other.test", &shown), "not valid for name"),
        (upstream("redis.test", &shown).replace("ca.pem", "us.pem"), "UnknownIssuer"),
        (upstream("redis.test", ""), "ertificate"),
    ] {
        let sluice = setup().cluster(&line).without_waiting().start();
        sluice.expect_log("unhealthy: probe: 3 probes failed");
        sluice.wait_for(&port.address(), false);
        let probes = || {
            let status = sluice.status();
            status["clusters"][0]["shards"][0]["backends"][0]["probes"].to_string()
        };
        eventually("a probe says why", PATIENCE, || probes().contains(reason).then_some(()));
        sluice.expect_log("WARN");
    }
    let skip = "upstream: { tls: { insecure_skip_verify: true, cert: us.pem, key: us.key } }";
    let skip = skip.replace("us.", &format!("{}/us.", authority.path("").display()));
    assert_eq!(setup().cluster(&skip).start().conn().cmd(&["GET", "k1"]).text(), "1");
}

/// A Redis that also speaks TLS on `port`.
pub(crate) fn tls_redis(
    authority: &Authority,
    issued: &Issued,
    port: &Port,
    clients: &str,
) -> Redis {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (text(&issued.cert), text(&issued.key), text(&authority.ca()));
    Redis::with_args(&[
        "--tls-port",
        &port.number.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        clients,
    ])
}

/// What `openssl req -x509` makes, as most people do: it claims to be an authority.
#[test]
fn a_certificate_that_signed_itself_may_be_named_as_the_ca() {
    let authority = Authority::new();
    let (cert, key) = (authority.path("own.pem"), authority.path("own.key"));
    let openssl = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x \
                   -addext subjectAltName=IP:127.0.0.1 -keyout";
    let mut words: Vec<&str> = openssl.split_whitespace().collect();
    words.extend([key.to_str().unwrap(), "-out", cert.to_str().unwrap()]);
    run("openssl", &words, "");
    let (issued, port) = (Issued { cert, key }, Port::free());
    let _redis = tls_redis(&authority, &issued, &port, "no");
    let line = format!("upstream: {{ tls: {{ ca: {} }} }}", issued.cert.display());
    let sluice = Setup::shards([(port.address(), Vec::new())]).cluster(&line).start();
    assert_eq!(sluice.conn().cmd(&["SET", "a", "1"]), "OK");
}

/// Sends back what it gets, and finishes when the other side has.
fn echo() -> (Port, thread::JoinHandle<()>) {
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    let thread = thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let mut twin = socket.try_clone().unwrap();
                let _ = std::io::copy(&mut socket, &mut twin);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
    });
    (port, thread)
}

#[test]
fn tcp_passes_bulk_and_ends_both_ways_through_tls_on_either_side() {
    let authority = Authority::new();
    let site = authority.issue("site", &["site.test"]);
    let (echo, _) = echo();
    // The second one encrypts what the first one takes: TLS from client to proxy to proxy.
    let inner = Setup::tcp([echo.address()]).listener(&listener_tls(&[&site], "")).start();
    let line = format!(
        "upstream: {{ tls: {{ ca: {}, server_name: site.test }} }}",
        authority.ca().display()
    );
    let setup = Setup::tcp([inner.address()]).cluster(&line);
    let outer = setup.clone().listener(&listener_tls(&[&site], "")).start();
    let bulk: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut conn = TlsConn::open(&outer.address(), &authority.client(), "site.test").unwrap();
    for piece in bulk.chunks(1_000_000) {
        conn.write_all(piece).unwrap();
        let mut back = vec![0; piece.len()];
        conn.read_exact(&mut back).unwrap();
        assert!(back == piece);
    }
    conn.write_all(b"the end").unwrap();
    conn.finish_sending();
    let mut rest = Vec::new();
    // An end that is not announced would be an error.
    conn.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"the end");
    // In clear on one side, TLS on the other.
    let clear = setup.start();
    let mut socket = TcpStream::connect(clear.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut twin = socket.try_clone().unwrap();
    let sent = bulk.clone();
    let sender = thread::spawn(move || {
        twin.write_all(&sent).unwrap();
        twin.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    socket.read_to_end(&mut back).unwrap();
    sender.join().unwrap();
    assert!(back == bulk);
    // Who is the wrong one is no backend.
    let wrong = Setup::tcp([inner.address()])
        .cluster(&line.replace("site.test", "other.test"))
        .without_waiting()
        .start();
    wrong.expect_log("unhealthy: probe: 3 probes failed: connect: TLS handshake");
    wrong.wait_for(&inner.address(), false);
}

#[test]
fn a_proxy_header_comes_before_tls_in_and_out() {
    let authority = Authority::new();
    let site = authority.issue("site", &["site.test"]);
    let (echo, _) = echo();
    let trusted = "proxy_protocol: { trusted: [127.0.0.1] }";
    let tls = listener_tls(&[&site], "");
    let inner = Setup::tcp([echo.address()]).listener(&tls).listener(trusted).start();
    inner.expect_log("WARN");
    let line = format!(
        "upstream: {{ tls: {{ ca: {}, server_name: site.test }} }}",
        authority.ca().display()
    );
    let outer = Setup::tcp([inner.address()])
        .cluster(&line)
        .cluster("send_proxy: v2")
        .check("{ interval: 1h }")
        .without_waiting()
        .start();
    outer.expect_log("unhealthy");
    let mut socket = TcpStream::connect(outer.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    socket.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    // The header and the ClientHello in one piece.
    let mut direct = TcpStream::connect(inner.address()).unwrap();
    direct.write_all(b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\r\n").unwrap();
    let mut conn = TlsConn::over(direct, &authority.client(), "site.test").unwrap();
    conn.write_all(b"again").unwrap();
    conn.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");
}

#[test]
fn clients_must_show_a_certificate_when_there_is_a_client_ca() {
    let site = Site::new();
    let ca = format!("client_ca: {}", site.authority.ca().display());
    let sluice = site.setup(&ca).start();
    let ours = site.authority.issue("client", &[]);
    let elsewhere = Authority::new();
    let stranger = elsewhere.issue("stranger", &[]);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for version in ["-tls1_2", "-tls1_3"] {
        let with = |issued: &Issued| {
            let (cert, key) = (text(&issued.cert), text(&issued.key));
            s_client(&sluice, &site.authority, &[version, "-cert", &cert, "-key", &key])
        };
        let said = with(&ours);
        assert!(said.contains("+PONG"), "{said}");
        let said = with(&stranger);
        assert!(!said.contains("+PONG") && said.contains("alert"), "{said}");
        let said = s_client(&sluice, &site.authority, &[version]);
        assert!(!said.contains("+PONG") && said.contains("alert"), "{said}");
    }
    let (cert, key) = (text(&ours.cert), text(&ours.key));
    let said =
        redis_cli(&sluice, &site.authority, &["--cert", &cert, "--key", &key, "SET", "a", "1"]);
    assert_eq!(said, "OK");
    eventually("they are counted", PATIENCE, || {
        (handshakes(&sluice, "failed") >= 2.0).then_some(())
    });
}

#[test]
fn an_older_version_than_allowed_is_refused() {
    let site = Site::new();
    let sluice = site.setup("min_version: 1.3").start();
    let said = s_client(&sluice, &site.authority, &["-tls1_2"]);
    assert!(said.contains("protocol version") && !said.contains("+PONG"), "{said}");
    let said = s_client(&sluice, &site.authority, &["-tls1_3"]);
    assert!(said.contains("+PONG"), "{said}");
    assert_eq!((handshakes(&sluice, "ok"), handshakes(&sluice, "failed")), (1.0, 1.0));
    let default = site.setup("").start();
    let said = s_client(&default, &site.authority, &["-tls1_1", "-cipher", "ALL@SECLEVEL=0"]);
    assert!(said.contains("alert handshake failure") && !said.contains("+PONG"), "{said}");
}

#[test]
fn sessions_are_resumed_on_every_worker() {
    let site = Site::new();
    let sluice = site.setup("").workers(2).start();
    for version in ["-tls1_2", "-tls1_3"] {
        let kept = site.authority.path("session");
        let kept = kept.to_str().unwrap();
        let said = s_client(&sluice, &site.authority, &[version, "-sess_out", kept]);
        assert!(said.contains("+PONG") && said.contains("New, TLSv1"), "{said}");
        for _ in 0..3 {
            let said = s_client(&sluice, &site.authority, &[version, "-sess_in", kept]);
            assert!(said.contains("+PONG") && said.contains("Reused, TLSv1"), "{said}");
        }
    }
}

#[test]
fn a_slow_handshake_holds_nobody_up_and_ends_after_five_seconds() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let silent = TcpStream::connect(sluice.address()).unwrap();
    let mut slow = TcpStream::connect(sluice.address()).unwrap();
    let begun = Instant::now();
    slow.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let mut others: Vec<_> =
        (0..100).map(|_| TcpStream::connect(sluice.address()).unwrap()).collect();
    for _ in 0..20 {
        assert_eq!(site.conn(&sluice).cmd(&["GET", "a"]), Value::Nil);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    others.extend([silent, slow]);
    for mut socket in others {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, or a reset: bytes of the slow one were never looked at.
        let _ = socket.read_to_end(&mut Vec::new());
    }
    let took = begun.elapsed();
    let limits = Duration::from_secs(5)..Duration::from_secs(9);
    assert!(limits.contains(&took), "{took:?}");
    eventually("all are counted", PATIENCE, || {
        (handshakes(&sluice, "failed") == 102.0).then_some(())
    });
    assert_eq!(sluice.log().matches("TLS handshake with").count(), 1, "{}", sluice.log());
}

#[test]
fn what_is_no_handshake_is_closed_and_harms_nobody() {
    let site = Site::new();
    let sluice = site.setup("").start();
    let mut good = site.conn(&sluice);
    let garbage = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 17_000],
        [&[22, 3, 1, 0x40, 0][..], &[0xaa; 0x4000]].concat(),
        // A ClientHello that says it is 16 MB long.
        [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[3; 0x3ffc]].concat().repeat(8),
    ];
    for bytes in &garbage {
        let mut conn = Conn::open(&sluice.address());
        let _ = conn.try_send(bytes);
        let answer = conn.read_to_close();
        assert!(answer.len() < 100, "{}", answer.escape_ascii());
    }
    // Gone in the middle.
    let mut gone = TcpStream::connect(sluice.address()).unwrap();
    gone.write_all(&[22, 3, 1, 2, 0]).unwrap();
    drop(gone);
    let failed = garbage.len() as f64 + 1.0;
    eventually("all are counted", PATIENCE, || {
        (handshakes(&sluice, "failed") == failed).then_some(())
    });
    assert_eq!(good.cmd(&["GET", "a"]), Value::Nil);
    // After the handshake a byte that was changed under way ends the connection, too.
    let mut broken = site.conn(&sluice);
    broken
        .socket()
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
        .unwrap();
    assert!(broken.try_cmd(&["GET", "a"]).is_err());
    assert_eq!(good.cmd(&["GET", "a"]), Value::Nil);
}

/// Answers every request with what it was asked, over HTTP/1.1.
fn origin() -> Port {
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let (mut head, mut piece) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = socket.read(&mut piece) {
                    head.extend_from_slice(&piece[..n]);
                    if head.ends_with(b"\r\n\r\n") {
                        let size = head.len();
                        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                        let reply = [reply.as_bytes(), &head].concat();
                        if socket.write_all(&reply).is_err() {
                            return;
                        }
                        head.clear();
                    }
                }
            });
        }
    });
    port
}

/// What curl prints for `https://site.test/`, the protocol's version at its end.
#[track_caller]
fn curl(sluice: &Sluice, authority: &Authority, arguments: &[&str]) -> String {
    let resolve = format!("site.test:{}:127.0.0.1", sluice.port());
    let url = format!("https://site.test:{}/a?b=c", sluice.port());
    let ca = authority.ca();
    let common = ["-sS", "--resolve", &resolve, "--cacert", ca.to_str().unwrap(), "-w"];
    let rest = ["version %{http_version}\n", &url];
    run("curl", &[&common[..], &rest, arguments].concat(), "")
}

#[test]
fn browsers_agree_on_http_2_and_older_clients_on_http_1() {
    let authority = Authority::new();
    let site = authority.issue("site", &["site.test"]);
    let origin = origin();
    let http = || Setup::http([origin.address()]);
    let sluice = http().listener(&listener_tls(&[&site], "")).start();
    for (flags, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let said = curl(&sluice, &authority, &[flags]);
        assert!(said.contains("GET /a?b=c HTTP/1.1"), "{flags}: {said}");
        assert!(said.contains(&format!("version {version}\n")), "{flags}: {said}");
        assert!(said.to_lowercase().contains("x-forwarded-proto: https"), "{flags}: {said}");
    }
    // TLS to the backends, over either version: the first one stands in front of the second.
    for http2 in [false, true] {
        let ca = authority.ca();
        let tls = format!("tls: {{ ca: {}, server_name: site.test }}", ca.display());
        let outer = Setup::http([sluice.address()])
            .cluster(&format!("upstream: {{ http2: {http2}, {tls} }}"))
            .check("{ interval: 100ms, http: { path: /well } }")
            .listener(&listener_tls(&[&site], ""))
            .start();
        let before = handshakes(&sluice, "ok");
        for _ in 0..5 {
            let said = curl(&outer, &authority, &["--http2"]);
            assert!(said.contains("GET /a?b=c HTTP/1.1"), "{said}");
        }
        assert!(handshakes(&sluice, "ok") > before);
        assert_eq!(handshakes(&sluice, "failed"), 0.0);
    }
}

/// Another library at the other end: `openssl s_server` answers over HTTP/1.0.
#[test]
fn an_openssl_server_is_a_backend() {
    let authority = Authority::new();
    let issued = authority.issue("server", &["127.0.0.1"]);
    let port = Port::free();
    let server = Command::new("openssl")
        .args(["s_server", "-www", "-quiet", "-accept", &port.address()])
        .args(["-cert", issued.cert.to_str().unwrap(), "-key", issued.key.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Process(server);
    eventually("it accepts", PATIENCE, || TcpStream::connect(port.address()).ok());
    let line = format!("upstream: {{ tls: {{ ca: {} }} }}", authority.ca().display());
    let sluice = Setup::http([port.address()]).cluster(&line).start();
    let url = format!("http://{}/", sluice.address());
    let said = run("curl", &["-sS", &url], "");
    assert!(said.contains("TLSv1.3"), "{said}");
}
