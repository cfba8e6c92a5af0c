//! A connection that has become another protocol (`Upgrade`, WebSocket most of all): bytes go both
//! ways as they are. Not the agreement on it: that is a request like any other.

use super::{hub::Hub, trip::Trip};
use crate::{
    net::{
        relay::{Tally, relay},
        stream::Stream,
    },
    telemetry::metrics::{Counter, ListenerMetrics},
    topology::{Connected, Lease},
};
use bytes::Bytes;
use std::{future::poll_fn, task::Poll, time::Duration};
use tokio::io::AsyncWriteExt;

/// The backend's side of a connection that will be relayed once the client has been told.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) backend: Stream,
    /// What the backend has said already.
    pub(super) early: Bytes,
    pub(super) connected: Connected,
    pub(super) trip: Trip,
    /// Without a byte for so long it is closed; zero: never.
    pub(super) idle: Duration,
}

impl Tunnel {
    /// Relays until both sides have finished. `early`: what the client has said already.
    pub(super) async fn relay(
        mut self,
        hub: &Hub,
        listener: &ListenerMetrics,
        mut client: Stream,
        early: Bytes,
    ) {
        if client.write_all(&self.early).await.is_err() {
            return;
        }
        listener.bytes_out.add(self.early.len() as u64);
        let mut first = hub.stock.buffer();
        first.extend_from_slice(&early);
        let nobody = Counter::default();
        let cell = self.trip.lease().map(Lease::cell);
        let (up, down) = (Counter::default(), Counter::default());
        let tally = Tally {
            up: &[&listener.bytes_in, cell.map_or(&nobody, |cell| &cell.bytes_out), &up],
            down: &[&listener.bytes_out, cell.map_or(&nobody, |cell| &cell.bytes_in), &down],
            held: &hub.metrics.buffered,
        };
        let idle = self.idle;
        let watch = self.trip.watch();
        let killed = poll_fn(|cx| {
            watch.remember(cx);
            if watch.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            end = relay(&mut client, &mut self.backend, first, idle, &hub.stock, tally) => {
                tracing::debug!(?end, "tunnel ended");
            }
            () = killed => tracing::debug!("tunnel closed by the operator"),
        }
        hub.look_at_clock();
        self.trip.relayed(up.get(), self.early.len() as u64 + down.get());
        drop(self.connected);
    }
}
