//! What the tests stand on: real servers, the built proxy, fakes, faults and a raw client, each
//! stopped when it is dropped. It holds no test of Sluice; its own are at the end of its files.

pub(crate) mod cluster;
pub(crate) mod conn;
pub(crate) mod dice;
pub(crate) mod fake;
pub(crate) mod fault;
pub(crate) mod http;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod sluice;

#[cfg(test)]
mod own;

pub(crate) use cluster::Cluster;
pub(crate) use conn::Conn;
pub(crate) use dice::Dice;
pub(crate) use fake::{FakeServer, Request, Step};
pub(crate) use fault::{Fault, FaultProxy};
pub(crate) use redis::Redis;
pub(crate) use resp::{Value, bulk, request};
pub(crate) use sluice::{Setup, Sluice};

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that should take milliseconds, on a machine busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Polls `found` until it gives something; fails with `what` after `deadline`.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut found: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
