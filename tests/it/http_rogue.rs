//! Backends of http that say what no server should, or nothing, or too much; a client gets its own
//! reply or an error, never another's, and memory stays bounded.

use crate::{
    harness::{PATIENCE, Setup, Sluice, eventually, port::Port, web::HttpConn},
    http_hostile::{MIB, wait_until_alone},
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// A server that does as it is told with each connection on which a head has come.
struct Rogue {
    port: Port,
    heads: Arc<AtomicUsize>,
}

impl Rogue {
    fn start(act: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let heads = Arc::new(AtomicUsize::new(0));
        let rogue = Self { port, heads: Arc::clone(&heads) };
        let act = Arc::new(act);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, heads) = (Arc::clone(&act), Arc::clone(&heads));
                thread::spawn(move || {
                    // A probe connects and closes.
                    if read_head(&stream) {
                        heads.fetch_add(1, Ordering::SeqCst);
                        act(stream);
                    }
                });
            }
        });
        rogue
    }

    fn sluice(&self, http: &str) -> Sluice {
        let setup = Setup::http([self.port.address()]);
        setup.listener(&format!("http: {{ {http} }}")).cluster("timeouts: { request: 3s }").start()
    }
}

/// Whether the head of a request came.
fn read_head(mut stream: &TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return false;
        }
        head.push(byte[0]);
    }
    true
}

fn say(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// As for good.
fn hold(stream: TcpStream) {
    thread::sleep(PATIENCE);
    drop(stream);
}

#[track_caller]
fn assert_bounded(sluice: &Sluice, base: u64) {
    let grown = sluice.process().peak_kb().saturating_sub(base);
    assert!(grown < 16 * MIB, "memory grew by {grown} KiB");
    assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
}

/// Eight clients at once; each must hear 502 and why.
#[track_caller]
fn assert_lost(rogue: &Rogue) {
    let sluice = rogue.sluice("");
    sluice.expect_log("ejected");
    let base = sluice.process().rss_kb();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let response =
                    HttpConn::open(&sluice.address()).ask("POST", "/", "Content-Length: 0\r\n");
                let reason = response.header("x-sluice-error").map(str::to_owned);
                assert_eq!((response.status, reason.as_deref()), (502, Some("result_unknown")));
            });
        }
    });
    assert_bounded(&sluice, base);
    wait_until_alone(&sluice);
}

#[test]
fn an_endless_head_is_given_up() {
    let line = format!("A: {}\r\n", "x".repeat(1000));
    assert_lost(&Rogue::start(move |stream| {
        say(&stream, b"HTTP/1.1 200 OK\r\n");
        while say(&stream, line.as_bytes()) {}
    }));
}

#[test]
fn an_endless_line_is_given_up() {
    assert_lost(&Rogue::start(|stream| {
        say(&stream, b"HTTP/1.1 200 OK\r\nA: ");
        while say(&stream, &[b'x'; 1 << 16]) {}
    }));
}

#[test]
fn garbage_is_no_reply() {
    assert_lost(&Rogue::start(|stream| while say(&stream, b"\0\x01 no HTTP at all\r\n") {}));
}

/// What a backend says beyond its reply would be the reply to somebody else's request.
#[test]
fn a_surplus_reply_reaches_nobody() {
    let own = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
    let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for late in [None, Some(0), Some(20)] {
        let said = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&said);
        let rogue = Rogue::start(move |stream| {
            // In one piece with the reply, right behind it, or while the connection is idle.
            match late {
                None => drop(say(&stream, &[&own[..], evil].concat())),
                Some(late) => {
                    say(&stream, own);
                    thread::sleep(Duration::from_millis(late));
                    say(&stream, evil);
                }
            }
            count.fetch_add(1, Ordering::SeqCst);
            hold(stream);
        });
        let sluice = rogue.sluice("");
        let mut conn = HttpConn::open(&sluice.address());
        for asked in 1..=20 {
            assert_eq!(conn.get("/").text(), "own", "{late:?}");
            // What comes once the next request is under way cannot be told from its reply.
            eventually("it is said", PATIENCE, || {
                (said.load(Ordering::SeqCst) == asked).then_some(())
            });
        }
        assert_eq!(rogue.heads.load(Ordering::SeqCst), 20, "no connection is used again");
    }
}

