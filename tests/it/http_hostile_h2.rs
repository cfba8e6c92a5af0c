//! Clients of http that do to HTTP/2 what no client should. Those of HTTP/1.1 are in http_hostile.

use crate::{
    harness::web::{Frame, RawH2, frame, literal},
    http_hostile::{MIB, guarded, rejected, told, unharmed, wait_for_rejected, wait_until_alone},
};
use std::time::Duration;

/// RFC 9113, 7.
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
/// RFC 9113, 6.5.2.
const INITIAL_WINDOW: u16 = 4;

/// The error of the GOAWAY with which the other side closes, if the close does not overtake it.
#[track_caller]
fn goaway(conn: &mut RawH2) -> Option<u32> {
    conn.read_to_close().iter().rev().find(|frame| frame.kind == Frame::GOAWAY)?.error()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(Frame::SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// Streams 1, 3, 5, ...
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(8, 0, stream, &by.to_be_bytes())
}

/// CVE-2023-44487.
#[test]
fn a_rapid_reset_is_told_to_calm_down() {
    let (origin, sluice, base) = guarded("");
    let before = origin.count();
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        for stream in streams(20_000) {
            let reset = frame(Frame::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            if conn.send(&[RawH2::get(stream, "/reset-me"), reset].concat()).is_err() {
                break;
            }
        }
        let error = goaway(&mut conn);
        assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM)), "{error:?}");
    });
    wait_for_rejected(&sluice, "flood", 1.0);
    assert_eq!(told(&sluice), 1);
    let log = sluice.log();
    assert!(!log.contains("recv_reset") && !log.contains("h2::"), "{log}");
    let seen = origin.seen();
    let reached = seen[before..].iter().filter(|seen| seen.head.request().1 == "/reset-me").count();
    assert!(reached < 2_000, "{reached} requests reached the backend");
}

/// One that waits until each request is under way: h2 has no limit on those.
#[test]
fn a_patient_reset_is_stopped_too() {
    let (_origin, sluice, base) = guarded("");
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        let mut count = 0;
        for stream in streams(20_000) {
            let reset = frame(Frame::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            let ping = frame(Frame::PING, 0, 0, &[7; 8]);
            let get = RawH2::get(stream, "/slow/1000");
            if conn.send(&[get, ping].concat()).is_err() {
                break;
            }
            let answered = std::iter::repeat_with(|| conn.next())
                .take_while(Result::is_ok)
                .any(|next| next.is_ok_and(|next| next.kind == Frame::PING));
            if !answered || conn.send(&reset).is_err() {
                break;
            }
            count += 1;
        }
        assert!((900..4_000).contains(&count), "stopped after {count}");
    });
    assert_eq!((rejected(&sluice, "flood"), told(&sluice)), (1.0, 1));
}

/// CVE-2025-8671: the client breaks a rule on each stream, so that we reset it.
#[test]
fn a_client_that_makes_us_reset_is_told_to_calm_down() {
    let (_origin, sluice, base) = guarded("");
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        for stream in streams(20_000) {
            let faulty = window_update(stream, (1 << 31) - 1);
            if conn.send(&[RawH2::get(stream, "/slow/1000"), faulty].concat()).is_err() {
                break;
            }
        }
        let error = goaway(&mut conn);
        assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM)), "{error:?}");
    });
    wait_for_rejected(&sluice, "flood", 1.0);
    assert_eq!(told(&sluice), 1);
}

