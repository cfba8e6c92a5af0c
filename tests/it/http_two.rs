//! HTTP/2 from clients: many streams at once, each with a deadline of its own, and clients that
//! reset, stall or stay away.

use crate::harness::{
    PATIENCE, Setup, Sluice, eventually, figure,
    web::{Frame, HttpConn, Message, Origin, RawH2, exchange, frame, literal},
};
use http::Request;
use std::time::{Duration, Instant};

fn get(path: &str) -> Message<Request<()>> {
    (Request::get(format!("http://test{path}")).body(()).unwrap(), Vec::new(), None)
}

fn in_flight(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_backend_in_flight", &[])
}

fn connections(sluice: &Sluice) -> f64 {
    sluice.metrics().sum("sluice_backend_connections", &[])
}

/// Room for so many bytes, of a stream or (0) of all.
fn window(stream: u32, bytes: u32) -> Vec<u8> {
    frame(8, 0, stream, &bytes.to_be_bytes())
}

#[test]
fn a_hundred_streams_at_once_get_their_own_answers() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let start = Instant::now();
    let requests = (0..100).map(|i| match i % 3 {
        0 => get(&format!("/slow/300?{i}")),
        1 => get(&format!("/bytes/{}", 100_000 + i)),
        _ => {
            let request = Request::post(format!("http://test/p{i}")).body(()).unwrap();
            (request, vec![b'x'; 10_000 + i], None)
        }
    });
    let answers = exchange(&sluice.address(), requests.collect());
    for (i, answer) in answers.into_iter().enumerate() {
        let (head, body, _) = answer.unwrap();
        assert_eq!(head.status.as_u16(), 200, "{i}");
        match i % 3 {
            0 => assert_eq!(body, format!("GET /slow/300?{i} 0").into_bytes()),
            1 => assert_eq!(body.len(), 100_000 + i),
            _ => assert_eq!(body, format!("POST /p{i} {}", 10_000 + i).into_bytes()),
        }
    }
    figure(format_args!("100 streams: {:?}", start.elapsed()));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    eventually("nothing is in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
}

#[test]
fn long_replies_take_turns() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = RawH2::open(&sluice.address());
    // SETTINGS_INITIAL_WINDOW_SIZE
    let settings = [&[0, 4][..], &(1u32 << 28).to_be_bytes()].concat();
    conn.send(&frame(Frame::SETTINGS, 0, 0, &settings)).unwrap();
    conn.send(&window(0, 1 << 28)).unwrap();
    let streams = [1, 3, 5, 7];
    for stream in streams {
        conn.send(&RawH2::get(stream, "/bytes/2000000")).unwrap();
    }
    let (mut bytes, mut turns, mut newest, mut ended) = ([0; 8], 0, 0, 0);
    while ended < streams.len() {
        let frame = conn.wait_for(Frame::DATA);
        turns += usize::from(frame.stream != newest);
        newest = frame.stream;
        bytes[frame.stream as usize] += frame.payload.len();
        ended += usize::from(frame.flags & Frame::END_STREAM != 0);
    }
    figure(format_args!("4 replies of 2 MB took {turns} turns"));
    assert!(streams.iter().all(|stream| bytes[*stream as usize] == 2_000_000), "{bytes:?}");
    assert!(turns > 8, "{turns} turns");
}

#[test]
fn a_stream_that_is_reset_lets_go_of_its_backend() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).start();
    let mut conn = RawH2::open(&sluice.address());
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/up")];
    conn.send(&RawH2::get(1, "/slow/9000")).unwrap();
    conn.send(&RawH2::get(3, "/endless")).unwrap();
    conn.send(&frame(Frame::HEADERS, Frame::END_HEADERS, 5, &literal(&post))).unwrap();
    conn.send(&frame(Frame::DATA, 0, 5, b"part")).unwrap();
    eventually("three in flight", PATIENCE, || (in_flight(&sluice) == 3.0).then_some(()));
    let start = Instant::now();
    for stream in [1, 3, 5] {
        // CANCEL
        conn.send(&frame(Frame::RST_STREAM, 0, stream, &8u32.to_be_bytes())).unwrap();
    }
    eventually("none in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
    eventually("closed", PATIENCE, || (connections(&sluice) == 0.0).then_some(()));
    figure(format_args!("let go after {:?}", start.elapsed()));
    conn.send(&window(0, 1 << 20)).unwrap();
    conn.send(&RawH2::get(7, "/")).unwrap();
    while conn.wait_for(Frame::HEADERS).stream != 7 {}
}

