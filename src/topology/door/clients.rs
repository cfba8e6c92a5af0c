//! What a listener remembers of each client address, in a table of bounded size. Not the limits
//! themselves: they are arguments.

use super::{Reason, Refusal};
use crate::{
    net::prefix::ClientKey,
    policy::limit::{Allowance, Bucket},
};
use dashmap::DashMap;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A table by client address. When it is full, those that were away for longest are forgotten, first
/// of all those of whom there is nothing to remember.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// The standard library's hasher: its keys are random, so nobody can aim at one part.
    records: DashMap<ClientKey, Record>,
    len: AtomicUsize,
    /// Counts everything that is done, to tell what was longest ago.
    clock: AtomicU64,
    sweeping: Mutex<()>,
}

#[derive(Debug)]
struct Record {
    /// No other record has it, nor one of the same address after this one was forgotten.
    born: u64,
    /// When it was last used, by the table's clock.
    seen: u64,
    connections: u32,
    connects: Bucket,
    requests: Bucket,
}

impl Clients {
    /// Counts one more connection of `client`; gives the number of its record for
    /// [`Self::disconnect`].
    ///
    /// # Errors
    /// It has too many, or they come too fast; then nothing is counted.
    pub(super) fn connect(
        &self,
        client: ClientKey,
        now_ns: u64,
        most: Option<u32>,
        rate: Option<Allowance>,
    ) -> Result<u64, Refusal> {
        self.with(client, now_ns, |record| {
            if most.is_some_and(|most| record.connections >= most) {
                return Err(Refusal { reason: Reason::ClientConnections, wait: Duration::ZERO });
            }
            if let Some(rate) = rate {
                let refuse = |wait| Refusal { reason: Reason::ClientRate, wait };
                record.connects.take(now_ns, rate).map_err(refuse)?;
            }
            record.connections = record.connections.saturating_add(1);
            Ok(record.born)
        })
    }

    /// Takes a connection off again. A record that was forgotten meanwhile is not missed.
    pub(super) fn disconnect(&self, client: ClientKey, born: u64) {
        if let Some(mut record) = self.records.get_mut(&client)
            && record.born == born
        {
            record.connections = record.connections.saturating_sub(1);
        }
    }

    /// Takes one request of `client`.
    ///
    /// # Errors
    /// It came too soon.
    pub(super) fn request(
        &self,
        client: ClientKey,
        now_ns: u64,
        allowed: Allowance,
    ) -> Result<(), Refusal> {
        let refuse = |wait| Refusal { reason: Reason::ClientRequests, wait };
        self.with(client, now_ns, |record| record.requests.take(now_ns, allowed).map_err(refuse))
    }

    fn with<T>(&self, client: ClientKey, now_ns: u64, work: impl FnOnce(&mut Record) -> T) -> T {
        let seen = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(mut record) = self.records.get_mut(&client) {
            record.seen = seen;
            return work(&mut record);
        }
        if self.len.load(Ordering::Relaxed) >= MOST {
            self.sweep(now_ns);
        }
        let mut record = self.records.entry(client).or_insert_with(|| {
            self.len.fetch_add(1, Ordering::Relaxed);
            Record {
                born: seen,
                seen,
                connections: 0,
                connects: Bucket::default(),
                requests: Bucket::default(),
            }
        });
        record.seen = seen;
        work(&mut record)
    }

    /// Makes room for [`ROOM`] at least: a sweep looks at all, so it must not be needed for each.
    fn sweep(&self, now_ns: u64) {
        let _one = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.len.load(Ordering::Relaxed) < MOST {
            return;
        }
        self.forget(|record| {
            record.connections == 0
                && record.connects.is_full(now_ns)
                && record.requests.is_full(now_ns)
        });
        let surplus = self.len.load(Ordering::Relaxed).saturating_sub(MOST - ROOM);
        if surplus > 0 {
            let mut seen: Vec<u64> = self.records.iter().map(|record| record.seen).collect();
            let nth = surplus.min(seen.len()).saturating_sub(1);
            let (_, oldest, _) = seen.select_nth_unstable(nth);
            let oldest = *oldest;
            self.forget(|record| record.seen <= oldest);
        }
    }

    fn forget(&self, old: impl Fn(&Record) -> bool) {
        self.records.retain(|_, record| {
            let old = old(record);
            if old {
                self.len.fetch_sub(1, Ordering::Relaxed);
            }
            !old
        });
    }

    /// Connections of a client, for tests.
    #[cfg(test)]
    pub(super) fn connections(&self, client: ClientKey) -> u32 {
        self.records.get(&client).map_or(0, |record| record.connections)
    }
}

/// The most addresses that are remembered (architecture.md, State).
const MOST: usize = 65_536;
/// How many a sweep makes room for: it costs some milliseconds.
const ROOM: usize = MOST / 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::prefix::Prefix, policy::limit::Rate};

    fn client(n: u32) -> ClientKey {
        Prefix::default().client(std::net::Ipv4Addr::from_bits(n).into())
    }

    const HOURLY: Option<Allowance> =
        Some(Allowance { rate: Rate { count: 1, period: Duration::from_secs(3_600) }, burst: 1 });

    #[test]
    fn the_table_is_bounded_and_the_oldest_go_first() {
        let clients = Clients::default();
        let born = clients.connect(client(0), 0, None, HOURLY).unwrap();
        for n in 1..200_000 {
            clients.connect(client(n), 0, None, HOURLY).unwrap();
            assert!(clients.len.load(Ordering::Relaxed) <= MOST);
        }
        assert_eq!(clients.records.len(), clients.len.load(Ordering::Relaxed));
        assert!(clients.records.len() >= MOST - ROOM);
        assert!((140_000..200_000).all(|n| clients.connections(client(n)) == 1));
        // The first one was forgotten: its end takes nothing off what was begun since.
        assert_eq!(clients.connections(client(0)), 0);
        clients.connect(client(0), 0, None, None).unwrap();
        clients.disconnect(client(0), born);
        assert_eq!(clients.connections(client(0)), 1);
    }

    #[test]
    fn who_is_not_there_and_owes_nothing_is_forgotten_before_who_is() {
        let clients = Clients::default();
        clients.connect(client(0), 0, None, None).unwrap();
        for n in 1..100_000 {
            let born = clients.connect(client(n), 0, None, None).unwrap();
            clients.disconnect(client(n), born);
        }
        assert_eq!(clients.connections(client(0)), 1, "it is still connected");
        assert!(clients.records.len() <= MOST);
    }
}
