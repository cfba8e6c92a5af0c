//! SIGTERM and SIGINT: drain, and force at the second one or when the time is over.

use super::worker::{Crew, block_on};
use crate::{config::Shutdown, control::process::ProcessState};
use std::{io, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the first signal, then until every client is gone, the drain timeout is over or a
/// second signal comes.
///
/// # Errors
/// When signals cannot be listened to.
pub(super) fn wait_and_drain(
    shutdown: &Shutdown,
    state: &ProcessState,
    crew: &Crew,
) -> io::Result<()> {
    block_on(async {
        let mut signals = Signals::new()?;
        let name = signals.next().await;
        tracing::info!("{name}: draining, for at most {}s", shutdown.drain_timeout.as_secs_f32());
        state.start_draining();
        let drained = async {
            tokio::time::sleep(shutdown.pre_stop_delay).await;
            crew.drain();
            while crew.clients() > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            () = drained => tracing::info!("drained: every client is gone"),
            () = tokio::time::sleep(shutdown.pre_stop_delay + shutdown.drain_timeout) => {
                tracing::warn!("drain timeout over, closing {} clients", crew.clients());
            }
            name = signals.next() => {
                tracing::info!("{name} again: closing {} clients", crew.clients());
            }
        }
        Ok(())
    })
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// How often a draining process counts its clients.
const POLL: Duration = Duration::from_millis(10);
