//! TCP: any protocol through Sluice, to backends that are all alike.

use crate::harness::{Conn, PATIENCE, Redis, Setup, Sluice, eventually, port::Port};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A server that names itself in one byte and then sends back what it gets.
#[derive(Debug)]
pub(crate) struct Echo {
    port: Port,
    name: u8,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Of the running generation; an older one's thread ends.
    listening: Mutex<Option<Arc<AtomicBool>>>,
    sockets: Mutex<Vec<TcpStream>>,
    /// Connections that said something or had the name read: probes do neither.
    served: AtomicUsize,
}

impl Echo {
    pub(crate) fn start(name: u8) -> Self {
        let echo = Self { port: Port::free(), name, shared: Arc::default() };
        echo.restart();
        echo
    }

    pub(crate) fn restart(&self) {
        let listener = eventually("the port is free again", PATIENCE, || {
            TcpListener::bind(self.port.address()).ok()
        });
        let on = Arc::new(AtomicBool::new(true));
        *self.shared.listening.lock().unwrap() = Some(Arc::clone(&on));
        let (shared, name) = (Arc::clone(&self.shared), self.name);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if !on.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                shared.sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let _ = shared.serve(name, socket);
                });
            }
        });
    }

    /// Closes everything; new connections are refused.
    pub(crate) fn kill(&self) {
        if let Some(on) = self.shared.listening.lock().unwrap().take() {
            on.store(false, Ordering::Relaxed);
            // Wakes the accept.
            let _ = TcpStream::connect(self.address());
            for socket in self.shared.sockets.lock().unwrap().drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
            eventually("connections are refused", PATIENCE, || {
                TcpStream::connect(self.address()).is_err().then_some(())
            });
        }
    }

    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, name: u8, mut socket: TcpStream) -> io::Result<()> {
        socket.write_all(&[name])?;
        let mut piece = vec![0; 64 << 10];
        let mut first = true;
        loop {
            let n = socket.read(&mut piece)?;
            if n == 0 {
                return socket.shutdown(Shutdown::Write);
            }
            if std::mem::take(&mut first) {
                self.served.fetch_add(1, Ordering::Relaxed);
            }
            socket.write_all(&piece[..n])?;
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn echoes(names: &[u8]) -> Vec<Echo> {
    names.iter().map(|name| Echo::start(*name)).collect()
}

pub(crate) fn before(echoes: &[Echo]) -> Setup {
    Setup::tcp(echoes.iter().map(Echo::address))
}

fn try_connect(sluice: &Sluice) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&sluice.address().parse().unwrap(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[track_caller]
pub(crate) fn connect(sluice: &Sluice) -> TcpStream {
    try_connect(sluice).unwrap()
}

fn byte(socket: &mut TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    socket.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A connection, and the name of the server at its other end after a round trip.
fn try_open(sluice: &Sluice) -> io::Result<(TcpStream, u8)> {
    let mut socket = try_connect(sluice)?;
    let name = byte(&mut socket)?;
    socket.write_all(b"!")?;
    assert_eq!(byte(&mut socket)?, b'!');
    Ok((socket, name))
}

#[track_caller]
pub(crate) fn open(sluice: &Sluice) -> (TcpStream, u8) {
    try_open(sluice).unwrap_or_else(|error| panic!("{error}\n{}", sluice.log()))
}

/// Whether the other side closed: no data, no time-out.
pub(crate) fn is_closed(socket: &mut TcpStream) -> bool {
    match byte(socket) {
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        Ok(_) => false,
    }
}

#[test]
fn redis_cli_and_its_protocol_pass() {
    let redis = Redis::start();
    let sluice = Setup::tcp([redis.address()]).start();
    let port = sluice.port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port, "set", "k", "v"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "OK");
    // Nothing is looked at, so MULTI passes too.
    let mut conn = sluice.conn();
    assert_eq!(conn.cmd(&["MULTI"]), "OK");
    assert_eq!(conn.cmd(&["GET", "k"]).text(), "QUEUED");
    assert_eq!(conn.cmd(&["EXEC"]).items()[0].text(), "v");
}

#[test]
fn either_side_may_finish_first_and_the_rest_still_comes() {
    let echo = Echo::start(b'a');
    let sluice = before(std::slice::from_ref(&echo)).start();
    let mut socket = connect(&sluice);
    socket.write_all(b"the last words").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"athe last words");

    // The server finishes first, and hears on.
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    let sluice = Setup::tcp([port.address()]).check("{ interval: 1h }").start();
    let mut client = connect(&sluice);
    client.write_all(b"x").unwrap();
    let mut server = eventually("the connection that is no probe's", PATIENCE, || {
        let (mut socket, _) = listener.accept().unwrap();
        byte(&mut socket).ok().map(|_| socket)
    });
    server.write_all(b"bye").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    client.write_all(b"still here").unwrap();
    drop(client);
    let mut rest = Vec::new();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_to_end(&mut rest).unwrap();
    assert_eq!((&*heard, &*rest), (&b"bye"[..], &b"still here"[..]));
}

/// FNV-1a over all bytes, to compare what was sent with what came.
fn sum(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn a_hundred_megabytes_both_ways_arrive_whole_in_bounded_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 100;
    let echo = Echo::start(b'a');
    let sluice = before(std::slice::from_ref(&echo)).start();
    let mut socket = connect(&sluice);
    assert_eq!(byte(&mut socket).unwrap(), b'a');
    let at_start = sluice.metrics().sum("process_resident_memory_bytes", &[]);
    let mut writer = socket.try_clone().unwrap();
    let sent = thread::spawn(move || {
        let mut dice = crate::harness::Dice::new(7);
        let mut hash = 0;
        for _ in 0..PIECES {
            let piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| dice.draw().to_le_bytes()).collect();
            hash = sum(hash, &piece);
            writer.write_all(&piece).unwrap();
        }
        writer.shutdown(Shutdown::Write).unwrap();
        hash
    });
    let (mut hash, mut len, mut piece) = (0, 0, vec![0; 256 << 10]);
    loop {
        let n = socket.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        hash = sum(hash, &piece[..n]);
        len += n;
    }
    assert_eq!((len, hash), (PIECE * PIECES, sent.join().unwrap()));
    let metrics = sluice.metrics();
    let grown = metrics.sum("process_resident_memory_bytes", &[]) - at_start;
    assert!(grown < 8e6, "{grown} bytes");
    let all = (PIECE * PIECES) as f64;
    let bytes = |direction| metrics.sum("sluice_listener_bytes_total", &[("direction", direction)]);
    assert_eq!((bytes("in"), bytes("out")), (all, all + 1.0));
    assert_eq!(metrics.sum("sluice_buffered_bytes", &[]), 0.0);
}

#[test]
fn a_client_that_does_not_read_is_not_buffered_for() {
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    let sluice = Setup::tcp([port.address()]).check("{ interval: 1h }").start();
    let mut client = connect(&sluice);
    client.write_all(b"x").unwrap();
    let mut server = eventually("the connection that is no probe's", PATIENCE, || {
        let (mut socket, _) = listener.accept().unwrap();
        byte(&mut socket).ok().map(|_| socket)
    });
    server.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let at_start = sluice.metrics().sum("process_resident_memory_bytes", &[]);
    let mut sent = 0;
    // Until the kernel's buffers on the way are full: some megabytes, never a gigabyte.
    while let Ok(n) = server.write(&[7; 64 << 10]) {
        sent += n;
        assert!(sent < 1 << 30, "nobody holds the server up");
    }
    let metrics = sluice.metrics();
    let grown = metrics.sum("process_resident_memory_bytes", &[]) - at_start;
    assert!(grown < 4e6, "{grown} bytes");
    assert!(metrics.sum("sluice_buffered_bytes", &[]) <= 16_384.0);
    // Another client is none the worse, and the slow one still gets all of it.
    let passed = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all.len()
    });
    drop(server);
    assert_eq!(passed.join().unwrap(), sent);
}

