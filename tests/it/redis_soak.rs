//! The tagged soak: every key says whose request it is and which, every value is its key, and while
//! clients leave, servers stall, cut and reset, no reply may reach anybody else. Millions of them:
//! so requests and replies have a fixed form here that costs next to nothing to make and to check.

use crate::harness::{Dice, Setup, Sluice, port::Port};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const CLIENTS: u64 = 12;
const SHARDS: usize = 3;
/// Digits of a key: whose it is and which.
const KEY: usize = 18;

/// At least ten million requests; `SLUICE_SOAK_REQUESTS` says how many otherwise.
#[test]
fn no_reply_reaches_another_client() {
    let wanted: u64 =
        std::env::var("SLUICE_SOAK_REQUESTS").map_or(10_000_000, |n| n.parse().unwrap());
    let servers: Vec<String> = (0..SHARDS).map(|shard| mirror(shard as u64)).collect();
    let sluice = Setup::shards(servers.iter().map(|address| (address.clone(), vec![])))
        .workers(2)
        .cluster("timeouts: { request: 150ms, stall: 10s }")
        .start();
    servers.iter().for_each(|address| sluice.expect_log(address));
    (0..SHARDS).for_each(|shard| sluice.expect_log(format!("s{shard}")));
    let (values, errors, cuts) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (sluice, tally) =
                (&sluice, Tally { values: &values, errors: &errors, cuts: &cuts });
            scope.spawn(move || {
                let mut round = 0;
                while tally.values.load(Relaxed) + tally.errors.load(Relaxed) < wanted {
                    soak(sluice, client, round, &tally);
                    round += 1;
                }
            });
        }
    });
    let (values, errors, cuts) = (values.into_inner(), errors.into_inner(), cuts.into_inner());
    let told = format!("{values} values, {errors} errors, {cuts} cuts in {:?}\n", start.elapsed());
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    assert!(values > 9 * errors, "{values} values, {errors} errors");
    assert!(errors > 0 && cuts > 0, "the faults were not felt, so this proved nothing");
    assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
}

struct Tally<'a> {
    values: &'a AtomicU64,
    errors: &'a AtomicU64,
    cuts: &'a AtomicU64,
}

/// One connection's life: pipelines of GETs, until it leaves in the middle of one.
fn soak(sluice: &Sluice, client: u64, round: u64, tally: &Tally<'_>) {
    let mut dice = Dice::new(client << 40 ^ round);
    let mut socket = TcpStream::connect(sluice.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut tag = round * 10_000_000;
    let mut replies = Vec::new();
    for _ in 0..40 {
        let count = 1 + dice.below(600);
        let (mut bytes, first) = (Vec::new(), tag);
        for _ in 0..count {
            bytes.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$18\r\n");
            bytes.extend_from_slice(&key(client, tag));
            bytes.extend_from_slice(b"\r\n");
            tag += 1;
        }
        if dice.below(40) == 0 {
            // Leaves with a part of a request on its way and replies due.
            let cut = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
            let _ = socket.write_all(&bytes[..cut]);
            tally.cuts.fetch_add(1, Relaxed);
            return;
        }
        let mut writer = socket.try_clone().unwrap();
        // A client that only writes may be kept waiting until it reads.
        let sent = thread::scope(|scope| {
            let sending = scope.spawn(move || writer.write_all(&bytes));
            let seen = read(&mut socket, &mut replies, client, first, count, tally);
            sending.join().unwrap().is_ok() && seen
        });
        if !sent {
            return;
        }
    }
}

/// Reads `count` replies, each of which must be the value of its key or an error of ours. False
/// when the connection was closed, as it is when half a reply had passed.
fn read(
    socket: &mut TcpStream,
    buffer: &mut Vec<u8>,
    client: u64,
    first: u64,
    count: u64,
    tally: &Tally<'_>,
) -> bool {
    let (mut seen, mut start) = (0, 0);
    let (mut values, mut errors) = (0, 0);
    while seen < count {
        let rest = &buffer[start..];
        if let Some(value) = rest.get(..KEY + 7).filter(|value| value[0] == b'$') {
            let expected = key(client, first + seen);
            let same = value.starts_with(b"$18\r\n") && value[5..5 + KEY] == expected;
            let shown = value.escape_ascii();
            assert!(same, "client {client} got {shown} for {}", expected.escape_ascii());
            start += KEY + 7;
            seen += 1;
            values += 1;
        } else if rest.first() == Some(&b'-')
            && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
        {
            let text = String::from_utf8_lossy(&rest[..end]);
            assert!(text.contains("sluice"), "client {client}: {text}");
            start += end + 1;
            seen += 1;
            errors += 1;
        } else {
            buffer.drain(..start);
            start = 0;
            let mut piece = [0; 32 << 10];
            match socket.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => buffer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("client {client}, request {}: {error}", first + seen),
            }
        }
    }
    buffer.drain(..start);
    tally.values.fetch_add(values, Relaxed);
    tally.errors.fetch_add(errors, Relaxed);
    if seen < count {
        let _ = socket.shutdown(Shutdown::Both);
    }
    seen == count
}

