//! The slot of a key: 16 bytes, 64 bytes, and one with a tag.

use criterion::{Criterion, criterion_group, criterion_main};
use sluice::policy::slot::slot;
use std::hint::black_box;

fn slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot");
    for (name, key) in [
        ("16 bytes", &b"user:00000012345"[..]),
        ("64 bytes", &[b'k'; 64]),
        ("tag of 4 in 16 bytes", b"user:{1234}:name"),
    ] {
        group.bench_function(name, |b| b.iter(|| slot(black_box(key))));
    }
}

criterion_group!(benches, slots);
criterion_main!(benches);
