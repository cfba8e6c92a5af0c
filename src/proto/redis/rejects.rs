//! Clients that are closed for what they send: it is no Redis protocol, or another one's. Not how that
//! is found out.

use super::{
    client::End,
    dispatch::{Flow, Scene},
    frame::DecodeError,
    reply,
    table::{Command, Kind},
};
use std::fmt::Display;

impl Scene<'_> {
    /// A browser was made to send HTTP here: close, as Redis does (T30).
    pub(super) fn cross_protocol(&self, command: &Command) -> Flow {
        if command.kind == Kind::CrossProtocol { self.hijacked() } else { Flow::Continue }
    }

    pub(super) fn hijacked(&self) -> Flow {
        self.rejected("possible cross protocol attack: an HTTP request on a Redis port");
        self.client.kill(End::Protocol);
        Flow::Close(End::Protocol)
    }

    /// What the client sent is not Redis protocol: it hears why and is closed.
    pub(super) fn protocol_error(&self, error: DecodeError) -> Flow {
        self.rejected(error);
        let mut text = Vec::new();
        reply::protocol_error(&mut text, error);
        self.client.reply(self.hub, &text);
        Flow::Close(End::Protocol)
    }

    /// Counts a client closed for what it sent; the log says it once, for a hostile client would
    /// fill it.
    fn rejected(&self, why: impl Display) {
        let Some(metrics) = self.hub.metrics.listeners.get(self.settings.listener) else { return };
        if metrics.rejected_protocol.get() == 0 {
            tracing::info!(
                listener = %self.settings.name,
                client = self.client.id,
                "closed a client for what it sent: {why} (said once, the metric counts the rest)"
            );
        }
        metrics.rejected_protocol.add(1);
    }
}
