//! Servers that answer garbage, half a reply, too many, too deep or nothing: their requests fail,
//! no reply reaches the wrong client, memory stays bounded, and others are not touched.

use crate::harness::{
    Cluster, FakeServer, PATIENCE, Request, Setup, Sluice, Step, Value, bulk, eventually,
};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 10;

/// Answers BAD keys with `bytes` (then closes, if told to), all others with their own name.
fn rogue(bytes: Vec<u8>, close: bool) -> FakeServer {
    FakeServer::start(move |asked: &Request| {
        if asked.words[1] != "bad" {
            return Step::reply(&bulk(&asked.words[1]));
        }
        let mut steps = vec![Step::Send(bytes.clone())];
        steps.extend(close.then_some(Step::Close));
        steps
    })
}

fn before(fake: &FakeServer) -> Sluice {
    let setup = Setup::shards([(fake.address(), vec![])]);
    let sluice = setup.cluster("timeouts: { request: 1s, stall: 1s }").start();
    sluice.expect_log(fake.address());
    sluice
}

/// After the bad answer the server's other requests are answered, each with its own reply.
#[track_caller]
fn assert_recovers(sluice: &Sluice) {
    let mut conn = sluice.conn();
    eventually("requests are answered again", PATIENCE, || {
        (conn.cmd(&["GET", "good"]) == "good").then_some(())
    });
    for n in 0..50 {
        let key = format!("k{n}");
        assert_eq!(conn.cmd(&["GET", &key]), key.as_str());
    }
    assert_eq!(sluice.metrics().sum("sluice_panics_total", &[]), 0.0);
    assert_eq!(sluice.metrics().sum("sluice_backend_in_flight", &[]), 0.0);
}

#[test]
fn garbage_and_half_replies_fail_their_request_only() {
    let answers: [(&[u8], bool); 9] = [
        (b"!garbage\r\n", false),
        (b"\0\0\0\0", false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"$-2\r\n", false),
        (b"$abc\r\n", false),
        (b"*2\r\n$1\r\na\r\n!", false),
        (b"$3\r\nabcde", false),
        (b"$10\r\nhalf", true),
        (b"", true),
    ];
    for (bytes, close) in answers {
        let fake = rogue(bytes.to_vec(), close);
        let sluice = before(&fake);
        let start = Instant::now();
        let mut conn = sluice.conn();
        // A reply of which some was passed on can only end with its connection.
        if let Ok(reply) = conn.try_cmd(&["GET", "bad"]) {
            assert!(reply.is_error(), "{}: {reply:?}", bytes.escape_ascii());
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{}", bytes.escape_ascii());
        assert_recovers(&sluice);
    }
}

#[test]
fn a_reply_too_many_reaches_nobody() {
    let fake = rogue(b"$3\r\nbad\r\n$5\r\nstray\r\n:1\r\n".to_vec(), false);
    let sluice = before(&fake);
    let mut clients: Vec<_> = (0..8).map(|_| sluice.conn()).collect();
    for round in 0..30 {
        for (i, conn) in clients.iter_mut().enumerate() {
            let key = if (i + round) % 8 == 0 { "bad".to_owned() } else { format!("{i}-{round}") };
            let reply = conn.cmd(&["GET", &key]);
            assert!(reply == key.as_str() || reply.is_error(), "{key}: {reply:?}");
        }
    }
    assert!(sluice.metrics().sum("sluice_redis_stray_replies_total", &[]) >= 1.0);
    assert_recovers(&sluice);
}

/// One request gets an error or a close, everything else goes on, and so many KiB are the most that
/// it costs.
#[track_caller]
fn fails_one_request_within(fake: &FakeServer, most: u64) {
    let sluice = before(fake);
    let base = sluice.process().rss_kb();
    if let Ok(reply) = sluice.conn().try_cmd(&["GET", "bad"]) {
        assert!(reply.is_error(), "{reply:?}");
    }
    assert_recovers(&sluice);
    let grown = sluice.process().peak_kb().saturating_sub(base);
    assert!(grown < most, "memory grew by {grown} KiB");
}

#[test]
fn replies_nested_a_hundred_thousand_deep() {
    for bytes in [b"*1\r\n".repeat(100_000), b"*1000000\r\n".repeat(100_000)] {
        let fake = rogue(bytes, false);
        fails_one_request_within(&fake, 16 * MIB);
    }
}

#[test]
fn a_reply_line_without_end() {
    for kind in [b'+', b'-', b':', b'$', b'*'] {
        let bytes = [vec![kind], vec![b'1'; 20 << 20]].concat();
        let fake = rogue(bytes, true);
        fails_one_request_within(&fake, 12 * MIB);
    }
}

#[test]
fn giants_announced_by_a_server() {
    for announced in
        ["$4294967296\r\nabc", "*1000000000\r\n$3\r\nabc\r\n", "$9223372036854775807\r\n"]
    {
        let fake = rogue(announced.as_bytes().to_vec(), true);
        fails_one_request_within(&fake, 8 * MIB);
    }
}

#[test]
fn a_silent_server_times_out_and_a_healthy_shard_does_not_notice() {
    let fake = FakeServer::start(|_: &Request| vec![]);
    let healthy = Cluster::start(1, 0);
    let healthy_address = healthy.shards[0].primary.address();
    let sluice = Setup::shards([(healthy_address, vec![]), (fake.address(), vec![])])
        .cluster("timeouts: { request: 400ms }")
        .start();
    sluice.expect_log(fake.address());
    let shard = |key: &str| usize::from(sluice::policy::slot::slot(key.as_bytes()) >= 8_192);
    let key = |wanted| (0..).map(|n| format!("k{n}")).find(|key| shard(key) == wanted).unwrap();
    let (mine, silent) = (key(0), key(1));
    let mut waiting = sluice.conn();
    let start = Instant::now();
    waiting.send(&crate::harness::request(&["MGET", &mine, &silent]));
    let mut conn = sluice.conn();
    for _ in 0..50 {
        assert_eq!(conn.cmd(&["SET", &mine, "v"]), "OK");
    }
    assert!(start.elapsed() < Duration::from_millis(350), "waited for the silent one");
    let reply: Value = waiting.read();
    assert!(reply.error().contains("s1"), "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
