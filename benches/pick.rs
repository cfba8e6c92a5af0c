//! One pick of each strategy among 3 and 32 candidates, and among 32 of which the first 10 are out.

use criterion::{Criterion, criterion_group, criterion_main};
use sluice::policy::{
    balance::{Balancer, Candidate, Strategy},
    dice::Dice,
    latency::Pace,
};
use std::hint::black_box;

struct Fake {
    ready: bool,
    in_flight: u32,
    latency_us: f64,
}

impl Candidate for Fake {
    fn ready(&self) -> bool {
        self.ready
    }
    fn in_flight(&self) -> u32 {
        self.in_flight
    }
    fn weight(&self) -> u32 {
        1
    }
    fn pace(&self) -> Pace {
        Pace { us: self.latency_us, is_failing: false }
    }
}

fn picks(c: &mut Criterion) {
    for strategy in [
        Strategy::RoundRobin,
        Strategy::LeastConnections,
        Strategy::P2c,
        Strategy::Random,
        Strategy::ClientIp,
        Strategy::PeakEwma,
        Strategy::Maglev,
        Strategy::Failover,
    ] {
        let mut group = c.benchmark_group(format!("pick {strategy:?}"));
        for (name, len, out) in [("3", 3, 0), ("32", 32, 0), ("32, 10 out", 32, 10)] {
            let candidates: Vec<_> = (0..len)
                .map(|i| Fake {
                    ready: i >= out,
                    in_flight: 1 + u32::from(i % 3 == 0),
                    latency_us: 100.0,
                })
                .collect();
            let balancer = Balancer::new(strategy, &vec![1; candidates.len()]);
            let (mut cursor, mut dice) = (0, Dice::new(1));
            group.bench_function(name, |b| {
                b.iter(|| {
                    let (key, draw) = (dice.next(), dice.next());
                    balancer.pick(black_box(&candidates), key, 0, &mut cursor, draw)
                });
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
