//! The cost of finding requests in what a client sent, and replies in what a server sent.

use criterion::{Criterion, criterion_group, criterion_main};
use sluice::proto::redis::{
    frame::{Decoder, Frame, Limits},
    scan::Scanner,
};
use std::hint::black_box;

const LIMITS: Limits = Limits { bulk: 512 << 20, args: 1 << 20, authenticated: true };

fn decode(c: &mut Criterion) {
    let get = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000001234\r\n".to_vec();
    let mset =
        [&b"*21\r\n$4\r\nMSET\r\n"[..], &b"$5\r\nkey:1\r\n$5\r\nvalue\r\n".repeat(10)].concat();
    for (name, bytes) in [("GET", get), ("MSET of 10", mset)] {
        let mut decoder = Decoder::default();
        c.bench_function(&format!("decode {name}"), |b| {
            b.iter(|| {
                let frame = decoder.decode(black_box(&bytes), &LIMITS);
                assert_eq!(frame, Ok(Frame::Request(bytes.len())));
                decoder.reset();
            });
        });
    }
}

fn measure(c: &mut Criterion) {
    let bulk = [&b"$64\r\n"[..], &[b'x'; 64], b"\r\n"].concat();
    let array = [&b"*10\r\n"[..], &bulk.repeat(10)].concat();
    for (name, bytes) in [("bulk of 64 bytes", bulk), ("array of 10", array)] {
        let mut scanner = Scanner::default();
        c.bench_function(&format!("measure {name}"), |b| {
            b.iter(|| assert_eq!(scanner.measure(black_box(&bytes)), Ok(Some(bytes.len()))));
        });
    }
}

criterion_group!(benches, decode, measure);
criterion_main!(benches);
