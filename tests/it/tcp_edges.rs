//! The edges of a relayed connection: who closes early, leaves while we dial, or breaks unheard.

use crate::harness::{PATIENCE, Setup, Sluice, eventually, port::Port};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// In front of a server that the test plays; probes come once and say nothing.
fn before(port: &Port) -> Setup {
    Setup::tcp([port.address()]).check("{ interval: 1h }")
}

fn connect(sluice: &Sluice) -> TcpStream {
    let socket = TcpStream::connect(sluice.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next connection that says something, and its first byte.
fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        if matches!(socket.read(&mut [0]), Ok(1)) {
            return socket;
        }
    }
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

fn active(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_listener_connections_active", &[])
}

#[track_caller]
fn ends(sluice: &Sluice) {
    eventually("the session has ended", PATIENCE, || (active(sluice) == 0.0).then_some(()));
}

/// The end of the answer was lost: our close was a reset, for the upload lay there unread.
#[test]
fn a_backend_that_answers_and_closes_during_an_upload_is_heard_to_the_end() {
    const ANSWER: usize = 100_000;
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    let sluice = before(&port).start();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Most of the answer waits with Sluice.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&sluice.address().parse::<SocketAddr>().unwrap().into()).unwrap();
    let mut client: TcpStream = socket.into();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut upload = client.try_clone().unwrap();
    let uploads = thread::spawn(move || {
        let mut sent = 0;
        // Until somebody no longer wants it.
        while let Ok(n) = upload.write(&[7; 64 << 10]) {
            sent += n;
        }
        sent
    });
    let mut server = accept(&listener);
    server.write_all(&[9; ANSWER]).unwrap();
    eventually("Sluice has the answer", PATIENCE, || {
        let out = sluice.metrics().sum("sluice_listener_bytes_total", &[("direction", "out")]);
        (out == ANSWER as f64).then_some(())
    });
    // With much of the upload unread.
    drop(server);
    let (mut heard, mut piece) = (0, [0; 1024]);
    loop {
        match client.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => heard += n,
            Err(error) => panic!("{error} after {heard} bytes"),
        }
        // A reader that takes its time.
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(heard, ANSWER);
    client.shutdown(Shutdown::Both).unwrap();
    assert!(uploads.join().unwrap() > ANSWER);
    ends(&sluice);
}

/// And the other way: what a client said before it went away reaches a backend that is slow to read.
#[test]
fn a_client_that_uploads_and_leaves_during_the_answer_is_heard_to_the_end() {
    const UPLOAD: usize = 400_000;
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    socket2::SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let sluice = before(&port).start();
    let mut client = connect(&sluice);
    let uploads = thread::spawn(move || {
        client.write_all(&[7; UPLOAD]).unwrap();
        client
    });
    let mut server = accept(&listener);
    let client = uploads.join().unwrap();
    eventually("Sluice has the upload", PATIENCE, || {
        let bytes = sluice.metrics().sum("sluice_listener_bytes_total", &[("direction", "in")]);
        (bytes == UPLOAD as f64).then_some(())
    });
    drop(client);
    server.write_all(&[9; 200_000]).unwrap();
    let (mut heard, mut piece) = (1, [0; 4096]);
    loop {
        match server.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => heard += n,
            Err(error) => panic!("{error} after {heard} bytes"),
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(heard, UPLOAD);
    drop(server);
    ends(&sluice);
}

/// A listener that takes no connection.
struct Stuck {
    port: Port,
    _listener: socket2::Socket,
    _fill: Vec<socket2::Socket>,
}

impl Stuck {
    fn start() -> Self {
        let port = Port::free();
        let address: SocketAddr = port.address().parse().unwrap();
        let new =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let socket = new();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        // The kernel answers no more when its queue is full.
        let fill = (0..4).map(|_| {
            let socket = new();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        let fill = fill.collect();
        Self { port, _listener: socket, _fill: fill }
    }

    fn sluice(&self) -> Sluice {
        let sluice = Setup::tcp([self.port.address()])
            .check("{ interval: 1h, fast_interval: 1h, timeout: 60s, startup_grace: 1ms }")
            .cluster("timeouts: { connect: 30s }")
            .without_waiting()
            .start();
        sluice.expect_log("not every backend was probed within startup_grace");
        sluice
    }
}

#[test]
fn a_client_that_leaves_while_we_dial_is_not_kept() {
    let stuck = Stuck::start();
    let sluice = stuck.sluice();
    let client = connect(&sluice);
    eventually("it is there", PATIENCE, || (active(&sluice) == 1.0).then_some(()));
    assert_eq!(sluice.metrics().sum("sluice_backend_in_flight", &[]), 1.0);
    reset(client);
    ends(&sluice);
    assert_eq!(sluice.metrics().sum("sluice_backend_in_flight", &[]), 0.0);
}

#[test]
fn a_client_that_has_said_all_waits_until_a_backend_takes_it() {
    let port = Port::free();
    let listener = TcpListener::bind(port.address()).unwrap();
    let sluice = before(&port)
        .cluster("limits: { max_in_flight: 1 }")
        .cluster("timeouts: { queue: 15s }")
        .start();
    let mut busy = connect(&sluice);
    busy.write_all(b"b").unwrap();
    let first = accept(&listener);
    let mut client = connect(&sluice);
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    eventually("it waits", PATIENCE, || {
        (sluice.metrics().sum("sluice_queue_length", &[]) == 1.0).then_some(())
    });
    // For longer than it takes us to look whether it has left.
    client.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "closed while it waits");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    drop((busy, first));
    let mut server = accept(&listener);
    server.write_all(b"y").unwrap();
    drop(server);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"y");
}

/// Nobody wrote to it, so nobody noticed.
#[test]
fn a_side_that_finishes_and_then_breaks_ends_the_connection() {
    for server_breaks in [true, false] {
        let port = Port::free();
        let listener = TcpListener::bind(port.address()).unwrap();
        let sluice = before(&port).start();
        let mut client = connect(&sluice);
        client.write_all(b"x").unwrap();
        let server = accept(&listener);
        let (mut breaks, mut stays) =
            if server_breaks { (server, client) } else { (client, server) };
        breaks.write_all(b"bye").unwrap();
        breaks.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stays.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"bye");
        reset(breaks);
        ends(&sluice);
        drop(stays);
    }
}
