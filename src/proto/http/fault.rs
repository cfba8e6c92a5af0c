//! What a client does that it should not: how it is counted, and the one line that says so. Not
//! what the client hears of it.

use super::{hub::Hub, settings::Settings};
use crate::telemetry::metrics::{Counter, ListenerMetrics};
use h2::Reason;
use std::{error::Error, fmt::Display};

/// The reason under which a refused client is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What it sent is not what HTTP allows.
    Protocol,
    /// A head is larger than allowed.
    HeaderLimit,
    /// It let us wait too long, for a request or to take a reply.
    Slow,
    /// It sent much that only costs.
    Flood,
}

impl Fault {
    /// The fault in how a connection ended, when it was the client's.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        if error.is_parse_too_large() {
            return Some(Self::HeaderLimit);
        }
        if error.is_parse() {
            return Some(Self::Protocol);
        }
        let ours = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        match ours.filter(|error| error.is_library())?.reason()? {
            Reason::NO_ERROR => None,
            Reason::ENHANCE_YOUR_CALM => Some(Self::Flood),
            _ => Some(Self::Protocol),
        }
    }

    /// Counts it; the log says it once for each worker, for a hostile client would fill it.
    pub(super) fn count(self, hub: &Hub, settings: &Settings, why: impl Display) {
        let Some(listener) = hub.metrics.listeners.get(settings.listener) else { return };
        let counter = self.counter(listener);
        if counter.get() == 0 {
            tracing::info!(
                listener = %settings.name,
                "refused a client: {why} (said once, the metric counts the rest)"
            );
        }
        counter.add(1);
    }

    fn counter(self, listener: &ListenerMetrics) -> &Counter {
        match self {
            Self::Protocol => &listener.rejected_protocol,
            Self::HeaderLimit => &listener.rejected_header_limit,
            Self::Slow => &listener.rejected_slow,
            Self::Flood => &listener.rejected_flood,
        }
    }
}
