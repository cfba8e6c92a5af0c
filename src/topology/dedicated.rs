//! Connections to one backend that one client at a time has for itself: how many there may be, who
//! has one now, and how the server calls it. Process-wide. Not the connections: a protocol opens them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a cluster says of such connections; zero means none where the field says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dedicated {
    /// Those in use at one backend, of all workers together; default 1,024.
    pub max_per_backend: u32,
    /// How long a client waits for one; default 1s.
    pub wait: Duration,
    /// One on which its client is silent so long is taken away; default 30s, zero: never.
    pub max_lease_idle: Duration,
    /// How long one is kept that nobody uses; default 30s.
    pub idle: Duration,
    /// How old one may get before it is no longer kept; default zero: as old as it likes.
    pub lifetime: Duration,
    /// So many that nobody uses are kept whatever `idle` says, for each worker; default 0.
    pub min: usize,
    /// Whether every client has connections of its own from the start; default false.
    pub always: bool,
}

impl Default for Dedicated {
    fn default() -> Self {
        Self {
            max_per_backend: 1024,
            wait: Duration::from_secs(1),
            max_lease_idle: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            lifetime: Duration::ZERO,
            min: 0,
            always: false,
        }
    }
}

/// The leases of one backend.
#[derive(Debug)]
pub struct Leases {
    permits: Arc<Semaphore>,
    /// By client: the connection on which it waits in the server.
    waiting: Mutex<HashMap<u64, Arc<Standing>>>,
}

/// A connection as the server knows it.
#[derive(Debug, Default)]
pub struct Standing {
    /// The server's number for it; 0 until it has told.
    pub number: AtomicU64,
    /// Somebody has told the server to do something to that number, which may still be under way:
    /// the connection must not become another client's.
    targeted: AtomicBool,
}

impl Standing {
    /// Whether it must not become another client's.
    pub fn is_targeted(&self) -> bool {
        self.targeted.load(Ordering::Acquire)
    }
}

impl Leases {
    /// So many at once.
    pub fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(most)), waiting: Mutex::default() }
    }

    /// A permit for one connection, when nobody waits for one and one is left.
    pub fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// A permit, in the order of asking, however long that takes.
    pub fn permit(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + 'static {
        let permits = Arc::clone(&self.permits);
        async move { permits.acquire_owned().await.ok() }
    }

    /// A client waits in the server on that connection.
    pub fn begin_wait(&self, client: u64, standing: &Arc<Standing>) {
        self.waiting().insert(client, Arc::clone(standing));
    }

    /// It no longer does.
    pub fn end_wait(&self, client: u64) {
        self.waiting().remove(&client);
    }

    /// The server's number for the connection on which a client waits, 0 while it is not known: from
    /// here on that connection is nobody else's.
    pub fn target(&self, client: u64) -> Option<u64> {
        let waiting = self.waiting();
        let standing = waiting.get(&client)?;
        standing.targeted.store(true, Ordering::Release);
        Some(standing.number.load(Ordering::Acquire))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Standing>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_go_to_those_who_wait_in_their_order() {
        let leases = Leases::new(1);
        let first = leases.try_permit().expect("one is left");
        let mut second = Box::pin(leases.permit());
        assert!(futures_now(&mut second).is_none());
        drop(first);
        assert!(leases.try_permit().is_none(), "it is the second one's");
        assert!(futures_now(&mut second).expect("its turn").is_some());
        let late = leases.permit().await;
        assert!(late.is_some(), "the second one was dropped with its permit");
        let mut never = Box::pin(leases.permit());
        assert!(futures_now(&mut never).is_none(), "nobody gives it back");
    }

    fn futures_now<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn a_connection_that_was_aimed_at_stays_so() {
        let (leases, standing) = (Leases::new(1), Arc::new(Standing::default()));
        assert_eq!(leases.target(7), None);
        leases.begin_wait(7, &standing);
        standing.number.store(42, Ordering::Release);
        assert!(!standing.is_targeted());
        assert_eq!(leases.target(7), Some(42));
        leases.end_wait(7);
        assert!(standing.is_targeted());
        assert_eq!(leases.target(7), None);
    }
}