#[test]
fn a_client_address_stays_at_one_backend_and_moves_when_that_dies() {
    for cluster in ["balance: client_ip", "sticky: { client_ip: {} }"] {
        let echoes = echoes(b"abc");
        let sluice = before(&echoes).cluster(cluster).workers(2).start();
        let (_, home) = open(&sluice);
        for _ in 0..100 {
            assert_eq!(open(&sluice).1, home);
        }
        let at_home = echoes.iter().find(|echo| echo.name == home).unwrap();
        assert_eq!(at_home.served(), 101);
        at_home.kill();
        sluice.expect_log(at_home.address());
        let (_, next) = open(&sluice);
        assert_ne!(next, home);
        for _ in 0..100 {
            assert_eq!(open(&sluice).1, next);
        }
        at_home.restart();
        // It was ejected for five seconds, and then one connection is its trial.
        eventually("the client comes home", PATIENCE, || (open(&sluice).1 == home).then_some(()));
    }
}

/// Connects from another address of this machine's.
fn open_from(sluice: &Sluice, from: Ipv4Addr) -> u8 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).unwrap();
    let address: SocketAddr = sluice.address().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut socket: TcpStream = socket.into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    byte(&mut socket).unwrap()
}

#[test]
fn addresses_are_told_apart_up_to_the_prefix() {
    let echoes = echoes(b"abcd");
    let home = |sluice: &Sluice, third: u8, fourth: u8| {
        open_from(sluice, Ipv4Addr::new(127, 0, third, fourth))
    };
    let sluice = before(&echoes).cluster("sticky: { client_ip: { v4: 24 } }").start();
    let homes: Vec<u8> = (1..30).map(|third| home(&sluice, third, 1)).collect();
    assert!((1..30).zip(&homes).all(|(third, at)| home(&sluice, third, 200) == *at));
    let mut used = homes;
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 1, "all 29 networks are at one backend");
}