fn key(client: u64, tag: u64) -> [u8; KEY] {
    let mut key = [b'0'; KEY];
    let mut write = |mut number: u64, places: std::ops::Range<usize>| {
        for place in places.rev() {
            key[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    write(client, 0..3);
    write(tag, 3..KEY);
    key
}

/// A server whose value of a key is that key, and a healthy primary to those who look; it stalls,
/// slices, cuts replies in two and resets.
fn mirror(seed: u64) -> String {
    let port = Port::free();
    let address = port.address();
    let listener = TcpListener::bind(&address).unwrap();
    let connections = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        let _port = port;
        for socket in listener.incoming() {
            let number = connections.fetch_add(1, Relaxed);
            thread::spawn(move || reflect(socket.unwrap(), Dice::new(seed << 32 | number)));
        }
    });
    address
}

const INFO: &str = "# Replication\r\nrole:master\r\nmaster_repl_offset:0\r\nloading:0\r\n";

fn reflect(mut socket: TcpStream, mut dice: Dice) -> Option<()> {
    socket.set_nodelay(true).unwrap();
    let (mut input, mut start) = (Vec::new(), 0);
    let mut piece = vec![0; 64 << 10];
    let mut out = Vec::new();
    loop {
        let n = socket.read(&mut piece).ok().filter(|n| *n > 0)?;
        input.extend_from_slice(&piece[..n]);
        while let Some(len) = whole(&input[start..]) {
            let request = &input[start..start + len];
            match request.get(8..11) {
                Some(b"GET") => out.extend_from_slice(&request[13..]),
                Some(b"INF") => out.extend(format!("${}\r\n{INFO}\r\n", INFO.len()).bytes()),
                Some(b"PIN") => out.extend_from_slice(b"+PONG\r\n"),
                _ => out.extend_from_slice(b"*0\r\n"),
            }
            start += len;
        }
        input.drain(..start);
        start = 0;
        match dice.below(2_000) {
            0 => thread::sleep(Duration::from_millis(200)),
            1 => {
                let _ = socket.write_all(&out[..out.len() / 2]);
                return None;
            }
            2 => return None,
            3..=40 => {
                let (front, back) = out.split_at(out.len() / 3);
                socket.write_all(front).ok()?;
                thread::sleep(Duration::from_micros(dice.below(2_000)));
                socket.write_all(back).ok()?;
                out.clear();
            }
            _ => {}
        }
        socket.write_all(&out).ok()?;
        out.clear();
    }
}

/// The length of the request at the front, when all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    const GET: usize = 13 + 5 + KEY + 2;
    if bytes.starts_with(b"*2\r\n$3\r\nGET\r\n") {
        return (bytes.len() >= GET).then_some(GET);
    }
    let mut at = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let count: usize = std::str::from_utf8(&bytes[1..at - 2]).ok()?.parse().ok()?;
    for _ in 0..count {
        let end = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let len: usize = std::str::from_utf8(&bytes[at + 1..end - 1]).ok()?.parse().ok()?;
        at = end + 1 + len + 2;
    }
    (bytes.len() >= at).then_some(at)
}
