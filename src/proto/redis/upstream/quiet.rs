//! A connection on which no reply is due: whatever comes then is no reply. Not what happens to the
//! requests that wait to be sent: that is [`super::failure`].

use super::{CLOSED, Hub, Inner, Phase, Stream, Upstream, UpstreamError};
use crate::proto::redis::reply;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, ReadBuf};

impl Upstream {
    /// While no reply is due, looks before anything is sent: what has come must not be taken for
    /// the reply to a request that leaves in this turn, nor that one be counted as sent to a server
    /// that has closed. Costs no system call unless the event loop has said that there is something.
    pub(super) fn poll_quiet(
        &self,
        cx: &mut Context<'_>,
        hub: &Hub,
        stream: &mut Stream,
    ) -> Poll<UpstreamError> {
        if !self.inner.borrow().is_quiet() {
            return Poll::Pending;
        }
        let mut bytes = [0; SHOWN];
        let mut bytes = ReadBuf::new(&mut bytes);
        let result = ready!(Pin::new(stream).poll_read(cx, &mut bytes));
        Poll::Ready(match (result, bytes.filled()) {
            (Ok(()), []) => self.error(Phase::Read, CLOSED),
            (Ok(()), bytes) => self.stray(hub, bytes),
            (Err(error), _) => self.error(Phase::Read, error),
        })
    }

    /// The end of a connection that sent what nobody asked for: from here on nobody could tell
    /// whose a reply is (T50).
    pub(super) fn stray(&self, hub: &Hub, bytes: &[u8]) -> UpstreamError {
        let metrics = hub.metrics.clusters.get(self.cluster);
        metrics.iter().for_each(|m| m.stray_replies.add(1));
        let shown = reply::printable(bytes.trim_ascii_end());
        self.error(Phase::Protocol, format!("a reply that nobody asked for: {shown}"))
    }
}

impl Inner {
    /// Whether no byte of a request has left whose reply is due.
    fn is_quiet(&self) -> bool {
        self.fifo.front().is_none_or(|oldest| oldest.offset >= self.outbox.written())
    }
}

/// As much as a log line shows of it.
const SHOWN: usize = 64;
