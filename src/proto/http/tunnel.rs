//! A connection that has become another protocol (`Upgrade`, WebSocket most of all): bytes go both
//! ways as they are. Not the agreement on it: that is a request like any other.

use super::{hub::Hub, trip::Trip};
use crate::{
    net::{
        relay::{End, Tally, relay},
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
}

impl Tunnel {
    /// Relays until both sides have finished, or the operator closes it. `early`: what the client has
    /// said already. Silence is no reason to end it: a WebSocket may have nothing to say.
    pub(super) async fn relay(
        self,
        hub: &Hub,
        listener: &ListenerMetrics,
        mut client: Stream,
        early: Bytes,
    ) {
        let Self { mut backend, early: said, connected, trip } = self;
        let mut first = hub.stock.buffer();
        first.extend_from_slice(&early);
        let nobody = Counter::default();
        let cell = trip.lease().map(Lease::cell);
        let (up, down) = (Counter::default(), Counter::default());
        let tally = Tally {
            up: &[&listener.bytes_in, cell.map_or(&nobody, |cell| &cell.bytes_out), &up],
            down: &[&listener.bytes_out, cell.map_or(&nobody, |cell| &cell.bytes_in), &down],
            held: &hub.metrics.buffered,
        };
        let passing = async {
            client.write_all(&said).await.map_err(End::Client)?;
            listener.bytes_out.add(said.len() as u64);
            Err::<(), _>(
                relay(&mut client, &mut backend, first, Duration::ZERO, &hub.stock, tally).await,
            )
        };
        let watch = trip.watch();
        let killed = poll_fn(|cx| {
            watch.remember(cx);
            if watch.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            end = passing => tracing::debug!(?end, "upgraded connection ended"),
            () = killed => tracing::debug!("upgraded connection closed by the operator"),
        }
        hub.look_at_clock();
        trip.relayed(up.get(), said.len() as u64 + down.get());
        drop(connected);
    }
}
