//! What a worker is asked, and the box in which it finds that. Not what it does then: that is
//! [`super::worker`].

use crate::{
    net::listener::Accepted,
    proto::redis::{self, peers::Peers},
    topology::door::Place,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Tells the workers that a gate changed.
pub(super) struct Bell(Arc<[Mailbox]>);

/// One worker as others see it.
pub(super) struct Mailbox {
    pub sender: mpsc::Sender<Ask>,
    /// Clients given to it and not ended.
    pub clients: Arc<AtomicUsize>,
}

/// What a worker can be asked.
pub(super) enum Ask {
    NewClient(Newcomer),
    GatesChanged,
    Drain,
    /// Of a session of another worker.
    Clients(Box<redis::peers::Ask>),
}

/// A connection on its way to its worker. Its place among `limits.max_connections`, at its listener's
/// door and in its worker's count is given back when it is dropped.
pub(super) struct Newcomer {
    pub accepted: Accepted,
    pub listener: usize,
    pub place: Place,
    pub ticket: Ticket,
}

/// A client's place in its worker's count and among `limits.max_connections`.
pub(super) struct Ticket {
    _permit: OwnedSemaphorePermit,
    clients: Arc<AtomicUsize>,
}

impl Ticket {
    pub(super) fn new(permit: OwnedSemaphorePermit, clients: Arc<AtomicUsize>) -> Self {
        Self { _permit: permit, clients }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bell {
    pub(super) fn new(mailboxes: Arc<[Mailbox]>) -> Self {
        Self(mailboxes)
    }

    /// Wakes every worker to look at the gates. A full mailbox is no loss: what is in it wakes the
    /// worker, and it looks at the gates then.
    pub(super) fn gates_changed(&self) {
        for mailbox in &*self.0 {
            let _ = mailbox.sender.try_send(Ask::GatesChanged);
        }
    }
}

/// The other workers, as sessions of worker `own` ask them.
pub(super) fn peers(own: usize, mailboxes: Arc<[Mailbox]>) -> Peers {
    Peers::new(own, mailboxes.len(), move |worker, ask| {
        let ask = Ask::Clients(Box::new(ask));
        mailboxes.get(worker).is_some_and(|mailbox| mailbox.sender.try_send(ask).is_ok())
    })
}