#[test]
fn a_killed_backend_costs_no_new_connection_an_error() {
    let echoes = echoes(b"ab");
    let sluice = before(&echoes).cluster("balance: round_robin").start();
    for round in 0..60 {
        if round == 20 {
            sluice.expect_log(echoes[0].address());
            echoes[0].kill();
        }
        let (_, name) = open(&sluice);
        assert!(round < 20 || name == b'b');
    }
    let metrics = sluice.metrics();
    assert!(metrics.sum("sluice_retries_total", &[]) >= 1.0);
    assert_eq!(metrics.sum("sluice_requests_total", &[("result", "ok")]), 60.0);
    assert_eq!(metrics.sum("sluice_requests_total", &[("result", "proxy_error")]), 0.0);
    sluice.wait_for(&echoes[0].address(), false);
    echoes[0].restart();
    eventually("it gets connections again", PATIENCE, || (open(&sluice).1 == b'a').then_some(()));
}

#[test]
fn weights_and_strategies_share_as_they_say() {
    let echoes = echoes(b"ab");
    let members =
        || [echoes[0].address(), format!("{{ address: {}, weight: 3 }}", echoes[1].address())];
    let sluice = Setup::tcp(members()).cluster("balance: round_robin").start();
    let heavy = (0..80).filter(|_| open(&sluice).1 == b'b').count();
    assert_eq!(heavy, 60);
    drop(sluice);
    // Connections that stay open are what is counted.
    let sluice = Setup::tcp(members()).cluster("balance: least_connections").start();
    let held: Vec<_> = (0..40).map(|_| open(&sluice)).collect();
    let heavy = held.iter().filter(|(_, name)| *name == b'b').count();
    assert!((28..=32).contains(&heavy), "{heavy} of 40");
    let in_flight = |echo: &Echo| {
        sluice.metrics().sum("sluice_backend_in_flight", &[("backend", &echo.address())])
    };
    assert_eq!(in_flight(&echoes[0]) + in_flight(&echoes[1]), 40.0);
    drop(held);
    eventually("nothing is in flight", PATIENCE, || {
        (in_flight(&echoes[0]) + in_flight(&echoes[1]) == 0.0).then_some(())
    });
}

