//! The checker of what reads of replicas promise: many clients write increasing values and read them
//! back through Sluice while replicas are late, and servers are stopped, killed, started again and
//! promoted at random. Each promise runs for a few seconds, or for as many as
//! `SLUICE_FRESHNESS_SECONDS` says.

mod model;
mod shard;

use crate::harness::{Conn, Dice, Setup, Sluice, Value, eventually, figure};
use model::{Counts, Model};
use shard::Trio;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const CLIENTS: usize = 10;

fn seconds() -> Duration {
    let seconds = std::env::var("SLUICE_FRESHNESS_SECONDS").map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Whose writes a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    /// Everybody's.
    Everybody,
    /// The connection's own.
    Own,
    /// Everybody's that are so old.
    Older(Duration),
}

#[test]
fn with_consistency_key_nobody_reads_anything_older_than_was_written_or_read() {
    let counts = check("consistency: key", Judge::Everybody, seconds());
    assert_eq!((counts.stale, counts.back), (0, 0), "{counts:?}");
}

#[test]
fn with_consistency_session_a_connection_reads_what_it_wrote_and_never_goes_back() {
    let counts = check("consistency: session", Judge::Own, seconds());
    assert_eq!((counts.stale, counts.back), (0, 0), "{counts:?}");
}

#[test]
fn with_a_window_nothing_is_missing_that_is_older() {
    let window = Duration::from_millis(1_000);
    let counts = check("consistency: window, window: 1s", Judge::Older(window), seconds());
    assert_eq!(counts.stale, 0, "{counts:?}");
    assert!(counts.young > 0, "within the window something is missing now and then: {counts:?}");
}

/// Without a promise the same checker finds both: so it can.
#[test]
fn without_a_promise_replicas_are_read_that_lack_what_was_written() {
    let counts = check("consistency: eventual", Judge::Everybody, seconds());
    assert!(counts.stale > 0 && counts.back > 0, "{counts:?}");
    let counts = check("consistency: eventual", Judge::Own, seconds());
    assert!(counts.stale > 0 && counts.back > 0, "{counts:?}");
}

fn check(consistency: &str, judge: Judge, time: Duration) -> Counts {
    let mut trio = Trio::start();
    let sluice = Setup::shards([trio.as_written()])
        .workers(2)
        .cluster(&format!("reads: {{ from: prefer_replica, balance: round_robin, {consistency} }}"))
        .cluster("timeouts: { request: 2s, connect: 500ms }")
        .check("{ interval: 200ms, fast_interval: 100ms, down_interval: 100ms, timeout: 300ms }")
        .start();
    trio.addresses().iter().for_each(|address| sluice.expect_log(address));
    sluice.expect_log("s0");
    let (model, done) = (Model::new(CLIENTS), AtomicBool::new(false));
    let calm = replicas_are_read(&trio, &sluice);
    let start = Instant::now();
    let counts = thread::scope(|scope| {
        let (sluice, model, done) = (&sluice, &model, &done);
        let _done = Done(done);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || one(client, sluice, model, judge, done)))
            .collect();
        let mut dice = Dice::new(start.elapsed().subsec_nanos().into());
        while start.elapsed() < time {
            trio.hurt(&mut dice, sluice, model);
        }
        trio.heal();
        // Whatever was found wrong only at the end is found too.
        thread::sleep(Duration::from_millis(500));
        done.store(true, Relaxed);
        let each = clients.into_iter().map(|client| client.join().unwrap());
        each.fold(Counts::default(), Counts::and)
    });
    figure(format!("{consistency}: {counts:?}; {calm} of 1000 at replicas in calm; {}", trio.did));
    assert!(counts.judged > 1_000 && counts.written > 200, "too little was tried: {counts:?}");
    assert!(calm > 300, "replicas are hardly read at all: {calm} of 1000");
    counts
}

/// Ends the clients also when something fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How many of 1000 reads go to replicas while nothing is written.
fn replicas_are_read(trio: &Trio, sluice: &Sluice) -> u64 {
    let mut conn = sluice.conn();
    let mut read = 0;
    eventually("replicas are read", Duration::from_secs(15), || {
        let before = trio.gets();
        for _ in 0..1_000 {
            assert_eq!(conn.cmd(&["GET", "calm"]), Value::Nil);
        }
        read = trio.gets() - before;
        (read > 300).then_some(())
    });
    read
}

/// One client: it writes its own key, and reads that and others'.
fn one(client: usize, sluice: &Sluice, model: &Model, judge: Judge, done: &AtomicBool) -> Counts {
    let mut dice = Dice::new(client as u64 + 1);
    let mut counts = Counts::default();
    let mut conn: Option<Conn> = None;
    let mut seen = model::Seen::default();
    while !done.load(Relaxed) {
        let Some(open) = &mut conn else {
            // What a connection has read says nothing of the next one's session.
            seen = model::Seen::default();
            conn = Conn::try_open(&sluice.address()).ok();
            continue;
        };
        open.patience(Duration::from_secs(8));
        let writes = dice.percent(30);
        let lost = if writes {
            model.write(client, open, &mut seen, &mut counts)
        } else {
            let own = dice.percent(50);
            let whose =
                if own { client } else { usize::try_from(dice.below(CLIENTS as u64)).unwrap() };
            model.read(whose, open, judge, &mut seen, &mut counts)
        };
        if lost {
            conn = None;
        }
        if dice.percent(20) {
            thread::sleep(Duration::from_millis(dice.below(4)));
        }
    }
    counts
}