#[test]
fn each_stream_has_its_own_deadline() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).cluster("timeouts: { request: 700ms }").start();
    sluice.expect_log(origin.address());
    let start = Instant::now();
    let answers =
        exchange(&sluice.address(), vec![get("/slow/9000"), get("/slow/100"), get("/slow/8000")]);
    let took = start.elapsed();
    let heads: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().0).collect();
    let statuses: Vec<_> = heads.iter().map(|head| head.status.as_u16()).collect();
    assert_eq!(statuses, [504, 200, 504]);
    assert_eq!(heads[0].headers["x-sluice-error"], "backend_timeout");
    figure(format_args!("504 after {took:?}"));
    assert!((650..1_500).contains(&took.as_millis()), "{took:?}");
    eventually("none in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
}

/// The stream waited for ever, and its backend's connection with it.
#[test]
fn a_stream_whose_window_stays_shut_holds_nobody_up_and_is_reset() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()]).listener("http: { body_idle: 1s }").start();
    let mut conn = RawH2::open(&sluice.address());
    conn.send(&window(0, 1 << 28)).unwrap();
    conn.send(&RawH2::get(1, "/bytes/10000000")).unwrap();
    let mut got = 0;
    while got < 65_535 {
        got += conn.wait_for(Frame::DATA).payload.len();
    }
    let start = Instant::now();
    conn.send(&RawH2::get(3, "/")).unwrap();
    assert_eq!(conn.wait_for(Frame::HEADERS).stream, 3);
    assert_eq!(HttpConn::open(&sluice.address()).get("/").status, 200);
    let reset = conn.wait_for(Frame::RST_STREAM);
    figure(format_args!("reset with {:?} after {:?}", reset.error(), start.elapsed()));
    assert_eq!(reset.stream, 1);
    assert!((700..2_500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    eventually("none in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
    conn.send(&RawH2::get(5, "/")).unwrap();
    assert_eq!(conn.wait_for(Frame::HEADERS).stream, 5);
}

/// A backend that stops within its reply costs its stream, and no other.
#[test]
fn a_reply_that_stops_is_given_up() {
    let origin = Origin::scripted("o", |seen| {
        (seen.head.request().1 == "/stops").then(|| {
            let some = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
            let wait = crate::harness::web::Act::Wait(Duration::from_secs(9));
            vec![crate::harness::web::Act::Send(some), wait]
        })
    });
    let sluice = Setup::http([origin.address()]).listener("http: { body_idle: 1s }").start();
    sluice.expect_log(origin.address());
    let mut conn = RawH2::open(&sluice.address());
    conn.send(&RawH2::get(1, "/stops")).unwrap();
    let mut one = HttpConn::open(&sluice.address());
    one.send("GET /stops HTTP/1.1\r\nHost: test\r\n\r\n");
    let start = Instant::now();
    assert_eq!(conn.wait_for(Frame::RST_STREAM).stream, 1);
    assert!(one.try_response().is_err());
    figure(format_args!("given up after {:?}", start.elapsed()));
    assert!((700..2_500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    eventually("none in flight", PATIENCE, || (in_flight(&sluice) == 0.0).then_some(()));
    conn.send(&RawH2::get(3, "/")).unwrap();
    assert_eq!(conn.wait_for(Frame::HEADERS).stream, 3);
}

#[test]
fn an_http_2_client_that_stays_away_is_closed() {
    let origin = Origin::start("o");
    let sluice = Setup::http([origin.address()])
        .listener("http: { keep_alive: 1s, header_timeout: 1s }")
        .start();
    let start = Instant::now();
    let mut silent = RawH2::open(&sluice.address());
    let mut conn = RawH2::open(&sluice.address());
    conn.send(&RawH2::get(1, "/slow/1500")).unwrap();
    assert_eq!(conn.wait_for(Frame::HEADERS).stream, 1, "one under way keeps it");
    let answered = Instant::now();
    let frames = conn.read_to_close();
    assert!(frames.iter().any(|frame| frame.kind == Frame::GOAWAY), "{frames:?}");
    silent.read_to_close();
    figure(format_args!(
        "closed {:?} after the answer, {:?} in all",
        answered.elapsed(),
        start.elapsed()
    ));
    assert!((700..2_500).contains(&answered.elapsed().as_millis()), "{:?}", answered.elapsed());
}