/// CVE-2024-27316 and its like.
#[test]
fn a_head_in_endless_pieces_is_refused() {
    let (_origin, sluice, base) = guarded("");
    unharmed(&sluice, base, 8 * MIB, || {
        for piece in [vec![], literal(&[("a", "b")]), literal(&[("a", &"x".repeat(16_000))])] {
            let mut conn = RawH2::open(&sluice.address());
            let start = literal(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
            conn.send(&frame(Frame::HEADERS, Frame::END_STREAM, 1, &start)).unwrap();
            for _ in 0..20_000 {
                if conn.send(&frame(Frame::CONTINUATION, 0, 1, &piece)).is_err() {
                    break;
                }
            }
            let error = goaway(&mut conn);
            assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{error:?}");
        }
    });
    let counted = rejected(&sluice, "flood") + rejected(&sluice, "protocol");
    assert_eq!(counted, 3.0);
}

#[test]
fn frames_that_carry_nothing_are_counted_and_stopped() {
    let (_origin, sluice, base) = guarded("");
    let floods = [
        frame(Frame::PING, 0, 0, &[1; 8]),
        frame(Frame::SETTINGS, 0, 0, &[]),
        setting(INITIAL_WINDOW, 100_000),
        // PRIORITY, WINDOW_UPDATE, a type that nobody knows, DATA without any.
        frame(2, 0, 1, &[0, 0, 0, 3, 1]),
        window_update(0, 1),
        frame(0xfa, 0, 0, b"hello"),
    ];
    let all = f64::from(u32::try_from(floods.len()).unwrap());
    unharmed(&sluice, base, 8 * MIB, || {
        for flood in floods {
            let mut conn = RawH2::open(&sluice.address());
            let many = flood.repeat(100);
            let sent = (0..10_000).take_while(|_| conn.send(&many).is_ok()).count();
            assert!(sent < 10_000, "a million frames of type {} were taken", flood[3]);
            conn.read_to_close();
        }
    });
    wait_for_rejected(&sluice, "flood", all);
    assert_eq!(told(&sluice), 1);
}

#[test]
fn an_empty_part_of_a_body_is_not_sent_for_ever() {
    let (_origin, sluice, base) = guarded("");
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        let fields =
            [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/up")];
        conn.send(&frame(Frame::HEADERS, Frame::END_HEADERS, 1, &literal(&fields))).unwrap();
        let many = frame(Frame::DATA, 0, 1, &[]).repeat(100);
        let sent = (0..10_000).take_while(|_| conn.send(&many).is_ok()).count();
        assert!(sent < 10_000, "a million empty frames were taken");
        let error = goaway(&mut conn);
        assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM)), "{error:?}");
    });
    wait_for_rejected(&sluice, "flood", 1.0);
}

/// A browser that stops loading, and a download with its windows, are none of these.
#[test]
fn what_good_clients_do_much_of_is_no_flood() {
    let (_origin, sluice, _) = guarded("");
    let mut conn = RawH2::open(&sluice.address());
    let mut next = streams(2_000);
    for stream in next.by_ref().take(200) {
        let reset = frame(Frame::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        conn.send(&RawH2::get(stream, "/")).unwrap();
        conn.wait_for(Frame::HEADERS);
        conn.send(&reset).unwrap();
    }
    let stream = next.next().unwrap();
    conn.send(&RawH2::get(stream, "/bytes/50000000")).unwrap();
    let mut received = 0;
    while received < 50_000_000 {
        let data = conn.wait_for(Frame::DATA);
        if data.stream != stream {
            continue;
        }
        let len = u32::try_from(data.payload.len()).unwrap();
        received += len;
        conn.send(&[window_update(0, len), window_update(stream, len)].concat()).unwrap();
    }
    for stream in next {
        conn.send(&RawH2::get(stream, "/")).unwrap();
        while conn.wait_for(Frame::HEADERS).stream != stream {}
    }
    assert_eq!(rejected(&sluice, "flood"), 0.0);
}

#[test]
fn a_reply_that_nobody_takes_is_given_up_and_the_connection_goes_on() {
    let (_origin, sluice, base) = guarded("body_idle: 1s");
    unharmed(&sluice, base, 24 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        conn.send(&setting(INITIAL_WINDOW, 0)).unwrap();
        for stream in streams(100) {
            conn.send(&RawH2::get(stream, "/bytes/1073741824")).unwrap();
        }
        for _ in 0..100 {
            conn.wait_for(Frame::RST_STREAM);
        }
        conn.send(&RawH2::get(201, "/")).unwrap();
        assert_eq!(conn.wait_for(Frame::HEADERS).stream, 201);
    });
    assert_eq!((rejected(&sluice, "slow"), told(&sluice)), (100.0, 1));
}

/// With the largest windows, and not a byte read.
#[test]
fn a_client_that_does_not_read_is_closed() {
    let (_origin, sluice, base) = guarded("body_idle: 1s, keep_alive: 1s");
    unharmed(&sluice, base, 48 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        conn.send(&setting(INITIAL_WINDOW, (1 << 31) - 1)).unwrap();
        conn.send(&window_update(0, (1 << 31) - 1 - 65_535)).unwrap();
        for stream in streams(100) {
            conn.send(&RawH2::get(stream, "/bytes/1073741824")).unwrap();
        }
        wait_for_rejected(&sluice, "slow", 100.0);
        // Held until here.
        conn.send(&[]).unwrap();
        crate::harness::eventually("it is closed", crate::harness::PATIENCE, || {
            (sluice.metrics().sum("sluice_listener_connections_active", &[]) <= 1.0).then_some(())
        });
    });
    wait_until_alone(&sluice);
}

