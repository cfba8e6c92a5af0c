//! What others than its own session see of a client and do to it: CLIENT LIST, PAUSE, REPLY. Not
//! which clients they mean: that is `client_list`.

use super::{
    super::{card::Card, hub::Hub, line::Heed},
    Client,
};
use crate::net::stream::Ends;
use std::{
    cell::{Ref, RefMut},
    sync::Arc,
};

/// What CLIENT LIST tells of a connection.
#[derive(Debug)]
pub(in crate::proto::redis) struct Look {
    pub ends: Ends,
    /// Bytes of replies that the client has not taken.
    pub output: usize,
    /// Bytes held for it in all.
    pub held: usize,
    pub active_us: u64,
    /// It waits until CLIENT PAUSE is over.
    pub is_paused: bool,
    pub last: &'static str,
}

impl Client {
    /// What it has said of itself.
    pub(in crate::proto::redis) fn card(&self) -> Ref<'_, Card> {
        self.card.borrow()
    }

    pub(in crate::proto::redis) fn card_mut(&self) -> RefMut<'_, Card> {
        self.card.borrow_mut()
    }

    /// `None`: it is gone.
    pub(in crate::proto::redis) fn look(&self) -> Option<Look> {
        let inner = self.inner.borrow();
        Some(Look {
            ends: inner.stream.as_ref()?.ends(),
            output: inner.backlog(),
            held: inner.charged,
            active_us: inner.active_us,
            is_paused: inner.is_paused,
            last: self.last.get(),
        })
    }

    /// Bytes held for this client.
    pub(in crate::proto::redis) fn held(&self) -> usize {
        self.inner.borrow().charged
    }

    /// Its address as CLIENT LIST tells it, empty when it is gone; the kernel is asked once.
    pub(in crate::proto::redis) fn peer(&self) -> Arc<str> {
        if let Some(peer) = self.peer.get() {
            return Arc::clone(peer);
        }
        let inner = self.inner.borrow();
        let Some(stream) = &inner.stream else { return Arc::default() };
        Arc::clone(self.peer.get_or_init(|| stream.ends().peer.into()))
    }

    /// Whether it hears the replies to the requests that come now.
    pub(in crate::proto::redis) fn mute(&self, muted: bool) {
        self.inner.borrow_mut().line.is_muted = muted;
    }

    /// Its next request waits until [`Self::go_on`].
    pub(in crate::proto::redis) fn pause(&self, hub: &Hub) {
        if !std::mem::replace(&mut self.inner.borrow_mut().is_paused, true) {
            hub.metrics.paused.add(1);
        }
    }

    pub(in crate::proto::redis) fn go_on(&self, hub: &Hub) {
        let mut inner = self.inner.borrow_mut();
        if std::mem::take(&mut inner.is_paused) {
            hub.metrics.paused.sub(1);
            inner.wake();
        }
    }

    /// One of its requests waits for a server: its next ones wait until [`Self::end_detour`].
    pub(in crate::proto::redis) fn begin_detour(&self) {
        self.inner.borrow_mut().detours += 1;
    }

    /// Whether one of its requests waits for a server.
    pub(in crate::proto::redis) fn is_on_detour(&self) -> bool {
        self.inner.borrow().detours > 0
    }

    pub(in crate::proto::redis) fn end_detour(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.detours -= 1;
        inner.wake();
    }

    /// Tells what it did not ask for, between two replies. True when the caller is to put it into its
    /// turn's list of touched ones, as for [`Self::answer`].
    pub(in crate::proto::redis) fn push(&self, hub: &Hub, bytes: &[u8]) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.is_gone() {
            return false;
        }
        inner.borrow_out(hub);
        inner.line.push_out(bytes);
        !std::mem::replace(&mut inner.touched, true)
    }

    /// The same behind every reply that has come, whether its turn has come or not.
    pub(in crate::proto::redis) fn push_behind(&self, hub: &Hub, bytes: &[u8]) -> bool {
        let mut inner = self.inner.borrow_mut();
        if inner.is_gone() {
            return false;
        }
        inner.borrow_out(hub);
        inner.line.push_behind(bytes);
        !std::mem::replace(&mut inner.touched, true)
    }

    /// Remembers from now on whether that request or any behind it fails.
    pub(in crate::proto::redis) fn heed(&self, seq: u32) {
        self.inner.borrow_mut().line.heed(seq);
    }

    /// What came of that.
    pub(in crate::proto::redis) fn heeded(&self) -> Option<Heed> {
        self.inner.borrow().line.heeded()
    }

    /// Stops reading its requests, or goes on.
    pub(in crate::proto::redis) fn hold_back(&self, hold: bool) {
        let mut inner = self.inner.borrow_mut();
        if std::mem::replace(&mut inner.held_back, hold) && !hold {
            inner.wake();
        }
    }

    /// Bytes of replies held for this client.
    pub(in crate::proto::redis) fn owed(&self) -> usize {
        self.inner.borrow().line.held()
    }

    /// Microseconds for which others may wait behind a reply that it does not read.
    pub(in crate::proto::redis) fn grace_us(&self) -> u64 {
        u64::try_from(self.limits.grace.as_micros()).unwrap_or(u64::MAX)
    }
}
