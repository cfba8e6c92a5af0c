//! What a listener, a client address, a backend and the process allow, and what those hear for whom
//! there is no room.

use crate::harness::{Conn, PATIENCE, Redis, Setup, Sluice, eventually, port::Port};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

const REJECTED: &str = "sluice_listener_connections_rejected_total";
/// What the log says once a minute.
const TOLD: &str = "clients are refused: a limit is reached";

/// A server that says `+` to each connection and keeps it until the other side ends it.
struct Greeter {
    port: Port,
}

impl Greeter {
    fn start() -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { continue };
                thread::spawn(move || {
                    let _ = socket.write_all(b"+");
                    let _ = socket.read_to_end(&mut Vec::new());
                });
            }
        });
        Self { port }
    }

    fn setup(&self) -> Setup {
        Setup::tcp([self.port.address()])
    }
}

fn redis_setup(redis: &Redis) -> Setup {
    Setup::shards([(redis.address(), Vec::new())])
}

/// What a new connection hears until it is closed; `None` when it is served.
fn refused(sluice: &Sluice, from: Ipv4Addr) -> Option<Vec<u8>> {
    let mut socket = connect(sluice, from);
    let mut heard = Vec::new();
    socket.write_all(b"PING\r\n").ok();
    let mut byte = [0];
    loop {
        match socket.read(&mut byte) {
            Ok(0) => return Some(heard),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Some(heard),
            Ok(_) => heard.push(byte[0]),
            Err(error) => panic!("{error} after {}", heard.escape_ascii()),
        }
        if heard == b"+" || heard == b"+PONG\r\n" {
            return None;
        }
    }
}

/// A connection from an address of this machine's.
fn connect(sluice: &Sluice, from: Ipv4Addr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).unwrap();
    let address: SocketAddr = sluice.address().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let socket: TcpStream = socket.into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A connection that is served.
fn served(sluice: &Sluice, from: Ipv4Addr) -> TcpStream {
    let mut socket = connect(sluice, from);
    socket.write_all(b"PING\r\n").unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"+");
    socket
}

fn rejected(sluice: &Sluice, reason: &str) -> f64 {
    sluice.metrics().sum(REJECTED, &[("reason", reason), ("listener", "cache")])
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn a_listener_takes_so_many_connections_over_all_its_workers() {
    let (redis, greeter) = (Redis::start(), Greeter::start());
    for (setup, words) in
        [(redis_setup(&redis), "-ERR max number of clients reached\r\n"), (greeter.setup(), "")]
    {
        let sluice = setup.workers(3).listener("limits: { max_connections: 4 }").start();
        sluice.expect_log(TOLD);
        let mut held: Vec<_> = (0..4).map(|_| served(&sluice, HOME)).collect();
        for _ in 0..3 {
            assert_eq!(refused(&sluice, AWAY).as_deref(), Some(words.as_bytes()));
        }
        assert_eq!(rejected(&sluice, "max_connections"), 3.0);
        assert_eq!(sluice.status()["listeners"][0]["refused"], 3);
        assert_eq!(sluice.log().matches(TOLD).count(), 1, "{}", sluice.log());
        held.pop();
        eventually("a place is free", PATIENCE, || refused(&sluice, AWAY).is_none().then_some(()));
    }
}

#[test]
fn an_address_has_so_many_connections_and_another_its_own() {
    let (redis, greeter) = (Redis::start(), Greeter::start());
    for (setup, words) in [
        (redis_setup(&redis), "-ERR sluice: too many connections from your address\r\n"),
        (greeter.setup(), ""),
    ] {
        let sluice =
            setup.workers(2).listener("limits: { per_client: { connections: 2 } }").start();
        sluice.expect_log(TOLD);
        let mut held = vec![served(&sluice, HOME), served(&sluice, HOME)];
        assert_eq!(refused(&sluice, HOME).as_deref(), Some(words.as_bytes()));
        let _other = served(&sluice, AWAY);
        held.pop();
        eventually("a place is free", PATIENCE, || refused(&sluice, HOME).is_none().then_some(()));
        assert!(rejected(&sluice, "client_connections") >= 1.0);
        assert_eq!(rejected(&sluice, "max_connections"), 0.0);
    }
}

#[test]
fn addresses_of_one_network_are_one_client_when_told_so() {
    let redis = Redis::start();
    let sluice =
        redis_setup(&redis).listener("limits: { per_client: { connections: 1, v4: 24 } }").start();
    sluice.expect_log(TOLD);
    let _one = served(&sluice, HOME);
    assert!(refused(&sluice, AWAY).is_some());
    let _other = served(&sluice, Ipv4Addr::new(127, 0, 1, 1));
}

#[test]
fn an_address_that_connects_too_often_is_refused_until_its_rate_allows_it() {
    let (redis, greeter) = (Redis::start(), Greeter::start());
    for (setup, words) in [
        (redis_setup(&redis), "-ERR sluice: your address connects too often, try again later\r\n"),
        (greeter.setup(), ""),
    ] {
        let sluice = setup.listener("limits: { per_client: { rate: 60/m, burst: 3 } }").start();
        sluice.expect_log(TOLD);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(refused(&sluice, HOME), None);
        }
        assert_eq!(refused(&sluice, HOME).as_deref(), Some(words.as_bytes()));
        assert_eq!(refused(&sluice, AWAY), None, "another address");
        eventually("a second is over", PATIENCE, || refused(&sluice, HOME).is_none().then_some(()));
        assert!(start.elapsed() >= Duration::from_millis(950), "{:?}", start.elapsed());
        assert!(rejected(&sluice, "client_rate") >= 1.0);
    }
}