#[test]
fn a_connection_without_requests_ends() {
    let (_origin, sluice, _) = guarded("keep_alive: 1s");
    for path in [None, Some("/"), Some("/slow/2000")] {
        let mut conn = RawH2::open(&sluice.address());
        if let Some(path) = path {
            conn.send(&RawH2::get(1, path)).unwrap();
        }
        let frames = conn.read_to_close();
        let replied = frames.iter().any(|frame| frame.kind == Frame::HEADERS);
        assert_eq!(replied, path.is_some(), "{path:?}");
        let error = frames.iter().find(|frame| frame.kind == Frame::GOAWAY).unwrap().error();
        assert_eq!(error, Some(0));
    }
    assert_eq!(told(&sluice), 0);
}

/// The status of the reply to such a head: h2 writes it as one byte for 200, 204, 206, 304, 400, 404
/// and 500, and 431 in letters.
#[track_caller]
fn is_431(conn: &mut RawH2, stream: u32) -> bool {
    let mut reply = conn.wait_for(Frame::HEADERS);
    while reply.stream != stream {
        reply = conn.wait_for(Frame::HEADERS);
    }
    // Indexed without a literal: one of the static table.
    !matches!(reply.payload.first(), Some(0x88..=0x8e))
}

#[test]
fn a_head_that_is_too_large_is_told_so() {
    let (_origin, sluice, base) = guarded("header_bytes: 16KiB, headers: 32");
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let head = |stream, fields: &[(&str, &str)]| {
        let block = literal(&[&pseudo, fields].concat());
        let mut frames = Vec::new();
        let mut parts = block.chunks(16_000).peekable();
        let mut kind = Frame::HEADERS;
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_none() { Frame::END_HEADERS } else { 0 };
            let flags = if kind == Frame::HEADERS { end | Frame::END_STREAM } else { end };
            frames.extend(frame(kind, flags, stream, part));
            kind = Frame::CONTINUATION;
        }
        frames
    };
    unharmed(&sluice, base, 8 * MIB, || {
        let mut conn = RawH2::open(&sluice.address());
        conn.send(&head(1, &[("a", "b"); 31])).unwrap();
        assert!(!is_431(&mut conn, 1));
        conn.send(&head(3, &[("a", "b"); 33])).unwrap();
        assert!(is_431(&mut conn, 3), "by the number of its fields");
        let value = "x".repeat(16 << 10);
        conn.send(&head(5, &[("a", &value)])).unwrap();
        assert!(is_431(&mut conn, 5), "by its bytes");
        conn.send(&head(7, &[("a", &value[..12_000]), ("b", &value[..12_000])])).unwrap();
        assert!(is_431(&mut conn, 7), "by its bytes, so many that h2 says so");
        conn.send(&head(9, &[])).unwrap();
        assert!(!is_431(&mut conn, 9), "the connection goes on");
        let many = [("a", &*value); 6];
        conn.send(&head(11, &many)).unwrap();
        let error = goaway(&mut conn);
        assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM | COMPRESSION_ERROR)), "{error:?}");
    });
    assert_eq!(rejected(&sluice, "header_limit"), 2.0, "h2 tells nobody of its own");
    assert_eq!(rejected(&sluice, "flood") + rejected(&sluice, "protocol"), 1.0);
}

/// A field of 4,000 bytes in the table, and then thousands of times the one byte that stands for it.
#[test]
fn a_compressed_bomb_is_refused_and_costs_what_a_head_may_have() {
    let (_origin, sluice, base) = guarded("");
    unharmed(&sluice, base, 16 * MIB, || {
        for _ in 0..50 {
            let mut conn = RawH2::open(&sluice.address());
            let fields =
                [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
            let mut large = literal(&[("a", &"x".repeat(4_000))]);
            // With indexing (RFC 7541, 6.2.1); 62 is its place then.
            large[0] = 0x40;
            let block = [literal(&fields), large, vec![0x80 | 62; 11_000]].concat();
            let flags = Frame::END_HEADERS | Frame::END_STREAM;
            conn.send(&frame(Frame::HEADERS, flags, 1, &block)).unwrap();
            let error = goaway(&mut conn);
            assert!(matches!(error, None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{error:?}");
        }
    });
    assert_eq!(rejected(&sluice, "flood") + rejected(&sluice, "protocol"), 50.0);
    assert!(told(&sluice) <= 2);
}

/// Streams that take no time of their own, on a connection that is slow to say anything.
#[test]
fn a_preface_in_single_bytes_is_waited_for_as_a_head_is() {
    let (_origin, sluice, _) = guarded("header_timeout: 1s");
    let mut conn = crate::harness::web::HttpConn::open(&sluice.address());
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM" {
        if conn.try_send([*byte]).is_err() || conn.is_ready(Duration::from_millis(100)) {
            break;
        }
    }
    assert!(conn.is_closed());
}