/// A connection of the pool is read from when it is taken, and not before.
#[test]
fn a_gigabyte_that_nobody_asked_for_is_not_read() {
    let rogue = Rogue::start(|stream| {
        say(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown");
        let zeros = vec![0; 1 << 20];
        for _ in 0..1024 {
            if !say(&stream, &zeros) {
                return;
            }
        }
    });
    let sluice = rogue.sluice("");
    sluice.expect_log("ejected");
    let base = sluice.process().rss_kb();
    let mut conn = HttpConn::open(&sluice.address());
    for _ in 0..20 {
        // What comes once the next request is under way is taken for its reply, which it is not.
        let response = conn.get("/");
        let fine = response.status == 200 && response.text() == "own";
        assert!(fine || response.status == 502, "{} {}", response.status, response.text());
    }
    assert_bounded(&sluice, base);
}

/// The reply counts, and what of the request was not taken ends with the connection.
#[test]
fn a_reply_before_the_end_of_the_request_is_passed_on() {
    let rogue = Rogue::start(|stream| {
        say(&stream, b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        // So that the reply is read before the reset.
        thread::sleep(Duration::from_millis(100));
    });
    let sluice = rogue.sluice("body_idle: 2s");
    let base = sluice.process().rss_kb();
    for _ in 0..5 {
        let mut conn = HttpConn::open(&sluice.address());
        conn.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n");
        conn.send(vec![0; 1 << 10]);
        let response = conn.response();
        assert_eq!((response.status, response.text().as_str()), (413, "no"));
    }
    assert_bounded(&sluice, base);
    wait_until_alone(&sluice);
}

/// Its end was cut off: of a reply that follows an unfinished request, what did not fit into the
/// client's buffer when we had read all of it.
#[test]
fn a_long_reply_before_the_end_of_the_request_is_whole() {
    let rogue = Rogue::start(|stream| {
        let mut length = [0; 8];
        (&stream).read_exact(&mut length).unwrap();
        let length = usize::from_be_bytes(length);
        let head = format!(
            "HTTP/1.1 413 Too Much\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        say(&stream, head.as_bytes());
        say(&stream, &vec![b'n'; length]);
        hold(stream);
    });
    let sluice = rogue.sluice("");
    let address: SocketAddr = sluice.address().parse().unwrap();
    let asked = |length: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut conn = TcpStream::from(socket);
        conn.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1073741824";
        let head = format!("{head}\r\n\r\n");
        let body = [&length.to_be_bytes(), &[0; 1 << 10][..]].concat();
        conn.write_all(&[head.as_bytes(), &body].concat()).unwrap();
        conn
    };
    let written = || {
        let out = || sluice.metrics().sum("sluice_listener_bytes_total", &[("direction", "out")]);
        let mut last = 0.0;
        eventually("no more fits", PATIENCE, || {
            thread::sleep(Duration::from_millis(200));
            let now = out();
            (now > 0.0 && std::mem::replace(&mut last, now) == now).then_some(now as usize)
        })
    };
    let never_read = asked(64 << 20);
    let fits = written();
    for more in (4..=48).step_by(4) {
        let mut conn = asked(fits + (more << 10));
        written();
        let mut got = Vec::new();
        let ended = conn.read_to_end(&mut got);
        let begun = got.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(got.len() - begun, fits + (more << 10), "{fits}: {ended:?}");
    }
    drop(never_read);
}

#[test]
fn a_backend_that_reads_no_body_holds_what_fits_a_buffer() {
    let rogue = Rogue::start(hold);
    let sluice = rogue.sluice("body_idle: 1s");
    sluice.expect_log("ejected");
    let base = sluice.process().rss_kb();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut conn = HttpConn::open(&sluice.address());
                conn.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n");
                let zeros = vec![0; 1 << 20];
                let mut sent = 0;
                while sent < 1024 && conn.try_send(&zeros).is_ok() {
                    sent += 1;
                }
                // The end may overtake the answer: bytes are unread.
                let status = conn.try_response().map(|response| response.status);
                assert!(matches!(status, Ok(504) | Err(_)), "{status:?}");
                assert!(sent < 100, "{sent} MiB were taken");
            });
        }
    });
    assert_bounded(&sluice, base);
    wait_until_alone(&sluice);
}

/// It was counted as answered.
#[test]
fn a_reply_that_stops_is_the_backends_failure() {
    let rogue = Rogue::start(|stream| {
        say(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        hold(stream);
    });
    let sluice = rogue.sluice("body_idle: 1s");
    let mut conn = HttpConn::open(&sluice.address());
    conn.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(conn.try_response().is_err());
    eventually("it is counted", PATIENCE, || {
        let failed = sluice.metrics().sum("sluice_backend_requests_total", &[("result", "failed")]);
        (failed == 1.0).then_some(())
    });
    let slow = sluice.metrics().sum("sluice_listener_connections_rejected_total", &[]);
    assert_eq!(slow, 0.0, "the client did nothing wrong");
}