/// The proxy's own address is that of all its clients: what counts is who it says they are.
#[test]
fn the_address_that_counts_is_the_one_a_trusted_proxy_tells() {
    let greeter = Greeter::start();
    let sluice = greeter
        .setup()
        .listener("proxy_protocol: { trusted: [127.0.0.1] }")
        .listener("limits: { per_client: { connections: 1 } }")
        .start();
    sluice.expect_log(TOLD);
    let from = |last: u8| {
        let mut socket = connect(&sluice, HOME);
        let header = format!("PROXY TCP4 192.0.2.{last} 192.0.2.200 1 2\r\n");
        socket.write_all(header.as_bytes()).unwrap();
        let served = matches!(socket.read(&mut [0]), Ok(1));
        served.then_some(socket)
    };
    let first = from(1).unwrap();
    assert!(from(1).is_none());
    let _second = from(2).unwrap();
    assert_eq!(rejected(&sluice, "client_connections"), 1.0);
    drop(first);
    eventually("the first one's place is free", PATIENCE, || from(1));
    // One who is no proxy counts by its own address.
    let _direct = served(&sluice, AWAY);
    assert!(refused(&sluice, AWAY).is_some());
}

fn in_flight(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_backend_in_flight", &[])
}

fn queued(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_queue_length", &[])
}

#[test]
fn connections_wait_for_a_backend_that_has_room_and_come_in_turn() {
    let greeters = [Greeter::start(), Greeter::start()];
    let sluice = Setup::tcp(greeters.each_ref().map(|greeter| greeter.port.address()))
        .workers(3)
        .cluster("limits: { max_in_flight: 2, queue: 3 }")
        .cluster("timeouts: { queue: 15s }")
        .start();
    let mut held: Vec<_> = (0..4).map(|_| served(&sluice, HOME)).collect();
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(connect(&sluice, HOME));
        eventually("it waits", PATIENCE, || (queued(&sluice) == f64::from(n)).then_some(()));
    }
    // The line is full: refused at once.
    let start = Instant::now();
    assert_eq!(refused(&sluice, HOME), Some(Vec::new()));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!((in_flight(&sluice), queued(&sluice)), (4.0, 3.0));
    for (left, mut first) in (0..3).rev().zip(waiting) {
        held.pop();
        let mut byte = [0];
        first.read_exact(&mut byte).unwrap();
        eventually("it has left the line", PATIENCE, || {
            (queued(&sluice) == f64::from(left)).then_some(())
        });
        assert!(in_flight(&sluice) <= 4.0);
        held.insert(0, first);
    }
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_requests_overloaded_total", &[]), 1.0);
    assert_eq!(metrics.sum("sluice_queue_wait_seconds_count", &[]), 3.0);
    assert_eq!(sluice.status()["clusters"][0]["requests"]["overloaded"], 1);
    drop(held);
    eventually("nothing is left", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
}

