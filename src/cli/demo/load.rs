//! A small steady load through Sluice, so that the table moves, and a count of everything that a
//! client would call an error. Not a benchmark: see benches/.

use super::client::{Client, Reply};
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What the clients saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: Cell<u64>,
    errors: Cell<u64>,
    last_error: RefCell<Option<String>>,
    slowest: Cell<Duration>,
}

impl Tally {
    /// Requests answered, errors included.
    pub(super) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Error replies, lost connections, replies that never came and replies to somebody else.
    pub(super) fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.borrow().clone()
    }

    /// The slowest reply since this was asked last.
    pub(super) fn take_slowest(&self) -> Duration {
        self.slowest.take()
    }

    /// A request was answered, or not, after so long.
    pub(super) fn answered(&self, took: Duration) {
        self.slowest.set(self.slowest.get().max(took));
        self.requests.set(self.requests.get() + 1);
    }

    pub(super) fn error(&self, text: String) {
        self.errors.set(self.errors.get() + 1);
        self.last_error.replace(Some(text));
    }
}

/// As many as [`run`] joins.
pub(super) const CLIENTS: usize = 4;

/// Four clients, fifty requests a second each, four of five a read.
pub(super) async fn run(port: u16, tally: &Tally) -> Infallible {
    let client = |number| one_client(port, number, tally);
    tokio::join!(client(0), client(1), client(2), client(3)).0
}

async fn one_client(port: u16, number: u64, tally: &Tally) -> Infallible {
    let mut client = None;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let dice = RandomState::new();
    for turn in 0u64.. {
        pace.tick().await;
        let connected = match client.take() {
            Some(connected) => Ok(connected),
            None => Client::connect(port).await,
        };
        let mut connected = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tally.error(format!("connect: {error}"));
                sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        let key = format!("load:{number}:{}", dice.hash_one(turn) % KEYS);
        let value = format!("{key} as of turn {turn}");
        let (read, write) = (["GET", &*key], ["SET", &*key, &*value]);
        let request: &[&str] = if turn % 5 == 0 { &write } else { &read };
        let start = Instant::now();
        let reply = connected.request(request).await;
        tally.answered(start.elapsed());
        match reply {
            Ok(Reply::Nil) => client = Some(connected),
            Ok(Reply::Text(text)) if text == "OK" || text.starts_with(&key) => {
                client = Some(connected);
            }
            Ok(Reply::Error(text)) => {
                tally.error(format!("{}: {text}", request.join(" ")));
                client = Some(connected);
            }
            Ok(other) => tally.error(format!("{} was answered {other}", request.join(" "))),
            Err(error) => tally.error(format!("{}: {error}", request.join(" "))),
        }
    }
    unreachable!("2^64 turns take longer than anybody looks")
}

/// For each client: 50 a second.
const PACE: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Keys of one client.
const KEYS: u64 = 100;
