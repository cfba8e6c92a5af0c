//! Signals: SIGTERM and SIGINT drain, and force at the second one or when the time is over; those
//! that a later version answers are told to be without effect, for by default they would kill.

use super::worker::{Crew, block_on};
use crate::{config::Shutdown, control::process::ProcessState};
use std::{io, thread::JoinHandle, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was told to.
    Signal,
    /// A thread of ours ended: a bug. The supervisor starts us anew, which beats half a proxy.
    ThreadEnded,
}

/// Waits for the first signal, then until every client is gone, the drain timeout is over or a
/// second signal comes.
///
/// # Errors
/// When signals cannot be listened to.
pub(super) fn wait_and_drain(
    shutdown: &Shutdown,
    state: &ProcessState,
    crew: &Crew,
    control: &JoinHandle<()>,
) -> io::Result<Stop> {
    block_on(async {
        let mut signals = Signals::new()?;
        let (name, stop) = tokio::select! {
            name = signals.next() => (name, Stop::Signal),
            () = until(|| control.is_finished() || crew.lost_one()) => {
                tracing::error!("a thread ended (a bug in sluice, please report it): stopping");
                ("stopping", Stop::ThreadEnded)
            }
        };
        tracing::info!("{name}: draining, for at most {}s", shutdown.drain_timeout.as_secs_f32());
        state.start_draining();
        let drained = async {
            tokio::time::sleep(shutdown.pre_stop_delay).await;
            crew.drain();
            until(|| crew.clients() == 0).await;
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
        Ok(stop)
    })?
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(POLL).await;
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr2: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal that asks us to stop.
    async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.int.recv() => return "SIGINT",
                _ = self.hup.recv() => "SIGHUP: reload",
                _ = self.usr2.recv() => "SIGUSR2: upgrade",
            };
            tracing::warn!("{name} is not supported yet; nothing has changed, restart instead");
        }
    }
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
