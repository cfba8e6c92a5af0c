//! What is told to a client that has not asked for it now: messages of what it subscribed to. Not
//! who is told what: that is [`super::super::pubsub`].

use super::{Client, End};
use crate::proto::redis::{class::Resp, hub::Hub};

impl Client {
    /// A message as a server of RESP2 writes it; it leaves between whole replies. The caller puts
    /// the client into its turn's list of touched ones when told to. `None`: it hears no more.
    pub(in super::super) fn message(&self, hub: &Hub, message: &[u8]) -> Option<bool> {
        let mut inner = self.inner.borrow_mut();
        if inner.is_gone() || inner.closing.is_some() {
            return None;
        }
        inner.borrow_out(hub);
        match self.resp.get() {
            Resp::Two => inner.line.push_out(message),
            Resp::Three => {
                inner.line.push_out(b">");
                inner.line.push_out(message.get(1..).unwrap_or_default());
            }
        }
        Some(!std::mem::replace(&mut inner.touched, true))
    }

    /// Whether it has subscribed to anything.
    pub(in super::super) fn is_subscribed(&self) -> bool {
        self.subscriptions.get() != [0; 3]
    }

    /// To how many channels, patterns and shard channels it has subscribed.
    pub fn subscriptions(&self) -> [usize; 3] {
        self.subscriptions.get()
    }

    /// Notes to how many it has subscribed, and the bytes that this takes.
    pub(in super::super) fn set_subscriptions(&self, hub: &Hub, counts: [usize; 3], bytes: usize) {
        self.subscriptions.set(counts);
        let mut inner = self.inner.borrow_mut();
        inner.subscribed_bytes = bytes;
        inner.charge(hub);
    }

    /// The version of the protocol in which it is told.
    pub(in super::super) fn set_resp(&self, resp: Resp) {
        self.resp.set(resp);
    }

    pub(in super::super) fn resp(&self) -> Resp {
        self.resp.get()
    }

    /// Bytes that it has not taken, of what was written for it.
    pub(in super::super) fn pending(&self) -> usize {
        self.inner.borrow().line.pending()
    }

    /// Whether it was closed because it read too slowly.
    pub(in super::super) fn was_too_slow(&self) -> bool {
        self.inner.borrow().end == Some(End::OutputLimit)
    }
}
