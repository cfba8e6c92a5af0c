//! The cost of classifying a request: its command by name, then where its keys are.

use criterion::{Criterion, criterion_group, criterion_main};
use sluice::proto::redis::{
    args::{Args, Span},
    keys::keys,
    table::Commands,
};
use std::hint::black_box;

/// A request's bytes and the places of its arguments.
fn request(line: &str) -> (Vec<u8>, Vec<Span>) {
    let (mut frame, mut spans) = (Vec::new(), Vec::new());
    for word in line.split(' ') {
        frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        let number = |n: usize| u32::try_from(n).expect("a short request");
        spans.push(Span { start: number(frame.len()), len: number(word.len()) });
        frame.extend_from_slice(word.as_bytes());
        frame.extend_from_slice(b"\r\n");
    }
    (frame, spans)
}

fn classify(c: &mut Criterion) {
    let commands = Commands::builtin();
    let mset: String = (0..10).map(|i| format!(" key:{i} value")).collect();
    let cases = [
        ("GET", "get user:1000".to_owned()),
        ("ZREMRANGEBYSCORE", "ZREMRANGEBYSCORE k 1 2".to_owned()),
        ("CONFIG GET", "config get save".to_owned()),
        ("MSET of 10", format!("MSET{mset}")),
        ("XREAD", "XREAD COUNT 2 STREAMS a b 0 0".to_owned()),
    ];
    for (name, line) in &cases {
        let (frame, spans) = request(line);
        let args = Args { frame: &frame, spans: &spans };
        c.bench_function(&format!("find {name}"), |b| {
            b.iter(|| commands.find(black_box(args)).map(|command| command.index));
        });
        c.bench_function(&format!("find and keys {name}"), |b| {
            b.iter(|| {
                let command = commands.find(black_box(args)).expect("a known command");
                keys(command, args).map(|keys| keys.sum::<usize>())
            });
        });
    }
}

criterion_group!(benches, classify);
criterion_main!(benches);
