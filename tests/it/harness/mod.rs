//! What the tests stand on: real servers, the built proxy, fakes, faults and a raw client, each
//! stopped when it is dropped. It holds no test of Sluice; its own are at the end of its files.

pub(crate) mod authority;
pub(crate) mod cgroup;
pub(crate) mod cluster;
pub(crate) mod conn;
pub(crate) mod dice;
pub(crate) mod fake;
pub(crate) mod fault;
pub(crate) mod http;
pub(crate) mod mariadb;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod resp;
pub(crate) mod sentinel;
pub(crate) mod sluice;
pub(crate) mod web;

#[cfg(test)]
mod own;

pub(crate) use authority::{Authority, Issued, TlsConn};
pub(crate) use cgroup::Cgroup;
pub(crate) use cluster::Cluster;
pub(crate) use conn::Conn;
pub(crate) use dice::Dice;
pub(crate) use fake::{FakeServer, Request, Step};
pub(crate) use fault::{Fault, FaultProxy};
pub(crate) use redis::Redis;
pub(crate) use redis_cluster::RedisCluster;
pub(crate) use resp::{Value, bulk, request};
pub(crate) use sluice::{Setup, Sluice};

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that should take milliseconds, on a machine busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Prints what a test has measured: with `--no-capture` it is seen.
#[expect(clippy::print_stdout, reason = "figures are for whoever reads the tests' output")]
pub(crate) fn figure(text: impl std::fmt::Display) {
    println!("{text}");
}

/// What a program says, or what it complains of when it fails.
pub(crate) fn said(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{:?}: {error}; ./tests/run.sh installs it", command.get_program())
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

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

/// Runs `load` on so many threads while `act` runs, and gives what both gave. `load` is handed the
/// question whether to go on.
pub(crate) fn during<T, R: Send>(
    threads: usize,
    load: impl Fn(&dyn Fn() -> bool) -> R + Sync,
    act: impl FnOnce() -> T,
) -> (T, Vec<R>) {
    /// Ends the load also when `act` fails.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    let go_on = || !done.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let loads: Vec<_> = (0..threads).map(|_| scope.spawn(|| load(&go_on))).collect();
        let result = {
            let _done = Done(&done);
            act()
        };
        (result, loads.into_iter().map(|load| load.join().unwrap()).collect())
    })
}