#[test]
fn a_backend_that_refuses_from_the_start_is_passed_over_and_all_down_is_a_close() {
    let (echo, dead) = (Echo::start(b'a'), Port::free());
    let sluice = Setup::tcp([dead.address(), echo.address()])
        .cluster("balance: round_robin")
        .without_waiting()
        .start();
    sluice.expect_log(dead.address());
    sluice.expect_log(echo.address());
    for _ in 0..20 {
        assert_eq!(open(&sluice).1, b'a');
    }
    echo.kill();
    assert!(is_closed(&mut connect(&sluice)));
    sluice.wait_for(&echo.address(), false);
    // Nobody is ready, so all are tried: it is served before a probe has seen it come back.
    assert!(is_closed(&mut connect(&sluice)));
    echo.restart();
    assert_eq!(open(&sluice).1, b'a');
    let failed = sluice.metrics().sum("sluice_requests_total", &[("result", "proxy_error")]);
    assert_eq!(failed, 2.0);
}

#[test]
fn silence_closes_a_connection_and_a_busy_one_stays() {
    let echo = Echo::start(b'a');
    let sluice = before(std::slice::from_ref(&echo)).cluster("timeouts: { idle: 600ms }").start();
    let (mut silent, _) = open(&sluice);
    let (mut busy, _) = open(&sluice);
    let started = Instant::now();
    silent.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while !is_closed(&mut silent) {
        busy.write_all(b"x").unwrap();
        assert_eq!(byte(&mut busy).unwrap(), b'x');
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(started.elapsed() >= Duration::from_millis(500));
    busy.write_all(b"y").unwrap();
    assert_eq!(byte(&mut busy).unwrap(), b'y');
}

#[test]
fn a_drain_waits_for_connections_and_takes_no_new_ones() {
    let echo = Echo::start(b'a');
    let mut sluice = before(std::slice::from_ref(&echo)).start();
    let (mut socket, _) = open(&sluice);
    sluice.terminate();
    eventually("no new connection is served", PATIENCE, || {
        try_open(&sluice).is_err().then_some(())
    });
    socket.write_all(b"x").unwrap();
    assert_eq!(byte(&mut socket).unwrap(), b'x');
    drop(socket);
    assert!(sluice.exit(PATIENCE).success());
}

#[test]
fn a_drain_ends_connections_when_its_time_is_over() {
    let echo = Echo::start(b'a');
    let mut sluice =
        before(std::slice::from_ref(&echo)).top("shutdown: { drain_timeout: 300ms }").start();
    sluice.expect_log("drain timeout over");
    let (mut socket, _) = open(&sluice);
    sluice.terminate();
    assert!(sluice.exit(PATIENCE).success());
    assert!(is_closed(&mut socket));
}

#[test]
fn metrics_and_status_tell_of_connections_and_know_no_role() {
    let echoes = echoes(b"ab");
    let sluice = before(&echoes).cluster("balance: round_robin").start();
    let (_socket, _) = open(&sluice);
    let status = sluice.status();
    let listener = &status["listeners"][0];
    assert_eq!((&listener["protocol"], &listener["active"]), (&"tcp".into(), &1.into()));
    let group = &status["clusters"][0]["shards"][0];
    assert_eq!((&group["name"], &group["slots"]), (&"".into(), &serde_json::json!([])));
    assert_eq!(status["clusters"][0]["requests"]["writes"], 1);
    let backends = group["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 2);
    for backend in backends {
        assert_eq!((&backend["role"], &backend["state"]), (&"none".into(), &"ready".into()));
        assert_eq!(backend["probes"][0]["text"], "connected");
    }
    let open: u64 = backends.iter().map(|backend| backend["connections"].as_u64().unwrap()).sum();
    assert_eq!(open, 1);
    let metrics = sluice.metrics();
    assert_eq!(metrics.sum("sluice_listener_connections_accepted_total", &[]), 1.0);
    assert_eq!(metrics.sum("sluice_backend_role", &[("role", "none")]), 2.0);
    assert_eq!(metrics.sum("sluice_backend_connects_total", &[("result", "ok")]), 1.0);
    sluice.expect_log(echoes[0].address());
    echoes[0].kill();
    sluice.wait_for(&echoes[0].address(), false);
    let line =
        format!("backend {} (cluster cache): ready -> unhealthy: probe: ", echoes[0].address());
    assert!(sluice.log().contains(&line), "{}", sluice.log());
}

/// A redis and a tcp listener in one process keep to themselves.
#[test]
fn redis_and_tcp_live_side_by_side() {
    let (redis, echo, second) = (Redis::start(), Echo::start(b'a'), Port::free());
    let sluice = Setup::shards([(redis.address(), Vec::new())])
        .listener(&format!(
            "\n  - {{ name: raw, bind: {}, protocol: tcp, cluster: raw }}",
            second.address()
        ))
        .cluster(&format!("\n  raw:\n    backends: [{}]", echo.address()))
        .without_waiting()
        .start();
    sluice.wait_for(&redis.address(), true);
    let mut raw = TcpStream::connect(second.address()).unwrap();
    assert_eq!(byte(&mut raw).unwrap(), b'a');
    let mut conn: Conn = sluice.conn();
    assert_eq!(conn.cmd(&["SET", "k", "v"]), "OK");
    assert_eq!(echo.served(), 0, "nobody asked the echo for its commands");
}

/// A server that only listens, and hands what it heard to the test.
struct Inbox {
    port: Port,
    heard: std::sync::mpsc::Receiver<Vec<u8>>,
}

impl Inbox {
    /// Each connection that says something is one entry: all that it said.
    fn start() -> Self {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let (sender, heard) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut all, sender) = (Vec::new(), sender.clone());
                let Ok(mut socket) = socket else { continue };
                thread::spawn(move || {
                    let _ = socket.read_to_end(&mut all);
                    if !all.is_empty() {
                        let _ = sender.send(all);
                    }
                });
            }
        });
        Self { port, heard }
    }

    #[track_caller]
    fn next(&self) -> String {
        let bytes = self.heard.recv_timeout(PATIENCE).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn say(address: &str, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    socket
}

const FROM_LOOPBACK: &str = "proxy_protocol: { trusted: [127.0.0.0/8] }";

#[test]
fn the_client_is_told_through_two_proxies_by_the_proxy_protocol() {
    let inbox = Inbox::start();
    let second = Setup::tcp([inbox.port.address()])
        .listener(FROM_LOOPBACK)
        .cluster("send_proxy: v1")
        .start();
    let first = Setup::tcp([second.address()]).cluster("send_proxy: v2").without_waiting().start();
    let client = say(&first.address(), b"hello");
    let (from, to) = (client.local_addr().unwrap().port(), first.port());
    assert_eq!(inbox.next(), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\nhello"));
}

#[test]
fn a_trusted_proxy_must_tell_and_others_are_not_believed() {
    let inbox = Inbox::start();
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nrest";
    let sluice = Setup::tcp([inbox.port.address()]).listener(FROM_LOOPBACK).start();
    say(&sluice.address(), header);
    assert_eq!(inbox.next(), "rest");
    for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 1.2.3.4"] {
        assert!(is_closed(&mut say(&sluice.address(), wrong)));
    }
    let rejected = || {
        let reason = [("reason", "protocol")];
        sluice.metrics().sum("sluice_listener_connections_rejected_total", &reason)
    };
    assert_eq!(rejected(), 2.0);
    // In pieces, and version 2.
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02";
    let mut socket = TcpStream::connect(sluice.address()).unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in v2.chunks(5) {
        socket.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    socket.write_all(b"two").unwrap();
    drop(socket);
    assert_eq!((inbox.next().as_str(), rejected()), ("two", 2.0));

    // Who is not trusted says it to the backend: it is the client's own text.
    let sluice = Setup::tcp([inbox.port.address()])
        .listener("proxy_protocol: { trusted: [192.0.2.0/24] }")
        .start();
    say(&sluice.address(), header);
    assert_eq!(inbox.next().as_bytes(), header);
}

#[test]
fn a_client_behind_a_proxy_is_pinned_by_its_own_address() {
    let echoes = echoes(b"abc");
    let sluice = before(&echoes).cluster("balance: client_ip").listener(FROM_LOOPBACK).start();
    let home = |last: u8| {
        let header = format!("PROXY TCP4 192.0.2.{last} 192.0.2.200 1 2\r\n");
        byte(&mut say(&sluice.address(), header.as_bytes())).unwrap()
    };
    let homes: Vec<u8> = (1..40).map(home).collect();
    assert!((1..40).zip(&homes).all(|(last, at)| home(last) == *at));
    assert!(echoes.iter().all(|echo| homes.contains(&echo.name)), "{homes:?}");
}
