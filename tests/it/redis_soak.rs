//! The tagged soak: every key says whose request it is and which, every value is its key, and while
//! clients leave, servers stall, cut and reset, no reply may reach anybody else. Millions of them:
//! so requests and replies have a fixed form here that costs next to nothing to make and to check.
//! Between them come transactions, commands that wait and messages, tagged likewise.

mod mirror;
mod tagged;

use crate::harness::{Dice, Setup, Sluice};
use mirror::mirror;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};
use tagged::{Counts, Kind, listen};

const CLIENTS: u64 = 12;
const LISTENERS: u64 = 4;
const SHARDS: usize = 3;
/// Digits of a key: whose it is and which.
const KEY: usize = 18;
/// More than one connection asks for.
const TAGS: u64 = 10_000_000;

/// At least ten million requests; `SLUICE_SOAK_REQUESTS` says how many otherwise.
#[test]
fn no_reply_reaches_another_client() {
    let wanted: u64 =
        std::env::var("SLUICE_SOAK_REQUESTS").map_or(10_000_000, |n| n.parse().unwrap());
    let servers: Vec<String> = (0..SHARDS).map(|shard| mirror(shard as u64)).collect();
    let sluice = Setup::shards(servers.iter().map(|address| (address.clone(), vec![])))
        .workers(2)
        .cluster("timeouts: { request: 150ms, stall: 10s }")
        .cluster("dedicated: { max_per_backend: 3, wait_timeout: 100ms }")
        .start();
    servers.iter().for_each(|address| sluice.expect_log(address));
    (0..SHARDS).for_each(|shard| sluice.expect_log(format!("s{shard}")));
    let (tally, start) = (Tally::default(), Instant::now());
    thread::scope(|scope| {
        let (sluice, tally) = (&sluice, &tally);
        for listener in 0..LISTENERS {
            scope.spawn(move || listen(sluice, listener, tally));
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || soak_on(sluice, client, wanted, tally)))
            .collect();
        let results: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        tally.done.store(true, Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
    let (values, errors) = (tally.values.load(Relaxed), tally.errors.load(Relaxed));
    let cuts = tally.cuts.load(Relaxed);
    let metrics = sluice.metrics();
    let resubscribed = metrics.sum("sluice_redis_resubscriptions_total", &[]);
    let told = format!(
        "{values} values, {errors} errors, {cuts} cuts in {:?}; {:?}, {resubscribed} resubscriptions\n",
        start.elapsed(),
        tally.kinds
    );
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    assert!(values > 9 * errors, "{values} values, {errors} errors");
    assert!(errors > 0 && cuts > 0, "the faults were not felt, so this proved nothing");
    for kind in Kind::ALL {
        let [values, errors, cuts] = tally.kinds.of(kind);
        let told = format!("{kind:?}: {values} values, {errors} errors, {cuts} cuts");
        // What messages were missed nobody counts, but for how often.
        let is_felt = errors > 0 || matches!(kind, Kind::Message) && resubscribed > 0.0;
        assert!(values > 3 * errors && is_felt && cuts > 0, "{told}");
    }
    assert_eq!(metrics.sum("sluice_panics_total", &[]), 0.0);
}

/// What has come so far.
#[derive(Debug, Default)]
struct Tally {
    values: AtomicU64,
    errors: AtomicU64,
    cuts: AtomicU64,
    kinds: Counts,
    done: AtomicBool,
}

/// One client, over as many connections as it takes.
fn soak_on(sluice: &Sluice, client: u64, wanted: u64, tally: &Tally) {
    let mut round = 0;
    while tally.values.load(Relaxed) + tally.errors.load(Relaxed) < wanted {
        soak(sluice, client, round, tally);
        round += 1;
    }
}

/// One connection's life: pipelines of GETs, until it leaves in the middle of one.
fn soak(sluice: &Sluice, client: u64, round: u64, tally: &Tally) {
    let mut dice = Dice::new(client << 40 ^ round);
    let mut socket = TcpStream::connect(sluice.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut tag = round * TAGS;
    let mut replies = Vec::new();
    for _ in 0..40 {
        if dice.below(30) == 0 {
            if !tagged::pipeline(&mut socket, &mut replies, client, &mut tag, &mut dice, tally) {
                return;
            }
            continue;
        }
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
    tally: &Tally,
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
