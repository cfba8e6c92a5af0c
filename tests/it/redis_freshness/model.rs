//! What must be seen by whom: the newest value of each key that was acknowledged or read, and what
//! each connection knows. A value that Redis itself may have lost (a primary that was killed or
//! replaced) is not asked for: an epoch ends there, and in the next one counts what the new primary
//! has.

use super::Judge;
use crate::harness::{Conn, Redis, Value};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

/// More than a run of an hour has.
const EPOCHS: usize = 8_192;

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    /// Reads that were compared with what must be seen.
    pub(super) judged: u64,
    /// Reads that lacked an acknowledged write.
    pub(super) stale: u64,
    /// Reads that lacked what a read before them had shown.
    pub(super) back: u64,
    /// Reads that lacked only what is younger than the window.
    pub(super) young: u64,
    /// Acknowledged writes.
    pub(super) written: u64,
    pub(super) errors: u64,
    /// Writes of which nobody knows whether they were done.
    pub(super) unknown: u64,
}

impl Counts {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            judged: self.judged + other.judged,
            stale: self.stale + other.stale,
            back: self.back + other.back,
            young: self.young + other.young,
            written: self.written + other.written,
            errors: self.errors + other.errors,
            unknown: self.unknown + other.unknown,
        }
    }
}

/// Odd epochs are those in which Redis may lose something; nothing is judged in them.
#[derive(Debug)]
pub(super) struct Model {
    epoch: AtomicU64,
    /// By client: how often its key was given up, and the newest value it sent.
    keys: Vec<Mutex<(u64, u64)>>,
    /// By epoch and client: the newest value acknowledged, and read.
    floors: Vec<Vec<[AtomicU64; 2]>>,
    /// By client: values and when they were acknowledged, with their epoch.
    history: Vec<Mutex<VecDeque<(Instant, u64, u64)>>>,
}

/// What one connection has written and read, by client whose key it is: epoch, acknowledged, read.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<usize, (u64, u64, u64)>);

/// The values of a key begin again with each name it has, and are greater than all of the name
/// before.
const NAME: u64 = 1 << 40;

fn name(whose: usize, times: u64) -> String {
    format!("k{whose}:{times}")
}

impl Model {
    pub(super) fn new(clients: usize) -> Self {
        let floors = || (0..clients).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        Self {
            epoch: AtomicU64::new(0),
            keys: (0..clients).map(|_| Mutex::new((0, 0))).collect(),
            floors: (0..EPOCHS).map(|_| floors()).collect(),
            history: (0..clients).map(|_| Mutex::default()).collect(),
        }
    }

    /// From here on Redis may lose what it has acknowledged.
    pub(super) fn disturb(&self) {
        assert_eq!(self.epoch.fetch_add(1, SeqCst) % 2, 0);
    }

    /// From here on it does not: what this primary has is what counts.
    pub(super) fn settle(&self, primary: &Redis) {
        let next = self.epoch.load(SeqCst) + 1;
        let mut conn = primary.conn();
        for (whose, key) in self.keys.iter().enumerate() {
            let times = key.lock().unwrap().0;
            let value = value_of(&conn.cmd(&["GET", &name(whose, times)]), times);
            self.floor(next, whose, 0).fetch_max(value.unwrap(), SeqCst);
        }
        self.epoch.store(next, SeqCst);
    }

    fn floor(&self, epoch: u64, whose: usize, which: usize) -> &AtomicU64 {
        &self.floors[usize::try_from(epoch).unwrap()][whose][which]
    }

    /// Writes the next value of its own key. True when the connection is of no use any more.
    pub(super) fn write(
        &self,
        client: usize,
        conn: &mut Conn,
        seen: &mut Seen,
        counts: &mut Counts,
    ) -> bool {
        let epoch = self.epoch.load(SeqCst);
        let (times, value) = {
            let mut key = self.keys[client].lock().unwrap();
            key.1 += 1;
            (key.0, key.0 * NAME + key.1)
        };
        let reply = conn.try_cmd(&["SET", &name(client, times), &value.to_string()]);
        let sure = matches!(&reply, Ok(Value::Error(text)) if !text.contains("unknown") && !text.contains("timed out"));
        match &reply {
            Ok(Value::Simple(_)) => {
                counts.written += 1;
                if epoch.is_multiple_of(2) && self.epoch.load(SeqCst) == epoch {
                    self.floor(epoch, client, 0).fetch_max(value, SeqCst);
                    let own = seen.of(client, epoch);
                    own.1 = own.1.max(value);
                    let mut history = self.history[client].lock().unwrap();
                    history.push_back((Instant::now(), value, epoch));
                    if history.len() > 4_096 {
                        history.pop_front();
                    }
                }
            }
            _ if sure => counts.errors += 1,
            _ => {
                // It may be done at any time, even after the next one: that key is given up.
                counts.unknown += 1;
                self.keys[client].lock().unwrap().0 += 1;
            }
        }
        reply.is_err()
    }

    /// Reads a key and judges what came.
    pub(super) fn read(
        &self,
        whose: usize,
        conn: &mut Conn,
        judge: Judge,
        seen: &mut Seen,
        counts: &mut Counts,
    ) -> bool {
        let epoch = self.epoch.load(SeqCst);
        let times = self.keys[whose].lock().unwrap().0;
        let old = |judge: Judge| match judge {
            Judge::Older(window) => self.acknowledged_before(whose, epoch, window),
            _ => self.floor(epoch, whose, 0).load(SeqCst),
        };
        let (acked, read) = match judge {
            Judge::Own => {
                let own = seen.of(whose, epoch);
                (own.1, own.2)
            }
            Judge::Older(_) => (old(judge), 0),
            Judge::Everybody => (old(judge), self.floor(epoch, whose, 1).load(SeqCst)),
        };
        let newest = old(Judge::Everybody);
        let Ok(reply) = conn.try_cmd(&["GET", &name(whose, times)]) else { return true };
        let Some(value) = value_of(&reply, times) else {
            counts.errors += 1;
            return false;
        };
        let of_name = |floor: u64| if floor / NAME == times { floor } else { 0 };
        if epoch % 2 == 1 || self.epoch.load(SeqCst) != epoch {
            return false;
        }
        counts.judged += 1;
        counts.stale += u64::from(value < of_name(acked));
        counts.back += u64::from(value < of_name(read));
        counts.young += u64::from(value < of_name(newest) && value >= of_name(acked));
        self.floor(epoch, whose, 1).fetch_max(value, SeqCst);
        let own = seen.of(whose, epoch);
        own.2 = own.2.max(value);
        false
    }

    fn acknowledged_before(&self, whose: usize, epoch: u64, window: std::time::Duration) -> u64 {
        let history = self.history[whose].lock().unwrap();
        let old = |(at, _, then): &&(Instant, u64, u64)| *then == epoch && at.elapsed() >= window;
        history.iter().rev().find(old).map_or(0, |(_, value, _)| *value)
    }
}

impl Seen {
    /// What is known of that key in this epoch.
    fn of(&mut self, whose: usize, epoch: u64) -> &mut (u64, u64, u64) {
        let entry = self.0.entry(whose).or_default();
        if entry.0 != epoch {
            *entry = (epoch, 0, 0);
        }
        entry
    }
}

/// A key that is not there counts as the least of its name; `None` for an error.
fn value_of(reply: &Value, times: u64) -> Option<u64> {
    match reply {
        Value::Nil => Some(times * NAME),
        Value::Error(_) => None,
        other => other.text().parse().ok(),
    }
}
