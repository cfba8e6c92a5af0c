//! Whether a listener lets somebody in: how many connections there may be, and how many and how often
//! for each client address. Process-wide. Not what a refused client is told: that is the protocol's.

mod clients;

use crate::{
    net::prefix::{ClientKey, Prefix},
    policy::limit::Allowance,
    telemetry::metrics::{Counter, ListenerMetrics},
};
use clients::Clients;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// What a listener allows; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once.
    pub max_connections: Option<usize>,
    pub per_client: PerClient,
}

/// What a listener allows one client address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClient {
    /// Connections at once.
    pub connections: Option<u32>,
    /// New connections.
    pub rate: Option<Allowance>,
    /// Requests, where the protocol has them one by one (HTTP).
    pub requests: Option<Allowance>,
    /// Which addresses are one client.
    pub prefix: Prefix,
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The listener's `max_connections`.
    MaxConnections,
    /// `per_client.connections`.
    ClientConnections,
    /// `per_client.rate`.
    ClientRate,
    /// `per_client.requests`.
    ClientRequests,
    /// The process's `limits.memory`.
    Memory,
}

/// A refusal: why, and after how long it is worth trying again (zero: when somebody has left).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub wait: Duration,
}

/// One listener's.
#[derive(Debug)]
pub struct Door {
    name: Arc<str>,
    limits: DoorLimits,
    open: AtomicUsize,
    /// Made only when an address is held to something.
    clients: Option<Clients>,
    epoch: Instant,
    /// When the log last told of a refusal, in milliseconds since `epoch` and one more; 0: never.
    told: AtomicU64,
}

/// A connection that was let in: its places are given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    /// Whose place among those of an address it has, and of which record of it.
    client: Option<(ClientKey, u64)>,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::MaxConnections,
        Self::ClientConnections,
        Self::ClientRate,
        Self::ClientRequests,
        Self::Memory,
    ];

    /// The word of metrics, logs and the HTTP header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::ClientConnections => "client_connections",
            Self::ClientRate => "client_rate",
            Self::ClientRequests => "client_requests",
            Self::Memory => "memory",
        }
    }

    /// Where a worker counts it.
    pub fn counter(self, listener: &ListenerMetrics) -> &Counter {
        match self {
            Self::MaxConnections => &listener.rejected_max_connections,
            Self::ClientConnections => &listener.rejected_client_connections,
            Self::ClientRate => &listener.rejected_client_rate,
            Self::ClientRequests => &listener.rejected_client_requests,
            Self::Memory => &listener.rejected_memory,
        }
    }
}

impl Refusal {
    /// For `limits.memory`.
    pub const MEMORY: Self = Self { reason: Reason::Memory, wait: Duration::ZERO };

    /// For a `Retry-After` header: whole seconds, at least 1.
    pub fn retry_after_s(self) -> u64 {
        (self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }
}

impl Door {
    /// An open door with nobody in.
    pub fn new(name: Arc<str>, limits: DoorLimits) -> Self {
        let per_client = &limits.per_client;
        let counts = per_client.connections.is_some()
            || per_client.rate.is_some()
            || per_client.requests.is_some();
        Self {
            name,
            limits,
            open: AtomicUsize::new(0),
            clients: counts.then(Clients::default),
            epoch: Instant::now(),
            told: AtomicU64::new(0),
        }
    }

    /// Which addresses are one client.
    pub fn prefix(&self) -> Prefix {
        self.limits.per_client.prefix
    }

    /// A place among the listener's `max_connections`.
    ///
    /// # Errors
    /// All are taken.
    pub fn enter(self: &Arc<Self>) -> Result<Place, Refusal> {
        if let Some(most) = self.limits.max_connections {
            let one_more = |open: usize| (open < most).then_some(open + 1);
            let entered = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
            if entered.is_err() {
                return Err(Refusal { reason: Reason::MaxConnections, wait: Duration::ZERO });
            }
        }
        Ok(Place { door: Arc::clone(self), client: None })
    }

    /// Whether [`Self::request`] is to be asked.
    pub fn counts_requests(&self) -> bool {
        self.limits.per_client.requests.is_some()
    }

    /// Takes one request of a client at `now`; true without a limit.
    ///
    /// # Errors
    /// It came too soon.
    pub fn request(&self, client: ClientKey, now: Instant) -> Result<(), Refusal> {
        let (Some(clients), Some(allowed)) = (&self.clients, self.limits.per_client.requests)
        else {
            return Ok(());
        };
        clients.request(client, self.ns(now), allowed)
    }

    /// Counts a refusal, and has the log tell of one a minute: clients that are refused come again.
    pub fn refused(&self, reason: Reason, listener: &ListenerMetrics, now: Instant) {
        reason.counter(listener).add(1);
        let now_ms = self.ns(now) / 1_000_000 + 1;
        let due = |told: u64| (told == 0 || now_ms >= told + TELL_AGAIN_MS).then_some(now_ms);
        if self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok() {
            tracing::warn!(
                listener = %self.name,
                reason = reason.as_str(),
                "clients are refused: a limit is reached (told once a minute; \
                 sluice_listener_connections_rejected_total counts them)"
            );
        }
    }