#[test]
fn nobody_waits_longer_than_told_and_who_leaves_gives_up_the_place() {
    let greeter = Greeter::start();
    let sluice = greeter
        .setup()
        .cluster("limits: { max_connections: 1 }")
        .cluster("timeouts: { queue: 700ms }")
        .start();
    let held = served(&sluice, HOME);
    let start = Instant::now();
    assert_eq!(refused(&sluice, HOME), Some(Vec::new()));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(650) && waited < Duration::from_secs(5), "{waited:?}");

    let leaves = connect(&sluice, HOME);
    eventually("it waits", PATIENCE, || (queued(&sluice) == 1.0).then_some(()));
    socket2::SockRef::from(&leaves).set_linger(Some(Duration::ZERO)).unwrap();
    drop(leaves);
    eventually("its place is free", PATIENCE, || (queued(&sluice) == 0.0).then_some(()));
    drop(held);
    eventually("the backend has room", PATIENCE, || refused(&sluice, HOME).is_none().then_some(()));
}

/// A backend that refuses connections is another one's gain, not the end of the line.
#[test]
fn a_backend_that_is_down_is_no_room() {
    let (greeter, dead) = (Greeter::start(), Port::free());
    let sluice = Setup::tcp([greeter.port.address(), dead.address()])
        .cluster("limits: { max_in_flight: 1 }")
        .cluster("timeouts: { queue: 300ms }")
        .without_waiting()
        .start();
    sluice.expect_log(dead.address());
    let _held = served(&sluice, HOME);
    for _ in 0..3 {
        assert_eq!(refused(&sluice, HOME), Some(Vec::new()));
    }
    assert!(sluice.metrics().sum("sluice_requests_overloaded_total", &[]) >= 3.0);
}

#[test]
fn redis_requests_over_the_limit_are_refused_at_once_and_in_their_place() {
    let redis = Redis::start();
    let sluice = redis_setup(&redis).cluster("limits: { max_in_flight: 3 }").start();
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    let replies = conn.pipeline(&vec![vec!["GET", "k"]; 10]);
    for reply in &replies[..3] {
        assert_eq!(*reply, "v");
    }
    for reply in &replies[3..] {
        assert_eq!(reply.error(), "ERR sluice: cluster 'cache' overloaded");
    }
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_requests_overloaded_total", &[]), 7.0);
    assert_eq!(in_flight(&sluice), 0.0);
    assert_eq!(conn.cmd(&["GET", "k"]), "v");
}