    fn ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Place {
    /// Takes a place among those of a client's address, once it is known. With limits alone on other
    /// things it costs nothing.
    ///
    /// # Errors
    /// The address has too many, or they come too fast.
    pub fn identify(&mut self, client: ClientKey, now: Instant) -> Result<(), Refusal> {
        let limits = &self.door.limits.per_client;
        let Some(clients) = &self.door.clients else { return Ok(()) };
        if limits.connections.is_none() && limits.rate.is_none() || self.client.is_some() {
            return Ok(());
        }
        let record = clients.connect(client, self.door.ns(now), limits.connections, limits.rate)?;
        self.client = Some((client, record));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some((client, record)), Some(clients)) = (self.client, &self.door.clients) {
            clients.disconnect(client, record);
        }
        if self.door.limits.max_connections.is_some() {
            self.door.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

const TELL_AGAIN_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::Rate;

    fn door(max_connections: Option<usize>, per_client: PerClient) -> Arc<Door> {
        Arc::new(Door::new("l".into(), DoorLimits { max_connections, per_client }))
    }

    fn client(door: &Door, address: &str) -> ClientKey {
        door.prefix().client(address.parse().unwrap())
    }

    fn per_second(count: u32, burst: u32) -> Option<Allowance> {
        Some(Allowance { rate: Rate { count, period: Duration::from_secs(1) }, burst })
    }

    #[test]
    fn places_are_given_back_when_they_are_dropped() {
        let door = door(Some(2), PerClient::default());
        let (one, two) = (door.enter().unwrap(), door.enter().unwrap());
        assert_eq!(door.enter().unwrap_err().reason, Reason::MaxConnections);
        drop(one);
        let three = door.enter().unwrap();
        assert!(door.enter().is_err());
        drop((two, three));
        assert_eq!(door.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_has_its_own_share() {
        let door = door(None, PerClient { connections: Some(1), ..PerClient::default() });
        let now = Instant::now();
        let enter = |address| {
            let mut place = door.enter().unwrap();
            place.identify(client(&door, address), now).map(|()| place)
        };
        let first = enter("10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err().reason, Reason::ClientConnections);
        assert_eq!(enter("::ffff:10.0.0.1").unwrap_err().reason, Reason::ClientConnections);
        let _other = enter("10.0.0.2").unwrap();
        let _home = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::2").is_err() && enter("2001:db8:0:1::2").is_ok());
        drop(first);
        assert!(enter("10.0.0.1").is_ok());
    }

    #[test]
    fn connections_and_requests_have_rates_of_their_own() {
        let door = door(
            None,
            PerClient {
                rate: per_second(2, 2),
                requests: per_second(10, 1),
                ..PerClient::default()
            },
        );
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let client = client(&door, "10.0.0.1");
        let enter = |ms| door.enter().unwrap().identify(client, at(ms));
        assert_eq!([enter(0), enter(0)], [Ok(()), Ok(())]);
        let refused = enter(100).unwrap_err();
        assert_eq!((refused.reason, refused.retry_after_s()), (Reason::ClientRate, 1));
        assert_eq!(enter(500), Ok(()));
        assert_eq!(door.request(client, at(500)), Ok(()));
        assert_eq!(door.request(client, at(550)).unwrap_err().reason, Reason::ClientRequests);
        assert_eq!(door.request(client, at(600)), Ok(()));
    }

    #[test]
    fn the_bound_holds_across_threads() {
        let door = door(Some(50), PerClient { connections: Some(20), ..PerClient::default() });
        let client = client(&door, "10.0.0.1");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let places: Vec<_> = (0..8)
                            .filter_map(|_| {
                                let mut place = door.enter().ok()?;
                                place.identify(client, Instant::now()).ok().map(|()| place)
                            })
                            .collect();
                        let clients = door.clients.as_ref().unwrap();
                        assert!(clients.connections(client) <= 20);
                        assert!(door.open.load(Ordering::Relaxed) <= 50);
                        drop(places);
                    }
                });
            }
        });
        assert_eq!(door.clients.as_ref().unwrap().connections(client), 0);
        assert_eq!(door.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_log_is_told_once_a_minute_and_the_counter_each_time() {
        let (door, metrics) = (door(Some(1), PerClient::default()), ListenerMetrics::default());
        let told = |seconds| {
            let now = door.epoch + Duration::from_secs(seconds);
            door.refused(Reason::MaxConnections, &metrics, now);
            door.told.load(Ordering::Relaxed)
        };
        assert_eq!([told(0), told(59), told(60), told(61)], [1, 1, 60_001, 60_001]);
        assert_eq!(metrics.rejected_max_connections.get(), 4);
    }
}