#[test]
fn when_memory_is_used_up_new_tcp_connections_are_refused() {
    let (redis, greeter, second) = (Redis::start(), Greeter::start(), Port::free());
    let sluice = redis_setup(&redis)
        .top("limits: { memory: 1MiB }")
        // Its silence must not be noticed.
        .check("{ interval: 1h, fast_interval: 1h, timeout: 60s }")
        .listener(&format!(
            "\n  - {{ name: raw, bind: {}, protocol: tcp, cluster: raw }}",
            second.address()
        ))
        .cluster(&format!("\n  raw:\n    backends: [{}]", greeter.port.address()))
        .without_waiting()
        .start();
    sluice.wait_for(&redis.address(), true);
    sluice.expect_log(TOLD);
    sluice.expect_log("limits.memory reached");
    sluice.expect_log(redis.address());
    let mut open = TcpStream::connect(second.address()).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    open.read_exact(&mut [0]).unwrap();
    // What a server does not take stays with us, for a client that sent it and left.
    redis.stop();
    let mut conns: Vec<Conn> = (0..4).map(|_| sluice.conn()).collect();
    let value = "x".repeat(60_000);
    for conn in &mut conns {
        for _ in 0..40 {
            let _ = conn.try_send(&crate::harness::request(&["SET", "k", &value]));
        }
    }
    eventually("memory is used up", PATIENCE, || {
        (sluice.metrics().sum("sluice_buffered_bytes", &[]) >= f64::from(1 << 20)).then_some(())
    });
    let refused = || {
        let mut socket = TcpStream::connect(second.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        !matches!(socket.read(&mut [0]), Ok(1))
    };
    assert!(refused());
    let memory = [("listener", "raw"), ("reason", "memory")];
    assert!(sluice.metrics().sum(REJECTED, &memory) >= 1.0);
    redis.cont();
    eventually("memory is free again", PATIENCE, || (!refused()).then_some(()));
    drop(conns);
}

/// A web server that answers after a request has come, when it is told to.
struct Web {
    port: Port,
    open: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Web {
    fn start() -> Self {
        let (port, open) = (Port::free(), std::sync::Arc::default());
        let listener = TcpListener::bind(port.address()).unwrap();
        let web = Self { port, open };
        let open = std::sync::Arc::clone(&web.open);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (Ok(mut socket), open) = (socket, std::sync::Arc::clone(&open)) else {
                    continue;
                };
                thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut piece = [0; 1024];
                    while let Ok(n @ 1..) = socket.read(&mut piece) {
                        head.extend_from_slice(&piece[..n]);
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            while !open.load(std::sync::atomic::Ordering::Relaxed) {
                                thread::sleep(Duration::from_millis(5));
                            }
                            let _ =
                                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                        }
                    }
                });
            }
        });
        web
    }

    fn answer(&self) {
        self.open.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The head and body of the reply to one GET; the connection is to be closed after it.
fn get(sluice: &Sluice, from: Ipv4Addr) -> String {
    hear(ask(sluice, from, "close"))
}

fn ask(sluice: &Sluice, from: Ipv4Addr, connection: &str) -> TcpStream {
    let mut socket = connect(sluice, from);
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    // One that is refused may be closed already.
    let _ = socket.write_all(head.as_bytes());
    socket
}

fn hear(mut socket: TcpStream) -> String {
    let mut all = Vec::new();
    match socket.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(all).unwrap().to_ascii_lowercase()
}

#[test]
fn http_clients_over_a_limit_hear_its_reason_and_when_to_come_again() {
    let web = Web::start();
    web.answer();
    let start = |limits: &str| {
        let sluice = Setup::http([web.port.address()])
            .workers(2)
            .listener(&format!("limits: {{ {limits} }}"))
            .start();
        sluice.expect_log(TOLD);
        sluice
    };
    let check = |sluice: &Sluice, reply: &str, status: &str, reason: &str| {
        assert!(reply.starts_with(&format!("http/1.1 {status} ")), "{reply}");
        assert!(reply.contains(&format!("\r\nx-sluice-error: {reason}\r\n")), "{reply}");
        assert!(reply.contains("\r\nretry-after: 1\r\n"), "{reply}");
        assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
        assert!(rejected(sluice, reason) >= 1.0);
    };
    let ok = |reply: String| assert!(reply.starts_with("http/1.1 200 "), "{reply}");

    let sluice = start("max_connections: 1");
    let _held = connect(&sluice, HOME);
    eventually("it is there", PATIENCE, || {
        let active = sluice.metrics().sum("sluice_listener_connections_active", &[]);
        (active == 1.0).then_some(())
    });
    check(&sluice, &get(&sluice, AWAY), "503", "max_connections");

    let sluice = start("per_client: { connections: 1 }");
    let _held = connect(&sluice, HOME);
    eventually("it is there", PATIENCE, || {
        let active = sluice.metrics().sum("sluice_listener_connections_active", &[]);
        (active == 1.0).then_some(())
    });
    check(&sluice, &get(&sluice, HOME), "429", "client_connections");
    ok(get(&sluice, AWAY));

    let sluice = start("per_client: { rate: 60/m, burst: 2 }");
    ok(get(&sluice, HOME));
    ok(get(&sluice, HOME));
    check(&sluice, &get(&sluice, HOME), "429", "client_rate");
    ok(get(&sluice, AWAY));

    // Requests count over all connections of the address.
    let sluice = start("per_client: { requests: 60/m, requests_burst: 2 }");
    ok(get(&sluice, HOME));
    ok(get(&sluice, HOME));
    check(&sluice, &get(&sluice, HOME), "429", "client_requests");
    ok(get(&sluice, AWAY));
    eventually("a second is over", PATIENCE, || {
        get(&sluice, HOME).starts_with("http/1.1 200").then_some(())
    });
}

#[test]
fn http_requests_wait_for_a_backend_that_has_room() {
    let web = Web::start();
    let sluice = Setup::http([web.port.address()])
        .workers(2)
        .cluster("limits: { max_in_flight: 2, queue: 2 }")
        .cluster("timeouts: { queue: 15s }")
        .start();
    let mut waiting: Vec<TcpStream> = Vec::new();
    for n in 1..=4u8 {
        waiting.push(ask(&sluice, HOME, "close"));
        let (busy, queue) = (f64::from(n.min(2)), f64::from(n.saturating_sub(2)));
        eventually("it is sent or waits", PATIENCE, || {
            ((in_flight(&sluice), queued(&sluice)) == (busy, queue)).then_some(())
        });
    }
    let reply = get(&sluice, HOME);
    assert!(reply.starts_with("http/1.1 503 "), "{reply}");
    assert!(reply.contains("\r\nx-sluice-error: overloaded\r\n"), "{reply}");
    assert!(reply.contains("\r\nretry-after: 1\r\n"), "{reply}");
    // One of those that wait leaves.
    drop(waiting.pop());
    eventually("its place is free", PATIENCE, || (queued(&sluice) == 1.0).then_some(()));
    web.answer();
    for socket in waiting {
        let reply = hear(socket);
        assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    }
    eventually("nothing is left", PATIENCE, || {
        (in_flight(&sluice) + queued(&sluice) == 0.0).then_some(())
    });
    assert_eq!(sluice.metrics().sum("sluice_requests_overloaded_total", &[]), 1.0);
}

/// A session waits for its own backend, and holds up nobody who may go to another one.
#[test]
fn who_has_a_session_at_a_busy_backend_waits_for_that_one() {
    let webs = [Web::start(), Web::start()];
    let sluice = Setup::http(webs.each_ref().map(|web| web.port.address()))
        .cluster("balance: round_robin")
        .cluster("sticky: { cookie: { name: S, mode: plain } }")
        .cluster("limits: { max_in_flight: 1 }")
        .cluster("timeouts: { queue: 15s }")
        .start();
    webs[0].answer();
    webs[1].answer();
    let first = get(&sluice, HOME);
    let cookie = first.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    // As it was sent: its value may have capitals, which `get` does not keep.
    let cookie = {
        let mut socket = ask(&sluice, HOME, "close");
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let name = cookie.split('=').next().unwrap().to_ascii_uppercase();
        let at = text.find(&format!("{name}=")).unwrap();
        text[at..].split(';').next().unwrap().to_owned()
    };
    webs.iter().for_each(|web| web.open.store(false, std::sync::atomic::Ordering::Relaxed));
    let pinned = || {
        let mut socket = connect(&sluice, HOME);
        let head =
            format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let busy = pinned();
    eventually("its backend is busy", PATIENCE, || (in_flight(&sluice) == 1.0).then_some(()));
    let waits = pinned();
    eventually("the next one waits", PATIENCE, || (queued(&sluice) == 1.0).then_some(()));
    let other = ask(&sluice, HOME, "close");
    eventually("another goes to the other backend", PATIENCE, || {
        ((in_flight(&sluice), queued(&sluice)) == (2.0, 1.0)).then_some(())
    });
    webs.iter().for_each(Web::answer);
    for socket in [busy, waits] {
        let reply = hear(socket);
        assert!(reply.starts_with("http/1.1 200 ") && !reply.contains("set-cookie"), "{reply}");
    }
    assert!(hear(other).starts_with("http/1.1 200 "));
}
